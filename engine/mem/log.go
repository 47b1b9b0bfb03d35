package mem

import (
	"sync"
	"time"

	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// A log is the step's log with its one writer.
type log struct {
	mu     sync.Mutex
	w      *tasklog.Writer
	closed bool
	err    error // the first that a write had
}

func openLog(spec *engine.Spec) (*log, error) {
	w, err := tasklog.Create(spec.Log, spec.Limits.Log)
	if err != nil {
		return nil, err
	}
	return &log{w: w}, nil
}

// write appends output. A log that can't be written to does not stop the
// program: close tells.
func (l *log) write(stream tasklog.Stream, data []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if err := l.w.Write(stream, time.Now(), data); err != nil && l.err == nil {
		l.err = err
	}
}

// close makes the log durable and returns the first error that it had.
func (l *log) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	for _, err := range []error{l.w.Sync(), l.w.Close()} {
		if l.err == nil {
			l.err = err
		}
	}
	return l.err
}
