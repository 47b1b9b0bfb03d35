package caisson_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
)

func TestNewTaskID(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	first, later := caisson.NewTaskID(now), caisson.NewTaskID(now.Add(time.Millisecond))
	for _, id := range []string{first, later, caisson.NewTaskID(time.Unix(0, 0)), caisson.NewTaskID(now.AddDate(500, 0, 0))} {
		if err := caisson.CheckTaskID(id); err != nil {
			t.Errorf("CheckTaskID(%q) = %v, want nil", id, err)
		}
	}
	if first >= later {
		t.Errorf("%q does not sort before %q, which is younger", first, later)
	}
	seen := map[string]bool{}
	for range 1000 {
		id := caisson.NewTaskID(now)
		if seen[id] {
			t.Fatalf("the id %q came twice", id)
		}
		seen[id] = true
	}
}

func TestCheckTaskID(t *testing.T) {
	for _, id := range []string{
		"", "../../etc/passwd", strings.Repeat("0", 15), strings.Repeat("0", 17), strings.Repeat("i", 16), strings.Repeat("A", 16),
		"0000000/00000000", "000000000000000\x00",
	} {
		if err := caisson.CheckTaskID(id); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("CheckTaskID(%q) = %v, want ErrInvalid", id, err)
		}
	}
}

func TestSandboxID(t *testing.T) {
	if got, want := caisson.SandboxID("0123456789abcdef", 2, "pre-0"), "0123456789abcdef-2-pre-0"; got != want {
		t.Errorf("SandboxID = %q, want %q", got, want)
	}
}

func TestExitStatus(t *testing.T) {
	for _, test := range []struct {
		exit caisson.Exit
		want int
	}{
		{caisson.Exit{Reason: caisson.ReasonExited, Code: 7}, 7},
		{caisson.Exit{Reason: caisson.ReasonSignaled, Signal: 9}, 137},
		{caisson.Exit{Reason: caisson.ReasonStopped, Signal: 15}, 143},
		{caisson.Exit{Reason: caisson.ReasonStopped, Code: 3}, 3},
		{caisson.Exit{Reason: caisson.ReasonTimeout, Signal: 9}, 124},
		{caisson.Exit{Reason: caisson.ReasonOOM, Signal: 9}, 137},
		{caisson.Exit{Reason: caisson.ReasonLost}, 125},
		{caisson.Exit{}, 125},
	} {
		if got := test.exit.Status(); got != test.want {
			t.Errorf("%+v.Status() = %d, want %d", test.exit, got, test.want)
		}
	}
}

func TestParseSignal(t *testing.T) {
	for text, want := range map[string]int{"TERM": 15, "SIGTERM": 15, "sigint": 2, "usr1": 10, "9": 9, "64": 64, "1": 1} {
		if got, err := caisson.ParseSignal(text); err != nil || got != want {
			t.Errorf("ParseSignal(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "SIG", "TREM", "0", "65", "-9", "SIGSIGTERM"} {
		if got, err := caisson.ParseSignal(text); err == nil {
			t.Errorf("ParseSignal(%q) = %d, want an error", text, got)
		}
	}
	for n := 1; n <= 64; n++ {
		if got, err := caisson.ParseSignal(caisson.SignalName(n)); err != nil || got != n {
			t.Errorf("ParseSignal(SignalName(%d)) = %d, %v", n, got, err)
		}
	}
}
