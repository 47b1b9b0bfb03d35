package mem

import (
	"bytes"
	"context"
	"errors"
	"sync"

	"github.com/caissonrun/caisson/engine"
)

// The characters that a terminal does something about.
const (
	interrupt = 3    // ^C
	endOfFile = 4    // ^D
	suspend   = 26   // ^Z
	quit      = 28   // ^\
	backspace = 0x7f // DEL
)

// A terminal is a line discipline between a session and its programs: it
// echoes, edits lines, and makes signals of some characters.
type terminal struct {
	session *Session

	size engine.Size // guarded by box.mu

	mu   sync.Mutex
	line []byte // typed and not yet ended
}

func newTerminal(s *Session, size engine.Size) *terminal {
	if size.Cols == 0 && size.Rows == 0 {
		size = engine.Size{Cols: 80, Rows: 24}
	}
	return &terminal{session: s, size: size}
}

// input takes what the caller types.
func (t *terminal) input(data []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, c := range data {
		if err := t.key(c); err != nil {
			return i, err
		}
	}
	return len(data), nil
}

// key takes one character.
func (t *terminal) key(c byte) error {
	switch c {
	case interrupt:
		return t.signal(sigInt, "^C")
	case quit:
		return t.signal(sigQuit, "^\\")
	case suspend:
		return t.signal(sigTstp, "^Z")
	case endOfFile:
		if len(t.line) == 0 {
			t.session.stdin.closeWrite()
			return nil
		}
		return t.flush()
	case backspace:
		if len(t.line) > 0 {
			t.line = t.line[:len(t.line)-1]
		}
		return t.echo([]byte("\b \b"))
	case '\r':
		c = '\n'
	}
	t.line = append(t.line, c)
	if err := t.echo([]byte{c}); err != nil || c != '\n' {
		return err
	}
	return t.flush()
}

func (t *terminal) signal(n int, shown string) error {
	t.line = nil
	if err := t.echo([]byte(shown)); err != nil {
		return err
	}
	t.session.box.mu.Lock()
	defer t.session.box.mu.Unlock()
	t.session.deliver(n)
	return nil
}

// echo shows what was typed. A caller that reads nothing sees no more of it.
func (t *terminal) echo(data []byte) error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := t.session.stdout.write(ctx, translate(data))
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// flush gives the line to the program.
func (t *terminal) flush() error {
	line := t.line
	t.line = nil
	_, err := t.session.stdin.write(t.session.proc.ctx, line)
	return err
}

// output is what programs write to.
func (t *terminal) output(data []byte) (int, error) {
	if _, err := t.session.stdout.write(t.session.proc.ctx, translate(data)); err != nil {
		return 0, err
	}
	return len(data), nil
}

// translate ends lines as a terminal wants them.
func translate(data []byte) []byte {
	return bytes.ReplaceAll(data, []byte("\n"), []byte("\r\n"))
}

// Terminal returns the size of the terminal that the program has.
func (p *Proc) Terminal() (cols, rows int, ok bool) {
	p.checkpoint()
	if p.tty == nil || p.closed[0].Load() {
		return 0, 0, false
	}
	p.box.mu.Lock()
	defer p.box.mu.Unlock()
	return int(p.tty.size.Cols), int(p.tty.size.Rows), true
}
