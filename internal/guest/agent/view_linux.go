package agent

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/internal/thread"
)

// A view is what programs see: a copy of the agent's mounts, in which the root of
// programs is in the place of the agent's, and nothing leads back. It is no border
// for who has all capabilities; that is the machine.
type view struct {
	root       string
	privileged bool
	shm        caisson.Bytes
	first      []string // what the agent has mounted besides, in its order
}

// defaultShm is the size of /dev/shm where nobody says.
const defaultShm = 64 * caisson.MiB

// open makes the view and returns its mount namespace.
func (v *view) open() (ns *os.File, err error) {
	err = thread.Spend(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		// What the agent mounts later is seen here, and nothing the other way round.
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
			return err
		}
		f, err := os.Open("/proc/thread-self/ns/mnt")
		if err != nil {
			return err
		}
		if err := v.build(); err != nil {
			return errors.Join(err, f.Close())
		}
		ns = f
		return nil
	})
	if err != nil {
		return nil, &caisson.Error{Item: "root", Kind: mountKind(err), Err: err}
	}
	return ns, nil
}

// build mounts what every program needs, and puts the root in its place.
func (v *view) build() error {
	for _, name := range []string{"proc", "sys", "dev"} {
		if err := v.kernel(name); err != nil {
			return fmt.Errorf("/%s: %w", name, err)
		}
	}
	if !v.privileged {
		if err := v.hide(); err != nil {
			return err
		}
	}
	if err := os.Chdir(v.root); err != nil {
		return err
	}
	// The old root is a file system in memory that can't be unmounted; what is below
	// can, and its parts that are in use elsewhere stay.
	for i := len(v.first) - 1; i >= 0; i-- {
		if !below(v.root, v.first[i]) {
			_ = unix.Unmount(v.first[i], unix.MNT_DETACH)
		}
	}
	for _, name := range []string{"/run", "/dev", "/sys", "/proc"} {
		_ = unix.Unmount(name, unix.MNT_DETACH)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	return unix.Chroot(".")
}

// kernel mounts one of the kernel's file systems in the root.
func (v *view) kernel(name string) error {
	at, err := v.folder(name)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	if name == "dev" && !v.privileged {
		return v.devices(at)
	}
	if name == "proc" && !v.privileged {
		// Nobody is shown what is not his: the kernel's threads, and the agent.
		const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
		return unix.Mount("proc", procPath(at), "proc", flags, "hidepid=2")
	}
	if err := unix.Mount("/"+name, procPath(at), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if name != "sys" || v.privileged {
		return nil
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	return unix.MountSetattr(unix.AT_FDCWD, path.Join(v.root, name), unix.AT_RECURSIVE, &attr)
}

// folder opens a folder of the root's, and makes it where it is missing. A link is
// none: it would lead out of what the root is.
func (v *view) folder(name string) (int, error) {
	dir, err := unix.Open(v.root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(dir)
	if err := unix.Mkdirat(dir, name, 0o755); err != nil && err != unix.EEXIST && err != unix.EROFS {
		return -1, err
	}
	return unix.Openat(dir, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// devices makes a container's /dev, with the agent's terminals.
func (v *view) devices(at int) error {
	if err := isolate.MountDev(at); err != nil {
		return err
	}
	dev := path.Join(v.root, "dev")
	if err := unix.Mount("/dev/pts", dev+"/pts", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("pts: %w", err)
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	return unix.Mount("shm", dev+"/shm", "tmpfs", flags, fmt.Sprintf("mode=1777,size=%d", cmp.Or(v.shm, defaultShm)))
}

// hide covers what no container shows, and has nobody write what none writes. What
// this kernel does not have is left out.
func (v *view) hide() error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, name := range isolate.DefaultMasked {
		name = path.Join(v.root, name)
		info, err := os.Lstat(name)
		if err != nil {
			continue
		}
		if info.IsDir() {
			err = unix.Mount("tmpfs", name, "tmpfs", flags|unix.MS_RDONLY, "mode=0555,size=4k,nr_inodes=2")
		} else {
			err = unix.Mount("/dev/null", name, "", unix.MS_BIND, "")
			if err == nil {
				// A device that nobody can open, by its mount.
				err = unix.Mount("", name, "", flags|unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
			}
		}
		if err != nil {
			return fmt.Errorf("mask %s: %w", name, err)
		}
	}
	for _, name := range isolate.DefaultReadOnly {
		name = path.Join(v.root, name)
		if !exists(name) {
			continue
		}
		err := unix.Mount(name, name, "", unix.MS_BIND|unix.MS_REC, "")
		if err == nil {
			err = unix.Mount("", name, "", flags|unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
		}
		if err != nil {
			return fmt.Errorf("make %s read-only: %w", name, err)
		}
	}
	return nil
}

// below reports whether a path is another one, or leads through it.
func below(name, dir string) bool { return name == dir || strings.HasPrefix(name, dir+"/") }
