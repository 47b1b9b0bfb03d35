package agent

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/guest/wire"
	"github.com/caissonrun/caisson/internal/isolate"
)

// A program is one that the host has started.
type program struct {
	id      uint64
	proc    *isolate.Proc
	began   time.Time
	keep    bool
	session *session
	out     [2]*wire.Outlet
	taps    []*tap // what pumps into out; a terminal has one

	input    *os.File // its standard input, or its terminal
	terminal bool

	feeding sync.Mutex    // held by who passes input on
	exited  chan struct{} // closed when exit is set
	exit    wire.Exited
	hang    sync.Once
}

// spawn serves wire.OpSpawn.
func (s *session) spawn(c *wire.Call) {
	p, err := s.start(c)
	if err != nil {
		_ = c.End(nil, err)
	} else {
		p.follow(c)
	}
	if p != nil && !p.keep {
		p.release()
		s.remove(p.id)
	}
}

// start starts a program whose streams are the call's.
func (s *session) start(c *wire.Call) (*program, error) {
	spec, err := params[wire.Program](c)
	if err != nil {
		return nil, err
	}
	box, err := s.sandbox()
	if err != nil {
		return nil, err
	}
	p := &program{
		keep: spec.Keep, session: s, terminal: spec.Program.Terminal,
		out: [2]*wire.Outlet{c.Out[1], c.Out[2]}, exited: make(chan struct{}),
	}
	if p.keep {
		c.Keep()
	}
	output, err := p.launch(box, &spec.Program)
	if err != nil {
		return nil, err
	}
	for _, f := range output {
		p.taps = append(p.taps, &tap{file: f})
	}
	s.mu.Lock()
	s.nextID++
	p.id = s.nextID
	s.programs[p.id] = p
	s.mu.Unlock()
	for i := range p.taps {
		go p.pump(p.out[i], p.taps[i])
	}
	go p.feed(c.In[0])
	go p.supervise()
	return p, c.Note(&wire.Started{ID: p.id, PID: p.proc.PID})
}

// launch starts the program and returns where its output comes from.
func (p *program) launch(box *isolate.Box, spec *isolate.Program) (output []*os.File, err error) {
	p.began = time.Now()
	if spec.Terminal {
		if p.proc, err = box.Spawn(spec, nil, nil, nil); err != nil {
			return nil, err
		}
		p.input = p.proc.Terminal
		_ = p.out[1].Close()
		return []*os.File{p.proc.Terminal}, nil
	}
	var inside, outside [3]*os.File
	defer func() {
		closeFiles(inside[:])
		if err != nil {
			closeFiles(outside[:])
		}
	}()
	for i := range inside {
		if inside[i], outside[i], err = pipe(i == 0); err != nil {
			return nil, err
		}
	}
	if p.proc, err = box.Spawn(spec, inside[0], inside[1], inside[2]); err != nil {
		return nil, err
	}
	p.input = outside[0]
	return outside[1:], nil
}

// pipe makes a pipe of which the program gets one end, in blocking mode, and this
// process the other one.
func pipe(in bool) (inside, outside *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, err
	}
	theirs, ours := fds[1], fds[0]
	if in {
		theirs, ours = ours, theirs
	}
	if err := unix.SetNonblock(ours, true); err != nil {
		unix.Close(theirs)
		unix.Close(ours)
		return nil, nil, err
	}
	return os.NewFile(uintptr(theirs), "program"), os.NewFile(uintptr(ours), "program"), nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// pump passes output on. Nobody to read it is told to the program by its next
// write, as in a shell's pipe; a terminal stays.
func (p *program) pump(to *wire.Outlet, from *tap) {
	from.pour(to)
	_ = to.Close()
	if !p.terminal {
		from.file.Close()
	}
}

// feed passes input on, until its end, or the end of the session: then another one
// may go on.
func (p *program) feed(from *wire.Inlet) {
	p.feeding.Lock()
	defer p.feeding.Unlock()
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := p.input.Write(buf[:n]); err != nil {
				_ = from.Close()
				return
			}
			continue
		}
		if errors.Is(err, io.EOF) {
			p.endInput()
		}
		return
	}
}

// endInput ends the input; that of a terminal by what a person types for it.
func (p *program) endInput() {
	if p.terminal {
		_, _ = p.input.Write([]byte{4})
		return
	}
	p.input.Close()
}

// supervise waits for the program's end.
func (p *program) supervise() {
	code, signal, _ := p.proc.Wait()
	p.exit = wire.Exited{Code: code, Signal: signal}
	if !p.terminal {
		// Who feeds it need not wait any more.
		p.input.Close()
	}
	close(p.exited)
}

// follow tells the host of the program by a call, as long as that lasts.
func (p *program) follow(c *wire.Call) {
	select {
	case <-p.exited:
	case <-c.Over():
		if !p.keep {
			p.hangUp()
		}
		return
	}
	_ = c.Note(&p.exit)
	for _, o := range p.out {
		o.Drained(c)
	}
	select {
	case <-c.Over():
		// Something still holds the output, and nobody waits for it.
		if !p.keep {
			p.hangUp()
		}
	default:
		_ = c.End(nil, nil)
	}
}

// hangUp kills what the program still runs: its group.
func (p *program) hangUp() {
	p.hang.Do(func() {
		select {
		case <-p.exited:
			// As long as anybody is in the group nobody else gets its number. If somebody
			// has it, nobody is.
			if unix.Kill(p.proc.PID, 0) == unix.ESRCH {
				_ = unix.Kill(-p.proc.PID, unix.SIGKILL)
			}
		default:
			_ = unix.Kill(-p.proc.PID, unix.SIGKILL)
			_ = p.proc.Signal(int(unix.SIGKILL))
		}
	})
	p.release()
}

// release closes what leads to the program. It may be called again.
func (p *program) release() {
	for _, o := range p.out {
		o.Fail(os.ErrClosed)
	}
	p.input.Close()
}

// attach serves wire.OpAttach. It does not wait.
func (s *session) attach(c *wire.Call) {
	spec, err := params[wire.Attach](c)
	if err != nil {
		go c.End(nil, err)
		return
	}
	p, err := s.find(spec.ID)
	if err == nil && !p.keep {
		err = &caisson.Error{Kind: caisson.ErrInvalid, Err: errors.New("the program is not kept")}
	}
	if err == nil {
		c.Keep()
		err = c.Carry(1, p.out[0], spec.Stdout)
	}
	if err == nil {
		err = c.Carry(2, p.out[1], spec.Stderr)
	}
	go func() {
		if err != nil {
			_ = c.End(nil, err)
			return
		}
		go p.feed(c.In[0])
		if c.Note(&wire.Started{ID: p.id, PID: p.proc.PID}) == nil {
			p.follow(c)
		}
	}()
}

// find returns a program by its number.
func (s *session) find(id uint64) (*program, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.programs[id]; p != nil {
		return p, nil
	}
	return nil, &caisson.Error{Kind: caisson.ErrEnded, Err: errors.New("there is no such program any more")}
}

// running serves wire.OpPrograms.
func (s *session) running() []wire.Running {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []wire.Running{}
	for _, p := range s.programs {
		r := wire.Running{
			ID: p.id, PID: p.proc.PID, Began: p.began.UnixNano(), Kept: p.keep, Stdout: p.out[0].Kept(), Stderr: p.out[1].Kept(),
		}
		select {
		case <-p.exited:
			r.Exit = &p.exit
		default:
		}
		list = append(list, r)
	}
	return list
}

// forget serves wire.OpForget: what of the program still runs ends.
func (s *session) forget(t *wire.Target) error {
	p, err := s.find(t.ID)
	if err != nil {
		return err
	}
	p.hangUp()
	s.remove(t.ID)
	return nil
}

// remove takes a program off the list.
func (s *session) remove(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.programs, id)
}

// signal serves wire.OpSignal.
func (s *session) signal(t *wire.Target) error {
	p, err := s.find(t.ID)
	if err == nil {
		err = p.proc.Signal(t.Signal)
	}
	return ended(err)
}

// resize serves wire.OpResize.
func (s *session) resize(t *wire.Target) error {
	p, err := s.find(t.ID)
	if err != nil {
		return err
	}
	if !p.terminal {
		return &caisson.Error{Kind: caisson.ErrUnsupported, Err: errors.New("the program has no terminal")}
	}
	conn, err := p.input.SyscallConn()
	if err != nil {
		return ended(err)
	}
	var inner error
	err = conn.Control(func(fd uintptr) {
		inner = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Col: t.Cols, Row: t.Rows})
	})
	return ended(errors.Join(err, inner))
}

// ended sorts that a program is not there any more.
func ended(err error) error {
	if errors.Is(err, os.ErrProcessDone) || errors.Is(err, os.ErrClosed) {
		return &caisson.Error{Kind: caisson.ErrEnded, Err: errors.New("the program has ended")}
	}
	return err
}
