package qemu

import (
	"context"
	"errors"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
)

// Create implements engine.Engine.
func (e *Engine) Create(ctx context.Context, _ *engine.Spec) (engine.Sandbox, error) {
	if err := e.boxes.Open(ctx, caisson.OpCreate); err != nil {
		return nil, err
	}
	return nil, kept.Unsupported("engine", errors.New("it is not built yet"))
}
