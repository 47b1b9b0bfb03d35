package mem

import (
	"archive/tar"
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
	if at.rel == "." && at.path != "/" {
		err = tarRoot(ctx, at, path.Base(at.path), w)
	} else {
		err = at.safe.Tar(ctx, at.rel, w)
	}
	return safefs.Sorted(caisson.OpFiles, name, err)
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
	return safefs.Sorted(caisson.OpFiles, name, at.safe.Untar(ctx, at.rel, r, at.untar()))
}

// untar says who unpacked files belong to.
func (s spot) untar() *safefs.UntarOptions {
	if s.owner == nil {
		return nil
	}
	return &safefs.UntarOptions{Owner: &safefs.Owner{UID: s.owner.UID, GID: s.owner.GID}}
}

// tarRoot writes the whole of a place, whose folder has another name on the
// host, as a folder called name.
func tarRoot(ctx context.Context, at spot, name string, w io.Writer) error {
	read, write := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := at.safe.Tar(ctx, at.rel, write)
		write.CloseWithError(err)
		done <- err
	}()
	err := rename(tar.NewReader(read), tar.NewWriter(w), name)
	read.CloseWithError(err)
	if tarErr := <-done; err == nil {
		err = tarErr
	}
	return err
}

// rename copies a tar stream with all names put below a folder.
func rename(r *tar.Reader, w *tar.Writer, folder string) error {
	top := &tar.Header{Name: folder + "/", Typeflag: tar.TypeDir, Mode: 0o755}
	for {
		header, err := r.Next()
		if top != nil && (err == io.EOF || err == nil && path.Clean(header.Name) != ".") {
			if err := w.WriteHeader(top); err != nil {
				return err
			}
		}
		top = nil
		if err == io.EOF {
			return w.Close()
		}
		if err != nil {
			return err
		}
		header.Name = folder + "/" + strings.TrimPrefix(header.Name, "./")
		if header.Typeflag == tar.TypeLink {
			header.Linkname = folder + "/" + strings.TrimPrefix(header.Linkname, "./")
		}
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		if _, err := io.Copy(w, r); err != nil {
			return err
		}
	}
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
	return b.tree.walk("/", path.Clean("/"+name), true)
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
	return f.box.tree.walk("/", name, follow)
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
