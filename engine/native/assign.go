package native

import (
	"context"

	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/isolate"
)

var _ engine.Assigner = (*Engine)(nil)

// Assign implements engine.Assigner.
func (e *Engine) Assign(ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
	isolation, err := e.opts.isolation(spec.Options)
	if err != nil {
		return nil, err
	}
	return e.boxes.Assign(ctx, &kept.Assignment{
		Spec: spec, Moves: true,
		Program: func() (isolate.Program, error) {
			f, err := e.facts()
			if err != nil {
				return isolate.Program{}, err
			}
			set := &setting{opts: &e.opts, isolation: isolation, host: f.host}
			return set.program(spec), nil
		},
	})
}
