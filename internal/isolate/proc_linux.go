package isolate

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// startBackend implements Start.
func startBackend(spec *Spec) (backend, error) {
	switch {
	case spec.None:
		if err := checkSockets(spec); err != nil {
			return nil, err
		}
		return startPlain(spec)
	case spec.Runtime != nil:
		return startContained(spec)
	}
	return startSandbox(spec)
}

// own gives the program its pidfd, by which it is signalled: that can't reach
// a process which got the same pid later.
func (p *Proc) own(pidfd int) {
	send := func(signal int) error {
		switch err := unix.PidfdSendSignal(pidfd, unix.Signal(signal), nil, 0); err {
		case unix.ESRCH:
			return os.ErrProcessDone
		case nil:
			return nil
		default:
			return os.NewSyscallError("pidfd_send_signal", err)
		}
	}
	p.control(send, func() { unix.Close(pidfd) })
}

// devNull opens /dev/null.
func devNull() (*os.File, error) { return os.OpenFile(os.DevNull, os.O_RDWR, 0) }

// numbers returns the descriptors of open files, or null's for those that are
// nil. It puts the files in blocking mode, which programs expect of what they
// inherit.
func numbers(files [3]*os.File, null *os.File) ([]int, error) {
	fds := make([]int, len(files))
	for i, f := range files {
		if f == nil {
			f = null
		}
		fds[i] = int(f.Fd())
		if fds[i] < 0 {
			return nil, os.ErrClosed
		}
	}
	return fds, nil
}

// spawnError turns what went wrong in the child, here or in init, into what
// the caller of Spawn sees.
func spawnError(p *Program, err error) error {
	var s *stepError
	if errors.As(err, &s) {
		return execError(p, s.step, s.errno)
	}
	return err
}
