package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// endSignals are those that ask a program to end.
var endSignals = []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP}

// notifyEnd sends the signals that ask this program to end to ch. One that
// whoever started it had it ignore, as nohup does, stays ignored.
func notifyEnd(ch chan<- os.Signal) {
	for _, sig := range endSignals {
		if !signal.Ignored(sig) {
			signal.Notify(ch, sig)
		}
	}
}

// untilSignal returns a context that the first such signal ends. The cause is
// an interrupted, which becomes the exit status.
func untilSignal(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	ch := make(chan os.Signal, 1)
	notifyEnd(ch)
	done := make(chan struct{})
	go func() {
		select {
		case sig := <-ch:
			cancel(interrupted{sig.(syscall.Signal)})
		case <-done:
		}
	}()
	return ctx, func() {
		signal.Stop(ch)
		close(done)
		cancel(nil)
	}
}

// orInterrupted returns the signal that ended ctx, if one did, instead of the
// error that followed from it.
func orInterrupted(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && cause != nil && ctx.Err() != nil && cause != ctx.Err() {
		return cause
	}
	return err
}
