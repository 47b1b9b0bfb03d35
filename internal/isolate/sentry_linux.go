package isolate

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// What follows is init's part on a kernel that is not the host's (gVisor's). It
// takes descriptors from outside, and hands out none: so programs are
// signalled through init, and the masters of terminals stay here.

// sentryWord is the argument that init has there.
const sentryWord = "sentry"

// sentryPath is where this program is there: in the root, because nothing can be
// mounted on that kernel's own /dev.
const sentryPath = "/.sandbox-init"

// ownLastCap returns the number of this kernel's last capability, which is not
// that of the host's.
func ownLastCap() int {
	for n := unix.CAP_LAST_CAP; n > 0; n-- {
		if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0); err == nil {
			return n
		}
	}
	return 0
}

// signal sends a signal to a program, for as long as that is not reaped.
func (p *pid1) signal(f *frame) error {
	d := decoder{f.body}
	id, signal := uint64(d.int()), unix.Signal(d.int())
	p.mu.Lock()
	defer p.mu.Unlock()
	for pid, request := range p.procs {
		if request == id {
			return unix.Kill(pid, signal)
		}
	}
	return unix.ESRCH
}

// relay passes on what goes in and out of a program's terminal. The descriptor
// that came with the request is the socket for that.
func (p *pid1) relay(f order, master int) error {
	if master < 0 {
		return nil
	}
	if len(f.fds) != 1 {
		unix.Close(master)
		return errors.New("caisson: bug: a terminal needs one descriptor")
	}
	socket, err := high(f.fds[0])
	if err != nil {
		unix.Close(master)
		return err
	}
	p.mu.Lock()
	if p.screens == nil {
		p.screens = map[uint64]int{}
	}
	p.screens[f.id] = master
	p.mu.Unlock()
	go func() {
		pump(master, socket)
		// Nobody has the terminal any more.
		_ = unix.Shutdown(socket, unix.SHUT_RDWR)
	}()
	go func() {
		pump(socket, master)
		p.mu.Lock()
		delete(p.screens, f.id)
		p.mu.Unlock()
		// The other side hangs up, and so does the terminal.
		_ = unix.Shutdown(socket, unix.SHUT_RDWR)
		unix.Close(master)
		unix.Close(socket)
	}()
	return nil
}

// pump copies from one descriptor to another until one of them fails.
func pump(from, to int) {
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.Read(from, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return
		}
		for rest := buf[:n]; len(rest) > 0; {
			n, err := unix.Write(to, rest)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return
			}
			rest = rest[n:]
		}
	}
}

// resize gives a program's terminal another size.
func (p *pid1) resize(f *frame) error {
	d := decoder{f.body}
	id := uint64(d.int())
	size := unix.Winsize{Col: uint16(d.int()), Row: uint16(d.int())}
	p.mu.Lock()
	defer p.mu.Unlock()
	master, ok := p.screens[id]
	if !ok {
		return os.ErrProcessDone
	}
	if err := unix.IoctlSetWinsize(master, unix.TIOCSWINSZ, &size); err != nil {
		return err
	}
	// gVisor's kernel tells nobody. Its foreground is asked for; where that can't
	// be had, it is the program's own group.
	for pid, request := range p.procs {
		if request != id {
			continue
		}
		group, err := unix.IoctlGetInt(master, unix.TIOCGPGRP)
		if err != nil || group <= 1 {
			group = pid
		}
		_ = unix.Kill(-group, unix.SIGWINCH)
	}
	return nil
}
