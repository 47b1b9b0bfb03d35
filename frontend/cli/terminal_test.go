package cli

import (
	"testing"

	"github.com/creack/pty"
	"golang.org/x/term"
)

// TestRestore holds that a terminal is as it was after restore, also when a
// goroutine panics while it is raw.
func TestRestore(t *testing.T) {
	_, tts, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	before := stateOf(t, int(tts.Fd()))
	for name, leave := range map[string]func(*rawTerminal){
		"Restore": func(r *rawTerminal) { r.restore(); r.restore() },
		"RawTwice": func(r *rawTerminal) {
			if err := r.raw(); err != nil {
				t.Fatal(err)
			}
			r.restore()
		},
		"Panic": func(r *rawTerminal) {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			func() {
				defer r.restoreOnPanic()
				panic("gone")
			}()
		},
	} {
		t.Run(name, func(t *testing.T) {
			raw := newRawTerminal(tts)
			if err := raw.raw(); err != nil {
				t.Fatal(err)
			}
			if *stateOf(t, raw.fd) == *before {
				t.Fatal("raw changed nothing")
			}
			leave(raw)
			if after := stateOf(t, raw.fd); *after != *before {
				t.Errorf("terminal = %+v, want %+v", after, before)
			}
		})
	}
	(&rawTerminal{}).restore() // without raw it does nothing
}

func stateOf(t *testing.T, fd int) *term.State {
	t.Helper()
	state, err := term.GetState(fd)
	if err != nil {
		t.Fatal(err)
	}
	return state
}
