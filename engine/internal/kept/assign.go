package kept

import (
	"context"
	"encoding/json"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/keeper"
)

// An Assignment is another program for a sandbox that was made before it was known.
type Assignment struct {
	Spec *engine.Spec
	// Program is what the spec's program is, as in the keeper.Spec of a Plan.
	Program func() (isolate.Program, error)
	// Moves says that the program may start in the work folder whatever the sandbox
	// was made for.
	Moves bool
}

// Assign is for engine.Assigner.
func (b *Sandboxes) Assign(ctx context.Context, a *Assignment) (engine.Sandbox, error) {
	spec := a.Spec
	if err := b.Open(ctx, caisson.OpCreate); err != nil {
		return nil, err
	}
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	handle, err := engine.ReadHandle(spec.Dir, b.opts.Engine)
	if err != nil {
		return nil, err
	}
	rec := new(Record)
	if err := json.Unmarshal(handle.Data, rec); err != nil {
		return nil, &caisson.Error{Op: caisson.OpCreate, Item: spec.Dir, Kind: caisson.ErrInvalid, Err: err}
	}
	if err := rec.Shape.Takes(spec, a.Moves); err != nil {
		return nil, err
	}
	main, err := a.Program()
	if err != nil {
		return nil, err
	}
	client, err := keeper.Dial(ctx, spec.Dir)
	if err != nil {
		return nil, goneBefore(spec.ID, err)
	}
	if err := assign(ctx, client, rec.Run, spec, main); err != nil {
		client.Close()
		return nil, said(caisson.OpCreate, spec.ID, err)
	}
	return b.sandbox(spec.ID, spec.Dir, rec, client), nil
}

// assign tells the keeper, and then whoever enters the sandbox: a keeper that refuses
// has a program that runs.
func assign(ctx context.Context, client *keeper.Client, run string, spec *engine.Spec, main isolate.Program) error {
	order := &keeper.Assignment{
		Program: main, Input: spec.Input, Timeout: spec.Timeout, StopSignal: spec.StopSignal,
		Grace: spec.Grace, Linger: spec.Linger, OnExit: spec.OnExit, OnExitEnv: spec.OnExitEnv,
	}
	for _, secret := range spec.Secrets {
		if !secret.Placeholder {
			order.Redact = append(order.Redact, secret.Value)
		}
	}
	if err := client.Assign(ctx, order); err != nil {
		return err
	}
	p, err := readProgram(run)
	if err != nil {
		return err
	}
	p.Main = main
	if err := writeProgram(run, p); err != nil {
		return err
	}
	return client.Own(ctx)
}

// goneBefore says of a sandbox that its keeper can't be found.
func goneBefore(id string, err error) error {
	if caisson.KindOf(err) == caisson.ErrNotFound {
		return aborted(caisson.OpCreate, id)
	}
	return said(caisson.OpCreate, id, err)
}
