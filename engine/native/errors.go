package native

import (
	"context"
	"errors"
	"fmt"

	"github.com/caissonrun/caisson"
)

func invalid(item string, err error) error {
	return &caisson.Error{Op: caisson.OpCreate, Item: item, Kind: caisson.ErrInvalid, Err: err}
}

func denied(item string, err error) error {
	return &caisson.Error{Op: caisson.OpCreate, Item: item, Kind: caisson.ErrDenied, Err: err}
}

func unsupported(item string, err error) error {
	return &caisson.Error{Op: caisson.OpCreate, Item: item, Kind: caisson.ErrUnsupported, Err: err}
}

// aborted says that the sandbox was destroyed.
func aborted(op caisson.Op, id string) error {
	return &caisson.Error{Op: op, Item: id, Kind: caisson.ErrAborted, Err: errors.New("the sandbox was destroyed")}
}

// ended says that the program has ended.
func ended(op caisson.Op, id string) error {
	return &caisson.Error{Op: op, Item: id, Kind: caisson.ErrEnded, Err: errors.New("the program has ended")}
}

// said gives an error of the keeper's the operation and the sandbox's id, and
// keeps its kind. Errors of the context stay.
func said(op caisson.Op, id string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %s: %w", op, id, err)
	}
	return &caisson.Error{Op: op, Item: id, Kind: caisson.KindOf(err), Err: err}
}

var (
	errNotClean = errors.New("not an absolute, clean path")
	errPrivate  = errors.New("home folders, /var and what a sandbox has of its own are never shown; mount what a task needs")
)
