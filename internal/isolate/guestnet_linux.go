package isolate

import (
	"errors"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Network returns the guest's network namespace. Entering it needs rights over
// it, which root of the host has.
//
// Errors: ErrAborted if the guest is gone.
func (g *Guest) Network() (*os.File, error) {
	answer, err := g.held.ask(frameNetwork, nil, nil)
	if err != nil {
		return nil, err
	}
	if len(answer.fds) != 1 {
		closeAll(answer.fds)
		return nil, errors.New("caisson: bug: the guest did not hand over its network")
	}
	return os.NewFile(uintptr(answer.fds[0]), "network"), nil
}

// PID returns the process id here of the guest's pid 1, or 0 where this process
// can't see it.
func (g *Guest) PID() int {
	pid := 0
	_ = g.held.conn.write(func(fd int) error {
		// Pid 1 listens: the socket's other side is as it was then.
		if cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(max(cred.Pid, 0))
		}
		return nil
	})
	return pid
}

// Hold has the guest keep files open as long as it lives, behind those that it
// keeps already. They stay the caller's.
func (g *Guest) Hold(files []*os.File) error {
	for part := range slices.Chunk(files, maxFDs) {
		fds := make([]int, len(part))
		for i, f := range part {
			fds[i] = int(f.Fd())
		}
		if _, err := g.held.ask(frameHold, nil, fds); err != nil {
			return err
		}
	}
	return nil
}

// Holding returns duplicates of all that Hold was called with, by this process
// or an earlier one, in that order.
func (g *Guest) Holding() (_ []*os.File, err error) {
	var files []*os.File
	defer func() {
		if err != nil {
			closeFiles(files)
		}
	}()
	for {
		var e encoder
		e.int(int64(len(files)))
		answer, err := g.held.ask(frameHolding, e.buf, nil)
		if err != nil {
			return nil, err
		}
		for _, fd := range answer.fds {
			files = append(files, os.NewFile(uintptr(fd), "held"))
		}
		d := decoder{answer.body}
		all := int(d.int())
		if len(files) == all {
			return files, nil
		}
		if len(answer.fds) == 0 {
			return nil, errors.New("caisson: bug: the guest did not hand over what it holds")
		}
	}
}

// A holding is what pid 1 of a guest keeps open for its holder.
type holding struct {
	mu  sync.Mutex
	fds []int
}

// take keeps what came with a request.
func (h *holding) take(f *frame) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fds = append(h.fds, f.fds...)
}

// show hands out duplicates from an index on, as many as one message takes, and
// tells how many there are.
func (h *holding) show(f, answer *frame) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := decoder{f.body}
	from := min(int(d.int()), len(h.fds))
	for _, fd := range h.fds[from:min(from+maxFDs, len(h.fds))] {
		double, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			closeAll(answer.fds)
			answer.fds = nil
			return err
		}
		answer.fds = append(answer.fds, double)
	}
	var e encoder
	e.int(int64(len(h.fds)))
	answer.body = e.buf
	return nil
}

// showNetwork hands out the network namespace of this process.
func showNetwork(answer *frame) error {
	fd, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	answer.fds = []int{fd}
	return nil
}
