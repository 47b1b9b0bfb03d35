//go:build unix

package safefs

import (
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// A Root is a folder that nothing done through it leads out of. It may be used
// by several goroutines.
type Root struct {
	f    *os.File
	opts Options
	dev  uint64
	// byElement says that the kernel can't resolve names safely by itself.
	byElement bool
}

// Options configures a Root. The zero value is the strictest.
type Options struct {
	// CrossMounts permits to enter what is mounted below. RemoveAll and
	// ChownAll never do.
	CrossMounts bool
	// noOpenat2 has names resolved element by element.
	noOpenat2 bool
}

// Open opens the folder path, which is trusted: links in it are followed. Nil
// options are the strictest.
func Open(path string, opts *Options) (*Root, error) {
	fd, err := unix.Open(path, oPath|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return FromFile(os.NewFile(uintptr(fd), path), opts)
}

// FromFile makes a Root of an open folder, also one opened with O_PATH, and
// owns f from then on, also if it fails.
func FromFile(f *os.File, opts *Options) (*Root, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		f.Close()
		return nil, &fs.PathError{Op: "open", Path: f.Name(), Err: unix.ENOTDIR}
	}
	r := &Root{f: f, dev: uint64(st.Dev)}
	if opts != nil {
		r.opts = *opts
	}
	r.byElement = r.opts.noOpenat2 || !canResolve(int(f.Fd()))
	return r, nil
}

// FromOSRoot makes a Root of the folder of an os.Root, which stays the
// caller's.
func FromOSRoot(root *os.Root, opts *Options) (*Root, error) {
	f, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	return FromFile(f, opts)
}

// Close closes the Root. What is under way ends first.
func (r *Root) Close() error { return r.f.Close() }

// Name returns the path, or other name, that the folder was opened by.
func (r *Root) Name() string { return r.f.Name() }

// Sub opens a folder below as a Root of its own.
func (r *Root) Sub(name string) (*Root, error) {
	fd, err := r.openDir("open", name, oPath)
	if err != nil {
		return nil, err
	}
	return FromFile(os.NewFile(uintptr(fd), r.Name()+"/"+name), &r.opts)
}

// SubApart is Sub for a folder that may be a mount point, and into whose own
// mounts nothing goes, whatever this Root permits.
func (r *Root) SubApart(name string) (*Root, error) {
	fd, err := r.openDir("open", name, oPath)
	if err != nil {
		return nil, err
	}
	opts := r.opts
	opts.CrossMounts = false
	return FromFile(os.NewFile(uintptr(fd), r.Name()+"/"+name), &opts)
}

// use calls f with the root's descriptor, which stays open meanwhile.
func (r *Root) use(f func(fd int) error) error {
	conn, err := r.f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if conn.Control(func(fd uintptr) { inner = f(int(fd)) }) != nil {
		return fs.ErrClosed
	}
	return inner
}

// check says whether name can be used: relative, clean, without "..".
func check(op, name string) error {
	if name == "." {
		return nil
	}
	bad := strings.IndexByte(name, 0) >= 0
	for element := range strings.SplitSeq(name, "/") {
		bad = bad || element == "" || element == "." || element == ".."
	}
	if bad {
		return &fs.PathError{Op: op, Path: fmt.Sprintf("%q", name), Err: fs.ErrInvalid}
	}
	return nil
}

// maxChunk is how much of a name is resolved at once: less than PATH_MAX, which
// a task can exceed by building a tree from the inside.
const maxChunk = 3000

// openDir opens the folder name, strictly, with flags added.
func (r *Root) openDir(op, name string, flags int) (fd int, err error) {
	if err := check(op, name); err != nil {
		return -1, err
	}
	err = r.use(func(root int) error {
		fd, err = r.descend(root, name, flags|unix.O_DIRECTORY)
		return err
	})
	return fd, pathErr(op, name, err)
}

// descend opens name, of any length, below the folder dir.
func (r *Root) descend(dir int, name string, flags int) (int, error) {
	at := dir
	for len(name) > maxChunk {
		cut := strings.LastIndexByte(name[:maxChunk], '/')
		if cut < 0 {
			cut = strings.IndexByte(name, '/')
		}
		if cut < 0 {
			break
		}
		next, err := r.resolve(at, name[:cut], oPath|unix.O_DIRECTORY, 0)
		if at != dir {
			unix.Close(at)
		}
		if err != nil {
			return -1, err
		}
		at, name = next, name[cut+1:]
	}
	fd, err := r.resolve(at, name, flags, 0)
	if at != dir {
		unix.Close(at)
	}
	return fd, err
}

// openParent opens the folder that holds name and returns the last element. The
// root itself has no parent here.
func (r *Root) openParent(op, name string) (dir int, base string, err error) {
	if err := check(op, name); err != nil {
		return -1, "", err
	}
	if name == "." {
		return -1, "", &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	folder, base := ".", name
	if cut := strings.LastIndexByte(name, '/'); cut >= 0 {
		folder, base = name[:cut], name[cut+1:]
	}
	dir, err = r.openDir(op, folder, oPath)
	if err != nil {
		err.(*fs.PathError).Path = name
	}
	return dir, base, err
}
