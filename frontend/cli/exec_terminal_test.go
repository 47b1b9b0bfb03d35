package cli_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/term"
)

// A shell is `caisson exec -it ID` on a terminal of its own.
type shell struct {
	t          *testing.T
	ptmx, tts  *os.File
	cmd        *exec.Cmd
	before     term.State
	mu         sync.Mutex
	seen       bytes.Buffer
	caissonCmd func(args ...string) *exec.Cmd
	id         string
}

// sleeper starts a task that does nothing and returns a maker of commands on
// its state folder, and its id.
func sleeper(t *testing.T) (func(args ...string) *exec.Cmd, string) {
	t.Helper()
	command := caissonIn(t)
	out, err := command("run", "--detach", "--", "sleep", "86399.125").CombinedOutput()
	if err != nil {
		t.Fatalf("run --detach: %v\n%s", err, out)
	}
	id := strings.TrimSpace(string(out))
	deadline := time.Now().Add(patience)
	for command("exec", id, "--", "true").Run() != nil {
		if time.Now().After(deadline) {
			t.Fatal("the task never ran")
		}
		time.Sleep(20 * time.Millisecond)
	}
	return command, id
}

// startShell opens a shell in a new task's sandbox on a terminal of 40 by 100.
func startShell(t *testing.T) *shell {
	t.Helper()
	command, id := sleeper(t)
	ptmx, tts, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := pty.Setsize(ptmx, &pty.Winsize{Rows: 40, Cols: 100}); err != nil {
		t.Fatal(err)
	}
	before, err := term.GetState(int(tts.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	s := &shell{t: t, ptmx: ptmx, tts: tts, before: *before, caissonCmd: command, id: id}
	s.cmd = command("exec", "-it", "--env", "PS1=> ", id, "--", "sh")
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = tts, tts, tts
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(writerFunc(s.append), ptmx)
	}()
	t.Cleanup(func() {
		s.cmd.Process.Kill()
		tts.Close()
		ptmx.Close()
		<-read
	})
	return s
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func (s *shell) append(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen.Write(p)
}

func (s *shell) output() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen.String()
}

func (s *shell) typeKeys(keys string) {
	s.t.Helper()
	if _, err := io.WriteString(s.ptmx, keys); err != nil {
		s.t.Fatal(err)
	}
}

// expect waits until the terminal shows want.
func (s *shell) expect(want string) {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	for !strings.Contains(s.output(), want) {
		if time.Now().After(deadline) {
			s.t.Fatalf("the terminal never showed %q:\n%s", want, s.output())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// ended waits for the command's end, checks that the terminal is as it was,
// and returns the exit status, or 128 and the signal.
func (s *shell) ended() int {
	s.t.Helper()
	done := make(chan error, 1)
	go func() { done <- s.cmd.Wait() }()
	var err error
	select {
	case err = <-done:
	case <-time.After(patience):
		s.t.Fatalf("exec did not end:\n%s", s.output())
	}
	after, stateErr := term.GetState(int(s.tts.Fd()))
	if stateErr != nil {
		s.t.Fatal(stateErr)
	}
	if *after != s.before {
		s.t.Errorf("terminal after the end = %+v, want %+v", *after, s.before)
	}
	return statusOf(s.t, err)
}

func TestTerminalSession(t *testing.T) {
	s := startShell(t)
	s.typeKeys("stty size; echo $TERM-ok\n")
	s.expect("40 100\r\n")

	if err := pty.Setsize(s.ptmx, &pty.Winsize{Rows: 50, Cols: 132}); err != nil {
		t.Fatal(err)
	}
	// The new size comes by a signal, so it may take a moment.
	s.typeKeys("until stty size | grep '50 132'; do sleep 0.01; done\n")
	s.expect("50 132\r\n")

	// ^C ends the program in front, not the shell and not caisson.
	s.typeKeys("sh -c 'echo rea''dy; exec sleep 1000'\n")
	s.expect("ready\r\n")
	s.typeKeys("\x03")
	s.typeKeys("echo ali''ve\n")
	s.expect("alive\r\n")

	s.typeKeys("exit 5\n")
	if status := s.ended(); status != 5 {
		t.Errorf("exit status %d, want 5:\n%s", status, s.output())
	}
}

func TestTerminalEndOfInput(t *testing.T) {
	s := startShell(t)
	s.typeKeys("echo rea''dy\n")
	s.expect("ready\r\n")
	s.typeKeys("\x04")
	if status := s.ended(); status != 0 {
		t.Errorf("exit status %d, want 0:\n%s", status, s.output())
	}
}

// TestTerminalRestored holds that whatever ends exec, the terminal is as it
// was before.
func TestTerminalRestored(t *testing.T) {
	for _, tt := range []struct {
		name   string
		end    func(s *shell)
		status int
	}{
		{"Terminated", func(s *shell) { s.cmd.Process.Signal(syscall.SIGTERM) }, 143},
		{"HungUp", func(s *shell) { s.cmd.Process.Signal(syscall.SIGHUP) }, 129},
		{"Quit", func(s *shell) { s.cmd.Process.Signal(syscall.SIGQUIT) }, 131},
		{"Killed", func(s *shell) { s.typeKeys("kill -9 $$\n") }, 137},
		{"TaskEnded", func(s *shell) { s.run("kill", s.id) }, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := startShell(t)
			s.typeKeys("echo rea''dy\n")
			s.expect("ready\r\n")
			tt.end(s)
			if status := s.ended(); tt.status >= 0 && status != tt.status || status == 0 {
				t.Errorf("exit status %d, want %d:\n%s", status, tt.status, s.output())
			}
		})
	}
}

func (s *shell) run(args ...string) {
	s.t.Helper()
	if out, err := s.caissonCmd(args...).CombinedOutput(); err != nil {
		s.t.Fatalf("caisson %q: %v\n%s", args, err, out)
	}
}
