//go:build unix

// Package run carries out the run of a data component: it is what an executor
// does with a task that has a component.
//
// Each row of the configuration is run after the other: its input is mapped in,
// its images are made ready, its processors and the component itself run as
// tasks of their own on one data folder, and its output is mapped out. When all
// rows have gone well, what is to be remembered of them is stored.
//
// What is done is written down before and after (progress.json in the task's
// folder), so that a process that was killed can be followed by another one: a
// step is found again by its key, a load by its id.
package run

import (
	"context"
	"io"
	"log/slog"

	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/mapping"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/executor"
)

// Options is what the operator's configuration says about component runs.
type Options struct {
	// Storage opens a storage by its URL, or a folder's path; relative ones
	// start at dir. Credentials that the URL lacks are variables that getenv
	// returns. Never nil.
	Storage func(url, dir string, getenv func(string) string) (storage.Storage, error)
	// DefaultStorage is the URL where a run names none. Empty: the folder
	// "storage" beside the configuration.
	DefaultStorage string
	// Registry are the operator's folders of definitions. Only what is defined
	// there may ask for rights that the operator has to give.
	Registry []string
	// Project is whose run it is, as components see it.
	Project Project
	// Keys opens and seals values of one component's configuration; an empty
	// configuration stands for the definition alone. Nil: there are no keys, and
	// sealed values are errors.
	Keys func(comp, configuration string) (Keys, error)
	// Vault returns what {{ vault.NAME }} stands for, and which of the values are
	// secret. Nil: nothing.
	Vault func(u component.Unsealer) (values map[string]string, secrets []string, err error)
	// Credentials returns OAuth credentials by their id. Nil: there are none.
	Credentials func(u component.Unsealer, id string) (*component.Value, error)
	// Library is the folder of variables and shared code. Empty: the
	// configuration's.
	Library string
	// StrictMapping refuses, for every run, what a component makes and nothing
	// maps.
	StrictMapping bool
	// Build makes the image of a builder and returns its name. Dir is an empty
	// folder for the build's files, which have secrets in them: it is off the disk,
	// and is removed whatever happens. Output is given what the builder prints.
	// Nil: images are not built.
	Build func(ctx context.Context, b *component.Build, dir string, output io.Writer) (ref string, err error)
	// Encoding is how config.json is written.
	Encoding component.Encoding
	// NoLimits says that the memory and the processors of definitions are not
	// limits here: where no engine can enforce them.
	NoLimits bool
	// MemoryLimits are what components may use in place of what their
	// definitions say, by component, in megabytes.
	MemoryLimits map[string]int
	// Progress is told how far tables and files are; called from one goroutine
	// of a run at a time. Nil: nobody is told.
	Progress func(task string, p mapping.Progress)
	Logger   *slog.Logger // nil: discard
}

// Keys opens and seals the values of one configuration.
type Keys interface {
	component.Unsealer
	component.Sealer
}

// A Project is what a component is told about where it runs.
type Project struct {
	ID, Name, Stack, Branch string
	TokenID, TokenDesc      string
	User, URL, FileProvider string
	Features                []string
	// Token returns the token that components with forward_token are given. Nil:
	// there is none.
	Token func() (string, error)
}

// A Runner runs components. One serves the whole process.
type Runner struct {
	opts Options
	log  *slog.Logger
	// saving is called before and after progress is written. Nil: but in tests.
	saving func() error
}

var _ executor.Composite = (*Runner)(nil)

// New returns a Runner. It does nothing yet.
func New(opts *Options) *Runner {
	r := &Runner{opts: *opts, log: opts.Logger}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	return r
}
