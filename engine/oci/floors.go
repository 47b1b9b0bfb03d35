package oci

import (
	"strconv"
	"strings"
	"time"

	"github.com/caissonrun/caisson/internal/isolate"
)

// A flaw is a way out of a sandbox, or into the host's files, that was open in
// versions of a runtime.
type flaw struct {
	name  string
	fixed string // the first version without it
}

// floors are the known ones. On each branch the first version with the repair is
// named; older branches have none. Many of them can't be used here even where
// the version is old, because runtimes run on a stage without the host's files.
var floors = map[string][]struct {
	name  string
	since string   // empty: from the beginning
	fixed []string // ascending, one for each branch
}{
	isolate.Crun: {
		{"CVE-2022-27650", "", []string{"1.4.4"}},
		{"CVE-2025-24965", "", []string{"1.20"}},
		{"CVE-2026-30892", "1.19", []string{"1.27"}},
		{"CVE-2026-47766", "", []string{"1.28"}},
	},
	isolate.Runc: {
		{"CVE-2019-5736", "", []string{"1.0.0"}},
		{"CVE-2024-21626", "", []string{"1.1.12"}},
		{"CVE-2025-31133", "", []string{"1.2.8", "1.3.3"}},
		{"CVE-2025-52565", "", []string{"1.2.8", "1.3.3"}},
		{"CVE-2025-52881", "", []string{"1.2.8", "1.3.3"}},
		{"CVE-2026-41579", "", []string{"1.3.6", "1.4.4"}},
	},
}

// runscAge is how old a release of runsc may be. Its versions are dates, and
// repairs are not announced one by one.
const runscAge = 365 * 24 * time.Hour

// flawsOf returns what is known of a version. One that can't be read has none
// that are known.
func flawsOf(kind, version string, now time.Time) []flaw {
	if kind == isolate.Runsc {
		return staleness(version, now)
	}
	v := numbers(version)
	if len(v) == 0 {
		return nil
	}
	var list []flaw
	for _, f := range floors[kind] {
		if f.since != "" && less(v, numbers(f.since)) {
			continue
		}
		if fixed, open := openIn(v, f.fixed); open {
			list = append(list, flaw{f.name, kind + " " + fixed})
		}
	}
	return list
}

// openIn reports whether a version is from before a repair, and the first
// version that has it: of its own branch, where that has one.
func openIn(v []int, fixed []string) (string, bool) {
	for _, text := range fixed {
		f := numbers(text)
		if len(fixed) > 1 && sameBranch(v, f) {
			return text, less(v, f)
		}
	}
	last := fixed[len(fixed)-1]
	return last, less(v, numbers(last))
}

// sameBranch reports whether two versions share all but the last number.
func sameBranch(a, b []int) bool {
	return len(a) > 1 && len(b) > 1 && a[0] == b[0] && a[1] == b[1]
}

// numbers returns the numbers that a version begins with.
func numbers(version string) []int {
	var list []int
	version = strings.TrimPrefix(version, "v")
	end := strings.IndexFunc(version, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if end >= 0 {
		version = version[:end]
	}
	for part := range strings.SplitSeq(version, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			break
		}
		list = append(list, n)
	}
	return list
}

func less(a, b []int) bool {
	for i := range max(len(a), len(b)) {
		x, y := 0, 0
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			return x < y
		}
	}
	return false
}

// staleness is what is known of a version of runsc: release-20221219.0, or
// 0.0~20221219.0 as Debian has it.
func staleness(version string, now time.Time) []flaw {
	day, ok := released(version)
	if !ok || now.Sub(day) <= runscAge {
		return nil
	}
	return []flaw{{"been without repairs since " + day.Format(time.DateOnly), "a release of this year"}}
}

// released returns the day that a version of runsc names.
func released(version string) (time.Time, bool) {
	for _, part := range strings.FieldsFunc(version, func(r rune) bool { return r < '0' || r > '9' }) {
		if day, err := time.Parse("20060102", part); err == nil {
			return day, true
		}
	}
	return time.Time{}, false
}
