//go:build unix

package executor

import (
	"context"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// setReady says what is to be called for a child, if anything.
func (x *Executor) setReady(id string, f func(netns string) error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if f == nil {
		delete(x.ready, id)
		return
	}
	x.ready[id] = f
}

// makeReady tells who wants to serve a child's program where its network is.
func (a *attendant) makeReady(ctx context.Context, st *step, sb engine.Sandbox) error {
	a.x.mu.Lock()
	f := a.x.ready[a.task.ID]
	a.x.mu.Unlock()
	if f == nil || st.kind != kindMain {
		return nil
	}
	locator, ok := sb.(engine.NetworkLocator)
	if !ok {
		return cannot(caisson.OpStart, "tell where the network of a sandbox is")
	}
	limited, cancel := context.WithTimeout(ctx, a.x.limits.call)
	defer cancel()
	return a.x.guard(caisson.OpStart, func() error {
		path, err := locator.NetworkNamespace(limited)
		if err != nil {
			return err
		}
		return f(path)
	})
}
