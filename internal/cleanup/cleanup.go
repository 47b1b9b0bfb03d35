// Package cleanup undoes what was done so far when a later step fails.
//
// Each step that acquires something adds how to undo it; at the end of success
// the list is released:
//
//	var undo cleanup.List
//	defer undo.OnError(ctx, &err)
//	f, err := os.Open(name)
//	...
//	undo.Add(f.Close)
package cleanup

import (
	"context"
	"errors"
	"time"
)

// Limit bounds all the undoing of one Run, because the context of the call
// that failed is often over already.
const Limit = 30 * time.Second

// A List holds what is to be undone, in the order in which it was done. Its
// zero value is empty. It is used by one goroutine.
type List struct {
	undos []func(context.Context) error
}

// Add adds a step's undoing.
func (l *List) Add(undo func() error) {
	l.undos = append(l.undos, func(context.Context) error { return undo() })
}

// AddContext adds an undoing that may wait. Its context is not the failed
// call's: it ends after Limit only.
func (l *List) AddContext(undo func(context.Context) error) {
	l.undos = append(l.undos, undo)
}

// Release forgets everything: what was done stays.
func (l *List) Release() { l.undos = nil }

// Run undoes everything, the last first, and forgets it. It goes on after an
// error and returns all of them joined. ctx gives values only; that it has
// ended does not stop the undoing.
func (l *List) Run(ctx context.Context) error {
	undos := l.undos
	l.undos = nil
	if len(undos) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), Limit)
	defer cancel()
	var errs []error
	for i := len(undos) - 1; i >= 0; i-- {
		errs = append(errs, undos[i](ctx))
	}
	return errors.Join(errs...)
}

// OnError is for defer: it runs the list if *err is set and joins what goes
// wrong to it, after it, so that the first error decides.
func (l *List) OnError(ctx context.Context, err *error) {
	if *err != nil {
		if undoErr := l.Run(ctx); undoErr != nil {
			*err = errors.Join(*err, undoErr)
		}
	}
}
