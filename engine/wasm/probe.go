package wasm

import (
	"context"
	"os"
	"path/filepath"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
)

// tiny is a module whose _start calls proc_exit(0): it compiles, imports and
// runs.
var tiny = []byte{
	0x00, 'a', 's', 'm', 0x01, 0x00, 0x00, 0x00,
	// Types: (i32) -> (), () -> ().
	0x01, 0x08, 0x02, 0x60, 0x01, 0x7f, 0x00, 0x60, 0x00, 0x00,
	// Imports: proc_exit.
	0x02, 0x24, 0x01,
	0x16, 'w', 'a', 's', 'i', '_', 's', 'n', 'a', 'p', 's', 'h', 'o', 't', '_', 'p', 'r', 'e', 'v', 'i', 'e', 'w', '1',
	0x09, 'p', 'r', 'o', 'c', '_', 'e', 'x', 'i', 't', 0x00, 0x00,
	// Functions: one of the second type.
	0x03, 0x02, 0x01, 0x01,
	// Exports: _start.
	0x07, 0x0a, 0x01, 0x06, '_', 's', 't', 'a', 'r', 't', 0x00, 0x01,
	// Code: i32.const 0, call 0, end.
	0x0a, 0x08, 0x01, 0x06, 0x00, 0x41, 0x00, 0x10, 0x00, 0x0b,
}

// Probe implements engine.Engine. It compiles and runs a module in a keeper.
func (e *Engine) Probe(ctx context.Context) (engine.Features, error) {
	if err := e.boxes.Open(ctx, caisson.OpProbe); err != nil {
		return engine.Features{}, err
	}
	broken := e.try(ctx)
	if ctx.Err() != nil {
		return engine.Features{}, ctx.Err()
	}
	share := canShare()
	e.broken.Store(&broken)
	e.shares.Store(&share)
	e.boxes.Note(kept.Works{})
	return features(broken, share), nil
}

// try runs the tiny module.
func (e *Engine) try(ctx context.Context) error {
	if err := os.MkdirAll(e.opts.Runtime, 0o700); err != nil {
		return err
	}
	_, err := e.boxes.TryWith(ctx, nil, func(ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
		spec.Module = filepath.Join(spec.Dir, "tiny.wasm")
		if err := os.WriteFile(spec.Module, tiny, 0o600); err != nil {
			return nil, err
		}
		return e.create(ctx, spec)
	})
	return err
}

// facts returns what the last Probe found. Before the first one, what does not
// work shows when the sandbox is made.
func (e *Engine) facts() engine.Features {
	if broken, share := e.broken.Load(), e.shares.Load(); broken != nil && share != nil {
		return features(*broken, *share)
	}
	return features(nil, nil)
}
