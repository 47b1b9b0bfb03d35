package mem

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

var _ engine.Assigner = (*Engine)(nil)

// Assign implements engine.Assigner.
func (e *Engine) Assign(ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
	f := e.features()
	if err := errors.Join(f.Check(spec), spec.Validate()); err != nil {
		return nil, err
	}
	h, err := engine.ReadHandle(spec.Dir, e.opts.Name)
	if err != nil {
		return nil, err
	}
	b := e.world.find(h.ID, spec.Dir)
	if err := e.enter(ctx, caisson.OpCreate, b); err != nil {
		return nil, err
	}
	if !f.Warm {
		return nil, failure(caisson.OpCreate, b, caisson.ErrUnsupported, "sandboxes are made with their programs")
	}
	if b == nil {
		return nil, &caisson.Error{Op: caisson.OpCreate, Item: h.ID, Kind: caisson.ErrAborted, Err: errors.New("nothing of it is left")}
	}
	if err := b.assign(spec); err != nil {
		return nil, err
	}
	b.own(e)
	return e.sandbox(b), nil
}

// assign puts the program of spec in the place of the one that was not started.
func (b *box) assign(spec *engine.Spec) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.destroyed || b.aborted():
		return b.gone(caisson.OpCreate)
	case b.started:
		return failure(caisson.OpCreate, b, caisson.ErrExists, "the program was started before")
	}
	made, err := b.spec.Shape()
	if err == nil {
		err = made.Takes(spec, true)
	}
	if err != nil {
		return err
	}
	fresh, err := openLog(spec)
	if err != nil {
		return err
	}
	b.log.close()
	b.log = fresh
	s := &b.spec
	s.Args, s.Run, s.ImageEntrypoint, s.Input = slices.Clone(spec.Args), spec.Run, spec.ImageEntrypoint, slices.Clone(spec.Input)
	s.Env, s.Workdir, s.Secrets = maps.Clone(spec.Env), spec.Workdir, slices.Clone(spec.Secrets)
	s.Timeout, s.StopSignal, s.Grace, s.Linger = spec.Timeout, spec.StopSignal, spec.Grace, spec.Linger
	s.OnExit, s.OnExitEnv = slices.Clone(spec.OnExit), slices.Clone(spec.OnExitEnv)
	return nil
}
