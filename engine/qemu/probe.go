package qemu

import (
	"context"
	"errors"

	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
)

// Probe implements engine.Engine.
func (e *Engine) Probe(context.Context) (engine.Features, error) {
	return engine.Features{}, kept.Unsupported("engine", errors.New("it is not built yet"))
}
