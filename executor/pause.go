//go:build unix

package executor

import (
	"context"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// Pause halts all that runs in the task's sandbox, until Resume or the task's end.
// The time limit runs on. Pausing twice is nil.
//
// Errors: as Signal; ErrUnsupported.
func (x *Executor) Pause(ctx context.Context, id string) error {
	return x.halt(ctx, id, engine.Pauser.Pause)
}

// Resume undoes Pause. Errors: as Pause.
func (x *Executor) Resume(ctx context.Context, id string) error {
	return x.halt(ctx, id, engine.Pauser.Resume)
}

func (x *Executor) halt(ctx context.Context, id string, do func(engine.Pauser, context.Context) error) error {
	sb, err := x.running(ctx, id)
	if err != nil {
		return err
	}
	pauser, ok := sb.(engine.Pauser)
	if !ok {
		return cannot(caisson.OpSignal, "halt a sandbox here")
	}
	return x.guard(caisson.OpSignal, func() error { return do(pauser, ctx) })
}
