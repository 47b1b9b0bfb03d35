package crash_test

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"

	"github.com/caissonrun/caisson/internal/crash"
)

// TestMain lets the test binary be a process that passes a point three times.
func TestMain(m *testing.M) {
	if os.Getenv("CRASH_TEST_CHILD") != "" {
		for range 3 {
			crash.Point(crash.TaskBefore)
			os.Stdout.WriteString("x")
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestPoint(t *testing.T) {
	for value, want := range map[string]string{
		"": "xxx", "task-before": "", "task-before:1": "", "task-before:3": "xx", "task-before:4": "xxx",
		"task-after": "xxx", "task-before:0": "", "task-before:no": "",
	} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "CRASH_TEST_CHILD=1", crash.Variable+"="+value)
		out, err := cmd.Output()
		if string(out) != want {
			t.Errorf("with %q it got to %q, want %q", value, out, want)
		}
		var exit *exec.ExitError
		killed := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
		if killed != (want != "xxx") {
			t.Errorf("with %q it ended with %v", value, err)
		}
	}
}

func TestPointsAreDifferent(t *testing.T) {
	points := crash.Points()
	slices.Sort(points)
	if n := len(slices.Compact(points)); n != len(crash.Points()) {
		t.Errorf("%d different points of %d", n, len(crash.Points()))
	}
}
