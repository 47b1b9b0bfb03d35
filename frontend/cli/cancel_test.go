package cli_test

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// caissonIn returns a maker of commands on a state folder of the test's own,
// from which all tasks are removed at its end.
func caissonIn(t *testing.T) func(args ...string) *exec.Cmd {
	t.Helper()
	bin, state := program(t), t.TempDir()
	// Sockets have short paths.
	runtimeDir, err := os.MkdirTemp("", "caisson-run-")
	if err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "CAISSON_STATE="+state, "CAISSON_RUNTIME="+runtimeDir, noKernel)
	t.Cleanup(func() {
		for _, left := range leftovers(state, bin, env) {
			t.Errorf("left behind: %s", left)
		}
		os.RemoveAll(runtimeDir)
	})
	return func(args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, "caisson"), args...)
		cmd.Env = env
		return cmd
	}
}

// TestInterrupt holds what ^C does to a task in the foreground: it asks the
// first time and kills the second time.
func TestInterrupt(t *testing.T) {
	for _, tt := range []struct {
		name    string
		script  string
		signals []syscall.Signal // each after a line of output; those after a 0 at once
		status  int
		reason  string
	}{
		{"Once", `trap "exit 9" TERM`, []syscall.Signal{syscall.SIGINT}, 9, "cancelled"},
		{"Terminated", `trap "exit 9" TERM`, []syscall.Signal{syscall.SIGTERM}, 9, "cancelled"},
		{"HungUp", `trap "exit 9" TERM`, []syscall.Signal{syscall.SIGHUP}, 9, "cancelled"},
		{"TerminatedTwiceAtOnce", `trap "sleep 0.1; exit 9" TERM`, []syscall.Signal{syscall.SIGTERM, 0, syscall.SIGTERM}, 9, "cancelled"},
		{"Twice", `trap "echo asked" TERM`, []syscall.Signal{syscall.SIGINT, syscall.SIGINT}, 137, "cancelled"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			caisson := caissonIn(t)
			cmd := caisson("run", "--", "sh", "-c", tt.script+"; echo ready; while :; do sleep 0.02; done")
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			watchdog := time.AfterFunc(patience, func() { cmd.Process.Kill() })
			defer watchdog.Stop()
			lines := bufio.NewScanner(stdout)
			atOnce := false
			for _, sig := range tt.signals {
				if sig == 0 {
					atOnce = true
					continue
				}
				if !atOnce && !lines.Scan() {
					t.Fatal("no more output")
				}
				cmd.Process.Signal(sig)
			}
			for lines.Scan() {
			}
			if status := statusOf(t, cmd.Wait()); status != tt.status {
				t.Errorf("exit status %d, want %d", status, tt.status)
			}
			out, err := caisson("ps", "-a", "--json").Output()
			if err != nil || !strings.Contains(string(out), `"reason": "`+tt.reason+`"`) {
				t.Errorf("ps: %v, want reason %s:\n%s", err, tt.reason, out)
			}
		})
	}
}

// statusOf returns an exit status, or 128 and the signal.
func statusOf(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if status := exit.Sys().(syscall.WaitStatus); status.Signaled() {
			return 128 + int(status.Signal())
		}
		return exit.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return 0
}
