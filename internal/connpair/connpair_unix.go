//go:build unix

// Package connpair makes connections that nothing listens for: an end for this
// process, and one to be handed to another.
package connpair

import (
	"errors"
	"net"
	"os"
	"syscall"
)

// New makes a stream. No file is left of it.
func New() (ours net.Conn, theirs *os.File, err error) {
	// Some systems can't make descriptors that are closed on exec at once.
	syscall.ForkLock.RLock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "theirs")
	f := os.NewFile(uintptr(fds[0]), "ours")
	ours, err = net.FileConn(f)
	if err := errors.Join(err, f.Close()); err != nil {
		if ours != nil {
			ours.Close()
		}
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}
