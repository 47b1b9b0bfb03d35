//go:build linux

package keeper_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/keeper"
)

// namedKeeper makes a keeper program of another name, so that a test finds its
// own processes only.
func namedKeeper(t *testing.T, name string) keeper.Command {
	t.Helper()
	path := filepath.Join(filepath.Dir(command[0]), name)
	if err := os.Link(command[0], path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(path) })
	return keeper.Command{path}
}

// runningFrom returns the pids of processes whose program is c's.
func runningFrom(t *testing.T, c keeper.Command) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, e := range entries {
		if exe, err := os.Readlink("/proc/" + e.Name() + "/exe"); err == nil && exe == c[0] {
			pids = append(pids, atoi(t, e.Name()))
		}
	}
	return pids
}

func runTo(t *testing.T, c *keeper.Client, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.Start(ctx); err != nil {
		t.Errorf("Start: %v", err)
	}
	if exit, err := c.Wait(ctx); err != nil || exit.Code != code {
		t.Errorf("Wait = %+v, %v, want code %d", exit, err, code)
	}
	if err := c.Destroy(ctx); err != nil {
		t.Errorf("Destroy: %v", err)
	}
	c.Close()
}

func TestLauncher(t *testing.T) {
	needRoot(t, "it looks for processes by their program")
	command := namedKeeper(t, "spare-keeper")
	l := keeper.NewLauncher(command)
	defer l.Close()
	quickly := func(n int) {
		for i := range n {
			c, err := l.Launch(t.Context(), spec(t, "exit "+itoa(i)))
			if err != nil {
				t.Fatal(err)
			}
			runTo(t, c, i)
		}
	}
	spares := func(n int) func() bool {
		return func() bool { return len(runningFrom(t, command)) == n }
	}

	// A spare that nobody uses is ended.
	quickly(5)
	eventually(t, "no keeper is left", spares(0))

	// One that was killed is nobody's trouble.
	quickly(5)
	for _, pid := range runningFrom(t, command) {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	quickly(5)

	// Many at once.
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			c, err := l.Launch(t.Context(), spec(t, "exit "+itoa(i)))
			if err != nil {
				t.Errorf("Launch: %v", err)
				return
			}
			runTo(t, c, i)
		})
	}
	wg.Wait()

	// A refused spec is refused with a spare as well, and leaves nothing.
	bad := spec(t, "true")
	bad.Redact = [][]byte{[]byte("abc")}
	_, err := l.Launch(t.Context(), bad)
	wantKind(t, "Launch with a short secret", err, caisson.ErrInvalid)
	nothingIn(t, bad)
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := l.Launch(cancelled, spec(t, "true")); !errors.Is(err, context.Canceled) {
		t.Errorf("Launch with a cancelled context = %v", err)
	}

	quickly(3)
	for range 2 {
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	eventually(t, "no keeper is left after Close", spares(0))
	quickly(2)
	eventually(t, "no spare is made after Close", spares(0))
}
