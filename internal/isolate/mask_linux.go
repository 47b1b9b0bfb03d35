package isolate

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// hide covers the masked paths and makes the read-only ones so.
func (v *view) hide() error {
	for _, name := range v.setup.masked {
		if err := v.mask(name); err != nil {
			return fmt.Errorf("mask %q: %w", name, err)
		}
	}
	for _, name := range v.setup.readOnly {
		if err := v.protect(name); err != nil {
			return fmt.Errorf("make %q read-only: %w", name, err)
		}
	}
	return nil
}

// mask covers a folder with an empty one and a file with /dev/null.
func (v *view) mask(name string) error {
	at, folder, err := v.existing(name)
	if err != nil || at < 0 {
		return err
	}
	defer unix.Close(at)
	if folder {
		tree, err := newMount("tmpfs", mountAttrs|unix.MOUNT_ATTR_NOEXEC|unix.MOUNT_ATTR_RDONLY, "mode", "0555", "size", "4k", "nr_inodes", "2")
		if err != nil {
			return err
		}
		defer unix.Close(tree)
		return attach(tree, at)
	}
	if inaccessible(at, unix.R_OK) {
		return nil
	}
	null, err := v.null()
	if err != nil {
		return err
	}
	defer unix.Close(null)
	tree, err := cloneTree(null, mountAttrs&^unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC, -1)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return attach(tree, at)
}

// inaccessible reports whether init, all powerful in here, has no access to a
// file of the kernel's. Then no program has, and it needs no mount, each of
// which takes time when the sandbox is made and again when it ends.
func inaccessible(fd int, mode uint32) bool {
	return unix.Faccessat2(fd, "", mode, unix.AT_EMPTY_PATH|unix.AT_EACCESS) == unix.EACCES
}

// null opens /dev/null, which must be what it says (CVE-2025-31133).
func (v *view) null() (int, error) {
	fd, err := v.strict("/dev/null", false)
	if err != nil {
		return -1, err
	}
	var stat unix.Stat_t
	err = unix.Fstat(fd, &stat)
	if err == nil && (stat.Mode&unix.S_IFMT != unix.S_IFCHR || stat.Rdev != unix.Mkdev(1, 3)) {
		err = errors.New("/dev/null is something else")
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// protect mounts a file or folder over itself, read-only.
func (v *view) protect(name string) error {
	at, folder, err := v.existing(name)
	if err != nil || at < 0 {
		return err
	}
	defer unix.Close(at)
	if !folder && inaccessible(at, unix.W_OK) {
		return nil
	}
	tree, err := cloneTree(at, mountAttrs|unix.MOUNT_ATTR_NOEXEC|unix.MOUNT_ATTR_RDONLY, -1)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return attach(tree, at)
}

// seal makes the root read-only, if it is to be.
func (v *view) seal() error {
	if !v.setup.rootReadOnly {
		return nil
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(v.root, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return fmt.Errorf("make the root read-only: %w", err)
	}
	return nil
}
