//go:build unix

package safefs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// An FS is a Root as an fs.FS. Symbolic links are followed as if the folder were
// the root of the file system: absolute ones and ".." lead inside of it only.
// Names may have any bytes but NUL.
type FS struct{ root *Root }

var _ interface {
	fs.ReadDirFS
	fs.StatFS
	fs.ReadLinkFS
	io.Closer
} = (*FS)(nil)

// FS returns the files of r. Closing it closes r.
func (r *Root) FS() *FS { return &FS{root: r} }

// Close ends the FS and its Root. It can be called again.
func (f *FS) Close() error {
	err := f.root.Close()
	if errors.Is(err, fs.ErrClosed) {
		return nil
	}
	return err
}

// Open opens a regular file or a folder for reading. Anything else is an error
// at once.
func (f *FS) Open(name string) (fs.File, error) {
	info, err := f.info("open", name)
	if err != nil {
		return nil, err
	}
	if isDir(info.Mode) {
		fd, err := f.root.follow(name, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return nil, pathErr("open", name, err)
		}
		return &folder{root: f.root, f: os.NewFile(uintptr(fd), name), info: info}, nil
	}
	if err := wantRegular(info.Mode); err != nil {
		return nil, pathErr("open", name, err)
	}
	fd, err := f.root.follow(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, pathErr("open", name, err)
	}
	file, err := regularFile(fd, name)
	if err != nil {
		return nil, pathErr("open", name, err)
	}
	return &regular{file}, nil
}

// info describes what name leads to.
func (f *FS) info(op, name string) (Info, error) {
	if err := check(op, name); err != nil {
		return Info{}, err
	}
	fd, err := f.root.place(name)
	if err != nil {
		return Info{}, pathErr(op, name, err)
	}
	defer unix.Close(fd)
	info, err := statFD(fd, path.Base(name))
	return info, pathErr(op, name, err)
}

// Stat describes what name leads to.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	info, err := f.info("stat", name)
	if err != nil {
		return nil, err
	}
	return fileInfo{info}, nil
}

// Lstat describes name itself; links in the path to it are followed.
func (f *FS) Lstat(name string) (fs.FileInfo, error) {
	dir, base, err := f.parent("lstat", name)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	info, err := statAt(dir, base)
	if err != nil {
		return nil, pathErr("lstat", name, err)
	}
	if name == "." {
		info.Name = "."
	}
	return fileInfo{info}, nil
}

// ReadLink returns a symbolic link's target; links in the path to it are
// followed.
func (f *FS) ReadLink(name string) (string, error) {
	dir, base, err := f.parent("readlink", name)
	if err != nil {
		return "", err
	}
	defer unix.Close(dir)
	target, err := readLinkAt(dir, base)
	return target, pathErr("readlink", name, err)
}

// parent opens the folder that name is in.
func (f *FS) parent(op, name string) (dir int, base string, err error) {
	if err := check(op, name); err != nil {
		return -1, "", err
	}
	folder := "."
	base = name
	if cut := strings.LastIndexByte(name, '/'); cut >= 0 {
		folder, base = name[:cut], name[cut+1:]
	}
	dir, err = f.root.follow(folder, oPath|unix.O_DIRECTORY)
	return dir, base, pathErr(op, name, err)
}

// ReadDir lists a folder, sorted by name. Errors: ErrTooMany if it has more
// than DefaultMaxEntries.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	opened, err := f.Open(name)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	dir, ok := opened.(*folder)
	if !ok {
		return nil, pathErr("readdir", name, unix.ENOTDIR)
	}
	return dir.ReadDir(-1)
}

// Resolve follows the links in name inside of the root, so that none is left. A
// task may change them again at once; then what uses the result fails, because it
// follows none.
func (f *FS) Resolve(name string) (string, error) {
	done, rest := "", name
	if rest == "." {
		return rest, nil
	}
	for links := 0; rest != ""; {
		element, after, _ := strings.Cut(rest, "/")
		rest = after
		next := path.Join(done, element)
		target, err := f.ReadLink(next)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return "", err
		case err != nil:
			// It is no link.
			done = next
			continue
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: "open", Path: name, Err: fmt.Errorf("more than %d links", maxLinks)}
		}
		if !path.IsAbs(target) {
			target = path.Join("/", done, target)
		}
		// What comes after a link begins at its target again, in which there
		// may be more links.
		done, rest = "", strings.Trim(path.Join("/", target, rest), "/")
	}
	if done == "" {
		return ".", nil
	}
	return done, nil
}

// A regular is a regular file that can only be read.
type regular struct{ f *os.File }

func (r *regular) Read(p []byte) (int, error)                   { return r.f.Read(p) }
func (r *regular) ReadAt(p []byte, offset int64) (int, error)   { return r.f.ReadAt(p, offset) }
func (r *regular) Seek(offset int64, whence int) (int64, error) { return r.f.Seek(offset, whence) }
func (r *regular) Close() error                                 { return r.f.Close() }
func (r *regular) WriteTo(w io.Writer) (int64, error)           { return io.Copy(w, r.f) }

// Stat implements fs.File.
func (r *regular) Stat() (fs.FileInfo, error) {
	info, err := statFD(int(r.f.Fd()), path.Base(r.f.Name()))
	if err != nil {
		return nil, pathErr("stat", r.f.Name(), err)
	}
	return fileInfo{info}, nil
}

// A folder is an open folder.
type folder struct {
	root  *Root
	f     *os.File
	info  Info
	names []string
	read  bool
}

func (d *folder) Stat() (fs.FileInfo, error) { return fileInfo{d.info}, nil }
func (d *folder) Close() error               { return d.f.Close() }

// Read implements fs.File.
func (d *folder) Read([]byte) (int, error) { return 0, pathErr("read", d.f.Name(), unix.EISDIR) }

// ReadDir implements fs.ReadDirFile.
func (d *folder) ReadDir(n int) ([]fs.DirEntry, error) {
	if !d.read {
		names, err := listNames(d.f, DefaultMaxEntries)
		if err != nil {
			return nil, pathErr("readdir", d.f.Name(), err)
		}
		d.names, d.read = names, true
	}
	var entries []fs.DirEntry
	for len(d.names) > 0 && (n <= 0 || len(entries) < n) {
		info, err := statAt(int(d.f.Fd()), d.names[0])
		d.names = d.names[1:]
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return entries, pathErr("readdir", path.Join(d.f.Name(), info.Name), err)
		}
		entries = append(entries, fs.FileInfoToDirEntry(fileInfo{info}))
	}
	if n > 0 && len(entries) == 0 {
		return nil, io.EOF
	}
	return entries, nil
}

// A fileInfo is an Info as an fs.FileInfo.
type fileInfo struct{ info Info }

func (i fileInfo) Name() string       { return i.info.Name }
func (i fileInfo) Size() int64        { return i.info.Size }
func (i fileInfo) Mode() fs.FileMode  { return i.info.Mode }
func (i fileInfo) ModTime() time.Time { return i.info.ModTime }
func (i fileInfo) IsDir() bool        { return i.info.Mode.IsDir() }

// Sys returns the Info.
func (i fileInfo) Sys() any { return i.info }
