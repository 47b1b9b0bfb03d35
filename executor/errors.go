//go:build unix

package executor

import (
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/caissonrun/caisson"
)

// noTask says that there is no such task.
func noTask(id string) error {
	return &caisson.Error{Item: fmt.Sprintf("%q", id), Kind: caisson.ErrNotFound, Err: errors.New("there is no such task; see caisson ps -a")}
}

func taskEnded(id string) error {
	return &caisson.Error{Item: "task " + id, Kind: caisson.ErrEnded, Err: errors.New("it has ended")}
}

// at says which part of the task err is about: behind what was being done, if
// err begins with that, so that a message reads "stage in: inputs[0]: cause".
func at(item string, err error) error {
	e, ok := err.(*caisson.Error)
	if !ok || e.Op == "" {
		return fmt.Errorf("%s: %w", item, err)
	}
	inner := *e
	inner.Op = ""
	return &caisson.Error{Op: e.Op, Item: item, Kind: e.Kind, Err: &inner}
}

func stateError(path string, kind caisson.Kind, err error) error {
	return &caisson.Error{Op: caisson.OpState, Item: path, Kind: kind, Err: err}
}

// undecided wraps an error after which nothing is known to have been done or
// decided, such as one of the journal: the attendant gives up, and the next one
// goes on from what the journal says.
type undecided struct{ error }

// Unwrap returns the cause.
func (e undecided) Unwrap() error { return e.error }

// failure is how an error stands in the journal and in the result.
func failure(err error) *caisson.Failure {
	if err == nil {
		return nil
	}
	return &caisson.Failure{Kind: caisson.KindOf(err), Message: err.Error()}
}

// guard calls f and turns a panic in it, of an engine, a mounter or a stager,
// into an error: it fails that task and nobody else.
func (x *Executor) guard(op caisson.Op, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			x.log.Error("panic", "op", op, "panic", p, "stack", string(debug.Stack()))
			err = &caisson.Error{Op: op, Kind: caisson.ErrInternal, Err: fmt.Errorf("bug: panic: %v", p)}
		}
	}()
	return f()
}
