//go:build linux

package qemu

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
)

// consoleOf returns a console that has read all of some text, in pieces.
func consoleOf(t *testing.T, text string, size int) *console {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := readConsole(r, "qemu")
	for piece := range bytesOf(text, size) {
		if _, err := w.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	<-c.done
	return c
}

// bytesOf gives a text in pieces.
func bytesOf(text string, size int) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for rest := []byte(text); len(rest) > 0; {
			n := min(size, len(rest))
			if !yield(rest[:n]) {
				return
			}
			rest = rest[n:]
		}
	}
}

func TestConsole(t *testing.T) {
	long := strings.Repeat("x", 3*maxLine)
	for _, test := range []struct{ name, text, words, panics, said string }{
		{"Empty", "", "", "", ""},
		{"Lines", "one\r\n\r\ntwo\n\nthree\nfour", "two / three / four", "", ""},
		{"Escapes", "a\x1b[31mb\x00\x07\tc\xff\n", "a[31mb c", "", ""},
		{"Panic", "[ 1.0] Kernel panic - not syncing: no init\x1b[0m\nend\n", "[ 1.0] Kernel panic - not syncing: no init[0m / end", "no init[0m", ""},
		{"LastPanic", panicMark + "one\n" + panicMark + "two\nend\nend\nend\n", "end / end / end", "two", ""},
		{"QEMU", "qemu: first\nqemu: second\nnot qemu: third\n", "qemu: first / qemu: second / not qemu: third", "", "second"},
		{"LongLine", long + panicMark + "hidden\n" + panicMark + "shown\nend\nend\nend", "end / end / end", "shown", ""},
	} {
		for _, size := range []int{1, 7, 1 << 20} {
			t.Run(fmt.Sprintf("%s by %d", test.name, size), func(t *testing.T) {
				c := consoleOf(t, test.text, size)
				if c.words() != test.words || c.panicked() != test.panics || c.said() != test.said {
					t.Errorf("words() = %q, panicked() = %q, said() = %q, want %q, %q, %q",
						c.words(), c.panicked(), c.said(), test.words, test.panics, test.said)
				}
			})
		}
	}
}

// TestConsoleBounded holds that little is kept of what a guest prints without an end.
func TestConsoleBounded(t *testing.T) {
	for _, text := range []string{strings.Repeat("y\n", 1<<19), strings.Repeat("y", 1<<20)} {
		c := consoleOf(t, text, 64<<10)
		if len(c.tail) > maxConsole || cap(c.tail) > 32*maxConsole || len(c.line) > maxLine || len(c.words()) > maxWords {
			t.Errorf("of %d bytes it keeps %d (%d), a line of %d, words of %d", len(text), len(c.tail), cap(c.tail), len(c.line), len(c.words()))
		}
		if !bytes.HasSuffix([]byte(text), c.tail) {
			t.Error("what it keeps is not the end")
		}
	}
}
