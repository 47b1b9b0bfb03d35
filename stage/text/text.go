// Package text stages contents that stand in the task document itself.
package text

import (
	"context"
	"os"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/stage"
)

// A Stager serves inline inputs.
type Stager struct{}

// New returns a Stager.
func New() *Stager { panic("todo") }

// Schemes implements stage.Stager.
func (s *Stager) Schemes() []string { return []string{stage.SchemeText} }

// CheckInput implements stage.Fetcher.
func (s *Stager) CheckInput(in *caisson.Input, env *stage.Env) error { panic("todo") }

// Fetch implements stage.Fetcher.
func (s *Stager) Fetch(ctx context.Context, in *caisson.Input, work *os.Root, env *stage.Env) (*stage.Fetched, error) {
	panic("todo")
}
