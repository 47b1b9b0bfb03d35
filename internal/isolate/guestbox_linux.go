package isolate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
)

// A Guest is a Box of somebody else's making. Close lets go of it and ends
// nothing: that is up to who has made it.
type Guest struct {
	*Box
	held *guest
}

// A guest is a sandbox without what its maker owns: pid 1 is no child, and the
// control group is not known here.
type guest struct {
	*sandbox
	main  *Proc // nil if none was started before
	began time.Time
	lost  bool // pid 1 has gone while a program ran; after gone
}

// OpenGuest connects to the pid 1 of a guest, which serves one process at a
// time, and finds what was started in it before.
//
// Errors: ErrUnavailable if pid 1 does not listen.
func OpenGuest(spec *GuestSpec) (_ *Guest, err error) {
	fd, err := dialPatiently(spec.Socket, spec.Patience)
	if err != nil {
		return nil, err
	}
	g := &guest{sandbox: &sandbox{
		pidfd: -1, gone: make(chan struct{}), leave: make(chan struct{}),
		answers: map[uint64]chan *frame{}, procs: map[uint64]*Proc{},
	}}
	g.socket = os.NewFile(uintptr(fd), "guest")
	raw, err := g.socket.SyscallConn()
	if err != nil {
		g.socket.Close()
		return nil, err
	}
	g.conn = polled{raw}
	go g.listen()
	if err := g.greet(spec); err != nil {
		g.close()
		return nil, err
	}
	return &Guest{Box: &Box{g}, held: g}, nil
}

// dialPatiently connects as soon as somebody listens.
func dialPatiently(path string, patience time.Duration) (int, error) {
	deadline := time.Now().Add(patience)
	for {
		fd, err := dialUnix(path)
		if err == nil {
			return fd, nil
		}
		again := errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EAGAIN)
		if !again || time.Now().After(deadline) {
			return -1, &caisson.Error{Item: "sandbox", Kind: caisson.ErrUnavailable, Err: fmt.Errorf("its first process does not answer: %w", err)}
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// dialUnix connects to a socket whose path may be longer than an address.
func dialUnix(path string) (int, error) {
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(dir)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	addr := &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(path))}
	if err := unix.Connect(fd, addr); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// listen takes what pid 1 says, until it is gone or the guest was let go.
func (g *guest) listen() {
	for {
		f, err := receive(g.conn)
		if err != nil {
			break
		}
		g.take(f)
	}
	g.mu.Lock()
	answers, procs, closed := g.answers, g.procs, g.closed
	g.answers, g.procs = nil, nil
	g.mu.Unlock()
	for _, ch := range answers {
		close(ch)
	}
	if closed {
		// They run on.
		close(g.gone)
		return
	}
	g.lost = len(procs) > 0
	close(g.gone)
	for _, p := range procs {
		p.finish(0, int(unix.SIGKILL))
	}
}

// greet says what programs get and hears what there is.
func (g *guest) greet(spec *GuestSpec) error {
	var e encoder
	e.int(spec.Files)
	e.int(int64(lastCap()))
	var list []syscall.SockFilter
	if spec.Seccomp {
		var err error
		if list, err = filter(); err != nil {
			return err
		}
	}
	e.int(int64(len(list)))
	for _, x := range list {
		e.int(int64(x.Code))
		e.int(int64(x.Jt))
		e.int(int64(x.Jf))
		e.int(int64(x.K))
	}
	proc := newProc()
	answer, err := g.askFor(frameGuest, e.buf, nil, proc)
	if err != nil {
		return err
	}
	if len(answer.fds) == 0 {
		return errors.New("caisson: bug: the guest did not hand over the root")
	}
	g.folder = os.NewFile(uintptr(answer.fds[0]), "/")
	d := decoder{answer.body}
	started, over, status, began := d.bool(), d.bool(), unix.WaitStatus(d.int()), d.int()
	switch {
	case !started:
		g.forget(answer.id)
		return nil
	case over:
		g.forget(answer.id)
		proc.finish(ended(status))
	case len(answer.fds) > 1:
		proc.PID = pidOf(answer.fds[1])
		proc.own(answer.fds[1])
	}
	g.main, g.began = proc, time.Unix(0, began)
	return nil
}

// Main returns the main program, if one was started by an earlier process.
func (g *Guest) Main() (main *Proc, began time.Time) { return g.held.main, g.held.began }

// SpawnMain starts the main program, whose output is the container's. It is
// found again by Main of a later process.
func (g *Guest) SpawnMain(p *Program) (*Proc, error) { return g.held.spawnAs(frameMain, p, nil) }

// Lost reports whether pid 1 has gone, and everything with it, while a program
// ran, so that how that one would have ended is not known.
func (g *Guest) Lost() bool {
	select {
	case <-g.held.gone:
		return g.held.lost
	default:
		return false
	}
}

// Mark writes text to both output streams of the container. It does not wait.
func (g *Guest) Mark(text []byte) error {
	g.held.sending.Lock()
	defer g.held.sending.Unlock()
	return send(g.held.conn, &frame{kind: frameMark, body: text})
}

// spawnAs starts a program by a request of one kind.
func (g *guest) spawnAs(kind byte, p *Program, fds []int) (*Proc, error) {
	proc := newProc()
	answer, err := g.askFor(kind, p.encode(), fds, proc)
	if err != nil {
		return nil, spawnError(p, err)
	}
	if len(answer.fds) == 0 {
		return nil, errors.New("caisson: bug: the guest did not hand over the program")
	}
	proc.PID = pidOf(answer.fds[0])
	proc.own(answer.fds[0])
	runtime.KeepAlive(p)
	return proc, nil
}

// stats implements backend.
func (g *guest) stats() (Stats, error) {
	answer, err := g.ask(frameStats, nil, nil)
	if err != nil {
		return Stats{}, err
	}
	d := decoder{answer.body}
	return Stats{
		CPU: time.Duration(d.int()), Memory: caisson.Bytes(d.int()), PeakMemory: caisson.Bytes(d.int()),
		PIDs: d.int(), OOMKills: d.int(), Throttled: time.Duration(d.int()),
	}, nil
}

// close implements backend: it lets go.
func (g *guest) close() error {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return nil
	}
	g.closed = true
	sockets := g.sandbox.held
	g.sandbox.held = nil
	g.mu.Unlock()
	// Pid 1 has them, too.
	closeAll(sockets)
	err := g.socket.Close()
	<-g.gone
	if g.folder != nil {
		g.folder.Close()
	}
	return err
}
