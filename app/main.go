package app

import (
	"context"
	"os"

	"github.com/caissonrun/caisson/frontend/cli"
)

// Main is the command line of this process. It returns the exit status.
func Main() int {
	executable, err := os.Executable()
	if err != nil {
		executable = os.Args[0]
	}
	return cli.Main(context.Background(), &cli.Caller{
		Args:       os.Args[1:],
		Stdin:      os.Stdin,
		Stdout:     os.Stdout,
		Stderr:     os.Stderr,
		Environ:    os.Environ(),
		Executable: executable,
		Open:       open,
	})
}

// open wires what commands work on.
func open(_ context.Context, setup *cli.Setup) (*cli.Host, error) {
	a, err := New(setup.Config, &Options{
		Attend: setup.Attend, AttendEnv: setup.AttendEnv, Progress: setup.Progress, Logger: setup.Logger,
	})
	if err != nil {
		return nil, err
	}
	return &cli.Host{Executor: a.Executor, Volumes: a.Volumes, Engines: a.Engines, Close: a.Close}, nil
}
