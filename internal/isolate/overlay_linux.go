package isolate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
)

// The folders of Spec.Changes.
const (
	upperName = "upper"
	workName  = OverlayWork
)

// gatherChanges takes the folder that an overlay's changes go to.
func (p *preparation) gatherChanges() error {
	fd, stat, err := openSource(p.spec.Changes)
	if err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		unix.Close(fd)
		return invalid(p.spec.Changes, "not a folder")
	}
	if err := p.fillChanges(fd); err != nil {
		unix.Close(fd)
		return fmt.Errorf("%q: %w", p.spec.Changes, err)
	}
	if fd, err = p.take(fd, mountAttrs, -1); err != nil {
		return fmt.Errorf("%q: %w", p.spec.Changes, err)
	}
	p.setup.changes = p.add(fd)
	return nil
}

// fillChanges makes the folders of the overlay, which belong to the inside's 0
// where there is one. The root's own folder gets the lower one's mode and
// owner: it is that of the upper one that counts.
func (p *preparation) fillChanges(fd int) error {
	var root unix.Stat_t
	if err := unix.Stat(p.spec.RootFS, &root); err != nil {
		return err
	}
	for _, name := range []string{upperName, workName} {
		if err := unix.Mkdirat(fd, name, 0o700); err != nil && err != unix.EEXIST {
			return fmt.Errorf("make %s: %w", name, err)
		}
	}
	if err := unix.Fchmodat(fd, upperName, root.Mode&0o777, 0); err != nil {
		return fmt.Errorf("%s: %w", upperName, err)
	}
	if !p.root {
		return nil
	}
	uid, gid := hostID(p.spec.UIDs, 0), hostID(p.spec.GIDs, 0)
	for _, name := range []string{upperName, workName, ""} {
		if err := unix.Fchownat(fd, name, uid, gid, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("owner of %s: %w", name, err)
		}
	}
	return nil
}

// newOverlay returns an overlay of two trees, attached nowhere. Its layers must
// be attached somewhere while it is made: for that long they are in a tmpfs
// where /proc is, in this mount namespace only.
func newOverlay(lower, changes int) (fd int, err error) {
	const at = "/proc"
	tmp, err := newMount("tmpfs", mountAttrs, "mode", "0700", "size", "4k", "nr_inodes", "4")
	if err != nil {
		return -1, err
	}
	defer unix.Close(tmp)
	if err := unix.MoveMount(tmp, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return -1, fmt.Errorf("overlay: %w", err)
	}
	defer func() {
		if undo := unix.Unmount(at, unix.MNT_DETACH); undo != nil && err == nil {
			unix.Close(fd)
			fd, err = -1, fmt.Errorf("overlay: unmount its layers: %w", undo)
		}
	}()
	for name, tree := range map[string]int{"l": lower, "c": changes} {
		if err := unix.Mkdirat(tmp, name, 0o700); err != nil {
			return -1, fmt.Errorf("overlay: %w", err)
		}
		if err := unix.MoveMount(tree, "", tmp, name, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return -1, fmt.Errorf("overlay: attach a layer: %w", err)
		}
	}
	// Attributes of user.* are what a user namespace can write. Nothing survives
	// the sandbox, so nothing needs to reach the disk.
	fd, err = newMount("overlay", mountAttrs,
		"lowerdir", at+"/l", "upperdir", at+"/c/"+upperName, "workdir", at+"/c/"+workName,
		"userxattr", "", "volatile", "")
	if err != nil {
		return -1, fmt.Errorf("%w: %w", ErrNoOverlay, err)
	}
	return fd, nil
}

// setSysctls writes the sandbox's own settings of the kernel.
func (v *view) setSysctls() error {
	if v.setup.loopback {
		// No port of its own network is worth protecting from a program that is
		// not root. A kernel without the setting has nothing to protect it with.
		_ = v.setSysctl("net.ipv4.ip_unprivileged_port_start", "0")
	}
	for name, value := range v.setup.sysctls {
		if err := v.setSysctl(name, value); err != nil {
			return sysctlError(name, err)
		}
	}
	return nil
}

// setSysctl writes one.
func (v *view) setSysctl(name, value string) error {
	fd, err := unix.Openat2(v.proc, "sys/"+strings.ReplaceAll(name, ".", "/"), &unix.OpenHow{
		Flags:   unix.O_WRONLY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	_, err = file.WriteString(value)
	return err
}

// sysctlError says whose mistake it is that a setting can't be made.
func sysctlError(name string, err error) error {
	kind := caisson.ErrInvalid
	if errors.Is(err, fs.ErrPermission) {
		kind = caisson.ErrUnsupported
	}
	return &caisson.Error{Item: "sysctl " + name, Kind: kind, Err: err}
}
