package qemu

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// resizeTime is how often the size of a terminal is looked at: the kernel tells
// nobody but who sits at it.
const resizeTime = 200 * time.Millisecond

// carryTerminal passes on what goes between the program's terminal, in the guest,
// and the one of this host's that stands for it. That changes nothing itself.
func (p *program) carryTerminal(slave *os.File) {
	// Before anybody can have given it another one.
	size, sizeErr := sizeOf(slave)
	s := newStream(p.gp.Stdout, slave, p.begin[0])
	p.out = append(p.out, s)
	go s.copy()
	go func() {
		_, err := io.Copy(p.gp.Stdin, struct{ io.Reader }{slave})
		// Unless it was closed here, its other side was: the terminal hangs up.
		if !errors.Is(err, os.ErrClosed) {
			_ = p.signal(int(syscall.SIGHUP))
		}
		p.gp.Stdin.Close()
	}()
	if sizeErr == nil {
		go p.watchSize(slave, size, s.done)
	}
}

// watchSize tells the guest when the terminal has got another size than last.
func (p *program) watchSize(slave *os.File, last *unix.Winsize, done <-chan struct{}) {
	tick := time.NewTicker(resizeTime)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		size, err := sizeOf(slave)
		if err != nil {
			return
		}
		if size.Col == last.Col && size.Row == last.Row {
			continue
		}
		ctx, cancel := within(p.box.callTime)
		err = p.gp.Resize(ctx, size.Col, size.Row)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			// The machine may be paused.
			continue
		}
		if err != nil {
			return
		}
		last = size
	}
}

// sizeOf returns the size of a terminal.
func sizeOf(terminal *os.File) (size *unix.Winsize, err error) {
	raw, err := terminal.SyscallConn()
	if err != nil {
		return nil, err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { size, inner = unix.IoctlGetWinsize(int(fd), unix.TIOCGWINSZ) })
	return size, errors.Join(err, inner)
}
