//go:build unix

package qemu

import (
	"context"
	"errors"
	"io"
	"math"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/guest"
	"github.com/caissonrun/caisson/internal/isolate"
)

const (
	// copySize is that of the pieces in which output is passed on, in bytes.
	copySize = 32 << 10
	// cutTime is how long the output of a program that was killed is passed on to
	// somebody who does not read it.
	cutTime = 500 * time.Millisecond
)

// A program runs in the guest, with streams of the host's.
type program struct {
	box   *box
	gp    *guest.Process
	out   []*stream
	begin [2]int64      // where its output begins here
	lost  atomic.Bool   // how it has ended is not known
	cut   chan struct{} // closed when nobody waits for its output any more
	once  sync.Once
	ended chan struct{} // closed when all of it is told
}

// A stream passes output of the guest on to a file of the host's.
type stream struct {
	from io.ReadCloser
	to   *os.File
	done chan struct{} // closed at its end

	mu      sync.Mutex
	copied  int64         // bytes, from the program's beginning
	changed chan struct{} // closed when copied is another
}

func newStream(from io.ReadCloser, to *os.File, begin int64) *stream {
	return &stream{from: from, to: to, copied: begin, done: make(chan struct{}), changed: make(chan struct{})}
}

// Spawn implements server.Box.
func (b *box) Spawn(p *isolate.Program, stdin, stdout, stderr *os.File) (*isolate.Proc, error) {
	if err := b.mayStart(); err != nil {
		return nil, err
	}
	proc, err := b.spawn(p, [3]*os.File{stdin, stdout, stderr})
	var execErr *isolate.ExecError
	if err == nil || errors.As(err, &execErr) {
		b.mu.Lock()
		b.tried = true
		b.mu.Unlock()
	}
	return proc, err
}

func (b *box) mayStart() error {
	if err := b.gone(); err != nil {
		return err
	}
	if b.isPaused() {
		return &caisson.Error{Kind: caisson.ErrUnavailable, Err: errors.New("the sandbox is paused: resume it first")}
	}
	return nil
}

func (b *box) spawn(p *isolate.Program, files [3]*os.File) (*isolate.Proc, error) {
	own, master, err := b.ends(p, files)
	if err != nil {
		return nil, err
	}
	ctx, cancel := within(b.callTime)
	defer cancel()
	gp, err := b.begin(ctx, p)
	if err != nil {
		closeFiles(append(own, master))
		return nil, b.said("start", err)
	}
	prog := &program{box: b, gp: gp, cut: make(chan struct{}), ended: make(chan struct{})}
	proc, end := isolate.NewProc(prog.signal)
	proc.Terminal = master
	b.mu.Lock()
	if !b.tried {
		b.main = prog
		if a := b.spec.Attach; a != nil {
			prog.begin = [2]int64{a.Stdout, a.Stderr}
		}
	}
	b.programs[prog] = struct{}{}
	b.mu.Unlock()
	if p.Terminal {
		prog.carryTerminal(own[0])
	} else {
		prog.carry(own)
	}
	go prog.wait(end)
	return proc, nil
}

// begin starts a program, or, of a copy of a machine, goes on with its main one. The
// main one would outlive a session with the agent, so that a copy has it.
func (b *box) begin(ctx context.Context, p *isolate.Program) (*guest.Process, error) {
	b.mu.Lock()
	first := !b.tried
	b.mu.Unlock()
	if a := b.spec.Attach; a != nil && first {
		return b.agent.Attach(ctx, a.ID, a.Stdout, a.Stderr)
	}
	return b.agent.Spawn(ctx, &guest.Program{Program: b.complete(p), Keep: first})
}

// complete adds what only the guest knows of its users to a program's environment.
func (b *box) complete(p *isolate.Program) isolate.Program {
	out := *p
	out.Env = append([]string(nil), p.Env...)
	for _, v := range [][2]string{{"HOME", b.person.Home}, {"USER", b.person.Name}} {
		if v[1] != "" && !hasVariable(p.Env, v[0]) {
			out.Env = append(out.Env, v[0]+"="+v[1])
		}
	}
	return out
}

func hasVariable(env []string, name string) bool {
	for _, v := range env {
		if strings.HasPrefix(v, name+"=") {
			return true
		}
	}
	return false
}

// ends returns this process's own ends of a program's streams, and of a terminal
// the caller's.
func (b *box) ends(p *isolate.Program, files [3]*os.File) (own []*os.File, master *os.File, err error) {
	if p.Terminal {
		master, slave, err := isolate.OpenTerminal(p)
		return []*os.File{slave}, master, err
	}
	own = make([]*os.File, len(files))
	for i, f := range files {
		if f == nil {
			continue
		}
		if own[i], err = duplicate(f); err != nil {
			closeFiles(own)
			return nil, nil, err
		}
	}
	return own, nil, nil
}

// duplicate returns a file that is the caller's, and waits in the runtime's poller.
// Whoever has the original closes it.
func duplicate(f *os.File) (*os.File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var dupErr error
	if err := raw.Control(func(old uintptr) { fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3) }); err != nil {
		return nil, err
	}
	if dupErr != nil {
		return nil, os.NewSyscallError("dup", dupErr)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// carry begins to pass on what goes between the program and the files.
func (p *program) carry(files []*os.File) {
	p.feed(files[0])
	for i, from := range []io.ReadCloser{p.gp.Stdout, p.gp.Stderr} {
		s := newStream(from, files[1+i], p.begin[i])
		p.out = append(p.out, s)
		go s.copy()
	}
}

// feed passes input on, up to its end or the program's.
func (p *program) feed(from *os.File) {
	if from == nil {
		p.gp.Stdin.Close()
		return
	}
	go func() {
		_, _ = io.Copy(p.gp.Stdin, struct{ io.Reader }{from})
		p.gp.Stdin.Close()
		from.Close()
	}()
	go func() {
		// Whoever writes then learns that nobody reads.
		<-p.ended
		from.Close()
	}()
}

// copy passes output on, to the end of whoever holds it. Who does not read holds up
// this program only, and who does not want any more tells it by that.
func (s *stream) copy() {
	defer close(s.done)
	defer s.from.Close()
	if s.to == nil {
		return
	}
	defer s.to.Close()
	buf := make([]byte, copySize)
	for {
		n, err := s.from.Read(buf)
		if n > 0 {
			if _, err := s.to.Write(buf[:n]); err != nil {
				return
			}
			s.count(n)
		}
		if err != nil {
			return
		}
	}
}

func (s *stream) count(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.copied += int64(n)
	close(s.changed)
	s.changed = make(chan struct{})
}

// offset returns how many bytes were passed on.
func (s *stream) offset() (n int64, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.copied, s.changed
}

// await waits until so many bytes are passed on, or never will be.
func (s *stream) await(ctx context.Context, want int64) {
	for {
		n, changed := s.offset()
		if n >= want {
			return
		}
		select {
		case <-changed:
		case <-s.done:
			return
		case <-ctx.Done():
			return
		}
	}
}

// wait waits for the program's end, and tells it when what was printed before has
// arrived here, as it would have in a pipe of this host's.
func (p *program) wait(end func(code, signal int)) {
	code, signal, err := p.gp.Wait(context.Background())
	if err != nil {
		p.lost.Store(true)
		code, signal = 0, int(syscall.SIGKILL)
	} else {
		p.flush()
	}
	close(p.ended)
	end(code, signal)
	select {
	case <-p.cut:
		// Nobody wants what it has left behind.
		p.gp.Close()
	default:
	}
	for _, s := range p.out {
		<-s.done
	}
	p.gp.Close()
	p.box.mu.Lock()
	defer p.box.mu.Unlock()
	delete(p.box.programs, p)
}

// flush waits until all output that there was when it was called is passed on, or
// nobody waits for it any more. Somebody who does not read may let it wait, as a
// program of this host's would.
func (p *program) flush() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-ctx.Done():
			return
		case <-p.cut:
		}
		select {
		case <-ctx.Done():
		case <-time.After(cutTime):
			cancel()
		}
	}()
	stdout, stderr, err := p.gp.Flush(ctx)
	if err != nil {
		// It is over with all its output, or nothing can be had of it any more.
		stdout, stderr = math.MaxInt64, math.MaxInt64
	}
	for i, n := range []int64{stdout, stderr}[:len(p.out)] {
		p.out[i].await(ctx, n)
	}
}

// signal sends a signal to the program.
func (p *program) signal(number int) error {
	if number == int(syscall.SIGKILL) {
		p.hurry()
	}
	if p.box.isPaused() {
		// It arrives when the machine goes on.
		go func() { _ = p.gp.Signal(context.Background(), number) }()
		return nil
	}
	ctx, cancel := within(p.box.callTime)
	defer cancel()
	err := p.gp.Signal(ctx, number)
	if caisson.KindOf(err) == caisson.ErrEnded {
		return os.ErrProcessDone
	}
	if err != nil {
		return p.box.said("signal", err)
	}
	return nil
}

// hurry says that nobody waits for the program's output any more.
func (p *program) hurry() { p.once.Do(func() { close(p.cut) }) }
