package isolate

import (
	"fmt"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// A node is a device node.
type node struct {
	name         string
	major, minor uint32
	mode         uint32
	uid, gid     int
}

// The devices that every program may expect.
var nodes = []node{
	{"null", 1, 3, 0o666, 0, 0},
	{"zero", 1, 5, 0o666, 0, 0},
	{"full", 1, 7, 0o666, 0, 0},
	{"random", 1, 8, 0o666, 0, 0},
	{"urandom", 1, 9, 0o666, 0, 0},
	{"tty", 5, 0, 0o666, 0, 0},
}

// The links of /dev, as pairs of name and target.
var devLinks = []string{
	"fd", "/proc/self/fd", "stdin", "/proc/self/fd/0", "stdout", "/proc/self/fd/1",
	"stderr", "/proc/self/fd/2", "ptmx", "pts/ptmx",
}

// devAttrs are the attributes of a /dev, which unlike all other mounts has
// usable devices.
const devAttrs = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC

// MountDev mounts a /dev with what every program may expect at the folder of a
// descriptor. Its folders pts and shm are empty. It needs root.
func MountDev(at int) error {
	tree, err := newDev(0, 0, nodes)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return attach(tree, at)
}

// newDev returns a /dev of nodes, attached nowhere. uid and gid, of the host,
// are the inside's 0. Only root can make device nodes; a container's root may
// not be able to.
func newDev(uid, gid int, list []node) (fd int, err error) {
	fd, err = newMount("tmpfs", devAttrs, "mode", "0755", "size", "64k", "nr_inodes", "1k",
		"uid", strconv.Itoa(uid), "gid", strconv.Itoa(gid))
	if err != nil {
		return -1, err
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	for _, n := range list {
		// The mode is set apart, so that the umask does not matter.
		if err := unix.Mknodat(fd, n.name, syscall.S_IFCHR|0o600, int(unix.Mkdev(n.major, n.minor))); err != nil {
			return -1, fmt.Errorf("device %s: %w", n.name, err)
		}
		if err := unix.Fchmodat(fd, n.name, n.mode, 0); err != nil {
			return -1, fmt.Errorf("device %s: %w", n.name, err)
		}
		if err := unix.Fchownat(fd, n.name, n.uid, n.gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return -1, fmt.Errorf("device %s: %w", n.name, err)
		}
	}
	if err := fillDev(fd, uid, gid); err != nil {
		return -1, err
	}
	return fd, setTree(fd, unix.MOUNT_ATTR_RDONLY, -1)
}

// fillDev makes what a /dev has besides devices.
func fillDev(fd, uid, gid int) error {
	for _, dir := range []string{"pts", "shm"} {
		if err := unix.Mkdirat(fd, dir, 0o755); err != nil {
			return fmt.Errorf("/dev/%s: %w", dir, err)
		}
	}
	for i := 0; i < len(devLinks); i += 2 {
		if err := unix.Symlinkat(devLinks[i+1], fd, devLinks[i]); err != nil {
			return fmt.Errorf("/dev/%s: %w", devLinks[i], err)
		}
		if err := unix.Fchownat(fd, devLinks[i], uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("/dev/%s: %w", devLinks[i], err)
		}
	}
	return nil
}
