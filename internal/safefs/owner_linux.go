package safefs

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// The flags of ioctl_iflags(2) that stand in the way of a removal.
const (
	appendFlag    = 0x20
	immutableFlag = 0x10
)

// chownPlace gives the element name of dir to owner. It decides about the very
// file that it then changes.
func chownPlace(r *Root, dir int, name string, owner Owner, mine func(uid, gid int) bool) error {
	fd, err := r.resolve(dir, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	info, err := statFD(fd, name)
	if err == nil {
		err = mayGive(&info, owner, mine)
	}
	if err == nil {
		err = unix.Fchownat(fd, "", owner.UID, owner.GID, unix.AT_EMPTY_PATH)
	}
	if err == nil && hasSetID(info.Mode) {
		err = chmodPlace(fd, uint32(info.Mode.Perm()))
	}
	return err
}

// chmodAt changes the mode of the element name of dir, unless it is a link.
func chmodAt(r *Root, dir int, name string, mode uint32) error {
	fd, err := r.resolve(dir, name, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return chmodPlace(fd, mode)
}

// chmodPlace changes the mode of what an O_PATH descriptor stands for, which
// must not be a link. Kernels before 6.6 can do it by way of /proc only.
func chmodPlace(fd int, mode uint32) error {
	if err := unix.Fchmodat(fd, "", mode, unix.AT_EMPTY_PATH); err == nil {
		return nil
	}
	return unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), mode)
}

// makeEnterable lets the owner of a folder into it.
func makeEnterable(r *Root, dir int, name string) error {
	return chmodAt(r, dir, name, 0o700)
}

// clearFlags takes the flags from an open file that keep even root from
// removing it.
func clearFlags(fd int) {
	const flags = immutableFlag | appendFlag
	have, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err == nil && have&flags != 0 {
		unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(have&^flags))
	}
}
