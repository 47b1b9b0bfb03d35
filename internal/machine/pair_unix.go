//go:build unix

package machine

import (
	"errors"
	"net"
	"os"
	"syscall"
)

// Pair makes a connection: one end for this process, and one that a QEMU is
// given as a descriptor. Nothing listens, and no file is left.
func Pair() (ours net.Conn, theirs *os.File, err error) {
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
	theirs = os.NewFile(uintptr(fds[1]), "qemu")
	f := os.NewFile(uintptr(fds[0]), "caisson")
	ours, err = net.FileConn(f)
	if err := errors.Join(err, f.Close()); err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}
