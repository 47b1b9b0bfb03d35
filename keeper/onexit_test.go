//go:build linux

package keeper_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/slowtest"
	"github.com/caissonrun/caisson/keeper"
)

// attendantArg has this test's program be what OnExit starts, or an owner that
// can be killed:
//
//	attend-for-a-test what dir
//
// It appends its pid to dir/attendants and then does what it is told.
const attendantArg = "attend-for-a-test"

func attend(args []string) int {
	what, dir := args[0], args[1]
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	list, err := os.OpenFile(filepath.Join(filepath.Dir(dir), "attendants"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return 1
	}
	list.WriteString(strconv.Itoa(os.Getpid()) + " " + strings.Join(os.Environ(), ",") + "\n")
	list.Close()
	if what == "fail" {
		return 1
	}
	if what == "leave" {
		return 0
	}
	c, err := keeper.Dial(ctx, dir)
	if err != nil {
		return 2
	}
	if what != "destroy without owning" {
		if err := c.Own(ctx); err != nil {
			return 3
		}
	}
	switch what {
	case "own and hang":
		os.WriteFile(filepath.Join(filepath.Dir(dir), "owned"), []byte("yes\n"), 0o600)
		<-ctx.Done()
	case "die once":
		if _, err := os.Stat(filepath.Join(filepath.Dir(dir), "died")); err != nil {
			os.WriteFile(filepath.Join(filepath.Dir(dir), "died"), nil, 0o600)
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
	}
	exit, err := c.Wait(ctx)
	if err != nil || exit.Code != 3 {
		return 4
	}
	if err := c.Destroy(ctx); err != nil {
		return 5
	}
	os.WriteFile(filepath.Join(filepath.Dir(dir), "finished"), []byte("yes\n"), 0o600)
	return 0
}

// onExit has the test's program attend to a sandbox.
func onExit(t *testing.T, s *keeper.Spec, what string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s.OnExit = []string{self, attendantArg, what, s.Dir}
	s.OnExitEnv = []string{"GREETING=hello"}
	s.OnExitDelay = caisson.Duration(10 * time.Millisecond)
}

// attendants returns the lines that attendants have written.
func (k *kept) attendants() []string {
	data, err := os.ReadFile(k.path("attendants"))
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

// awaitGone waits for the end of the keeper and of all attendants.
func (k *kept) awaitGone() {
	k.t.Helper()
	eventually(k.t, "the keeper ends", func() bool {
		_, err := keeper.Dial(k.ctx(), k.spec.Dir)
		return errors.Is(err, caisson.ErrNotFound)
	})
	for _, line := range k.attendants() {
		pid, _, _ := strings.Cut(line, " ")
		eventually(k.t, "attendant "+pid+" ends", func() bool { return gone(pid) })
	}
}

const untilGo = "while [ ! -e go ]; do sleep 0.01; done; exit 3"

func (k *kept) letGo() {
	k.t.Helper()
	if err := os.WriteFile(k.path("go"), nil, 0o644); err != nil {
		k.t.Fatal(err)
	}
}

func TestOnExit(t *testing.T) {
	t.Run("NobodyIsThere", func(t *testing.T) {
		s := spec(t, untilGo)
		onExit(t, s, "wait and destroy")
		k := start(t, s)
		k.Close()
		k.letGo()
		k.awaitFile("finished")
		k.awaitGone()
		lines := k.attendants()
		if len(lines) != 1 || !strings.HasSuffix(lines[0], " GREETING=hello") {
			t.Errorf("attendants = %q, want one with its environment and nothing else", lines)
		}
		if exit, err := keeper.ReadExit(s.Dir); err != nil || exit.Code != 3 {
			t.Errorf("ReadExit = %+v, %v, want code 3", exit, err)
		}
	})
	t.Run("OwnerIsThere", func(t *testing.T) {
		s := spec(t, untilGo)
		onExit(t, s, "wait and destroy")
		k := start(t, s)
		if err := k.Own(k.ctx()); err != nil {
			t.Fatal(err)
		}
		k.letGo()
		k.wait()
		if err := k.Destroy(k.ctx()); err != nil {
			t.Fatal(err)
		}
		if lines := k.attendants(); lines != nil {
			t.Errorf("attendants = %q, want none", lines)
		}
	})
	t.Run("OwnerLeavesBeforeTheEnd", func(t *testing.T) {
		s := spec(t, untilGo)
		onExit(t, s, "wait and destroy")
		k := start(t, s)
		if err := k.Own(k.ctx()); err != nil {
			t.Fatal(err)
		}
		k.Close()
		k.letGo()
		k.awaitGone()
		if lines := k.attendants(); len(lines) != 1 {
			t.Errorf("attendants = %q, want one", lines)
		}
	})
	t.Run("OwnerLeavesAfterTheEnd", func(t *testing.T) {
		s := spec(t, untilGo)
		onExit(t, s, "destroy without owning")
		k := start(t, s)
		if err := k.Own(k.ctx()); err != nil {
			t.Fatal(err)
		}
		k.letGo()
		k.wait()
		if lines := k.attendants(); lines != nil {
			t.Errorf("attendants = %q while owned, want none", lines)
		}
		k.Close()
		k.awaitGone()
		if lines := k.attendants(); len(lines) != 1 {
			t.Errorf("attendants = %q, want one", lines)
		}
	})
	t.Run("OwnerIsKilled", func(t *testing.T) {
		s := spec(t, untilGo)
		onExit(t, s, "wait and destroy")
		k := start(t, s)
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		owner := exec.Command(self, attendantArg, "own and hang", s.Dir)
		if err := owner.Start(); err != nil {
			t.Fatal(err)
		}
		k.awaitFile("owned")
		k.letGo()
		k.wait()
		if lines := k.attendants(); len(lines) != 1 {
			t.Errorf("attendants = %q while owned, want the owner alone", lines)
		}
		owner.Process.Kill()
		owner.Wait()
		k.awaitGone()
		if lines := k.attendants(); len(lines) != 2 {
			t.Errorf("attendants = %q, want the owner and one more", lines)
		}
	})
	t.Run("AttendantIsKilled", func(t *testing.T) {
		s := spec(t, "exit 3")
		onExit(t, s, "die once")
		k := start(t, s)
		k.awaitGone()
		if lines := k.attendants(); len(lines) != 2 {
			t.Errorf("attendants = %q, want two: one died", lines)
		}
	})
	t.Run("AttendantFails", func(t *testing.T) {
		s := spec(t, "exit 3")
		onExit(t, s, "fail")
		k := start(t, s)
		k.awaitGone()
		if lines := k.attendants(); len(lines) != 5 {
			t.Errorf("%d attendants, want 5 tries", len(lines))
		}
		if exit, err := keeper.ReadExit(s.Dir); err != nil || exit.Code != 3 {
			t.Errorf("ReadExit = %+v, %v, want code 3", exit, err)
		}
	})
	t.Run("CannotBeStarted", func(t *testing.T) {
		s := spec(t, "exit 3")
		s.OnExit = []string{filepath.Join(s.Dir, "absent")}
		s.OnExitDelay = caisson.Duration(time.Millisecond)
		k := start(t, s)
		k.awaitGone()
		if exit, err := keeper.ReadExit(s.Dir); err != nil || exit.Code != 3 {
			t.Errorf("ReadExit = %+v, %v, want code 3", exit, err)
		}
	})
}

// Owners come and go around the end: there is never more than one attendant at
// a time, and the sandbox is removed in the end.
func TestOnExitIsFenced(t *testing.T) {
	n := 30
	if !slowtest.Wanted() {
		n = 5
	}
	inParallel(n, func(int) {
		s := spec(t, untilGo)
		onExit(t, s, "wait and destroy")
		k := start(t, s)
		k.letGo()
		for range 5 {
			c, err := keeper.Dial(k.ctx(), s.Dir)
			if err != nil {
				break
			}
			c.Own(k.ctx())
			c.Close()
		}
		k.Close()
		k.awaitGone()
		if lines := k.attendants(); len(lines) != 1 {
			t.Errorf("%d attendants, want one", len(lines))
		}
		if exit, err := keeper.ReadExit(s.Dir); err != nil || exit.Code != 3 {
			t.Errorf("ReadExit = %+v, %v, want code 3", exit, err)
		}
	})
}
