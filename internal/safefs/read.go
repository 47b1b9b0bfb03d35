//go:build unix

package safefs

import (
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// Stat describes name itself: a link is not followed.
func (r *Root) Stat(name string) (Info, error) {
	if name == "." {
		var info Info
		err := r.use(func(fd int) (err error) { info, err = statFD(fd, name); return err })
		return info, pathErr("stat", name, err)
	}
	dir, base, err := r.openParent("stat", name)
	if err != nil {
		return Info{}, err
	}
	defer unix.Close(dir)
	info, err := statAt(dir, base)
	return info, pathErr("stat", name, err)
}

// Open opens a regular file for reading. Anything else is an error at once:
// ErrLink, or ErrType.
func (r *Root) Open(name string) (*os.File, error) {
	dir, base, err := r.openParent("open", name)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	f, err := r.openRegular(dir, base, path.Join(r.Name(), name))
	return f, pathErr("open", name, err)
}

// openRegular opens an element of dir if it is a regular file. It looks first,
// because the mere opening of a device or a FIFO has effects, and again
// afterwards, because somebody may have swapped it.
func (r *Root) openRegular(dir int, base, shown string) (*os.File, error) {
	info, err := statAt(dir, base)
	if err == nil {
		err = wantRegular(info.Mode)
	}
	if err != nil {
		return nil, err
	}
	fd, err := r.resolve(dir, base, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	return regularFile(fd, shown)
}

// regularFile makes an os.File of fd if it is a regular file, and closes it
// otherwise. Files of /proc and its like only look regular: they can be
// endless, and reading them can wait for ever.
func regularFile(fd int, shown string) (*os.File, error) {
	info, err := statFD(fd, shown)
	if err == nil {
		err = wantRegular(info.Mode)
	}
	if err == nil && isPseudo(fd) {
		err = ErrType
	}
	if err == nil {
		err = unix.SetNonblock(fd, false)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), shown), nil
}

func wantRegular(mode fs.FileMode) error {
	switch {
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		return unix.EISDIR
	case mode&fs.ModeSymlink != 0:
		return ErrLink
	}
	return ErrType
}

// ReadFile returns a regular file's contents. Errors: as Open; ErrTooMany if
// there are more than limit bytes.
func (r *Root) ReadFile(name string, limit int64) ([]byte, error) {
	f, err := r.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		return nil, pathErr("read", name, ErrTooMany)
	}
	return data, err
}

// ReadLink returns a symbolic link's target.
func (r *Root) ReadLink(name string) (string, error) {
	dir, base, err := r.openParent("readlink", name)
	if err != nil {
		return "", err
	}
	defer unix.Close(dir)
	target, err := readLinkAt(dir, base)
	return target, pathErr("readlink", name, err)
}
