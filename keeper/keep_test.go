//go:build linux

package keeper_test

import (
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/keeper"
)

// keptFor is isolated for a sandbox that is kept.
func keptFor(t *testing.T, keep time.Duration, script string) *keeper.Spec {
	s := isolated(t, script)
	s.Keep = caisson.Duration(keep)
	return s
}

// run runs a script in a sandbox and returns what it printed and its code.
func (k *kept) run(script string) (string, int) {
	k.t.Helper()
	p := k.program(script)
	p.Dir = "/work"
	e := k.exec(p)
	out := readAll(k.t, e.Stdout())
	return out, k.end(e).Code
}

// hostPID returns the pid on the host of a process inside whose command line
// has the word.
func hostPID(t *testing.T, word string) string {
	t.Helper()
	found := ""
	eventually(t, "a process of "+word, func() bool {
		entries, _ := os.ReadDir("/proc")
		for _, e := range entries {
			line, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
			if strings.HasPrefix(string(line), "sleep\x00") && strings.Contains(string(line), word) {
				found = e.Name()
				return true
			}
		}
		return false
	})
	return found
}

// processState is the letter in /proc/PID/stat.
func processState(pid string) string {
	data, _ := os.ReadFile("/proc/" + pid + "/stat")
	_, rest, _ := strings.Cut(string(data), ") ")
	return rest[:min(len(rest), 1)]
}

func TestKeep(t *testing.T) {
	t.Run("OK", func(t *testing.T) {
		s := keptFor(t, time.Hour, "echo x >f; echo y >/tmp/f; (while :; do echo tick >>ticks; done) & sleep 0.05; exit 3")
		k := startIsolated(t, s)
		if exit := k.wait(); exit.Code != 3 || exit.Reason != caisson.ReasonExited {
			t.Errorf("exit = %+v, want code 3", exit)
		}
		if _, err := keeper.ReadExit(s.Dir); err != nil {
			t.Errorf("the exit is not durable: %v", err)
		}
		before, _ := os.ReadFile(k.path("ticks"))
		for range 2 {
			if out, code := k.run("cat f /tmp/f; echo $$ >>pids; exit 4"); out != "x\ny\n" || code != 4 {
				t.Errorf("an exec printed %q and ended with %d", out, code)
			}
		}
		time.Sleep(50 * time.Millisecond)
		if after, _ := os.ReadFile(k.path("ticks")); len(after) != len(before) {
			t.Errorf("what the program has left behind wrote %d bytes after its end", len(after)-len(before))
		}
		status, err := k.Status(k.ctx())
		if err != nil || !status.Kept || status.Exit == nil || status.Execs != 0 {
			t.Errorf("Status = %+v, %v, want kept", status, err)
		}
		wantKind(t, "Signal", k.Signal(k.ctx(), 15), caisson.ErrEnded)
		wantKind(t, "Pause", k.Pause(k.ctx()), caisson.ErrEnded)
		wantKind(t, "Stop", k.Stop(k.ctx(), caisson.ReasonKilled, 0, 0), caisson.ErrEnded)
		if err := k.Destroy(k.ctx()); err != nil {
			t.Errorf("Destroy: %v", err)
		}
		wantKind(t, "Exec after Destroy", errorOf(k.Exec(k.ctx(), k.program("true"), 0)), caisson.ErrAborted)
	})

	// Whoever is beside the program is told, and can come back.
	t.Run("ExecAtTheEnd", func(t *testing.T) {
		k := startIsolated(t, keptFor(t, time.Hour, untilGo))
		p := k.program("trap '' TERM HUP; echo here; sleep 7771")
		p.Dir = "/work"
		e := k.exec(p)
		if _, err := io.ReadFull(e.Stdout(), make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		k.letGo()
		k.wait()
		if exit := k.end(e); exit.Reason != caisson.ReasonAborted || !strings.Contains(exit.Message, "exec again") {
			t.Errorf("the exec ended with %+v, want aborted and what to do", exit)
		}
		// Its own signals are its own.
		p = k.program("kill -9 $$")
		p.Dir = "/work"
		if exit := k.end(k.exec(p)); exit.Reason != caisson.ReasonSignaled {
			t.Errorf("an exec that killed itself ended with %+v", exit)
		}
	})

	// What a kill has ended is kept, too.
	t.Run("Killed", func(t *testing.T) {
		k := startIsolated(t, keptFor(t, time.Hour, "echo x >f; sleep 1000"))
		k.awaitFile("f")
		if err := k.Stop(k.ctx(), caisson.ReasonKilled, 0, 0); err != nil {
			t.Fatal(err)
		}
		if exit := k.wait(); exit.Reason != caisson.ReasonKilled {
			t.Errorf("exit = %+v, want killed", exit)
		}
		if out, _ := k.run("cat f"); out != "x\n" {
			t.Errorf("an exec printed %q", out)
		}
	})

	t.Run("NotExecutable", func(t *testing.T) {
		s := keptFor(t, time.Hour, "")
		s.Program.Args = []string{"/absent"}
		k := startIsolated(t, s)
		if exit := k.wait(); exit.Code != 127 {
			t.Errorf("exit = %+v, want code 127", exit)
		}
		if out, _ := k.run("echo here"); out != "here\n" {
			t.Errorf("an exec printed %q", out)
		}
	})

	t.Run("Over", func(t *testing.T) {
		s := keptFor(t, 400*time.Millisecond, "sleep 7772 & until grep -q sleep /proc/$!/comm; do :; done; exit 3")
		k := startIsolated(t, s)
		if err := k.Own(k.ctx()); err != nil {
			t.Fatal(err)
		}
		k.wait()
		p := k.program("trap '' TERM HUP; sleep 7773")
		p.Dir = "/work"
		e := k.exec(p)
		halted, execed := hostPID(t, "7772"), hostPID(t, "7773")
		if state := processState(halted); state != "T" {
			t.Errorf("what the program has left behind is in state %q, want T", state)
		}
		if exit := k.end(e); exit.Reason != caisson.ReasonAborted || !strings.Contains(exit.Message, "is over") {
			t.Errorf("the exec ended with %+v, want aborted, and why", exit)
		}
		for _, pid := range []string{halted, execed} {
			eventually(t, "process "+pid+" ends", func() bool { return gone(pid) })
		}
		err := errorOf(k.Exec(k.ctx(), k.program("true"), 0))
		wantKind(t, "Exec when the time is over", err, caisson.ErrEnded)
		if !strings.Contains(err.Error(), "is over") {
			t.Errorf("the error does not say why: %v", err)
		}
		// Who owns it can still have its files.
		root, err := k.Root(k.ctx())
		if err != nil {
			t.Errorf("Root: %v", err)
		} else {
			root.Close()
		}
		k.Close()
		k.awaitGone()
	})

	t.Run("Alone", func(t *testing.T) {
		k := startIsolated(t, keptFor(t, 100*time.Millisecond, "exit 3"))
		k.Close()
		k.awaitGone()
		if exit, err := keeper.ReadExit(k.spec.Dir); err != nil || exit.Code != 3 {
			t.Errorf("ReadExit = %+v, %v", exit, err)
		}
	})

	t.Run("Killed9", func(t *testing.T) {
		k := startIsolated(t, keptFor(t, time.Hour, "sleep 7774 & until grep -q sleep /proc/$!/comm; do :; done; exit 3"))
		k.wait()
		halted := hostPID(t, "7774")
		status, err := k.Status(k.ctx())
		if err != nil {
			t.Fatal(err)
		}
		syscall.Kill(status.PID, syscall.SIGKILL)
		eventually(t, "what was halted ends", func() bool { return gone(halted) })
	})

	t.Run("ErrUnsupportedWithoutIsolation", func(t *testing.T) {
		s := spec(t, "exit 0")
		s.Keep = caisson.Duration(time.Minute)
		_, err := keeper.Launch(t.Context(), command, s)
		wantKind(t, "Launch", err, caisson.ErrUnsupported)
	})
}

// What is to follow the program's end does so at once, and again when the time
// is over.
func TestKeepOnExit(t *testing.T) {
	t.Run("Leaves", func(t *testing.T) {
		s := keptFor(t, time.Second, "exit 3")
		onExit(t, s, "leave")
		k := startIsolated(t, s)
		k.Close()
		k.awaitGone()
		if n := len(k.attendants()); n < 2 {
			t.Errorf("OnExit was started %d times, want once at the end and again when the time is over", n)
		}
	})
	t.Run("Fails", func(t *testing.T) {
		s := keptFor(t, time.Hour, "exit 3")
		onExit(t, s, "fail")
		k := startIsolated(t, s)
		k.wait()
		eventually(t, "OnExit is tried again", func() bool { return len(k.attendants()) == 5 })
		if out, _ := k.run("echo here"); out != "here\n" {
			t.Errorf("an exec printed %q: nobody but the time may end what is kept", out)
		}
	})
}
