// Package http stages what web servers serve.
package http

import (
	"context"
	"os"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/stage"
)

// Options configures a Stager.
type Options struct {
	// AllowPrivate permits loopback, private and link-local addresses.
	AllowPrivate bool
}

// A Stager serves http and https inputs.
type Stager struct{ opts Options }

// New returns a Stager. Nil options mean the defaults.
func New(opts *Options) (*Stager, error) {
	if opts == nil {
		opts = &Options{}
	}
	return &Stager{opts: *opts}, nil
}

// Schemes implements stage.Stager.
func (s *Stager) Schemes() []string { return []string{"http", "https"} }

// CheckInput implements stage.Fetcher.
func (s *Stager) CheckInput(in *caisson.Input, env *stage.Env) error { panic("todo") }

// Fetch implements stage.Fetcher.
func (s *Stager) Fetch(ctx context.Context, in *caisson.Input, work *os.Root, env *stage.Env) (*stage.Fetched, error) {
	panic("todo")
}
