package cli

import (
	"os"
	"sync"

	"golang.org/x/term"

	"github.com/caissonrun/caisson/engine"
)

// isTerminal reports whether f is a terminal; nil is none.
func isTerminal(f *os.File) bool { return f != nil && term.IsTerminal(int(f.Fd())) }

// A rawTerminal is the caller's terminal, in raw mode until restore: every
// key, ^C among them, is a byte for the program inside.
type rawTerminal struct {
	fd int

	mu    sync.Mutex
	saved *term.State
}

func newRawTerminal(f *os.File) *rawTerminal { return &rawTerminal{fd: int(f.Fd())} }

// raw turns raw mode on. The state to come back to is the first one seen.
func (t *rawTerminal) raw() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	state, err := term.MakeRaw(t.fd)
	if err != nil {
		return err
	}
	if t.saved == nil {
		t.saved = state
	}
	return nil
}

// restore brings the terminal back to how it was. It can be called again, and
// without raw.
func (t *rawTerminal) restore() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.saved != nil {
		_ = term.Restore(t.fd, t.saved)
	}
}

// restoreOnPanic is deferred by goroutines: their panic ends the program
// without running what other goroutines have deferred.
func (t *rawTerminal) restoreOnPanic() {
	if cause := recover(); cause != nil {
		t.restore()
		panic(cause)
	}
}

// sizeOf returns a terminal's size, or zero where it does not tell.
func sizeOf(f *os.File) engine.Size {
	if f == nil {
		return engine.Size{}
	}
	cols, rows, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return engine.Size{}
	}
	return engine.Size{Cols: uint16(cols), Rows: uint16(rows)}
}
