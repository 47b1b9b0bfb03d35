// Package git stages git repositories.
package git

import (
	"context"
	"os"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/stage"
)

// Options configures a Stager.
type Options struct {
	// AnyPath allows git+file: URLs to every task.
	AnyPath bool
	// Allow lists the folders below which git+file: URLs may lead.
	Allow []string
}

// A Stager serves git inputs.
type Stager struct{ opts Options }

// New returns a Stager. Nil options mean the defaults.
func New(opts *Options) (*Stager, error) {
	if opts == nil {
		opts = &Options{}
	}
	return &Stager{opts: *opts}, nil
}

// Schemes implements stage.Stager.
func (s *Stager) Schemes() []string { return []string{"git+https", "git+http", "git+ssh", "git+file"} }

// CheckInput implements stage.Fetcher.
func (s *Stager) CheckInput(in *caisson.Input, env *stage.Env) error { panic("todo") }

// Fetch implements stage.Fetcher.
func (s *Stager) Fetch(ctx context.Context, in *caisson.Input, work *os.Root, env *stage.Env) (*stage.Fetched, error) {
	panic("todo")
}
