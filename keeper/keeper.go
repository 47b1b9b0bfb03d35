// Package keeper starts keepers and talks to them.
//
// A keeper is the small process that owns one sandbox's running program, its
// log and its exit, and outlives everything else. It starts the program when
// it is asked to, appends the program's output to the log with secrets
// redacted, enforces the timeout, writes the exit durably, and starts what
// comes next if nobody is there to see to it. When it is killed, everything in
// the sandbox dies with it.
//
// [Launch] starts one, [Dial] finds one that lives, [ReadExit] reads what it
// left. Package server is the keeper itself.
package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/keeper/internal/wire"
)

// A Spec says what a keeper keeps. It reaches the keeper through a pipe and
// is never on disk, because it holds secrets.
type Spec = wire.Spec

// An Assignment is another program for a sandbox in which nothing was started.
type Assignment = wire.Assignment

// A Once is a file in the sandbox that can be read once.
type Once = wire.Once

// A Foreign is a sandbox that only the main binary's keeper can make.
type Foreign = wire.Foreign

// Status is what a keeper says of itself.
type Status = wire.Status

// Command is how a keeper is started: the argv of the small program, or of the
// main binary's hidden subcommand. See Program.
type Command []string

// ReadExit returns the durable exit in dir, a Spec.Dir.
//
// Errors: ErrNotFound if there is none: the program was never started, or runs,
// or its end was not seen.
func ReadExit(dir string) (caisson.Exit, error) {
	path := filepath.Join(dir, wire.ExitFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return caisson.Exit{}, fail(caisson.ErrNotFound, errors.New("no exit is recorded"))
	}
	if err != nil {
		return caisson.Exit{}, err
	}
	var exit caisson.Exit
	if err := json.Unmarshal(data, &exit); err != nil {
		return caisson.Exit{}, fail(caisson.ErrInternal, fmt.Errorf("%s: %w", path, err))
	}
	return exit, nil
}

// fail returns an error of the keeper's client.
func fail(kind caisson.Kind, err error) error {
	return &caisson.Error{Item: "keeper", Kind: kind, Err: err}
}
