package mem

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// writes are the flags by which a file is opened for more than reading.
const writes = os.O_WRONLY | os.O_RDWR | os.O_CREATE | os.O_TRUNC | os.O_APPEND

// spot resolves a path of p's.
func (p *Proc) spot(name string, follow, write bool) (spot, error) {
	p.checkpoint()
	s, err := p.box.tree.walk(p.dir, name, follow)
	if err == nil && write && s.readonly {
		err = &fs.PathError{Op: "open", Path: name, Err: syscall.EROFS}
	}
	return s, err
}

// OpenFile opens a file of the sandbox as os.OpenFile does.
//
// Errors, besides those of package os: EROFS in a read-only mount; EMFILE over
// the limit of open files. Writes end in ENOSPC where a limit is reached.
func (p *Proc) OpenFile(name string, flag int, perm fs.FileMode) (io.ReadWriteCloser, error) {
	s, err := p.spot(name, true, flag&writes != 0)
	if err != nil {
		return nil, err
	}
	if err := p.openFile(); err != nil {
		return nil, err
	}
	if secret, ok := p.box.tree.secrets.open(s.path); ok {
		return secret, nil
	}
	// Opening a FIFO must not block: nobody could kill the process.
	_, absent := s.root.Lstat(s.rel)
	f, err := s.root.OpenFile(s.rel, flag|unix.O_NONBLOCK, perm)
	if err != nil {
		p.files.Add(-1)
		return nil, err
	}
	if absent != nil {
		if err := s.given(nil); err != nil {
			f.Close()
			return nil, err
		}
	}
	return &file{File: f, proc: p, place: s.place}, nil
}

// A file is an open file of a Proc.
type file struct {
	*os.File
	proc  *Proc
	place *place
}

// Write implements io.Writer within the limits.
func (f *file) Write(data []byte) (n int, err error) {
	f.proc.checkpoint()
	if f.place.quota != nil {
		n, err = f.place.quota.write(f.File, data)
	} else {
		n, err = f.File.Write(data)
	}
	if f.place.memory {
		b := f.proc.box
		b.mu.Lock()
		b.charge(f.proc, int64(n))
		b.mu.Unlock()
		f.proc.checkpoint()
	}
	return n, err
}

// Close implements io.Closer.
func (f *file) Close() error {
	f.proc.files.Add(-1)
	return f.File.Close()
}

// ReadFile returns what a file holds.
func (p *Proc) ReadFile(name string) ([]byte, error) {
	f, err := p.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// WriteFile makes a file hold data.
func (p *Proc) WriteFile(name string, data []byte, perm fs.FileMode) error {
	f, err := p.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

// ReadDir lists a folder, sorted by name.
func (p *Proc) ReadDir(name string) ([]fs.DirEntry, error) {
	s, err := p.spot(name, true, false)
	if err != nil {
		return nil, err
	}
	return fs.ReadDir(s.root.FS(), s.rel)
}

// Stat describes a file, with links followed.
func (p *Proc) Stat(name string) (fs.FileInfo, error) {
	s, err := p.spot(name, true, false)
	if err != nil {
		return nil, err
	}
	return s.root.Lstat(s.rel)
}

// Lstat describes a file itself.
func (p *Proc) Lstat(name string) (fs.FileInfo, error) {
	s, err := p.spot(name, false, false)
	if err != nil {
		return nil, err
	}
	return s.root.Lstat(s.rel)
}

// Mkdir makes a folder.
func (p *Proc) Mkdir(name string, perm fs.FileMode) error {
	s, err := p.spot(name, false, true)
	if err != nil {
		return err
	}
	return s.given(s.root.Mkdir(s.rel, perm))
}

// Remove removes a file, a link or an empty folder.
func (p *Proc) Remove(name string) error {
	s, err := p.spot(name, false, true)
	if err != nil {
		return err
	}
	return s.root.Remove(s.rel)
}

// Chmod changes permission bits.
func (p *Proc) Chmod(name string, perm fs.FileMode) error {
	s, err := p.spot(name, true, true)
	if err != nil {
		return err
	}
	return s.root.Chmod(s.rel, perm)
}

// Symlink makes a symbolic link to target, which is not looked at.
func (p *Proc) Symlink(target, name string) error {
	s, err := p.spot(name, false, true)
	if err != nil {
		return err
	}
	return s.given(s.root.Symlink(target, s.rel))
}

// Rename renames a file within one mount; to another one it is EXDEV.
func (p *Proc) Rename(from, to string) error {
	a, b, err := p.spots(from, to)
	if err != nil {
		return err
	}
	return a.root.Rename(a.rel, b.rel)
}

// Link makes a hard link within one mount; to another one it is EXDEV.
func (p *Proc) Link(from, to string) error {
	a, b, err := p.spots(from, to)
	if err != nil {
		return err
	}
	return a.root.Link(a.rel, b.rel)
}

// spots resolves two paths that are to be changed.
func (p *Proc) spots(from, to string) (a, b spot, err error) {
	if a, err = p.spot(from, false, true); err != nil {
		return a, b, err
	}
	if b, err = p.spot(to, false, true); err != nil {
		return a, b, err
	}
	if a.place != b.place {
		err = &os.LinkError{Op: "link", Old: from, New: to, Err: syscall.EXDEV}
	}
	return a, b, err
}

// Mkfifo makes a named pipe.
func (p *Proc) Mkfifo(name string) error {
	s, err := p.spot(name, false, true)
	if err != nil {
		return err
	}
	return s.given(unix.Mkfifo(filepath.Join(s.host, filepath.FromSlash(s.rel)), 0o644))
}

// Lock takes an exclusive lock on a file, which it makes, until the process
// ends. EAGAIN says that somebody else has it.
func (p *Proc) Lock(name string) error {
	s, err := p.spot(name, true, true)
	if err != nil {
		return err
	}
	f, err := s.root.OpenFile(s.rel, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return err
	}
	p.locks = append(p.locks, f)
	return nil
}

// Chdir changes the current folder.
func (p *Proc) Chdir(name string) error {
	s, err := p.spot(name, true, false)
	if err != nil {
		return err
	}
	if info, err := s.root.Lstat(s.rel); err != nil || !info.IsDir() {
		return &fs.PathError{Op: "chdir", Path: name, Err: syscall.ENOTDIR}
	}
	p.dir = s.path
	return nil
}

// Getwd returns the current folder.
func (p *Proc) Getwd() string { return p.dir }
