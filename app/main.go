package app

import (
	"context"
	"os"
	"path/filepath"

	"github.com/caissonrun/caisson/frontend/cli"
	"github.com/caissonrun/caisson/keeper"
)

// Main is the command line of this process. It returns the exit status.
func Main() int {
	return cli.Main(context.Background(), &cli.Caller{
		Args:    os.Args[1:],
		Stdin:   os.Stdin,
		Stdout:  os.Stdout,
		Stderr:  os.Stderr,
		Environ: os.Environ(),
		Open:    open,
	})
}

// open wires what commands work on.
func open(_ context.Context, setup *cli.Setup) (*cli.Host, error) {
	self, err := keeper.Self(filepath.Join(setup.Config.State, binFolder))
	if err != nil {
		return nil, err
	}
	a, err := New(setup.Config, &Options{
		Attend: append([]string{self}, setup.Attend...), AttendEnv: setup.AttendEnv, Progress: setup.Progress, Logger: setup.Logger,
	})
	if err != nil {
		return nil, err
	}
	return &cli.Host{Executor: a.Executor, Volumes: a.Volumes, Engines: a.Engines, Close: a.Close}, nil
}
