package oci

import (
	"context"
	"errors"

	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/isolate"
)

var _ engine.Assigner = (*Engine)(nil)

// Assign implements engine.Assigner.
func (e *Engine) Assign(ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
	c, err := readOptions(spec.Options)
	if err != nil {
		return nil, err
	}
	s, err := c.apply(spec)
	if err != nil {
		return nil, err
	}
	if s.Mounts, err = e.opts.volumes(c, s); err != nil {
		return nil, err
	}
	return e.boxes.Assign(ctx, &kept.Assignment{
		Spec: s, Moves: true,
		Program: func() (isolate.Program, error) {
			if len(s.Args) == 0 && s.Run == "" {
				return isolate.Program{}, kept.Invalid("cmd", errors.New("neither the task nor the image says what to run"))
			}
			known, err := kept.ReadAccounts(s.RootFS.Path)
			if err != nil {
				return isolate.Program{}, at("image", err)
			}
			set := &setting{opts: &e.opts, choice: c}
			if set.user, err = e.opts.who(known, s); err != nil {
				return isolate.Program{}, err
			}
			return set.program(s), nil
		},
	})
}
