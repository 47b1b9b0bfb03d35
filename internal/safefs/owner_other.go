//go:build unix && !linux

package safefs

import "golang.org/x/sys/unix"

func chownPlace(_ *Root, dir int, name string, owner Owner, mine func(uid, gid int) bool) error {
	info, err := statAt(dir, name)
	if err == nil {
		err = mayGive(&info, owner, mine)
	}
	if err == nil {
		err = unix.Fchownat(dir, name, owner.UID, owner.GID, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err == nil && hasSetID(info.Mode) {
		err = unix.Fchmodat(dir, name, uint32(info.Mode.Perm()), unix.AT_SYMLINK_NOFOLLOW)
	}
	return err
}

func chmodAt(_ *Root, dir int, name string, mode uint32) error {
	return unix.Fchmodat(dir, name, mode, unix.AT_SYMLINK_NOFOLLOW)
}

func makeEnterable(r *Root, dir int, name string) error {
	return chmodAt(r, dir, name, 0o700)
}

func clearFlags(int) {}
