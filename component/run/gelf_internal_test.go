//go:build unix

package run

import (
	"errors"
	"strings"
	"testing"

	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/gelf"
	"github.com/google/go-cmp/cmp"
)

func TestGELFLog(t *testing.T) {
	var got []string
	g := &gelfLog{
		print:   func(text string) error { got = append(got, text); return nil },
		hide:    func(text string) string { return text },
		logging: &component.Logging{Verbosity: map[int]string{100: "none", 200: "normal", 300: "verbose", 500: "camouflage"}},
		left:    maxGELF,
	}
	g.message(&gelf.Message{Level: gelf.Debug, Text: "hidden"})
	g.message(&gelf.Message{Level: gelf.Info, Text: "said\n", Fields: map[string]any{"_a": 1}})
	g.message(&gelf.Message{Level: gelf.Warning, Text: "careful", Full: "all of it", Fields: map[string]any{"_a": 1}})
	g.message(&gelf.Message{Level: gelf.Critical, Text: "inside", Full: "all of it"})
	g.message(&gelf.Message{Level: gelf.Error, Text: "not a message", Bad: true})
	want := []string{
		"info: said\n", "warning: careful\nall of it\n{\"_a\":1}\n",
		"critical: application error; whoever maintains the component can tell more\n", "error: not a message\n",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
	if g.last != "inside" {
		t.Errorf("last message is %q", g.last)
	}
}

func TestGELFLogBounded(t *testing.T) {
	size := 0
	g := &gelfLog{
		print: func(text string) error { size += len(text); return nil }, hide: func(text string) string { return text },
		logging: &component.Logging{}, left: 100_000,
	}
	for range 1000 {
		g.message(&gelf.Message{Level: gelf.Info, Text: strings.Repeat("x", 100_000)})
	}
	if size < 100_000 || size > 110_000 {
		t.Errorf("%d bytes were logged", size)
	}
}

// TestCutSecrets holds that a secret that is where a long text is cut is hidden
// all the same.
func TestCutSecrets(t *testing.T) {
	const secret = "correct-horse-battery-staple"
	a := &attempt{values: [][]byte{[]byte(secret)}, plan: &plan{}, p: &progress{Rows: make([]rowReport, 1)}}
	for _, before := range []int{keepEnds - 20, keepEnds - 10, keepEnds - 5} {
		long := strings.Repeat("x", before) + secret + strings.Repeat("y", maxMessage)
		var got string
		g := &gelfLog{
			print: func(text string) error { got = text; return nil }, hide: a.hider(),
			logging: &component.Logging{}, left: maxGELF,
		}
		g.message(&gelf.Message{Level: gelf.Error, Text: long})
		for what, text := range map[string]string{"message": got, "last message": g.last, "failure": a.told(failed(errors.New(long)))} {
			if text == "" || strings.Contains(text, secret[:5]) {
				t.Errorf("the %s has the begin of a secret: %q", what, text[max(0, keepEnds-30):min(len(text), keepEnds+30)])
			}
		}
	}
}
