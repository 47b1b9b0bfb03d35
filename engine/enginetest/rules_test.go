package enginetest

import (
	"slices"
	"strings"
	"testing"

	"github.com/caissonrun/caisson/engine"
)

// Every rule and attack has its number, a text, and something that checks it.
func TestRulesAreComplete(t *testing.T) {
	for name, list := range map[string]struct {
		rules []Rule
		want  int
	}{"rule": {Rules(), 132}, "attack": {Attacks(), 52}} {
		if len(list.rules) != list.want {
			t.Errorf("there are %d of kind %s, want %d", len(list.rules), name, list.want)
		}
		for i, r := range list.rules {
			if r.Number != i+1 || r.Text == "" || r.Group == "" {
				t.Errorf("%s %d: %+v", name, i+1, r)
			}
			if len(r.Cases) == 0 && r.Elsewhere == "" {
				t.Errorf("%s %d is checked nowhere: %s", name, r.Number, r.Text)
			}
		}
	}
}

func TestCasesAreWellFormed(t *testing.T) {
	seen := make(map[string]bool)
	var f engine.Features
	for _, c := range Cases() {
		if seen[c.Name] || strings.Count(c.Name, "/") != 1 || strings.Trim(c.Name, "abcdefghijklmnopqrstuvwxyz0123456789-/") != "" {
			t.Errorf("case %q: not a name of its own of the form group/what", c.Name)
		}
		seen[c.Name] = true
		if c.Rule == "" || len(c.Rules) == 0 || c.body == nil {
			t.Errorf("case %s has no sentence, rule number or body", c.Name)
		}
		for _, need := range c.Needs {
			if _, known := declared(&f, need); !known {
				t.Errorf("case %s needs %q, which is no feature", c.Name, need)
			}
		}
	}
}

// Every feature that can be declared is either asked for by a refusal or an
// interface that construction/features-agree looks at.
func TestEveryFeatureIsChecked(t *testing.T) {
	checked := []string{
		"usable",                                        // newSuite ends without it
		"share_work", "private_disk", "overlay", "disk", // say how, not what
		"image_only",
		"options_only",    // refusals/options-only
		"networks.inside", // network/inside and network/not-inside
		"exec", "terminal", "files", "stats", "pause", "snapshot", "displays", "prepare", "warm", "events",
	}
	for _, r := range refusals() {
		checked = append(checked, r.feature)
	}
	for _, name := range featureNames() {
		if !slices.Contains(checked, name) {
			t.Errorf("no case checks what happens without the feature %q", name)
		}
	}
}

func TestDeclared(t *testing.T) {
	f := &engine.Features{Exec: true, Limits: engine.LimitFeatures{Memory: true}, Isolation: []string{engine.IsolatedPIDs}}
	for name, want := range map[string][2]bool{
		"exec": {true, true}, "terminal": {false, true}, "limits.memory": {true, true}, "limits.cpus": {false, true},
		"limits": {false, false}, "nothing": {false, false}, "version": {false, false}, "limits.memory.x": {false, false},
		"isolation:pid namespace": {true, true}, "isolation:seccomp": {false, true},
	} {
		has, known := declared(f, name)
		if has != want[0] || known != want[1] {
			t.Errorf("declared(%q) = %v, %v, want %v", name, has, known, want)
		}
	}
}
