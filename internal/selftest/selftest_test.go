//go:build unix

package selftest_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine/attack"
	"github.com/caissonrun/caisson/internal/selftest"
)

// run tries what no engine has a part in.
func run(t *testing.T, clean func(string) string, only ...string) selftest.Report {
	t.Helper()
	dir := t.TempDir()
	// Keys that others could replace are refused, and so is a test's folder that
	// everybody may write to.
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	reports, err := selftest.Run(t.Context(), &selftest.Options{Dir: dir, Only: only, Clean: clean})
	if err != nil {
		t.Fatal(err)
	}
	if len(reports) != 1 || reports[0].Engine != selftest.Host {
		t.Fatalf("reports = %+v, want that of %q alone", reports, selftest.Host)
	}
	return reports[0]
}

func quoted(name string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return '?'
		}
		return r
	}, name)
}

// What moves data holds every attack, here and now.
func TestData(t *testing.T) {
	report := run(t, quoted)
	if len(report.Results) < 14 {
		t.Errorf("%d attacks were tried, want all", len(report.Results))
	}
	for _, r := range report.Results {
		if r.Status != attack.Held {
			t.Errorf("%s %s: %s: %q", r.ID, r.Name, r.Status, r.Why)
		}
		if r.Tries == "" || r.Bound == "" {
			t.Errorf("%s does not say what it tries, or why that is safe", r.Name)
		}
	}
}

// An attack that is not held is told.
func TestNotHeld(t *testing.T) {
	report := run(t, func(name string) string { return name }, "names/shown")
	if len(report.Results) != 1 || report.Results[0].Status != attack.NotHeld || len(report.Results[0].Why) == 0 {
		t.Errorf("results = %+v, want one that is not held, with why", report.Results)
	}
	if status := selftest.Verdict([]selftest.Report{report}); status != 1 {
		t.Errorf("Verdict = %d, want 1", status)
	}
}

func TestAttacks(t *testing.T) {
	var names []string
	for _, a := range attack.All() {
		if slices.Contains(names, a.Name) || strings.Count(a.Name, "/") != 1 {
			t.Errorf("%q is no name of its own of the form group/what", a.Name)
		}
		names = append(names, a.Name)
		if a.ID == "" || a.Tries == "" || a.Bound == "" || a.Run == nil {
			t.Errorf("%s has no id, text, bound or program", a.Name)
		}
		for _, cve := range a.CVE {
			if !strings.HasPrefix(cve, "CVE-") {
				t.Errorf("%s names %q", a.Name, cve)
			}
		}
	}
}

func TestCheck(t *testing.T) {
	if err := selftest.Check([]string{"A1", "H50", "isolation/user", "git/hooks", "task/output-links"}); err != nil {
		t.Errorf("Check of attacks that are there = %v", err)
	}
	if err := selftest.Check([]string{"A1", "Z9"}); !errors.Is(err, caisson.ErrNotFound) || !strings.Contains(err.Error(), "Z9") {
		t.Errorf("Check of an unknown one = %v", err)
	}
}

// report is one of an engine with these outcomes, in order.
func report(engine string, outcomes ...attack.Status) selftest.Report {
	r := selftest.Report{Engine: engine}
	names := []string{"a/x", "a/y", "b/z"}
	for i, status := range outcomes {
		why := []string{"because | of"}
		if status == attack.Held {
			why = nil
		}
		r.Results = append(r.Results, selftest.Result{
			ID: []string{"A2", "A10", "B1"}[i], Name: names[i], Tries: "try " + names[i], Bound: "none",
			Outcome: attack.Outcome{Status: status, Why: why},
		})
	}
	return r
}

func TestVerdict(t *testing.T) {
	for _, test := range []struct {
		name    string
		reports []selftest.Report
		want    int
	}{
		{"Nothing", nil, 125},
		{"Held", []selftest.Report{report("a", attack.Held, attack.NotApplicable)}, 0},
		{"OnlyNotApplicable", []selftest.Report{report("a", attack.NotApplicable)}, 125},
		{"Untried", []selftest.Report{report("a", attack.Held, attack.Untried)}, 125},
		{"NotHeld", []selftest.Report{report("a", attack.Untried, attack.Held), report("b", attack.NotHeld)}, 1},
		{"Unusable", []selftest.Report{{Engine: "a", Unusable: "x"}, report("b", attack.Held)}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := selftest.Verdict(test.reports); got != test.want {
				t.Errorf("Verdict = %d, want %d", got, test.want)
			}
		})
	}
}

func TestMarkdown(t *testing.T) {
	var out strings.Builder
	err := selftest.Markdown(&out, []selftest.Report{
		report("one", attack.Held, attack.NotApplicable, attack.NotHeld),
		report("two", attack.NotApplicable, attack.NotApplicable),
		{Engine: "three", Unusable: "it is not here"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| | attack | one | two | three |",
		"| A2 | `a/x`: try a/x | held | n.a. |  |\n| A10 | `a/y`: try a/y | n.a. | n.a. |  |\n| B1 | `b/z`: try b/z | **NOT HELD** |  |  |",
		"- one: `a/y`; not applicable: because \\| of", "- one: `b/z`; not held\n",
		"- two: `a/x`, `a/y`; not applicable", "- **three**: it is not here",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the page has no %q:\n%s", want, out.String())
		}
	}
}
