//go:build unix

package safefs

import (
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// maxOpen is how many folders of a chain are open at once. Trees may be far
// deeper than a process may have descriptors.
const maxOpen = 32

// A stack is a chain of folders, each in the one before. The folders far up are
// closed while the work is far below; on the way back they are opened again
// by "..", and must then be the same folders.
type stack struct {
	root   *Root
	levels []level
}

// A level is one folder of a stack.
type level struct {
	f    *os.File // nil while closed
	id   Info
	name string // in the folder above; empty for the first
	// names are the entries still to be worked on.
	names []string
	// Of RemoveAll only:
	removed bool                // something, since the folder was last read from its beginning
	failed  map[string]struct{} // entries that can't be removed
	passes  int
}

// newStack begins a chain with the folder name.
func newStack(r *Root, op, name string) (*stack, error) {
	fd, err := r.openDir(op, name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	s := &stack{root: r}
	return s, pathErr(op, name, s.add(fd, ""))
}

func (s *stack) top() *level { return &s.levels[len(s.levels)-1] }

// dir returns the descriptor of the deepest folder.
func (s *stack) dir() int { return int(s.top().f.Fd()) }

// push goes into the folder name of the deepest folder.
func (s *stack) push(name string) error {
	fd, err := s.root.resolve(s.dir(), name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	return s.add(fd, name)
}

func (s *stack) add(fd int, name string) error {
	id, err := statFD(fd, name)
	if err != nil {
		unix.Close(fd)
		return err
	}
	s.levels = append(s.levels, level{f: os.NewFile(uintptr(fd), name), id: id, name: name})
	// The first stays open, for it is the caller's and its way back is certain.
	if far := len(s.levels) - 1 - maxOpen; far > 0 {
		s.levels[far].f.Close()
		s.levels[far].f = nil
	}
	return nil
}

// pop goes back to the folder above. Errors: ErrChanged if it is not above any
// more.
func (s *stack) pop() error {
	below := s.top()
	defer func() { below.f.Close() }()
	s.levels = s.levels[:len(s.levels)-1]
	if len(s.levels) == 0 || s.top().f != nil {
		return nil
	}
	above := s.top()
	fd, err := unix.Openat(int(below.f.Fd()), "..", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if id, err := statFD(fd, ".."); err != nil || !id.SameFile(&above.id) {
		unix.Close(fd)
		return ErrChanged
	}
	above.f = os.NewFile(uintptr(fd), above.name)
	return nil
}

// close closes all folders.
func (s *stack) close() {
	for i := range s.levels {
		if s.levels[i].f != nil {
			s.levels[i].f.Close()
		}
	}
	s.levels = nil
}

// path returns where the stack is, below the folder it began with.
func (s *stack) path(name string) string {
	var b strings.Builder
	for i := 1; i < len(s.levels); i++ {
		b.WriteString(s.levels[i].name)
		b.WriteByte('/')
	}
	b.WriteString(name)
	return b.String()
}

// err describes what went wrong with the entry name of the deepest folder.
func (s *stack) err(op, name string, err error) error {
	return pathErr(op, shorten(s.path(name)), err)
}

// shorten makes a path fit for a message.
func shorten(p string) string {
	const most = 300
	if len(p) <= most {
		return p
	}
	return p[:most/2] + "..." + p[len(p)-most/2:]
}

// isDir reports whether mode is a folder's.
func isDir(mode fs.FileMode) bool { return mode&fs.ModeType == fs.ModeDir }
