// Package idle ends what waits for a server that has gone silent.
package idle

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

var errSilent = errors.New("the server is silent")

// A Timer ends a context when nothing happens for a while.
type Timer struct {
	timer  *time.Timer
	after  time.Duration
	cancel context.CancelFunc
	fired  atomic.Bool
}

// Watch returns a context that ends when Reset is not called for the time
// after. The caller must call Stop.
func Watch(ctx context.Context, after time.Duration) (context.Context, *Timer) {
	ctx, cancel := context.WithCancel(ctx)
	t := &Timer{after: after, cancel: cancel}
	t.timer = time.AfterFunc(after, func() {
		t.fired.Store(true)
		cancel()
	})
	return ctx, t
}

// Reset says that something has happened.
func (t *Timer) Reset() { t.timer.Reset(t.after) }

// Pause says that nothing is expected until Reset.
func (t *Timer) Pause() { t.timer.Stop() }

// Stop ends the context and releases the timer. It can be called again.
func (t *Timer) Stop() {
	t.timer.Stop()
	t.cancel()
}

// Err returns an error that says so if it was the timer that ended the context.
func (t *Timer) Err() error {
	if !t.fired.Load() {
		return nil
	}
	return fmt.Errorf("%w for %v", errSilent, t.after)
}
