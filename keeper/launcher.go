//go:build unix

package keeper

import (
	"context"
	"sync"
	"time"

	"github.com/caissonrun/caisson"
)

// spareTime is how long a spare keeper waits to be used, and how soon one
// launch must follow another for a spare to be worth its while.
const spareTime = 200 * time.Millisecond

// A Launcher launches keepers that quickly follow each other sooner than
// Launch: after the second it has a spare one at hand, which has started and
// waits for its spec. A spare that is not used soon is ended. It may be used by
// several goroutines.
type Launcher struct {
	command Command
	filling sync.WaitGroup

	mu     sync.Mutex
	last   time.Time // of the latest launch
	spare  *starting
	timer  *time.Timer // ends the spare
	closed bool
}

// NewLauncher returns a Launcher of keepers that are started by command.
func NewLauncher(command Command) *Launcher { return &Launcher{command: command} }

// Launch is the function Launch.
func (l *Launcher) Launch(ctx context.Context, spec *Spec) (*Client, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, often := l.take()
	defer func() {
		if often {
			l.filling.Go(l.fill)
		}
	}()
	if s != nil {
		c, err := s.launch(ctx, spec)
		if caisson.KindOf(err) != caisson.ErrInternal {
			return c, err
		}
		// Something has ended the spare.
	}
	return Launch(ctx, l.command, spec)
}

// take returns the spare, if there is one that lives, and whether launches
// follow each other quickly.
func (l *Launcher) take() (s *starting, often bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, l.spare = l.spare, nil
	if s != nil {
		l.timer.Stop()
		select {
		case <-s.reaped:
			s = nil
		default:
		}
	}
	now := time.Now()
	often = !l.closed && now.Sub(l.last) < spareTime
	l.last = now
	return s, often
}

// fill starts a spare. Where that fails the next launch says why.
func (l *Launcher) fill() {
	s, err := startKeeper(l.command)
	if err != nil {
		return
	}
	if !l.keep(s) {
		s.undo()
	}
}

// keep makes s the spare, unless there is one.
func (l *Launcher) keep(s *starting) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.spare != nil || l.closed {
		return false
	}
	l.spare = s
	l.timer = time.AfterFunc(spareTime, func() { l.drop(s) })
	return true
}

// drop ends s if it is still the spare.
func (l *Launcher) drop(s *starting) {
	l.mu.Lock()
	ours := l.spare == s
	if ours {
		l.spare = nil
	}
	l.mu.Unlock()
	if ours {
		s.undo()
	}
}

// Close ends the spare. Keepers that were launched live on, and Launch does not
// hold a spare any more. It can be called again.
func (l *Launcher) Close() error {
	l.mu.Lock()
	l.closed = true
	s := l.spare
	l.spare = nil
	l.mu.Unlock()
	l.filling.Wait()
	if s == nil {
		return nil
	}
	return s.undo()
}
