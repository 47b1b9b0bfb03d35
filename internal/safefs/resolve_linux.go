package safefs

import (
	"errors"

	"golang.org/x/sys/unix"
)

// oPath opens a file as a place only, without any right to its contents.
const oPath = unix.O_PATH

// maxRaces is how often a lookup is tried again that lost a race against
// renames or mounts somewhere on the system.
const maxRaces = 128

// canResolve reports whether openat2 works here.
func canResolve(dir int) bool {
	fd, err := openStrict(dir, ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0, false)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

func openStrict(dir int, name string, flags int, perm uint32, crossMounts bool) (int, error) {
	return openat2(dir, name, &unix.OpenHow{
		Flags:   uint64(flags),
		Mode:    uint64(perm),
		Resolve: resolveFlags(unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS, crossMounts),
	})
}

func openInRoot(root int, name string, flags int, crossMounts bool) (int, error) {
	return openat2(root, name, &unix.OpenHow{
		Flags:   uint64(flags),
		Resolve: resolveFlags(unix.RESOLVE_IN_ROOT, crossMounts),
	})
}

func resolveFlags(flags uint64, crossMounts bool) uint64 {
	flags |= unix.RESOLVE_NO_MAGICLINKS
	if !crossMounts {
		flags |= unix.RESOLVE_NO_XDEV
	}
	return flags
}

func openat2(dir int, name string, how *unix.OpenHow) (fd int, err error) {
	for range maxRaces {
		fd, err = ignoringEINTR(func() (int, error) { return unix.Openat2(dir, name, how) })
		if !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	return fd, err
}

// place opens what name leads to, whatever it is, as a place only.
func (r *Root) place(name string) (int, error) { return r.follow(name, unix.O_PATH) }
