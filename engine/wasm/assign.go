package wasm

import (
	"context"

	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/isolate"
)

var _ engine.Assigner = (*Engine)(nil)

// Assign implements engine.Assigner.
func (e *Engine) Assign(ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
	f := e.facts()
	return e.boxes.Assign(ctx, &kept.Assignment{
		Spec: spec,
		Program: func() (isolate.Program, error) {
			if err := permit(&f, spec); err != nil {
				return isolate.Program{}, err
			}
			return program(spec), nil
		},
	})
}
