// Package file stages files and folders of this host.
package file

import (
	"context"
	"os"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/stage"
)

// Options configures a Stager.
type Options struct {
	// Allow lists the folders below which paths may lie, after symbolic links
	// are resolved. Empty: none but for trusted tasks.
	Allow []string
	// AnyPath allows every path to every task.
	AnyPath bool
}

// A Stager serves file: URLs.
type Stager struct{}

// New returns a Stager. Nil options mean the defaults.
func New(opts *Options) (*Stager, error) { panic("todo") }

// Schemes implements stage.Stager.
func (s *Stager) Schemes() []string { return []string{"file"} }

// CheckInput implements stage.Fetcher.
func (s *Stager) CheckInput(in *caisson.Input, env *stage.Env) error { panic("todo") }

// Fetch implements stage.Fetcher.
func (s *Stager) Fetch(ctx context.Context, in *caisson.Input, work *os.Root, env *stage.Env) (*stage.Fetched, error) {
	panic("todo")
}

// CheckOutput implements stage.Storer.
func (s *Stager) CheckOutput(out *caisson.Output, env *stage.Env) error { panic("todo") }

// Store implements stage.Storer.
func (s *Stager) Store(ctx context.Context, out *caisson.Output, files []stage.File, env *stage.Env) ([]caisson.OutputFile, error) {
	panic("todo")
}
