package mem

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// An Engine is an engine.Engine without isolation.
type Engine struct {
	engine.UnimplementedEngine
	opts   Options
	world  *World
	closed atomic.Bool
}

var _ engine.Engine = (*Engine)(nil)

// Name implements engine.Engine.
func (e *Engine) Name() string { return e.opts.Name }

// Probe implements engine.Engine.
func (e *Engine) Probe(ctx context.Context) (engine.Features, error) {
	if err := e.enter(ctx, caisson.OpProbe, nil); err != nil {
		return engine.Features{}, err
	}
	return e.features(), nil
}

// features returns what Probe declares.
func (e *Engine) features() engine.Features {
	f := engine.Features{
		Usable:       true,
		Version:      "in process",
		MaxSandboxes: e.opts.MaxSandboxes,
		Command:      true,
		Script:       true,
		ShareWork:    true,
		Limits:       engine.LimitFeatures{CPUs: true, Memory: true, PIDs: true, Disk: true, Log: true, Files: true},
		Networks:     engine.NetworkFeatures{None: true, Allow: true, Shared: true},
		Mounts:       engine.MountFeatures{Bind: true, Tmpfs: true, ReadOnly: true},
		Hostname:     true,
		Secrets:      true,
		Exec:         true,
		Terminal:     true,
		Files:        true,
		Stats:        true,
		Pause:        true,
		Keep:         true,
		Warm:         true,
		Gateway:      true,
		Displays:     true, Screen: true, DisplayServers: true,
		Isolation: []string{engine.KilledTogether, engine.CleanEnvironment},
		Doc:       "# mem\n\nRuns programs inside of Caisson's own process, for tests. It isolates nothing.\n",
	}
	if e.opts.Features != nil {
		e.opts.Features(&f)
	}
	return f
}

// Create implements engine.Engine.
func (e *Engine) Create(ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
	f := e.features()
	if err := f.Check(spec); err != nil {
		return nil, err
	}
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	b := newBox(e, spec)
	if err := e.enter(ctx, caisson.OpCreate, b); err != nil {
		return nil, err
	}
	if err := e.world.add(b, e.opts.MaxSandboxes); err != nil {
		return nil, err
	}
	if err := b.build(); err != nil {
		return nil, errors.Join(err, b.destroy(context.WithoutCancel(ctx)))
	}
	return e.sandbox(b), nil
}

// Recover implements engine.Engine.
func (e *Engine) Recover(ctx context.Context, dir string) (engine.Sandbox, error) {
	h, err := engine.ReadHandle(dir, e.opts.Name)
	if err != nil {
		return nil, err
	}
	b := e.world.find(h.ID, dir)
	if err := e.enter(ctx, caisson.OpRecover, b); err != nil {
		return nil, err
	}
	if b == nil {
		b = ghost(e, h, dir)
	}
	return e.sandbox(b), nil
}

// Sweep implements engine.Engine.
func (e *Engine) Sweep(ctx context.Context, live []string) (removed []string, err error) {
	if err := e.enter(ctx, caisson.OpSweep, nil); err != nil {
		return nil, err
	}
	for _, b := range e.world.of(e.opts.Installation) {
		if slices.Contains(live, b.spec.ID) {
			continue
		}
		if destroyErr := b.destroy(ctx); destroyErr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", b.spec.ID, destroyErr))
			continue
		}
		removed = append(removed, b.spec.ID)
	}
	return append(removed, e.world.sweepLANs(e.opts.Installation, live)...), err
}

// Close implements engine.Engine.
func (e *Engine) Close() error {
	if e.closed.Swap(true) {
		return nil
	}
	for _, b := range e.world.of(e.opts.Installation) {
		b.disown(e)
	}
	return nil
}

// sandbox returns e's view of b, as one that has optional methods or not.
func (e *Engine) sandbox(b *box) engine.Sandbox {
	return compose(&Sandbox{engine: e, box: b}, e.features())
}

// enter begins a call: it refuses a closed engine and an ended ctx, and does
// what Options.Fault orders. b is nil where there is no sandbox.
func (e *Engine) enter(ctx context.Context, op caisson.Op, b *box) error {
	if e.closed.Load() {
		return failure(op, b, caisson.ErrUnavailable, "the engine is closed")
	}
	if e.opts.Fault != nil {
		id := ""
		if b != nil {
			id = b.spec.ID
		}
		if err := obey(ctx, e.opts.Fault(op, id), b); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// obey does what a fault orders and returns why the call must not go on.
func obey(ctx context.Context, f Fault, b *box) error {
	if f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if f.Hang {
		<-ctx.Done()
		return ctx.Err()
	}
	if f.Panic != nil {
		panic(f.Panic)
	}
	if f.Err == nil && f.Exit != nil && b != nil {
		b.end(*f.Exit)
	}
	return f.Err
}

// failure is an error about b.
func failure(op caisson.Op, b *box, kind caisson.Kind, why string) error {
	err := &caisson.Error{Op: op, Kind: kind, Err: errors.New(why)}
	if b != nil {
		err.Item = b.spec.ID
	}
	return err
}
