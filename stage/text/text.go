// Package text stages contents that stand in the task document itself.
package text

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/stage"
	"github.com/caissonrun/caisson/stage/internal/landing"
)

// A Stager serves inputs that hold their contents in Text.
type Stager struct{}

var _ stage.Fetcher = (*Stager)(nil)

// New returns a Stager.
func New() *Stager { return &Stager{} }

// Schemes implements stage.Stager.
func (s *Stager) Schemes() []string { return []string{stage.SchemeText} }

// CheckInput implements stage.Fetcher.
func (s *Stager) CheckInput(in *caisson.Input, _ *stage.Env) error {
	if in.From != "" {
		return landing.Invalid(in, errors.New("it has both from and text: use one"))
	}
	if err := landing.CheckNoGit(in); err != nil {
		return err
	}
	if err := landing.Check(in); err != nil {
		return err
	}
	return landing.CheckSize(in, int64(len(in.Text)))
}

// Fetch implements stage.Fetcher. The file has mode 0644 unless the input says
// another.
func (s *Stager) Fetch(_ context.Context, in *caisson.Input, work *os.Root, env *stage.Env) (*stage.Fetched, error) {
	if err := s.CheckInput(in, env); err != nil {
		return nil, err
	}
	meter := landing.NewMeter(in, env, int64(len(in.Text)))
	spot, err := landing.At(in, work, env)
	if err != nil {
		return nil, err
	}
	defer spot.Close()
	f, err := spot.Create(0o644)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := io.Copy(io.MultiWriter(f, meter), strings.NewReader(in.Text)); err != nil {
		return nil, safefs.Sorted(caisson.OpStageIn, landing.Item(in), err)
	}
	if err := landing.Verify(in, meter.Sum()); err != nil {
		return nil, err
	}
	if err := f.Commit(false); err != nil {
		return nil, safefs.Sorted(caisson.OpStageIn, landing.Item(in), err)
	}
	return &stage.Fetched{Bytes: meter.Size(), SHA256: meter.Sum()}, nil
}
