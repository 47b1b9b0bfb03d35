package isolate

import (
	"errors"
	"fmt"
	"path"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
)

// Targets lie in folders that an image, or an earlier step of the task, may
// have prepared. By the time they are opened no path leads to the host any
// more; what is left is that a link could bring a mount to /proc, or a system
// mount somewhere else.

const (
	resolveStrict = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS
	resolveImage  = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS
)

// strict opens a system mount's target, and makes it if it is missing. No part
// of it may be a link.
func (v *view) strict(name string, folder bool) (int, error) {
	return v.openTarget(name, folder, false)
}

// target opens the target of one of the task's mounts, and makes it if it is
// missing. Links are followed in an image only, and never into /proc or /sys.
func (v *view) target(name string, folder bool) (int, error) {
	fd, err := v.openTarget(name, folder, v.image())
	if err != nil {
		return -1, err
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		unix.Close(fd)
		return -1, err
	}
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		unix.Close(fd)
		return -1, err
	}
	if fs.Type == unix.PROC_SUPER_MAGIC || fs.Type == unix.SYSFS_MAGIC || v.guard != 0 && stat.Dev == v.guard {
		unix.Close(fd)
		return -1, refuse(caisson.ErrDenied, "nothing may be mounted in /proc and /sys")
	}
	return fd, nil
}

func refuse(kind caisson.Kind, why string) error {
	return &caisson.Error{Kind: kind, Err: errors.New(why)}
}

// openTarget opens a path with O_PATH, or makes it: as a folder or an empty
// file.
func (v *view) openTarget(name string, folder, links bool) (int, error) {
	fd, err := v.lookup(name, links)
	if err == unix.ENOENT {
		if err := v.makeTarget(name, folder, links); err != nil {
			return -1, err
		}
		fd, err = v.lookup(name, links)
	}
	switch err {
	case nil:
	case unix.ELOOP:
		return -1, refuse(caisson.ErrInvalid, "leads through a symbolic link")
	case unix.ENOTDIR, unix.ENOENT, unix.ENAMETOOLONG, unix.EXDEV:
		return -1, refuse(caisson.ErrInvalid, "leads nowhere: "+err.Error())
	default:
		return -1, err
	}
	isFolder, err := isFolder(fd)
	if err == nil && isFolder != folder {
		err = refuse(caisson.ErrInvalid, "a folder can't be mounted on a file, nor a file on a folder")
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// lookup opens a path with O_PATH. A link at its very end is followed as any
// other, or refused.
func (v *view) lookup(name string, links bool) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: resolveStrict}
	if links {
		how.Resolve = resolveImage
	}
	for {
		fd, err := unix.Openat2(v.root, strings.TrimPrefix(name, "/"), &how)
		// The kernel gives up where a rename elsewhere made it unsure.
		if err != unix.EAGAIN && err != unix.EINTR {
			return fd, err
		}
	}
}

func isFolder(fd int) (bool, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return false, err
	}
	return stat.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}

// existing opens a path of the kernel's file systems, or returns -1 if there
// is none.
func (v *view) existing(name string) (fd int, folder bool, err error) {
	fd, err = v.lookup(name, false)
	if err == unix.ENOENT || err == unix.ENOTDIR || err == unix.EACCES {
		return -1, false, nil
	}
	if err == unix.ELOOP {
		return -1, false, refuse(caisson.ErrInvalid, "leads through a symbolic link")
	}
	if err != nil {
		return -1, false, err
	}
	folder, err = isFolder(fd)
	if err != nil {
		unix.Close(fd)
		return -1, false, err
	}
	return fd, folder, nil
}

// folder opens a folder of the root, and makes it if it is missing.
func (v *view) folder(name string) (int, error) {
	if name == "/" {
		return unix.FcntlInt(uintptr(v.root), unix.F_DUPFD_CLOEXEC, initSocket+1)
	}
	return v.openTarget(name, true, v.image())
}

// makeTarget makes a missing path, with the folders above it.
func (v *view) makeTarget(name string, folder, links bool) error {
	parent := path.Dir(name)
	dir := -1
	var err error
	if parent == "/" {
		dir, err = v.folder("/")
	} else {
		dir, err = v.openTarget(parent, true, links)
	}
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := v.create(dir, path.Base(name), folder); err != nil {
		return fmt.Errorf("make %q: %w", name, err)
	}
	return nil
}

// create makes a folder or an empty file. What is made in a folder of the
// user's belongs to the user: in an idmapped mount other ids may not even
// exist.
func (v *view) create(dir int, name string, folder bool) error {
	var stat unix.Stat_t
	if err := unix.Fstat(dir, &stat); err != nil {
		return err
	}
	if !v.setup.alone && v.setup.uid != 0 && int(stat.Uid) == v.setup.uid {
		restore, err := v.actAsUser()
		if err != nil {
			return err
		}
		defer restore()
	}
	if folder {
		return ignoreExists(unix.Mkdirat(dir, name, 0o755))
	}
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return ignoreExists(err)
	}
	return unix.Close(fd)
}

func ignoreExists(err error) error {
	if err == unix.EEXIST {
		return nil
	}
	return err
}

// actAsUser gives this thread the user's rights to files until restore is
// called.
func (v *view) actAsUser() (restore func(), err error) {
	runtime.LockOSThread()
	restore = func() {
		// User 0 of the inside can always come back.
		_, _ = unix.SetfsuidRetUid(0)
		_, _ = unix.SetfsgidRetGid(0)
		runtime.UnlockOSThread()
	}
	if _, err = unix.SetfsgidRetGid(v.setup.gid); err == nil {
		_, err = unix.SetfsuidRetUid(v.setup.uid)
	}
	if err != nil {
		restore()
		return nil, err
	}
	return restore, nil
}
