//go:build unix

package executor

import (
	"context"
	"io"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// Displays lists the screens of the task's running sandbox, or of the one that is
// kept. Errors: as Exec.
func (x *Executor) Displays(ctx context.Context, id string) (list []engine.Display, err error) {
	displayer, err := x.displayer(ctx, id)
	if err != nil {
		return nil, err
	}
	err = x.guard(caisson.OpDisplay, func() (err error) {
		list, err = displayer.Displays(ctx)
		return err
	})
	return list, err
}

// OpenDisplay connects to a screen, as engine.Displayer does.
func (x *Executor) OpenDisplay(ctx context.Context, id, name string) (stream io.ReadWriteCloser, err error) {
	displayer, err := x.displayer(ctx, id)
	if err != nil {
		return nil, err
	}
	err = x.guard(caisson.OpDisplay, func() (err error) {
		stream, err = displayer.OpenDisplay(ctx, name)
		return err
	})
	return stream, err
}

func (x *Executor) displayer(ctx context.Context, id string) (engine.Displayer, error) {
	sb, err := x.entered(ctx, id)
	if err != nil {
		return nil, err
	}
	displayer, ok := sb.(engine.Displayer)
	if !ok {
		return nil, cannot(caisson.OpDisplay, "show a sandbox's screen")
	}
	return displayer, nil
}
