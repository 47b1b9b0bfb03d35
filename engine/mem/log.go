package mem

import (
	"sync"
	"time"

	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/keeper/redact"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// A log is the step's log with its one writer.
type log struct {
	mu      sync.Mutex
	w       *tasklog.Writer
	streams map[tasklog.Stream]*redact.Writer
	closed  bool
	err     error // the first that a write had
}

func openLog(spec *engine.Spec) (*log, error) {
	var values [][]byte
	for _, s := range spec.Secrets {
		if !s.Placeholder {
			values = append(values, s.Value)
		}
	}
	secrets, err := redact.Compile(values)
	if err != nil {
		return nil, err
	}
	w, err := tasklog.Create(spec.Log, spec.Limits.Log)
	if err != nil {
		return nil, err
	}
	l := &log{w: w, streams: make(map[tasklog.Stream]*redact.Writer)}
	for _, stream := range []tasklog.Stream{tasklog.Stdout, tasklog.Stderr} {
		l.streams[stream] = secrets.NewWriter(func(data []byte) error { return w.Write(stream, time.Now(), data) })
	}
	return l, nil
}

// write appends output, without secrets. What may be the beginning of one waits
// for more, or for the end. A log that fails does not stop the program: close
// tells.
func (l *log) write(stream tasklog.Stream, data []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.keep(l.streams[stream].Write(data))
}

func (l *log) keep(err error) {
	if l.err == nil {
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
	for _, w := range l.streams {
		l.keep(w.Close())
	}
	l.keep(l.w.Sync())
	l.keep(l.w.Close())
	return l.err
}
