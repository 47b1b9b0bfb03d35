//go:build linux

package keeper_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/internal/slowtest"
	"github.com/caissonrun/caisson/keeper"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// inParallel runs f for each number below n, a few at once.
func inParallel(n int, f func(i int)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			f(i)
			<-slots
		})
	}
	wg.Wait()
}

func TestExitCodes(t *testing.T) {
	inParallel(256, func(code int) {
		k := start(t, spec(t, "exit "+strconv.Itoa(code)))
		exit := k.wait()
		if exit.Reason != caisson.ReasonExited || exit.Code != code || exit.Signal != 0 {
			t.Errorf("exit %d: %+v", code, exit)
		}
		if exit.Usage.Wall <= 0 || exit.EndedAt.Before(exit.StartedAt) {
			t.Errorf("exit %d: wall %v, from %v to %v", code, exit.Usage.Wall, exit.StartedAt, exit.EndedAt)
		}
		if err := k.Destroy(k.ctx()); err != nil {
			t.Errorf("Destroy: %v", err)
		}
	})
}

func TestExitSignals(t *testing.T) {
	for _, sig := range []int{1, 2, 3, 6, 9, 11, 13, 15} {
		k := start(t, spec(t, fmt.Sprintf("kill -%d $$; sleep 60", sig)))
		if exit := k.wait(); exit.Reason != caisson.ReasonSignaled || exit.Signal != sig || exit.Code != 0 {
			t.Errorf("signal %d: %+v", sig, exit)
		}
	}
}

func TestSignalIsSent(t *testing.T) {
	k := start(t, spec(t, `trap 'echo got; exit 5' USR1; echo ready >ready; while :; do sleep 0.01; done`))
	k.awaitFile("ready")
	wantKind(t, "Signal(0)", k.Signal(k.ctx(), 0), caisson.ErrInvalid)
	wantKind(t, "Signal(65)", k.Signal(k.ctx(), 65), caisson.ErrInvalid)
	if err := k.Signal(k.ctx(), int(syscall.SIGUSR1)); err != nil {
		t.Fatal(err)
	}
	if exit := k.wait(); exit.Reason != caisson.ReasonExited || exit.Code != 5 {
		t.Errorf("exit = %+v, want code 5", exit)
	}
	wantKind(t, "Signal after the end", k.Signal(k.ctx(), 15), caisson.ErrEnded)
	if got := k.log()[tasklog.Stdout]; got != "got\n" {
		t.Errorf("stdout = %q, want got", got)
	}
}

func TestNotExecutable(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		code int
	}{{filepath.Join(dir, "absent"), 127}, {"no-such-command", 127}, {plain, 126}, {dir, 126}} {
		s := spec(t, "")
		s.Program.Args = []string{c.name}
		k := start(t, s)
		exit := k.wait()
		if exit.Reason != caisson.ReasonExited || exit.Code != c.code || !strings.Contains(exit.Message, filepath.Base(c.name)) {
			t.Errorf("%s: %+v, want code %d and a message", c.name, exit, c.code)
		}
		wantKind(t, "second Start", k.Start(k.ctx()), caisson.ErrExists)
	}
}

// The last bytes of a program that ends at once are in the log when Wait
// returns.
func TestImmediateExitLosesNothing(t *testing.T) {
	n := 500
	if !slowtest.Wanted() {
		n = 50
	}
	inParallel(n, func(i int) {
		s := spec(t, "")
		s.Program.Args = []string{"/bin/sh", "-c", fmt.Sprintf("printf 'out %d'; printf 'err %d' >&2", i, i)}
		k := start(t, s)
		k.wait()
		want := map[tasklog.Stream]string{
			tasklog.Stdout: fmt.Sprintf("out %d", i), tasklog.Stderr: fmt.Sprintf("err %d", i), tasklog.System: "",
		}
		if diff := cmp.Diff(want, k.log()); diff != "" {
			t.Errorf("run %d: %s", i, diff)
		}
		if err := k.Destroy(k.ctx()); err != nil {
			t.Errorf("Destroy: %v", err)
		}
	})
}

func TestGrandchildHoldsOutput(t *testing.T) {
	t.Run("EndsInTime", func(t *testing.T) {
		s := spec(t, "(sleep 0.3; echo late) & echo early")
		s.Linger = caisson.Duration(patience)
		k := start(t, s)
		k.wait()
		if got := k.log()[tasklog.Stdout]; got != "early\nlate\n" {
			t.Errorf("stdout = %q, want both lines", got)
		}
	})
	t.Run("IsKilledAfterLinger", func(t *testing.T) {
		s := spec(t, "(echo $$ >grandparent; exec sleep 1000) & echo $! >child; echo early; exit 3")
		s.Linger = caisson.Duration(200 * time.Millisecond)
		k := start(t, s)
		if exit := k.wait(); exit.Code != 3 || exit.Reason != caisson.ReasonExited {
			t.Errorf("exit = %+v, want code 3", exit)
		}
		if pid := k.awaitFile("child"); !gone(pid) {
			t.Errorf("process %s lives after the exit", pid)
		}
	})
	t.Run("IsKilledAtOnceWithoutLinger", func(t *testing.T) {
		k := start(t, spec(t, "setsid sleep 1000 & echo $! >child; sleep 0.1"))
		k.wait()
		if pid := k.awaitFile("child"); !gone(pid) {
			t.Errorf("process %s lives after the exit", pid)
		}
	})
	// One that has closed its output is not waited for.
	t.Run("WithoutOutput", func(t *testing.T) {
		s := spec(t, "sleep 1000 >/dev/null 2>&1 & echo $! >child")
		s.Linger = caisson.Duration(10 * patience)
		k := start(t, s)
		k.wait()
		if pid := k.awaitFile("child"); !gone(pid) {
			t.Errorf("process %s lives after the exit", pid)
		}
	})
}

func TestManyWaiters(t *testing.T) {
	k := start(t, spec(t, "while [ ! -e go ]; do sleep 0.01; done; exit 9"))
	other, err := keeper.Dial(k.ctx(), k.spec.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	exits := make([]caisson.Exit, 32)
	var wg sync.WaitGroup
	for i := range exits {
		wg.Go(func() {
			c := k.Client
			if i%2 == 1 {
				c = other
			}
			exit, err := c.Wait(k.ctx())
			if err != nil {
				t.Errorf("Wait: %v", err)
			}
			exits[i] = exit
		})
	}
	// One that gives up is the only one that returns.
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := k.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait with a short context = %v, want deadline exceeded", err)
	}
	if err := os.WriteFile(k.path("go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	again := k.wait()
	stored, err := keeper.ReadExit(k.spec.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for i, exit := range append(exits, stored) {
		if diff := cmp.Diff(again, exit); diff != "" {
			t.Errorf("waiter %d: %s", i, diff)
		}
	}
	if again.Code != 9 {
		t.Errorf("code = %d, want 9", again.Code)
	}
}

func TestStop(t *testing.T) {
	const loop = "while :; do sleep 0.01; done"
	for _, c := range []struct {
		name, script string
		reason       caisson.Reason
		grace        time.Duration
		want         caisson.Exit
	}{
		{
			"Obeyed", "trap 'echo bye; exit 4' TERM; echo ready >ready; " + loop, caisson.ReasonStopped, patience,
			caisson.Exit{Reason: caisson.ReasonStopped, Code: 4},
		},
		{
			"Ignored", "trap '' TERM; echo ready >ready; " + loop, caisson.ReasonCancelled, 50 * time.Millisecond,
			caisson.Exit{Reason: caisson.ReasonCancelled, Signal: 9},
		},
		{
			"WithoutGrace", "trap 'exit 4' TERM; echo ready >ready; " + loop, caisson.ReasonKilled, 0,
			caisson.Exit{Reason: caisson.ReasonKilled, Signal: 9},
		},
		{
			"Tree", "trap '' TERM; (setsid sh -c 'trap \"\" TERM; echo $$ >child; exec sleep 1000' &); while [ ! -s child ]; do sleep 0.01; done; echo ready >ready; " + loop,
			caisson.ReasonStopped, 50 * time.Millisecond,
			caisson.Exit{Reason: caisson.ReasonStopped, Signal: 9},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := start(t, spec(t, c.script))
			k.awaitFile("ready")
			if err := k.Stop(k.ctx(), c.reason, 0, c.grace); err != nil {
				t.Fatal(err)
			}
			exit := k.wait()
			got := caisson.Exit{Reason: exit.Reason, Code: exit.Code, Signal: exit.Signal}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if data, err := os.ReadFile(k.path("child")); err == nil && !gone(strings.TrimSpace(string(data))) {
				t.Errorf("process %s lives after the stop", data)
			}
			wantKind(t, "Stop after the end", k.Stop(k.ctx(), caisson.ReasonStopped, 0, 0), caisson.ErrEnded)
		})
	}
}

func TestStopTwice(t *testing.T) {
	k := start(t, spec(t, "trap 'echo term' TERM; trap 'exit 6' INT; echo ready >ready; while :; do sleep 0.01; done"))
	k.awaitFile("ready")
	for _, stop := range []struct {
		reason caisson.Reason
		signal syscall.Signal
		grace  time.Duration
	}{
		{caisson.ReasonStopped, 0, 10 * patience},
		{caisson.ReasonCancelled, syscall.SIGINT, 20 * patience}, // slower: nothing comes of it
		{caisson.ReasonKilled, syscall.SIGINT, patience},         // quicker
	} {
		if err := k.Stop(k.ctx(), stop.reason, int(stop.signal), stop.grace); err != nil {
			t.Fatal(err)
		}
		if stop.reason == caisson.ReasonCancelled {
			if status, err := k.Status(k.ctx()); err != nil || status.Exit != nil {
				t.Errorf("after a slower stop: %+v, %v, want it to run", status, err)
			}
		}
	}
	if exit := k.wait(); exit.Reason != caisson.ReasonStopped || exit.Code != 6 {
		t.Errorf("exit = %+v, want stopped (the first reason) with code 6", exit)
	}
}

func TestStopErrInvalid(t *testing.T) {
	k := start(t, spec(t, "sleep 1000"))
	wantKind(t, "Stop with reason lost", k.Stop(k.ctx(), caisson.ReasonLost, 0, 0), caisson.ErrInvalid)
	wantKind(t, "Stop with signal 99", k.Stop(k.ctx(), caisson.ReasonStopped, 99, time.Second), caisson.ErrInvalid)
	if status, err := k.Status(k.ctx()); err != nil || status.Exit != nil || !status.Started || status.MainPID == 0 {
		t.Errorf("status = %+v, %v, want a running program", status, err)
	}
}

func TestTimeout(t *testing.T) {
	s := spec(t, "trap '' TERM; (setsid sleep 1000 & echo $! >child); sleep 1000")
	s.Timeout = caisson.Duration(300 * time.Millisecond)
	s.Grace = caisson.Duration(100 * time.Millisecond)
	k := start(t, s)
	exit := k.wait()
	if exit.Reason != caisson.ReasonTimeout || exit.Signal != 9 || exit.Status() != 124 {
		t.Errorf("exit = %+v, want timeout", exit)
	}
	if wall := exit.Usage.Wall.Std(); wall < 400*time.Millisecond {
		t.Errorf("wall = %v, less than timeout and grace", wall)
	}
	if pid := k.awaitFile("child"); !gone(pid) {
		t.Errorf("process %s lives after the timeout", pid)
	}
}

func TestTimeoutWhilePaused(t *testing.T) {
	s := spec(t, "trap 'exit 3' TERM; echo ready >ready; while :; do sleep 0.01; done")
	s.Timeout = caisson.Duration(time.Second)
	s.Grace = caisson.Duration(patience)
	k := start(t, s)
	k.awaitFile("ready")
	for range 2 {
		if err := k.Pause(k.ctx()); err != nil {
			t.Fatal(err)
		}
	}
	if status, err := k.Status(k.ctx()); err != nil || !status.Paused {
		t.Errorf("status = %+v, %v, want paused", status, err)
	}
	// The signal is answered: what is halted is continued first.
	if exit := k.wait(); exit.Reason != caisson.ReasonTimeout || exit.Code != 3 {
		t.Errorf("exit = %+v, want timeout with code 3", exit)
	}
	wantKind(t, "Pause after the end", k.Pause(k.ctx()), caisson.ErrEnded)
}

func TestPauseAndResume(t *testing.T) {
	k := start(t, spec(t, "i=0; while :; do i=$((i+1)); echo $i >count; sleep 0.005; done"))
	k.awaitFile("count")
	if err := k.Pause(k.ctx()); err != nil {
		t.Fatal(err)
	}
	halted, err := os.ReadFile(k.path("count"))
	if err != nil {
		t.Fatal(err)
	}
	// No time of waiting proves that it stands still; a few writes' time is
	// enough to see it if it does not.
	for range 20 {
		time.Sleep(5 * time.Millisecond)
		if now, _ := os.ReadFile(k.path("count")); string(now) != string(halted) {
			t.Fatalf("count went from %s to %s while halted", halted, now)
		}
	}
	if err := k.Resume(k.ctx()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it goes on", func() bool {
		now, _ := os.ReadFile(k.path("count"))
		return len(now) > 0 && string(now) != string(halted)
	})
}

func TestDestroy(t *testing.T) {
	t.Run("BeforeStart", func(t *testing.T) {
		k := launch(t, spec(t, "sleep 1000"))
		status, err := k.Status(k.ctx())
		if err != nil || status.Started {
			t.Fatalf("status = %+v, %v", status, err)
		}
		wantKind(t, "Signal", k.Signal(k.ctx(), 15), caisson.ErrNotFound)
		wantKind(t, "Stop", k.Stop(k.ctx(), caisson.ReasonStopped, 0, 0), caisson.ErrNotFound)
		if err := k.Destroy(k.ctx()); err != nil {
			t.Fatal(err)
		}
		checkDestroyed(k, status.PID)
		wantKind(t, "Wait", errorOf(k.Wait(k.ctx())), caisson.ErrAborted)
		wantKind(t, "ReadExit", errorOf(keeper.ReadExit(k.spec.Dir)), caisson.ErrNotFound)
	})
	t.Run("WhileRunning", func(t *testing.T) {
		k := start(t, spec(t, "echo $$ >pid; sleep 1000"))
		status, err := k.Status(k.ctx())
		if err != nil {
			t.Fatal(err)
		}
		pid := k.awaitFile("pid")
		other, err := keeper.Dial(k.ctx(), k.spec.Dir)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		waited := make(chan caisson.Exit, 1)
		go func() { exit, _ := other.Wait(k.ctx()); waited <- exit }()
		for range 2 {
			if err := k.Destroy(k.ctx()); err != nil {
				t.Fatal(err)
			}
		}
		checkDestroyed(k, status.PID)
		if !gone(pid) {
			t.Errorf("process %s lives", pid)
		}
		if exit := <-waited; exit.Reason != caisson.ReasonAborted {
			t.Errorf("the other waiter got %+v, want aborted", exit)
		}
		if exit := k.wait(); exit.Reason != caisson.ReasonAborted {
			t.Errorf("Wait after it gave %+v, want aborted", exit)
		}
		wantKind(t, "the other's Status", errorOf(other.Status(k.ctx())), caisson.ErrAborted)
	})
	t.Run("AfterTheEnd", func(t *testing.T) {
		k := start(t, spec(t, "exit 2"))
		want := k.wait()
		if err := k.Destroy(k.ctx()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, k.wait()); diff != "" {
			t.Errorf("the exit changed: %s", diff)
		}
	})
	t.Run("ByMany", func(t *testing.T) {
		k := start(t, spec(t, "sleep 1000"))
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				c, err := keeper.Dial(k.ctx(), k.spec.Dir)
				if errors.Is(err, caisson.ErrNotFound) {
					return
				}
				if err != nil {
					t.Errorf("Dial: %v", err)
					return
				}
				defer c.Close()
				if err := c.Destroy(k.ctx()); err != nil {
					t.Errorf("Destroy: %v", err)
				}
			})
		}
		wg.Wait()
		if err := k.Destroy(k.ctx()); err != nil {
			t.Errorf("Destroy: %v", err)
		}
	})
}

func errorOf[T any](_ T, err error) error { return err }

// checkDestroyed looks for what a destroyed sandbox must not leave.
func checkDestroyed(k *kept, pid int) {
	k.t.Helper()
	if !gone(strconv.Itoa(pid)) {
		k.t.Errorf("keeper %d lives", pid)
	}
	for _, path := range []string{k.spec.Socket, filepath.Join(k.spec.Dir, "keeper.json"), filepath.Join(k.spec.Dir, "exit.json.spare")} {
		if _, err := os.Lstat(path); err == nil {
			k.t.Errorf("%s is left", path)
		}
	}
	wantKind(k.t, "Dial", errorOf(keeper.Dial(k.ctx(), k.spec.Dir)), caisson.ErrNotFound)
	wantKind(k.t, "Start", k.Start(k.ctx()), caisson.ErrAborted)
	wantKind(k.t, "Status", errorOf(k.Status(k.ctx())), caisson.ErrAborted)
	wantKind(k.t, "Signal", k.Signal(k.ctx(), 15), caisson.ErrAborted)
	wantKind(k.t, "Exec", errorOf(k.Exec(k.ctx(), &isolate.Program{Args: []string{"true"}}, 0)), caisson.ErrAborted)
	if err := k.Destroy(k.ctx()); err != nil {
		k.t.Errorf("another Destroy: %v", err)
	}
}

func TestKeeperKilled(t *testing.T) {
	k := start(t, spec(t, "echo $$ >pid; (setsid sleep 1000 & echo $! >child); exec sleep 1000"))
	pids := []string{k.awaitFile("pid"), k.awaitFile("child")}
	status, err := k.Status(k.ctx())
	if err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() { _, err := k.Wait(k.ctx()); waited <- err }()
	if err := syscall.Kill(status.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wantKind(t, "Wait", <-waited, caisson.ErrUnavailable)
	eventually(t, "the program dies with its keeper", func() bool { return gone(pids[0]) })
	// Without isolation what has left the program's session may live on; the
	// test removes it.
	if child, err := strconv.Atoi(pids[1]); err == nil {
		syscall.Kill(child, syscall.SIGKILL)
	}
	eventually(t, "no keeper is found", func() bool {
		_, err := keeper.Dial(k.ctx(), k.spec.Dir)
		return errors.Is(err, caisson.ErrNotFound)
	})
	wantKind(t, "ReadExit", errorOf(keeper.ReadExit(k.spec.Dir)), caisson.ErrNotFound)
	wantKind(t, "Status", errorOf(k.Status(k.ctx())), caisson.ErrUnavailable)
	wantKind(t, "Destroy", k.Destroy(k.ctx()), caisson.ErrUnavailable)
}

// A keeper is not ended by what terminals and service managers send.
func TestKeeperIsDeafToSignals(t *testing.T) {
	k := start(t, spec(t, "while [ ! -e go ]; do sleep 0.01; done; exit 8"))
	status, err := k.Status(k.ctx())
	if err != nil {
		t.Fatal(err)
	}
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGPIPE} {
		if err := syscall.Kill(status.PID, sig); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(k.path("go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if exit := k.wait(); exit.Code != 8 {
		t.Errorf("exit = %+v, want code 8", exit)
	}
}

func TestDialAfterTheLauncherIsGone(t *testing.T) {
	k := start(t, spec(t, "while [ ! -e go ]; do sleep 0.01; done; exit 8"))
	k.Close()
	wantKind(t, "Status after Close", errorOf(k.Status(k.ctx())), caisson.ErrUnavailable)
	c, err := keeper.Dial(k.ctx(), k.spec.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := os.WriteFile(k.path("go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if exit, err := c.Wait(k.ctx()); err != nil || exit.Code != 8 {
		t.Errorf("Wait = %+v, %v, want code 8", exit, err)
	}
}
