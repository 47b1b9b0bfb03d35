package mem

import (
	"context"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/safefs"
)

// FS implements engine.Filer.
func (s filer) FS(ctx context.Context) (engine.FS, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	return &files{box: s.box}, nil
}

// Tar implements engine.Filer.
func (s filer) Tar(ctx context.Context, name string, w io.Writer) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	at, err := s.box.resolve(name)
	if err != nil {
		return safefs.Sorted(caisson.OpFiles, name, err)
	}
	return safefs.Sorted(caisson.OpFiles, name, at.safe.Tar(ctx, at.rel, w))
}

// Put implements engine.Filer.
func (s filer) Put(ctx context.Context, name string, r io.Reader) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	at, err := s.box.resolve(name)
	if err == nil && at.readonly {
		return failure(caisson.OpFiles, s.box, caisson.ErrDenied, name+" is read-only")
	}
	if err != nil {
		return safefs.Sorted(caisson.OpFiles, name, err)
	}
	return safefs.Sorted(caisson.OpFiles, name, at.safe.Untar(ctx, at.rel, r, nil))
}

// begin refuses a sandbox that is gone.
func (s filer) begin(ctx context.Context) error {
	if err := s.engine.enter(ctx, caisson.OpFiles, s.box); err != nil {
		return err
	}
	s.box.mu.Lock()
	defer s.box.mu.Unlock()
	if s.box.destroyed || s.box.aborted() || s.box.tree == nil {
		return s.box.gone(caisson.OpFiles)
	}
	return nil
}

// resolve finds what a caller names: relative to the root, or absolute, which
// is the same. Links in it are followed inside of the sandbox.
func (b *box) resolve(name string) (spot, error) {
	if strings.Contains(name, "\x00") || slices.Contains(strings.Split(name, "/"), "..") {
		return spot{}, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	return b.tree.walk(path.Clean("/"+name), true)
}

// files is an engine.FS.
type files struct {
	box    *box
	closed atomic.Bool
}

// at resolves a name of package fs.
func (f *files) at(op, name string, follow bool) (spot, error) {
	if !fs.ValidPath(name) {
		return spot{}, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	f.box.mu.Lock()
	gone := f.box.destroyed
	f.box.mu.Unlock()
	if gone || f.closed.Load() {
		return spot{}, &fs.PathError{Op: op, Path: name, Err: fs.ErrClosed}
	}
	return f.box.tree.walk("/"+name, follow)
}

// Open implements fs.FS.
func (f *files) Open(name string) (fs.File, error) {
	at, err := f.at("open", name, true)
	if err != nil {
		return nil, err
	}
	return at.safe.FS().Open(at.rel)
}

// ReadDir implements fs.ReadDirFS.
func (f *files) ReadDir(name string) ([]fs.DirEntry, error) {
	at, err := f.at("readdir", name, true)
	if err != nil {
		return nil, err
	}
	return at.safe.FS().ReadDir(at.rel)
}

// Stat implements fs.StatFS.
func (f *files) Stat(name string) (fs.FileInfo, error) {
	at, err := f.at("stat", name, true)
	if err != nil {
		return nil, err
	}
	return at.safe.FS().Stat(at.rel)
}

// Lstat implements fs.ReadLinkFS.
func (f *files) Lstat(name string) (fs.FileInfo, error) {
	at, err := f.at("lstat", name, false)
	if err != nil {
		return nil, err
	}
	return at.safe.FS().Lstat(at.rel)
}

// ReadLink implements fs.ReadLinkFS.
func (f *files) ReadLink(name string) (string, error) {
	at, err := f.at("readlink", name, false)
	if err != nil {
		return "", err
	}
	return at.safe.FS().ReadLink(at.rel)
}

// Close implements io.Closer.
func (f *files) Close() error {
	f.closed.Store(true)
	return nil
}
