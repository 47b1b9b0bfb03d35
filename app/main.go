package app

import (
	"context"
	"os"
	"path/filepath"

	"github.com/caissonrun/caisson/frontend/cli"
	"github.com/caissonrun/caisson/internal/config"
	"github.com/caissonrun/caisson/keeper"
)

// An Extension is what another program adds to Caisson's command line.
type Extension struct {
	// Sections are parts of caisson.toml that only this program knows, by their
	// dotted names, such as "mounter.mymounter". What is in them comes as JSON
	// in Config.Sections; keys that the schema does not have are refused.
	Sections map[string]*Section
	// Options returns what is added, once the configuration is read. It is
	// called at most once, in every process that runs a task: in the command
	// itself, and in those that go on with a task later. Nil: nothing.
	Options func(cfg *Config) (*Options, error)
}

// Section is the schema of a part of the configuration.
type Section = config.Section

// Main is the command line of this process. It returns the exit status. A
// program that adds to it has its own main:
//
//	func main() {
//		app.Reexec()
//		os.Exit(app.Main(&app.Extension{...}))
//	}
//
// A nil extension adds nothing. See examples/embed.
func Main(ext *Extension) int {
	if ext == nil {
		ext = &Extension{}
	}
	return cli.Main(context.Background(), &cli.Caller{
		Args:     os.Args[1:],
		Stdin:    os.Stdin,
		Stdout:   os.Stdout,
		Stderr:   os.Stderr,
		Environ:  os.Environ(),
		Sections: ext.Sections,
		Open:     ext.open,
	})
}

// open wires what commands work on.
func (ext *Extension) open(_ context.Context, setup *cli.Setup) (*cli.Host, error) {
	opts := &Options{}
	if ext.Options != nil {
		added, err := ext.Options(setup.Config)
		if err != nil {
			return nil, err
		}
		if added != nil {
			*opts = *added
		}
	}
	self, err := keeper.Self(filepath.Join(setup.Config.State, binFolder))
	if err != nil {
		return nil, err
	}
	opts.Attend, opts.AttendEnv = append([]string{self}, setup.Attend...), setup.AttendEnv
	opts.Fill = append([]string{self}, setup.Fill...)
	opts.Progress, opts.Pulled, opts.Moved = setup.Progress, setup.Pulled, setup.Moved
	if opts.Logger == nil {
		opts.Logger = setup.Logger
	}
	a, err := New(setup.Config, opts)
	if err != nil {
		return nil, err
	}
	return &cli.Host{Executor: a.Executor, Volumes: a.Volumes, Images: a.Images, Components: a.Components, Engines: a.Engines, All: a.All, Close: a.Close}, nil
}
