//go:build unix

package safefs

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// resolve opens name below the folder dir with no link in it, and with no
// mount point unless the options permit it.
func (r *Root) resolve(dir int, name string, flags int, perm uint32) (int, error) {
	flags |= unix.O_CLOEXEC
	if !r.byElement {
		return openStrict(dir, name, flags, perm, r.opts.CrossMounts)
	}
	return r.resolveByElement(dir, name, flags|unix.O_NOFOLLOW, perm)
}

// follow opens name as if the root folder were the root of the file system:
// links, absolute ones too, lead below it only.
func (r *Root) follow(name string, flags int) (fd int, err error) {
	flags |= unix.O_CLOEXEC
	err = r.use(func(root int) error {
		if r.byElement {
			fd, err = r.followByElement(root, name, flags)
		} else {
			fd, err = openInRoot(root, name, flags, r.opts.CrossMounts)
		}
		return err
	})
	return fd, err
}

// resolveByElement is resolve without the kernel's help: each element is opened
// from the descriptor of the one before.
func (r *Root) resolveByElement(dir int, name string, flags int, perm uint32) (int, error) {
	at := dir
	for {
		element, rest, more := strings.Cut(name, "/")
		open := flags
		if more {
			open = oPath | unix.O_DIRECTORY | unix.O_CLOEXEC | unix.O_NOFOLLOW
		}
		next, err := r.openElement(at, element, open, perm)
		if at != dir {
			unix.Close(at)
		}
		if err != nil || !more {
			return next, err
		}
		at, name = next, rest
	}
}

// openElement opens one element, which must be on the root's device.
func (r *Root) openElement(dir int, element string, flags int, perm uint32) (int, error) {
	fd, err := ignoringEINTR(func() (int, error) { return unix.Openat(dir, element, flags, perm) })
	if err != nil {
		return -1, sayLink(dir, element, err)
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && !r.opts.CrossMounts && uint64(st.Dev) != r.dev {
		err = unix.EXDEV
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// sayLink turns the various errors of opening a link into one.
func sayLink(dir int, element string, err error) error {
	if !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.EMLINK) {
		return err
	}
	var st unix.Stat_t
	if unix.Fstatat(dir, element, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return unix.ELOOP
	}
	return err
}

// How far followByElement goes: as many links as the kernel, and as many
// descriptors as a program can spare.
const (
	maxLinks  = 40
	maxFollow = 255
)

// followByElement is follow without the kernel's help. It keeps the folders on
// its way open, so that ".." leads where it came from, whatever is moved.
func (r *Root) followByElement(root int, name string, flags int) (int, error) {
	way := []int{root}
	defer func() {
		for _, fd := range way[1:] {
			unix.Close(fd)
		}
	}()
	rest, links := name, 0
	for {
		element, after, more := strings.Cut(rest, "/")
		here := way[len(way)-1]
		switch {
		case element == "" || element == ".":
			if !more {
				return r.openElement(here, ".", flags, 0)
			}
			rest = after
			continue
		case element == "..":
			if len(way) > 1 {
				unix.Close(here)
				way = way[:len(way)-1]
			}
			if rest = after; !more {
				rest = "."
			}
			continue
		}
		target, err := readLinkAt(here, element)
		if err == nil {
			if links++; links > maxLinks {
				return -1, unix.ELOOP
			}
			if strings.HasPrefix(target, "/") {
				for _, fd := range way[1:] {
					unix.Close(fd)
				}
				way = way[:1]
			}
			if rest = target; more {
				rest += "/" + after
			}
			continue
		}
		if !more {
			return r.openElement(here, element, flags|unix.O_NOFOLLOW, 0)
		}
		if len(way) > maxFollow {
			return -1, unix.ENAMETOOLONG
		}
		next, err := r.openElement(here, element, oPath|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != nil {
			return -1, err
		}
		way, rest = append(way, next), after
	}
}

// readLinkAt returns the target of a symbolic link. Errors: EINVAL if it is
// none.
func readLinkAt(dir int, name string) (string, error) {
	for size := 256; ; size *= 4 {
		buf := make([]byte, size)
		n, err := ignoringEINTR(func() (int, error) { return unix.Readlinkat(dir, name, buf) })
		if err != nil {
			return "", err
		}
		if n < size {
			return string(buf[:n]), nil
		}
	}
}

// ignoringEINTR calls f until a signal does not interrupt it.
func ignoringEINTR[T any](f func() (T, error)) (T, error) {
	for {
		v, err := f()
		if !errors.Is(err, unix.EINTR) {
			return v, err
		}
	}
}
