//go:build unix

package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/keeper/internal/wire"
)

// Dial connects to the keeper of the sandbox whose Spec.Dir is dir.
//
// Errors: ErrNotFound if no keeper lives; ErrUnavailable if one does and can't
// be reached; ErrUnsupported if it is of a newer version.
func Dial(ctx context.Context, dir string) (*Client, error) {
	record, err := readRecord(dir)
	if err != nil {
		return nil, err
	}
	for {
		if !wire.Lives(record) {
			return nil, errNoKeeper
		}
		l, err := hello(ctx, record.Socket)
		if err == nil {
			return &Client{dir: dir, socket: record.Socket, link: l}, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if !ending(err) {
			return nil, fail(unavailable(err), fmt.Errorf("process %d does not answer: %w", record.PID, err))
		}
		// The keeper is about to end, or somebody has removed its socket.
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(endingStep):
		}
		if record, err = stillThere(record, dir); err != nil {
			return nil, err
		}
	}
}

// A keeper that ends takes away keeper.json first, then the socket.
const endingStep = 10 * time.Millisecond

// ending reports whether err is what a client sees of a keeper that ends.
func ending(err error) bool {
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOENT) || errors.Is(err, caisson.ErrAborted) ||
		errors.Is(err, caisson.ErrUnavailable)
}

// unavailable returns the kind of an error, ErrUnavailable if it has none.
func unavailable(err error) caisson.Kind {
	if kind := caisson.KindOf(err); kind != caisson.ErrUnknown {
		return kind
	}
	return caisson.ErrUnavailable
}

// stillThere reads the record again. One that stays, with a living keeper and
// without a socket, means that the socket was removed by somebody else.
func stillThere(old *wire.Record, dir string) (*wire.Record, error) {
	record, err := readRecord(dir)
	if err != nil {
		return nil, err
	}
	if _, err := os.Lstat(record.Socket); err != nil && wire.Lives(record) && *record == *old {
		return nil, fail(caisson.ErrUnavailable,
			fmt.Errorf("process %d can't be reached: its socket %q was removed; kill it to end the sandbox", record.PID, record.Socket))
	}
	return record, nil
}

var errNoKeeper = fail(caisson.ErrNotFound, errors.New("none lives"))

// readRecord reads keeper.json.
func readRecord(dir string) (*wire.Record, error) {
	record, err := wire.ReadRecord(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errNoKeeper
	}
	if err != nil {
		return nil, err
	}
	if record.Version > wire.Version {
		return nil, fail(caisson.ErrUnsupported,
			fmt.Errorf("keeper is of version %d, this program knows up to %d: use the newer one", record.Version, wire.Version))
	}
	return record, nil
}
