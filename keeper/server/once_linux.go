package server

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/keeper/internal/wire"
)

// Files that can be read once are FIFOs with their value in them. The keeper
// is told when one is opened: it removes the name and then its own end, so that
// the reader gets the value and its end, and nobody else gets anything.

// maxOnce is the largest value: what the kernel lets a pipe hold.
const maxOnce = 1 << 20

// onceFiles are those of one sandbox. A nil one has none.
type onceFiles struct {
	inotify *os.File
	waiting map[int32]*onceFile // by watch
	served  chan struct{}       // closed when nobody serves any more
}

// A onceFile has not been read yet.
type onceFile struct {
	dir  int // its folder
	name string
	fifo int
}

// serveOnce makes the files and begins to watch them. Nothing runs in the
// sandbox yet, so its paths can be trusted.
func serveOnce(box Box, list []wire.Once) (*onceFiles, error) {
	if len(list) == 0 {
		return nil, nil
	}
	root, err := box.Root()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, &caisson.Error{Op: caisson.OpCreate, Item: "secrets", Kind: caisson.ErrExhausted, Err: fmt.Errorf("inotify: %w", err)}
	}
	o := &onceFiles{inotify: os.NewFile(uintptr(fd), "inotify"), waiting: map[int32]*onceFile{}, served: make(chan struct{})}
	for i := range list {
		if err := o.add(int(root.Fd()), fd, &list[i]); err != nil {
			o.release()
			o.inotify.Close()
			return nil, fmt.Errorf("secret %s: %w", path.Base(list[i].Path), err)
		}
	}
	go o.serve()
	return o, nil
}

// add makes one file.
func (o *onceFiles) add(root, inotify int, once *wire.Once) error {
	if len(once.Value) > maxOnce {
		return &caisson.Error{Op: caisson.OpCreate, Kind: caisson.ErrInvalid, Err: fmt.Errorf("larger than %d bytes", maxOnce)}
	}
	dir, err := unix.Openat2(root, strings.TrimPrefix(path.Dir(once.Path), "/"), &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return err
	}
	f := &onceFile{dir: dir, name: path.Base(once.Path), fifo: -1}
	if err = makeFIFO(f, once.UID, once.GID); err == nil {
		err = f.fill(once.Value)
	}
	var watch int
	if err == nil {
		watch, err = unix.InotifyAddWatch(inotify, fmt.Sprintf("/proc/self/fd/%d", f.fifo), unix.IN_OPEN)
	}
	if err != nil {
		f.remove()
		return err
	}
	o.waiting[int32(watch)] = f
	return nil
}

// makeFIFO makes the FIFO as its reader's: no other user could make a file in a
// file system of the sandbox's user namespace.
func makeFIFO(f *onceFile, uid, gid int) error {
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
	// A keeper without root's rights has to write, too.
	return unix.Mknodat(f.dir, f.name, unix.S_IFIFO|0o600, 0)
}

// fill opens the FIFO and writes the value.
func (f *onceFile) fill(value []byte) (err error) {
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
func (f *onceFile) remove() {
	_ = unix.Unlinkat(f.dir, f.name, 0)
	if f.fifo >= 0 {
		unix.Close(f.fifo)
	}
	unix.Close(f.dir)
}

// serve removes each file that is opened, until all are gone or close is
// called.
func (o *onceFiles) serve() {
	defer close(o.served)
	defer o.inotify.Close()
	defer o.release()
	buf := make([]byte, 4096)
	for len(o.waiting) > 0 {
		n, err := o.inotify.Read(buf)
		if err != nil {
			return
		}
		for at := 0; at+unix.SizeofInotifyEvent <= n; {
			watch := int32(binary.NativeEndian.Uint32(buf[at:]))
			name := binary.NativeEndian.Uint32(buf[at+12:])
			if f := o.waiting[watch]; f != nil {
				f.remove()
				delete(o.waiting, watch)
			}
			at += unix.SizeofInotifyEvent + int(name)
		}
	}
}

// release removes what was not read.
func (o *onceFiles) release() {
	for _, f := range o.waiting {
		f.remove()
	}
	o.waiting = nil
}

// close ends the serving. It can be called again.
func (o *onceFiles) close() {
	if o == nil {
		return
	}
	o.inotify.Close()
	<-o.served
}
