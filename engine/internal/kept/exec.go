package kept

import (
	"context"
	"errors"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/keeper"
)

// standardTerm is what TERM is in a terminal if nobody says: every list of
// terminals has it.
const standardTerm = "xterm"

// Exec implements engine.Execer.
func (b bare) Exec(ctx context.Context, spec *engine.ExecSpec) (engine.Session, error) {
	return b.exec(ctx, spec)
}

func (s *sandbox) exec(ctx context.Context, spec *engine.ExecSpec) (engine.Session, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if err := s.alive(caisson.OpExec); err != nil {
		return nil, err
	}
	if s.keeper() == nil {
		return nil, s.left(caisson.OpExec)
	}
	main, err := readProgram(s.rec.Run)
	if err != nil {
		return nil, s.said(caisson.OpExec, err)
	}
	e, err := s.keeper().Exec(ctx, main.beside(spec), spec.Timeout.Std())
	if err != nil && s.gone(ctx, err) && s.revived(ctx) {
		e, err = s.keeper().Exec(ctx, main.beside(spec), spec.Timeout.Std())
	}
	if err != nil {
		if s.gone(ctx, err) {
			return nil, s.left(caisson.OpExec)
		}
		return nil, s.said(caisson.OpExec, err)
	}
	return session{e}, nil
}

// left says why nothing can be started where the keeper is gone.
func (s *sandbox) left(op caisson.Op) error {
	if !s.rec.Kept {
		return ended(op, s.id)
	}
	why := "nothing of the sandbox is left: the time that it was kept for is over, its keeper was killed, or the host was restarted"
	return &caisson.Error{Op: op, Item: s.id, Kind: caisson.ErrEnded, Err: errors.New(why)}
}

// beside returns the program that runs beside the main one.
func (p *program) beside(spec *engine.ExecSpec) *isolate.Program {
	out := &isolate.Program{
		Args: slices.Clone(spec.Args), Dir: p.Main.Dir, Terminal: spec.Terminal, Cols: spec.Size.Cols, Rows: spec.Size.Rows,
	}
	if len(out.Args) == 0 {
		out.Args = []string{p.Shell}
	}
	if spec.Workdir != "" {
		out.Dir = path.Clean(spec.Workdir)
	}
	all := map[string]string{}
	if spec.Terminal {
		all["TERM"] = standardTerm
	}
	for _, v := range p.Main.Env {
		name, value, _ := strings.Cut(v, "=")
		all[name] = value
	}
	maps.Copy(all, spec.Env)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out.Env = append(out.Env, name+"="+all[name])
	}
	return out
}

// A session wraps a keeper.Exec and has sizes as the contract has them.
type session struct{ *keeper.Exec }

var _ engine.Session = session{}

// Resize implements engine.Session.
func (s session) Resize(ctx context.Context, size engine.Size) error {
	return s.Exec.Resize(ctx, size.Cols, size.Rows)
}
