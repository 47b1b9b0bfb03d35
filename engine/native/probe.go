package native

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
)

// Probe implements engine.Engine. It runs a program in a sandbox.
func (e *Engine) Probe(ctx context.Context) (engine.Features, error) {
	if err := e.boxes.Open(ctx, caisson.OpProbe); err != nil {
		return engine.Features{}, err
	}
	f, err := e.survey(true)
	if err == nil {
		f.broken = e.try(ctx, f)
	}
	if ctx.Err() != nil {
		return engine.Features{}, ctx.Err()
	}
	if err != nil {
		f = &found{host: &host{}, broken: err}
	}
	e.found.Store(f)
	e.boxes.Note(f.works)
	return e.opts.features(f, e.opts.Isolation), nil
}

// facts returns what the last Probe found. Before the first one it looks
// without trying: what does not work then shows when the sandbox is made.
func (e *Engine) facts() (*found, error) {
	if f := e.found.Load(); f != nil {
		return f, nil
	}
	f, err := e.survey(false)
	if err != nil {
		return nil, err
	}
	f.works = kept.Works{Terminal: true, Stats: f.support.Cgroup.Usable, Pause: f.support.Cgroup.Freeze, Gateway: true, Keep: true, Displays: true}
	e.found.Store(f)
	e.boxes.Note(f.works)
	return f, nil
}

// survey looks at the parts that a sandbox is made of. Thorough also tries what
// takes milliseconds.
func (e *Engine) survey(thorough bool) (*found, error) {
	if err := os.MkdirAll(e.opts.Runtime, 0o700); err != nil {
		return nil, fmt.Errorf("runtime folder: %w", err)
	}
	h, err := look(e.opts.Paths)
	if err != nil {
		return nil, err
	}
	h.root = e.opts.ids().Mapped()
	return &found{host: h, support: kept.Examine(e.opts.Runtime, thorough)}, nil
}

// try makes a sandbox, looks around in it, and notes what works: with a gateway,
// and where that does not work, without.
func (e *Engine) try(ctx context.Context, f *found) error {
	if e.opts.Isolation != None {
		f.ungated = e.tryOnce(ctx, f, true)
		if f.ungated == nil || ctx.Err() != nil {
			return f.ungated
		}
	}
	return e.tryOnce(ctx, f, false)
}

func (e *Engine) tryOnce(ctx context.Context, f *found, gateway bool) (err error) {
	terminal := false
	f.works, err = e.boxes.Try(ctx, func(ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
		if gateway {
			kept.AddTrial(spec)
		}
		if e.opts.Isolation == Full {
			spec.Keep = caisson.Duration(time.Minute)
		}
		return e.create(ctx, spec, e.opts.Isolation, f)
	}, func(ctx context.Context, t *kept.Trial) error {
		said, ok, err := t.Look(ctx)
		terminal = ok
		if err != nil || e.opts.Isolation == None {
			return err
		}
		if gateway {
			if err := t.Served(ctx); err != nil {
				return err
			}
		}
		return kept.Verify(said)
	})
	f.works.Terminal, f.works.Gateway = terminal, gateway && err == nil
	f.works.Stats = f.works.Stats && f.support.Cgroup.Usable
	return err
}

// Try runs a program in a sandbox, as a probe does, and returns an error unless
// it succeeds. Dress completes what is to run.
func (e *Engine) Try(ctx context.Context, dress func(*engine.Spec) error) error {
	f, err := e.facts()
	if err != nil {
		return err
	}
	_, err = e.boxes.TryWith(ctx, nil, func(ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
		if err := dress(spec); err != nil {
			return nil, err
		}
		return e.create(ctx, spec, e.opts.Isolation, f)
	})
	return err
}
