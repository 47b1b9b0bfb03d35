//go:build unix

package qemu

import (
	"bytes"
	"io"
	"os"
	"strings"
	"sync"
	"unicode"
)

const (
	// maxConsole is how much is kept of what a guest prints, in bytes.
	maxConsole = 16 << 10
	// maxLine is how much of a line is looked at, and maxWords how much is shown.
	maxLine  = 512
	maxWords = 300
	// lastLines is how many lines are shown.
	lastLines = 3
)

// panicMark begins what a Linux kernel says last.
const panicMark = "Kernel panic - not syncing: "

// A console is the end of what a guest's console prints, and QEMU itself. It takes
// all that comes and keeps little of it.
type console struct {
	done   chan struct{} // closed when nobody can print any more
	prefix []byte        // of what QEMU says itself

	mu     sync.Mutex
	tail   []byte
	line   []byte // the one that is not at its end, the beginning of it
	panics string // what the kernel has said of its end
	last   string // what QEMU has said last
}

// readConsole reads a pipe to its end, and closes it. program is QEMU's name.
func readConsole(from *os.File, program string) *console {
	c := &console{done: make(chan struct{}), prefix: []byte(program + ": ")}
	go func() {
		defer close(c.done)
		defer from.Close()
		_, _ = io.Copy(c, struct{ io.Reader }{from})
	}()
	return c
}

// Write implements io.Writer. It never fails.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tail = append(c.tail, p[max(0, len(p)-maxConsole):]...)
	if over := len(c.tail) - maxConsole; over > 0 {
		c.tail = append(c.tail[:0], c.tail[over:]...)
	}
	for rest := p; len(rest) > 0; {
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			c.look(rest)
			break
		}
		c.look(rest[:end])
		c.line = c.line[:0]
		rest = rest[end+1:]
	}
	return len(p), nil
}

// look looks at a part of a line. The caller holds mu.
func (c *console) look(part []byte) {
	c.line = append(c.line, part[:min(len(part), maxLine-len(c.line))]...)
	if _, after, ok := bytes.Cut(c.line, []byte(panicMark)); ok {
		c.panics = shown(after)
	}
	if after, ok := bytes.CutPrefix(c.line, c.prefix); ok {
		c.last = shown(after)
	}
}

// panicked returns what the guest's kernel has said when it ended, or "".
func (c *console) panicked() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.panics
}

// said returns what QEMU has said last, or what somebody in the guest has put into
// its mouth.
func (c *console) said() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// words returns the last lines that say something, as one. They are for machines in
// which nothing of a task runs yet: a program may print what nobody else is to see.
func (c *console) words() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var lines []string
	for line := range bytes.Lines(c.tail) {
		if text := shown(line); text != "" {
			lines = append(lines, text)
		}
	}
	text := strings.Join(lines[max(0, len(lines)-lastLines):], " / ")
	return text[max(0, len(text)-maxWords):]
}

// shown makes what a guest has printed fit to be shown: nothing in it moves a
// cursor.
func shown(line []byte) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r == unicode.ReplacementChar || r > unicode.MaxASCII || !unicode.IsPrint(r):
			return -1
		}
		return r
	}, string(line)))
}
