//go:build unix && !linux

package server

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson/internal/isolate"
)

// newPipe makes a pipe whose ends block and are not inherited.
func newPipe() (r, w int, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	var fds [2]int
	if err := unix.Pipe(fds[:]); err != nil {
		return 0, 0, os.NewSyscallError("pipe", err)
	}
	unix.CloseOnExec(fds[0])
	unix.CloseOnExec(fds[1])
	return fds[0], fds[1], nil
}

// redirect makes the descriptor to be the same file as from.
func redirect(from, to int) { unix.Dup2(from, to) }

// openRoot opens the host's root folder.
func openRoot() (*os.File, error) { return os.Open("/") }

func stopAdopting() {}

// setName does nothing: lists of processes show the arguments.
func setName(string) {}

func closeInherited() {}
func protectMemory()  {}

func reserve(file *os.File, size int64) error { return nil }

// An oomGuard does nothing here.
type oomGuard struct{}

func protect() oomGuard { return oomGuard{} }

func (oomGuard) lowered(f func() error) error { return f() }

// A leader is the first process of a group.
type leader struct{ proc *isolate.Proc }

func newLeader(proc *isolate.Proc) leader { return leader{proc} }

func (l *leader) close() {}

// kill kills the program and, while it lives, its group.
func (l *leader) kill() {
	select {
	case <-l.proc.Done():
		return
	default:
	}
	if l.proc.PID > 0 {
		unix.Kill(-l.proc.PID, unix.SIGKILL)
	}
	l.proc.Signal(int(unix.SIGKILL))
}
