package kept

import (
	"context"
	"errors"
	"fmt"

	"github.com/caissonrun/caisson"
)

// Invalid, Denied and Unsupported are refusals of a spec, by the name of the
// field at fault.
func Invalid(item string, err error) error { return refusal(item, caisson.ErrInvalid, err) }

// Denied says that the operator does not permit it.
func Denied(item string, err error) error { return refusal(item, caisson.ErrDenied, err) }

// Unsupported says that this host or this engine can't do it.
func Unsupported(item string, err error) error { return refusal(item, caisson.ErrUnsupported, err) }

func refusal(item string, kind caisson.Kind, err error) error {
	return &caisson.Error{Op: caisson.OpCreate, Item: item, Kind: kind, Err: err}
}

func exists(sandbox string) error {
	return &caisson.Error{Op: caisson.OpCreate, Item: sandbox, Kind: caisson.ErrExists, Err: errors.New("the sandbox exists")}
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
