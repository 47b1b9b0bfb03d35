package mem

import (
	"context"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/caissonrun/caisson/keeper/tasklog"
)

// A Program is what mem runs. It returns the exit code. One that panics is
// taken to have crashed.
//
// When the process is killed, the goroutine ends at its next call of one of
// p's methods, with its deferred calls run; a Program that waits for something
// else as well watches p.Context.
type Program func(p *Proc) int

// A Proc is one running program: its arguments, streams, signals and files.
type Proc struct {
	box  *box
	pid  int
	args []string
	env  []string
	dir  string

	stdin          io.Reader
	stdout, stderr func([]byte) (int, error)
	tty            *terminal // nil: none
	session        *Session  // that it belongs to; nil: the main program's

	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{} // closed when it has ended

	closed [3]atomic.Bool // descriptors 0 to 2
	files  atomic.Int64   // open ones
	locks  []io.Closer    // files to close at the end, such as those that Lock holds

	// Guarded by box.mu.
	killedBy int  // the signal, or 0
	stopped  bool // by SIGSTOP
	halted   bool // for good: main has ended
	handlers map[int]chan int
	ignored  map[int]bool
	memory   int64

	// How it ended. Set before done is closed.
	code, signal int
	message      string
}

// mainProc returns the box's main program, not yet running.
func (b *box) mainProc() *Proc {
	args := b.spec.Args
	if b.spec.Run != "" {
		args = []string{"sh", "-c", b.spec.Run}
	}
	p := b.newProc(args, b.environ(), b.workdir())
	p.stdin = strings.NewReader("")
	p.stdout = func(data []byte) (int, error) { b.log.write(tasklog.Stdout, data); return len(data), nil }
	p.stderr = func(data []byte) (int, error) { b.log.write(tasklog.Stderr, data); return len(data), nil }
	return p
}

func (b *box) newProc(args, env []string, dir string) *Proc {
	p := &Proc{
		box: b, args: slices.Clone(args), env: env, dir: dir,
		done:     make(chan struct{}),
		handlers: make(map[int]chan int),
		ignored:  make(map[int]bool),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// run starts the goroutine of p. mu is held.
func (b *box) run(p *Proc) {
	b.nextPID++
	p.pid = b.nextPID
	b.procs[p] = true
	b.usage.pids = max(b.usage.pids, int64(len(b.procs)))
	program, failure := b.find(p)
	go func() {
		defer p.end()
		if program == nil {
			p.code, p.message = failure.code, failure.why
			return
		}
		p.exec(program)
	}()
}

// exec runs the program and says how it ended.
func (p *Proc) exec(program Program) {
	returned := false
	defer func() {
		if crash := recover(); crash != nil {
			p.signal, p.message = sigAbrt, fmt.Sprintf("panic: %v", crash)
			return
		}
		p.box.mu.Lock()
		defer p.box.mu.Unlock()
		if !returned {
			p.code, p.signal = 0, p.killedBy
		}
	}()
	p.checkpoint()
	p.code = program(p) & 0xff
	returned = true
}

// end takes p out of the box. The main program's end is followed by all that
// mainEnded does.
func (p *Proc) end() {
	b := p.box
	p.cancel()
	for _, f := range p.locks {
		f.Close()
	}
	b.mu.Lock()
	delete(b.procs, p)
	b.usage.memory -= p.memory
	main := p == b.main
	b.broadcast()
	b.mu.Unlock()
	if p.session != nil && p.session.proc == p {
		p.session.ended()
	}
	close(p.done)
	if main {
		b.mainEnded(p)
	}
}

// kill ends p, whatever it does. box.mu is held.
func (p *Proc) kill(signal int) {
	if p.killedBy == 0 {
		p.killedBy = signal
		p.cancel()
		p.box.broadcast()
	}
}

// checkpoint is where a process can be held and ended: every method begins
// with it.
func (p *Proc) checkpoint() {
	b := p.box
	b.mu.Lock()
	for p.killedBy == 0 && (b.paused || p.stopped || p.halted) {
		changed := b.changed
		b.mu.Unlock()
		<-changed
		b.mu.Lock()
	}
	killed := p.killedBy != 0
	b.mu.Unlock()
	if killed {
		runtime.Goexit()
	}
}

// holdsOutput reports whether p could still write to its output.
func (p *Proc) holdsOutput() bool { return !p.closed[1].Load() || !p.closed[2].Load() }

// PID returns the process's number in its sandbox; the main program's is 1.
func (p *Proc) PID() int { return p.pid }

// Args returns argv.
func (p *Proc) Args() []string { return slices.Clone(p.args) }

// Environ returns the environment as NAME=value, sorted.
func (p *Proc) Environ() []string { return slices.Clone(p.env) }

// Getenv returns the value of a variable, or "".
func (p *Proc) Getenv(name string) string {
	for _, kv := range p.env {
		if k, v, _ := strings.Cut(kv, "="); k == name {
			return v
		}
	}
	return ""
}

// Hostname returns the sandbox's name.
func (p *Proc) Hostname() string {
	if p.box.spec.Hostname != "" {
		return p.box.spec.Hostname
	}
	return p.box.spec.ID
}

// Context ends when the process is killed.
func (p *Proc) Context() context.Context { return p.ctx }

// Sleep pauses the program for d.
func (p *Proc) Sleep(d time.Duration) {
	p.checkpoint()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.ctx.Done():
	}
	p.checkpoint()
}

// Stdin returns the program's input; the main program's is empty.
func (p *Proc) Stdin() io.Reader {
	return readerFunc(func(data []byte) (int, error) {
		p.checkpoint()
		if p.closed[0].Load() {
			return 0, syscall.EBADF
		}
		n, err := p.stdin.Read(data)
		p.checkpoint()
		return n, err
	})
}

// Stdout returns the program's output.
func (p *Proc) Stdout() io.Writer { return p.output(1, p.stdout) }

// Stderr returns the program's output of errors.
func (p *Proc) Stderr() io.Writer { return p.output(2, p.stderr) }

func (p *Proc) output(fd int, write func([]byte) (int, error)) io.Writer {
	return writerFunc(func(data []byte) (int, error) {
		p.checkpoint()
		if p.closed[fd].Load() {
			return 0, syscall.EBADF
		}
		n, err := write(data)
		p.checkpoint()
		return n, err
	})
}

// CloseFD closes descriptor 0, 1 or 2.
func (p *Proc) CloseFD(fd int) error {
	p.checkpoint()
	if fd < 0 || fd > 2 || p.closed[fd].Swap(true) {
		return syscall.EBADF
	}
	p.box.mu.Lock()
	p.box.broadcast()
	p.box.mu.Unlock()
	return nil
}

// Spawn starts another program in the sandbox, with this one's environment,
// folder and, unless quiet, its output. The child outlives its parent.
//
// Errors: EAGAIN where the process limit is reached.
func (p *Proc) Spawn(quiet bool, args ...string) (*Proc, error) {
	p.checkpoint()
	b := p.box
	b.mu.Lock()
	defer b.mu.Unlock()
	if most := b.spec.Limits.PIDs; most > 0 && int64(len(b.procs)) >= most {
		return nil, syscall.EAGAIN
	}
	child := b.newProc(args, slices.Clone(p.env), p.dir)
	child.stdin, child.stdout, child.stderr = p.stdin, p.stdout, p.stderr
	child.tty, child.session = p.tty, p.session
	maps.Copy(child.ignored, p.ignored)
	for fd := range child.closed {
		child.closed[fd].Store(quiet || p.closed[fd].Load())
	}
	b.run(child)
	return child, nil
}

// Wait blocks until a child has ended and returns its exit code, or the signal
// that ended it.
func (p *Proc) Wait(child *Proc) (code, signal int) {
	p.checkpoint()
	select {
	case <-child.done:
	case <-p.ctx.Done():
	}
	p.checkpoint()
	return child.code, child.signal
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(data []byte) (int, error) { return f(data) }

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(data []byte) (int, error) { return f(data) }
