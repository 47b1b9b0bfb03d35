package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caissonrun/caisson/engine/enginetest"
)

func TestOutcome(t *testing.T) {
	r := &enginetest.Report{Results: []enginetest.Result{
		{Case: "a/pass", Status: enginetest.Passed},
		{Case: "a/refuses", Status: enginetest.Refused},
		{Case: "a/na", Status: enginetest.NotApplicable},
		{Case: "a/fail", Status: enginetest.Failed},
	}}
	for want, cases := range map[string][]string{
		"fail": {"a/pass", "a/fail"}, "pass": {"a/na", "a/pass", "a/refuses"}, "refuses": {"a/refuses", "a/na"}, "n.a.": {"a/na"}, "": {"a/other"},
	} {
		if got := outcome(cases, r); got != want {
			t.Errorf("outcome(%v) = %q, want %q", cases, got, want)
		}
	}
}

func TestTable(t *testing.T) {
	dir := t.TempDir()
	if _, err := read(dir); err == nil {
		t.Errorf("read of an empty folder worked")
	}
	data := `{"engine":"some","results":[{"case":"exit/codes","status":"fail"},{"case":"lifecycle/run","status":"pass"}]}`
	if err := os.WriteFile(filepath.Join(dir, "some.json"), []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	reports, err := read(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	write(&out, reports)
	for _, want := range []string{
		"| some | 1 | 1 | 0 | 0 |", "| 36 | exit codes are exact | fail |", "| 132 | ", "| 52 | ", "| exit/codes | ",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q", want)
		}
	}
}
