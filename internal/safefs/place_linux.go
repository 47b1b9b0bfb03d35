package safefs

import (
	"bytes"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func mkfifoAt(dir int, name string) error { return unix.Mkfifoat(dir, name, 0o600) }

// maxXattrs is how many bytes of names of extended attributes are looked at.
const maxXattrs = 64 << 10

// SetXattr sets an extended attribute of a regular file or folder. Errors:
// ErrType for anything else.
func (r *Root) SetXattr(name, attr string, value []byte) error {
	return r.withXattrs("setxattr", name, func(path string) error { return unix.Setxattr(path, attr, value, 0) })
}

// Xattrs returns the extended attributes of a regular file or folder whose
// names begin with prefix.
func (r *Root) Xattrs(name, prefix string) (map[string][]byte, error) {
	var attrs map[string][]byte
	err := r.withXattrs("listxattr", name, func(path string) error {
		names := make([]byte, maxXattrs)
		n, err := unix.Listxattr(path, names)
		if err != nil || n == 0 {
			return err
		}
		for attr := range bytes.SplitSeq(bytes.TrimRight(names[:n], "\x00"), []byte{0}) {
			if !strings.HasPrefix(string(attr), prefix) {
				continue
			}
			value := make([]byte, maxXattrs)
			size, err := unix.Getxattr(path, string(attr), value)
			if err != nil {
				return err
			}
			if attrs == nil {
				attrs = map[string][]byte{}
			}
			attrs[string(attr)] = value[:size]
		}
		return nil
	})
	return attrs, err
}

// withXattrs calls f with a path that stands for the very file that was looked
// at. The system has no such calls for descriptors of places.
func (r *Root) withXattrs(op, name string, f func(path string) error) error {
	place, err := r.openParentOrRoot(op, name)
	if err != nil {
		return err
	}
	defer unix.Close(place.fd)
	fd, err := r.resolve(place.fd, place.base, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return pathErr(op, name, err)
	}
	defer unix.Close(fd)
	info, err := statFD(fd, name)
	if err == nil && !info.Mode.IsRegular() && !isDir(info.Mode) {
		err = ErrType
	}
	if err == nil {
		err = f("/proc/self/fd/" + strconv.Itoa(fd))
	}
	return pathErr(op, name, err)
}
