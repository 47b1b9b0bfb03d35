//go:build unix

package wire

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Listener accepts connections of the own user and of root.
type Listener struct {
	file *os.File
	raw  syscall.RawConn
	path string
}

// Listen makes a socket at path, mode 0600, in place of what a keeper that was
// killed left there.
func Listen(path string) (*Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	fd, err := newSocket()
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	err = withAddress(path, func(addr unix.Sockaddr) error { return unix.Bind(fd, addr) })
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err == nil {
		err = os.NewSyscallError("listen", unix.Listen(fd, 64))
	}
	file := os.NewFile(uintptr(fd), path)
	if err != nil {
		file.Close()
		return nil, err
	}
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	return &Listener{file: file, raw: raw, path: path}, nil
}

// Accept waits for a connection. Those of other users are closed at once.
func (l *Listener) Accept() (*Conn, error) {
	for {
		var fd int
		var acceptErr error
		err := l.raw.Read(func(lfd uintptr) bool {
			fd, acceptErr = accept(int(lfd))
			return acceptErr != unix.EAGAIN
		})
		if err != nil {
			return nil, err
		}
		switch acceptErr {
		case nil:
		case unix.EINTR, unix.ECONNABORTED:
			continue
		default:
			return nil, os.NewSyscallError("accept", acceptErr)
		}
		if uid, err := peer(fd); err != nil || uid != 0 && uid != os.Geteuid() {
			unix.Close(fd)
			continue
		}
		return newConn(fd)
	}
}

// Close stops listening and removes the socket.
func (l *Listener) Close() error {
	return errors.Join(os.Remove(l.path), l.file.Close())
}

// Dial connects to the socket at path.
func Dial(ctx context.Context, path string) (*Conn, error) {
	fd, err := newSocket()
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := connect(ctx, fd, path); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return newConn(fd)
}

// connect waits while the listener's queue is full.
func connect(ctx context.Context, fd int, path string) error {
	for {
		err := withAddress(path, func(addr unix.Sockaddr) error { return unix.Connect(fd, addr) })
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("connect", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// maxPath is how long a path in the address of a socket may be.
const maxPath = 100

// withAddress calls f with an address for path. One that is too long is
// reached by way of its folder's descriptor.
func withAddress(path string, f func(unix.Sockaddr) error) error {
	if len(path) <= maxPath {
		return f(&unix.SockaddrUnix{Name: path})
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	short := "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + filepath.Base(path)
	if len(short) > maxPath {
		return unix.ENAMETOOLONG
	}
	return f(&unix.SockaddrUnix{Name: short})
}
