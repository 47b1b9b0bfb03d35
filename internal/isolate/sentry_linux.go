package isolate

import (
	"bytes"
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
		pumpKeys(socket, master, func(sig unix.Signal) { p.interrupt(f.id, master, sig) })
		// Here, too, gVisor's kernel tells nobody.
		p.interrupt(f.id, master, unix.SIGHUP)
		p.interrupt(f.id, master, unix.SIGCONT)
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
		n := readSome(from, buf)
		if n == 0 || !writeAll(to, buf[:n]) {
			return
		}
	}
}

// pumpKeys is pump for what is typed. gVisor's terminals know no keys that send
// signals, so they are looked for here, as the program has set them.
func pumpKeys(from, master int, signal func(unix.Signal)) {
	buf := make([]byte, 4096)
	for {
		n := readSome(from, buf)
		if n == 0 {
			return
		}
		rest := buf[:n]
		keys := signalKeys(master)
		for {
			at := bytes.IndexFunc(rest, func(r rune) bool { return r < 128 && keys[byte(r)] != 0 })
			if at < 0 {
				break
			}
			if !writeAll(master, rest[:at]) {
				return
			}
			signal(keys[rest[at]])
			rest = rest[at+1:]
		}
		if !writeAll(master, rest) {
			return
		}
	}
}

// signalKeys are the keys that send signals at a terminal.
func signalKeys(master int) map[byte]unix.Signal {
	t, err := unix.IoctlGetTermios(master, unix.TCGETS)
	if err != nil || t.Lflag&unix.ISIG == 0 {
		return nil
	}
	keys := map[byte]unix.Signal{
		t.Cc[unix.VINTR]: unix.SIGINT, t.Cc[unix.VQUIT]: unix.SIGQUIT, t.Cc[unix.VSUSP]: unix.SIGTSTP,
	}
	delete(keys, 0) // the key is switched off
	return keys
}

// readSome reads what there is; 0 says that there will be no more.
func readSome(fd int, buf []byte) int {
	for {
		n, err := unix.Read(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0
		}
		return max(n, 0)
	}
}

func writeAll(fd int, data []byte) bool {
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return false
		}
		data = data[n:]
	}
	return true
}

// interrupt sends a signal to the foreground of a program's terminal. Where that
// can't be had, it is the program's own group.
func (p *pid1) interrupt(id uint64, master int, sig unix.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pid, request := range p.procs {
		if request != id {
			continue
		}
		group, err := unix.IoctlGetInt(master, unix.TIOCGPGRP)
		if err != nil || group <= 1 {
			group = pid
		}
		_ = unix.Kill(-group, sig)
	}
}

// resize gives a program's terminal another size.
func (p *pid1) resize(f *frame) error {
	d := decoder{f.body}
	id := uint64(d.int())
	size := unix.Winsize{Col: uint16(d.int()), Row: uint16(d.int())}
	p.mu.Lock()
	master, ok := p.screens[id]
	p.mu.Unlock()
	if !ok {
		return os.ErrProcessDone
	}
	if err := unix.IoctlSetWinsize(master, unix.TIOCSWINSZ, &size); err != nil {
		return err
	}
	p.interrupt(id, master, unix.SIGWINCH) // gVisor's kernel tells nobody
	return nil
}
