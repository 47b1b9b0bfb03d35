package once

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
)

// Max is the largest value: what the kernel lets a pipe hold.
const Max = 1 << 20

// A File is one to be made.
type File struct {
	// Path is below the root that Files.Add is given. No part of it is a symbolic
	// link, and its folder exists.
	Path     string
	Value    []byte
	UID, GID int
}

// Files are those that were not read yet. The zero value has none.
type Files struct {
	mu      sync.Mutex
	inotify *os.File
	waiting map[int32]*file // by watch
	served  chan struct{}   // closed when nobody serves any more
}

// A file has not been read yet.
type file struct {
	dir  int // its folder
	name string
	fifo int
}

// Add makes a file below a root, by a descriptor of that, and begins to watch it.
// What has its name must not be there.
func (o *Files) Add(root int, f *File) error {
	if len(f.Value) > Max {
		return &caisson.Error{Op: caisson.OpCreate, Kind: caisson.ErrInvalid, Err: fmt.Errorf("larger than %d bytes", Max)}
	}
	dir, err := unix.Openat2(root, "."+path.Join("/", path.Dir(f.Path)), &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return err
	}
	made := &file{dir: dir, name: path.Base(f.Path), fifo: -1}
	if err = made.mknod(f.UID, f.GID); err == nil {
		err = made.fill(f.Value)
	}
	if err == nil {
		err = o.watch(made)
	}
	if err != nil {
		made.remove()
	}
	return err
}

// watch has the file removed when it is opened.
func (o *Files) watch(f *file) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.inotify == nil {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return &caisson.Error{Op: caisson.OpCreate, Kind: caisson.ErrExhausted, Err: fmt.Errorf("inotify: %w", err)}
		}
		o.inotify, o.waiting, o.served = os.NewFile(uintptr(fd), "inotify"), map[int32]*file{}, make(chan struct{})
		go o.serve(o.inotify)
	}
	var watch int
	raw, err := o.inotify.SyscallConn()
	if err != nil {
		return err
	}
	outer := raw.Control(func(fd uintptr) {
		watch, err = unix.InotifyAddWatch(int(fd), fmt.Sprintf("/proc/self/fd/%d", f.fifo), unix.IN_OPEN)
	})
	if err = errors.Join(outer, err); err == nil {
		o.waiting[int32(watch)] = f
	}
	return err
}

// mknod makes the FIFO as its reader's: no other user could make a file in a file
// system of the sandbox's user namespace. Where the folder is not the reader's to
// write in, it is given away.
func (f *file) mknod(uid, gid int) error {
	err := f.mknodAs(uid, gid)
	if err != unix.EACCES {
		return err
	}
	if err := f.mknodAs(os.Geteuid(), os.Getegid()); err != nil {
		return err
	}
	return unix.Fchownat(f.dir, f.name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
}

func (f *file) mknodAs(uid, gid int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if uid != os.Geteuid() || gid != os.Getegid() {
		defer func(uid, gid int) {
			_ = unix.Setfsuid(uid)
			_ = unix.Setfsgid(gid)
		}(os.Geteuid(), os.Getegid())
		if err := errors.Join(unix.Setfsgid(gid), unix.Setfsuid(uid)); err != nil {
			return err
		}
	}
	// Whoever makes it has to write, too, also without root's rights.
	return unix.Mknodat(f.dir, f.name, unix.S_IFIFO|0o600, 0)
}

// fill opens the FIFO and writes the value.
func (f *file) fill(value []byte) (err error) {
	// Open for both, it waits for nobody.
	f.fifo, err = unix.Openat(f.dir, f.name, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	if _, err := unix.FcntlInt(uintptr(f.fifo), unix.F_SETPIPE_SZ, max(len(value), os.Getpagesize())); err != nil {
		return err
	}
	n, err := unix.Write(f.fifo, value)
	if err == nil && n < len(value) {
		err = unix.ENOSPC
	}
	return err
}

// remove takes away the name, and then what nobody has read.
func (f *file) remove() {
	_ = unix.Unlinkat(f.dir, f.name, 0)
	if f.fifo >= 0 {
		unix.Close(f.fifo)
	}
	unix.Close(f.dir)
}

// serve removes each file that is opened, until Close.
func (o *Files) serve(inotify *os.File) {
	defer close(o.served)
	buf := make([]byte, 4096)
	for {
		n, err := inotify.Read(buf)
		if err != nil {
			return
		}
		for at := 0; at+unix.SizeofInotifyEvent <= n; {
			watch := int32(binary.NativeEndian.Uint32(buf[at:]))
			name := binary.NativeEndian.Uint32(buf[at+12:])
			o.mu.Lock()
			if f := o.waiting[watch]; f != nil {
				f.remove()
				delete(o.waiting, watch)
			}
			o.mu.Unlock()
			at += unix.SizeofInotifyEvent + int(name)
		}
	}
}

// Close removes what was not read, and ends the watching. It can be called again.
func (o *Files) Close() {
	o.mu.Lock()
	inotify := o.inotify
	for _, f := range o.waiting {
		f.remove()
	}
	o.inotify, o.waiting = nil, nil
	o.mu.Unlock()
	if inotify != nil {
		inotify.Close()
		<-o.served
	}
}
