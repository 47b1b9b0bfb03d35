package gateway

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// newSocket makes a socket that no path leads to by the time it returns: it is
// connected to by a descriptor of it. So nothing is left when this process is
// killed, and nobody else finds it.
func newSocket() (_ *ownSocket, err error) {
	dir, err := os.MkdirTemp("", "caisson-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// A socket's path has 107 bytes at most, and a folder's may have more.
	folder, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(folder)
	listener, err := listenAt(filepath.Join(descriptor(folder), "s"))
	if err != nil {
		return nil, err
	}
	fd, err := unix.Openat(folder, "s", unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return &ownSocket{listener: listener, address: descriptor(fd), close: func() error { return unix.Close(fd) }}, nil
}

func descriptor(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// ownGroup puts a process into a group of its own, to be killed with all that it
// starts, and has it die with this one.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// keepDescriptors has descriptors stay here that whoever started this process
// has left open. Kernels before 5.11 can't do it at once, and pass those on.
func keepDescriptors() { _ = unix.CloseRange(3, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC) }
