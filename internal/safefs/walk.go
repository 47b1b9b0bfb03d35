//go:build unix

package safefs

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// DefaultMaxEntries is how many entries a walk or an archive may have if its
// options do not say.
const DefaultMaxEntries = 1 << 20

// An Entry is what Walk finds.
type Entry struct {
	Path string // relative to the Root
	Info
	root *Root
	dir  int // the folder it is in; -1 for the Root itself
}

// WalkOptions bounds a walk.
type WalkOptions struct {
	MaxEntries int // 0: DefaultMaxEntries
	MaxDepth   int // levels of folders that are entered; 0: no bound; 1: the first only
	// SkipMounts has folders on which something is mounted reported and not
	// entered, instead of failing.
	SkipMounts bool
}

// Walk calls f for name and everything below it, a folder before what it
// holds, in the order of the bytes of names. fs.SkipDir from f leaves out what
// a folder holds, fs.SkipAll ends the walk. What vanishes meanwhile is left
// out, and so is what /proc, /sys and their like hold.
//
// Errors: f's; ErrTooMany; ErrMount; what the system says about a folder that
// can't be read.
func (r *Root) Walk(ctx context.Context, name string, opts *WalkOptions, f func(*Entry) error) error {
	w := walker{ctx: ctx, root: r, name: name, f: f}
	if opts != nil {
		w.WalkOptions = *opts
	}
	if w.MaxEntries == 0 {
		w.MaxEntries = DefaultMaxEntries
	}
	err := w.begin()
	if errors.Is(err, fs.SkipDir) || errors.Is(err, fs.SkipAll) {
		return nil
	}
	return err
}

type walker struct {
	WalkOptions
	ctx     context.Context
	root    *Root
	name    string // that the walk began with
	f       func(*Entry) error
	stack   *stack
	entries int
}

// begin visits the first entry, and below it if it is a folder.
func (w *walker) begin() error {
	info, err := w.root.Stat(w.name)
	if err != nil {
		return err
	}
	e := &Entry{Path: w.name, Info: info, root: w.root, dir: -1}
	if w.name != "." {
		if e.dir, _, err = w.root.openParent("walk", w.name); err != nil {
			return err
		}
		defer unix.Close(e.dir)
	}
	if err := w.f(e); err != nil || !isDir(info.Mode) {
		return err
	}
	if w.stack, err = newStack(w.root, "walk", w.name); err != nil {
		return err
	}
	defer w.stack.close()
	if err := w.list(); err != nil {
		return err
	}
	for len(w.stack.levels) > 0 {
		if err := w.step(); err != nil {
			return err
		}
	}
	return nil
}

// step visits the next entry, or goes back to the folder above.
func (w *walker) step() error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	top := w.stack.top()
	if len(top.names) == 0 {
		return w.stack.pop()
	}
	name := top.names[0]
	top.names = top.names[1:]
	info, err := statAt(w.stack.dir(), name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return w.err(name, err)
	}
	e := &Entry{Path: path.Join(w.name, w.stack.path(name)), Info: info, root: w.root, dir: w.stack.dir()}
	err = w.f(e)
	if !isDir(info.Mode) {
		if errors.Is(err, fs.SkipDir) {
			top.names = nil
			return nil
		}
		return err
	}
	if errors.Is(err, fs.SkipDir) {
		return nil
	}
	if err != nil {
		return err
	}
	return w.enter(name)
}

// enter goes into a folder.
func (w *walker) enter(name string) error {
	if w.MaxDepth > 0 && len(w.stack.levels) >= w.MaxDepth {
		return nil
	}
	err := w.stack.push(name)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EXDEV) && w.SkipMounts:
		return nil
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return w.err(name, ErrChanged)
	case err != nil:
		return w.err(name, err)
	}
	if w.root.opts.CrossMounts && isPseudo(w.stack.dir()) {
		return w.stack.pop()
	}
	return w.list()
}

// list reads the names in the deepest folder, sorted.
func (w *walker) list() error {
	top := w.stack.top()
	names, err := listNames(top.f, w.MaxEntries-w.entries)
	if err != nil {
		return w.err("", err)
	}
	w.entries += len(names)
	top.names = names
	return nil
}

func (w *walker) err(name string, err error) error {
	return pathErr("walk", path.Join(shorten(w.name), shorten(w.stack.path(name))), err)
}

// listNames returns the sorted names in an open folder. Errors: ErrTooMany if
// there are more than most.
func listNames(dir *os.File, most int) ([]string, error) {
	var all []string
	for {
		names, err := dir.Readdirnames(4096)
		all = append(all, names...)
		if len(all) > most {
			return nil, ErrTooMany
		}
		if errors.Is(err, io.EOF) {
			slices.Sort(all)
			return all, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// Open opens the entry if it is a regular file. It works only during the call
// that the entry was passed to; Root.Open with its Path works later.
func (e *Entry) Open() (*os.File, error) {
	if e.dir < 0 {
		return nil, pathErr("open", e.Path, wantRegular(e.Mode))
	}
	f, err := e.root.openRegular(e.dir, e.Name, e.Path)
	return f, pathErr("open", e.Path, err)
}

// ReadLink returns the entry's target if it is a symbolic link. It works only
// during the call that the entry was passed to.
func (e *Entry) ReadLink() (string, error) {
	if e.dir < 0 {
		return "", pathErr("readlink", e.Path, unix.EINVAL)
	}
	target, err := readLinkAt(e.dir, e.Name)
	return target, pathErr("readlink", e.Path, err)
}

// Usage returns how many bytes on disk, and how many files, name and everything
// below it are. A file with several names counts once for each.
func (r *Root) Usage(ctx context.Context, name string) (bytes, files int64, err error) {
	err = r.Walk(ctx, name, &WalkOptions{MaxEntries: 1 << 31, SkipMounts: true}, func(e *Entry) error {
		bytes += e.Blocks
		files++
		return nil
	})
	return bytes, files, err
}
