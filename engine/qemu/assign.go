//go:build unix

package qemu

import (
	"context"
	"errors"
	"time"

	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/keeper/server"
)

var (
	_ engine.Assigner = (*Engine)(nil)
	_ server.Renewer  = (*box)(nil)
)

// Assign implements engine.Assigner. Machines with a system of their own are not
// given another program: some ask for it by themselves.
func (e *Engine) Assign(ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
	return e.boxes.Assign(ctx, &kept.Assignment{
		Spec: spec, Moves: true,
		Program: func() (isolate.Program, error) {
			if spec.MachineImage != nil {
				return isolate.Program{}, kept.Unsupported("machine.image", errors.New("its program was decided when it was made"))
			}
			if len(spec.Args) == 0 && spec.Run == "" {
				return isolate.Program{}, kept.Invalid("cmd", errors.New("neither the task nor the image says what to run"))
			}
			known, err := accounts(spec)
			if err != nil {
				return isolate.Program{}, at("image", err)
			}
			set := &setting{opts: &e.opts}
			standard := isolate.User{UID: e.opts.UID, GID: e.opts.GID}
			if set.user, err = known.Who(spec.User, spec.Group, standard, e.opts.Root || spec.Root); err != nil {
				return isolate.Program{}, err
			}
			return set.program(spec), nil
		},
	})
}

// Renew implements server.Renewer: the guest may have stood still with its host. Its
// randomness is its own since it was made.
func (b *box) Renew() error {
	ctx, cancel := within(b.callTime)
	defer cancel()
	return b.agent.SetClock(ctx, time.Now())
}
