package oci

import (
	"strings"
	"testing"
	"time"

	"github.com/caissonrun/caisson/internal/isolate"
)

func TestReadVersion(t *testing.T) {
	for text, want := range map[string][2]string{
		"crun version 1.8.1\ncommit: f8a0\n":          {isolate.Crun, "1.8.1"},
		"runc version 1.1.5+ds1\nspec: 1.0.2-dev\n":   {isolate.Runc, "1.1.5+ds1"},
		"runsc version 0.0~20221219.0\nspec: 1.0.2\n": {isolate.Runsc, "0.0~20221219.0"},
		"youki version 0.3.0\n":                       {"", "0.3.0"},
		"":                                            {"", ""},
		"something else":                              {"", ""},
	} {
		if kind, version := readVersion(text); kind != want[0] || version != want[1] {
			t.Errorf("readVersion(%q) = %q, %q, want %q", text, kind, version, want)
		}
	}
}

func TestFlaws(t *testing.T) {
	now := time.Date(2026, time.November, 21, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		kind, version string
		want          string
	}{
		{isolate.Crun, "1.8.1", "CVE-2025-24965 CVE-2026-47766"},
		{isolate.Crun, "1.4.3", "CVE-2022-27650 CVE-2025-24965 CVE-2026-47766"},
		{isolate.Crun, "1.20", "CVE-2026-30892 CVE-2026-47766"},
		{isolate.Crun, "1.27.1", "CVE-2026-47766"},
		{isolate.Crun, "1.28", ""},
		{isolate.Runc, "1.1.5+ds1", "CVE-2024-21626 CVE-2025-31133 CVE-2025-52565 CVE-2025-52881 CVE-2026-41579"},
		{isolate.Runc, "1.2.7", "CVE-2025-31133 CVE-2025-52565 CVE-2025-52881 CVE-2026-41579"},
		{isolate.Runc, "1.2.8", "CVE-2026-41579"},
		{isolate.Runc, "1.3.2", "CVE-2025-31133 CVE-2025-52565 CVE-2025-52881 CVE-2026-41579"},
		{isolate.Runc, "1.3.6", ""},
		{isolate.Runc, "1.4.3", "CVE-2026-41579"},
		{isolate.Runc, "1.5.2", ""},
		{isolate.Runc, "", ""},
		{isolate.Runc, "main", ""},
		{isolate.Runsc, "0.0~20221219.0", "been without repairs since 2022-12-19"},
		{isolate.Runsc, "release-20260901.0", ""},
		{isolate.Runsc, "unknown", ""},
	} {
		var names []string
		for _, f := range flawsOf(test.kind, test.version, now) {
			names = append(names, f.name)
			if f.fixed == "" {
				t.Errorf("%s %s: %s: nobody says where it is repaired", test.kind, test.version, f.name)
			}
		}
		if got := strings.Join(names, " "); got != test.want {
			t.Errorf("flaws of %s %s: %q, want %q", test.kind, test.version, got, test.want)
		}
	}
}

func TestFlagsFor(t *testing.T) {
	for version, want := range map[string]int{"0.0~20221219.0": 0, "release-20260901.0": 1, "unknown": 0} {
		if got := flagsFor(isolate.Runsc, version); len(got) != want {
			t.Errorf("flagsFor(runsc, %q) = %q, want %d of them", version, got, want)
		}
	}
	if got := flagsFor(isolate.Runc, "20260901"); got != nil {
		t.Errorf("flagsFor(runc) = %q", got)
	}
}
