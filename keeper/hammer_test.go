//go:build linux

package keeper_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/internal/slowtest"
	"github.com/caissonrun/caisson/keeper"
)

// Everything at once, in any order: no call hangs, every error is one of those
// that the contract names, and all see the same exit.
func TestHammer(t *testing.T) {
	rounds := 60
	if !slowtest.Wanted() {
		rounds = 10
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	inParallel(rounds, func(round int) {
		rnd := rand.New(rand.NewPCG(seed, uint64(round)))
		script := []string{"exit 3", "sleep 0.02", "trap 'exit 5' TERM; while :; do sleep 0.01; done", "sleep 1000 & sleep 0.01"}
		s := spec(t, script[rnd.IntN(len(script))])
		if rnd.IntN(2) == 0 {
			s = isolated(t, script[rnd.IntN(len(script))])
		}
		s.Linger = caisson.Duration(rnd.IntN(20)) * caisson.Duration(time.Millisecond)
		k := launch(t, s)
		actions := []func(c *keeper.Client) error{
			func(c *keeper.Client) error { return c.Start(k.ctx()) },
			func(c *keeper.Client) error { return c.Start(k.ctx()) },
			func(c *keeper.Client) error { return c.Stop(k.ctx(), caisson.ReasonStopped, 0, 10*time.Millisecond) },
			func(c *keeper.Client) error { return c.Stop(k.ctx(), caisson.ReasonKilled, 0, 0) },
			func(c *keeper.Client) error { return c.Signal(k.ctx(), int(syscall.SIGTERM)) },
			func(c *keeper.Client) error { return c.Pause(k.ctx()) },
			func(c *keeper.Client) error { return c.Resume(k.ctx()) },
			func(c *keeper.Client) error { return errorOf(c.Stats(k.ctx())) },
			func(c *keeper.Client) error { return errorOf(c.Status(k.ctx())) },
			func(c *keeper.Client) error {
				root, err := c.Root(k.ctx())
				if err == nil {
					root.Close()
				}
				return err
			},
			func(c *keeper.Client) error {
				e, err := c.Exec(k.ctx(), &isolate.Program{Args: []string{"/bin/sleep", "0.01"}, Terminal: true}, 0)
				if err == nil {
					// Halted, it does not end.
					short, cancel := context.WithTimeout(k.ctx(), 100*time.Millisecond)
					defer cancel()
					e.Wait(short)
					e.Close()
				}
				return err
			},
		}
		if rnd.IntN(3) == 0 {
			actions = append(actions, func(c *keeper.Client) error { return c.Destroy(k.ctx()) })
		}
		var wg sync.WaitGroup
		for _, i := range rnd.Perm(len(actions)) {
			delay := time.Duration(rnd.IntN(10)) * time.Millisecond
			own := rnd.IntN(2) == 0
			wg.Go(func() {
				time.Sleep(delay)
				c := k.Client
				if own {
					other, err := keeper.Dial(k.ctx(), s.Dir)
					if errors.Is(err, caisson.ErrNotFound) {
						return
					}
					if err != nil {
						t.Errorf("Dial: %v", err)
						return
					}
					defer other.Close()
					c = other
				}
				checkKind(t, actions[i](c))
			})
		}
		wg.Wait()
		// Whatever happened, it can be brought to an end, and has one.
		checkKind(t, k.Start(k.ctx()))
		checkKind(t, k.Stop(k.ctx(), caisson.ReasonKilled, 0, 0))
		exit, err := k.Wait(k.ctx())
		if errors.Is(err, caisson.ErrAborted) {
			return // destroyed before it was started
		}
		if err != nil {
			t.Errorf("Wait: %v", err)
			return
		}
		stored, err := keeper.ReadExit(s.Dir)
		if diff := cmp.Diff(exit, stored); err != nil || diff != "" {
			t.Errorf("stored exit: %v %s", err, diff)
		}
		if err := k.Destroy(k.ctx()); err != nil {
			t.Errorf("Destroy: %v", err)
		}
	})
}

func checkKind(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	switch caisson.KindOf(err) {
	case caisson.ErrEnded, caisson.ErrAborted, caisson.ErrExists, caisson.ErrNotFound, caisson.ErrUnavailable:
	default:
		t.Errorf("error %v of kind %v", err, caisson.KindOf(err))
	}
}
