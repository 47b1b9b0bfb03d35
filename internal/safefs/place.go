//go:build unix

package safefs

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// SubIn opens the folder that name leads to as a Root of its own. Links are
// followed as if this Root were the root of the file system: absolute ones too
// lead below it only. It is for trees that are a root file system.
//
// Errors: ErrLink if there are too many links.
func (r *Root) SubIn(name string) (*Root, error) {
	if err := check("open", name); err != nil {
		return nil, err
	}
	fd, err := r.follow(name, oPath|unix.O_DIRECTORY)
	if err != nil {
		return nil, pathErr("open", name, err)
	}
	return FromFile(os.NewFile(uintptr(fd), r.Name()+"/"+name), &r.opts)
}

// Mkfifo makes a FIFO. Errors: EEXIST if anything has the name.
func (r *Root) Mkfifo(name string, perm fs.FileMode, owner *Owner) error {
	dir, base, err := r.openParent("mkfifo", name)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := mkfifoAt(dir, base); err != nil {
		return pathErr("mkfifo", name, err)
	}
	if owner != nil {
		err = unix.Fchownat(dir, base, owner.UID, owner.GID, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err == nil {
		err = chmodAt(r, dir, base, uint32(perm.Perm()))
	}
	if err != nil {
		return errors.Join(pathErr("mkfifo", name, err), unix.Unlinkat(dir, base, 0))
	}
	return nil
}

// SetOwner gives name itself, also a link, to owner. It is for trees that nobody
// else can change meanwhile; ChownAll is for others.
func (r *Root) SetOwner(name string, owner Owner) error {
	dir, err := r.openParentOrRoot("chown", name)
	if err != nil {
		return err
	}
	defer unix.Close(dir.fd)
	return pathErr("chown", name, unix.Fchownat(dir.fd, dir.base, owner.UID, owner.GID, unix.AT_SYMLINK_NOFOLLOW))
}

// SetMode is Chmod that gives the sticky and the set-id bits that mode has.
func (r *Root) SetMode(name string, mode fs.FileMode) error {
	dir, err := r.openParentOrRoot("chmod", name)
	if err != nil {
		return err
	}
	defer unix.Close(dir.fd)
	return pathErr("chmod", name, chmodAt(r, dir.fd, dir.base, SysMode(mode)))
}

// SysMode returns the system's form of permission bits with the sticky and
// the set-id bits.
func SysMode(mode fs.FileMode) uint32 {
	sys := uint32(mode.Perm())
	for _, bit := range []struct {
		mode fs.FileMode
		sys  uint32
	}{{fs.ModeSetuid, unix.S_ISUID}, {fs.ModeSetgid, unix.S_ISGID}, {fs.ModeSticky, unix.S_ISVTX}} {
		if mode&bit.mode != 0 {
			sys |= bit.sys
		}
	}
	return sys
}
