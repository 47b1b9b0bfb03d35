package enginetest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// smallDisk returns a folder that holds only so many bytes, until the case
// ends. Only root can have one.
func (t *T) smallDisk(size int64) string {
	dir := filepath.Join(t.dir, "small")
	t.ok(os.Mkdir(dir, 0o700), "Mkdir")
	t.mountTmpfs(dir, size)
	return dir
}

// mountTmpfs mounts so many bytes of memory on a folder of the host, until the
// case ends. Only root can.
func (t *T) mountTmpfs(dir string, size int64) {
	t.ok(unix.Mount("none", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)), "mounting a small tmpfs")
	t.after(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmounting the small tmpfs: %v", err)
		}
	})
}

// locked reports whether a process holds a lock on a file, as the inside
// program's command lock does.
func locked(path string) (bool, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

// owned checks that a file belongs to the owner of work folders.
func (t *T) owned(path string) {
	if t.h.HostPaths {
		return
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil || int(st.Uid) != t.owner.UID || int(st.Gid) != t.owner.GID {
		t.Errorf("%s belongs to %d:%d, want %d:%d (error %v)", path, st.Uid, st.Gid, t.owner.UID, t.owner.GID, err)
	}
}

// nextData returns where the next contents of a file are, from a place on: holes are
// left out.
func nextData(f *os.File, at int64) (int64, error) {
	next, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
	if err == unix.EINVAL {
		return at, nil // the file system does not tell
	}
	return next, err
}
