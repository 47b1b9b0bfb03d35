package isolate

import (
	"errors"
	"io"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
)

// A gvisor is a contained whose programs run on a kernel of the runtime's own.
// What goes into the sandbox are descriptors; what comes out are words only. The
// runtime's processes, outside of which nothing of the sandbox runs, are on the
// stage, and in the control group as a whole.
type gvisor struct{ *contained }

// spawnWith takes nothing more: what programs have is not the host's.
func (b *gvisor) spawnWith(p *Program, stdio [3]*os.File, more []*os.File) (*Proc, error) {
	if len(more) > 0 {
		return nil, &caisson.Error{Item: "program", Kind: caisson.ErrUnsupported, Err: errors.New("gVisor passes on three descriptors")}
	}
	return b.spawn(p, stdio)
}

// pid implements backend: the sandbox's init has no number on the host.
func (b *gvisor) pid() int { return 0 }

// stats implements backend.
func (b *gvisor) stats() (Stats, error) {
	if b.group != nil {
		return groupStats(b.group)
	}
	return ungrouped(-1), nil
}

// spawn implements backend.
func (b *gvisor) spawn(p *Program, stdio [3]*os.File) (*Proc, error) {
	if p.Terminal {
		return b.spawnTerminal(p)
	}
	null, err := devNull()
	if err != nil {
		return nil, err
	}
	defer null.Close()
	fds, err := numbers(stdio, null)
	if err != nil {
		return nil, err
	}
	proc, _, err := b.begin(p, fds)
	runtime.KeepAlive(stdio)
	return proc, err
}

// begin has init start a program, which is then signalled through init. It
// returns the number of the request, by which init knows it.
func (b *gvisor) begin(p *Program, fds []int) (*Proc, uint64, error) {
	proc := newProc()
	answer, err := b.askFor(frameSpawn, p.encode(), fds, proc)
	if err != nil {
		return nil, 0, spawnError(p, err)
	}
	proc.control(func(signal int) error {
		var e encoder
		e.int(int64(answer.id))
		e.int(int64(signal))
		return b.tell(frameSignal, e.buf)
	}, func() {})
	return proc, answer.id, nil
}

// tell sends a request whose answer nobody waits for.
func (b *sandbox) tell(kind byte, body []byte) error {
	b.mu.Lock()
	if b.answers == nil {
		b.mu.Unlock()
		return errGone
	}
	b.lastID++
	id := b.lastID
	b.mu.Unlock()
	b.sending.Lock()
	defer b.sending.Unlock()
	return send(b.conn, &frame{kind: kind, id: id, body: body})
}

// resizeTime is how often the size of a terminal is looked at: the kernel tells
// nobody but who sits at it.
const resizeTime = 200 * time.Millisecond

// spawnTerminal starts a program at a terminal of its own kernel. A terminal of
// the host's, that passes everything on, stands for it outside.
func (b *gvisor) spawnTerminal(p *Program) (*Proc, error) {
	master, slave, err := OpenTerminal(p)
	if err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		master.Close()
		slave.Close()
		return nil, err
	}
	proc, id, err := b.begin(p, []int{pair[1]})
	unix.Close(pair[1])
	if err != nil {
		master.Close()
		slave.Close()
		unix.Close(pair[0])
		return nil, err
	}
	proc.Terminal = master
	b.carry(id, slave, terminalFile(pair[0]))
	return proc, nil
}

// carry passes on what goes between a terminal and the socket to the inside,
// until one of them is closed.
func (b *gvisor) carry(id uint64, slave, socket *os.File) {
	// Before anybody can have given it another one.
	size, sizeErr := sizeOf(slave)
	done := make(chan struct{})
	go func() {
		_, _ = io.Copy(struct{ io.Writer }{slave}, struct{ io.Reader }{socket})
		close(done)
		// Who reads the master learns the end by this.
		slave.Close()
		socket.Close()
	}()
	go func() {
		_, _ = io.Copy(struct{ io.Writer }{socket}, struct{ io.Reader }{slave})
		// The master was closed: the terminal inside hangs up.
		socket.Close()
	}()
	if sizeErr == nil {
		go b.watchSize(id, slave, size, done)
	}
}

// watchSize tells init when the terminal has got another size than last.
func (b *gvisor) watchSize(id uint64, slave *os.File, last *unix.Winsize, done chan struct{}) {
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
		var e encoder
		e.int(int64(id))
		e.int(int64(size.Col))
		e.int(int64(size.Row))
		if b.tell(frameResize, e.buf) != nil {
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

// rawMode has a terminal change nothing of what passes through it.
func rawMode(fd int) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag &^= unix.CSIZE | unix.PARENB
	t.Cflag |= unix.CS8
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return unix.IoctlSetTermios(fd, unix.TCSETS, t)
}
