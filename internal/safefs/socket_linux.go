package safefs

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Socket opens a unix socket's file, for SocketPath: whatever takes its name
// afterwards, that leads to the very socket. Errors: ErrLink; ErrNoSocket.
func (r *Root) Socket(name string) (*os.File, error) {
	place, err := r.openParentOrRoot("open", name)
	if err != nil {
		return nil, err
	}
	defer unix.Close(place.fd)
	fd, err := r.resolve(place.fd, place.base, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, pathErr("open", name, err)
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil {
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFSOCK:
			return os.NewFile(uintptr(fd), name), nil
		case unix.S_IFLNK:
			err = ErrLink
		default:
			err = ErrNoSocket
		}
	}
	unix.Close(fd)
	return nil, pathErr("open", name, err)
}

// SocketPath is where a socket that is open can be connected to.
func SocketPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }
