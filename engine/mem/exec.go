package mem

import (
	"context"
	"io"
	"maps"
	"path"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// Exec implements engine.Execer.
func (s execer) Exec(ctx context.Context, spec *engine.ExecSpec) (engine.Session, error) {
	if err := s.engine.enter(ctx, caisson.OpExec, s.box); err != nil {
		return nil, err
	}
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if spec.Terminal && !s.box.terminal {
		return nil, failure(caisson.OpExec, s.box, caisson.ErrUnsupported, "terminal: this engine has none")
	}
	if err := s.box.awaitKeep(ctx); err != nil {
		return nil, err
	}
	return s.box.exec(spec)
}

// A Session is an engine.Session.
type Session struct {
	box    *box
	proc   *Proc
	tty    *terminal
	stdin  *pipe
	stdout *pipe
	stderr *pipe
	timer  *time.Timer

	done    chan struct{} // closed when exit is set
	exit    caisson.Exit
	started time.Time
	timeout bool // guarded by box.mu
	late    bool // main had ended
}

var _ engine.Session = (*Session)(nil)

// exec starts a program beside the main one.
func (b *box) exec(spec *engine.ExecSpec) (*Session, error) {
	s := &Session{box: b, stdin: newPipe(), stdout: newPipe(), stderr: newPipe(), done: make(chan struct{}), started: time.Now()}
	args := spec.Args
	if len(args) == 0 {
		args = []string{"sh"}
	}
	dir := b.workdir()
	if spec.Workdir != "" {
		dir = path.Clean(spec.Workdir)
	}
	p := b.newProc(args, addEnv(b.environ(), spec.Env), dir)
	p.session, s.proc = s, p
	p.stdin = readerFunc(func(data []byte) (int, error) { return s.stdin.read(p.ctx, data) })
	p.stdout = func(data []byte) (int, error) { return s.stdout.write(p.ctx, data) }
	p.stderr = func(data []byte) (int, error) { return s.stderr.write(p.ctx, data) }
	if spec.Terminal {
		s.tty = newTerminal(s, spec.Size)
		p.tty = s.tty
		p.stdout, p.stderr = s.tty.output, s.tty.output
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	late, err := b.mayExec()
	if err != nil {
		return nil, err
	}
	s.late = late
	if most := b.spec.Limits.PIDs; most > 0 && int64(len(b.procs)) >= most {
		return nil, failure(caisson.OpExec, b, caisson.ErrExhausted, "the limit of processes is reached")
	}
	b.run(p)
	if spec.Timeout > 0 {
		s.timer = time.AfterFunc(spec.Timeout.Std(), s.expire)
	}
	return s, nil
}

// addEnv returns env with more variables.
func addEnv(env []string, more map[string]string) []string {
	all := make(map[string]string)
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		all[name] = value
	}
	maps.Copy(all, more)
	return join(all)
}

// expire ends a session whose time is up.
func (s *Session) expire() {
	s.box.mu.Lock()
	defer s.box.mu.Unlock()
	s.timeout = true
	s.killAll()
}

// killAll kills the session's processes. box.mu is held.
func (s *Session) killAll() {
	for p := range s.box.procs {
		if p.session == s {
			p.kill(sigKill)
		}
	}
}

// ended is called once when the session's program has ended.
func (s *Session) ended() {
	p, b := s.proc, s.box
	b.mu.Lock()
	exit := caisson.Exit{
		Reason: caisson.ReasonExited, Code: p.code, Signal: p.signal, Message: p.message,
		StartedAt: s.started.Round(0), EndedAt: time.Now().Round(0),
		Usage: caisson.Usage{Wall: caisson.Duration(time.Since(s.started))},
	}
	switch {
	case s.timeout:
		exit.Reason = caisson.ReasonTimeout
	case p.killedBy != 0 && s.late && b.keep.over:
		exit.Reason, exit.Message = caisson.ReasonAborted, keepIsOver
	case p.killedBy != 0 && !s.late && (b.ended || b.forced != nil || b.reason != ""):
		exit.Reason, exit.Message = caisson.ReasonAborted, mainIsOver
	case p.signal != 0:
		exit.Reason = caisson.ReasonSignaled
	}
	b.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
	s.stdout.closeWrite()
	s.stderr.closeWrite()
	s.stdin.closeRead()
	s.exit = exit
	close(s.done)
}

// Stdin implements engine.Session.
func (s *Session) Stdin() io.WriteCloser { return sessionInput{s} }

// Stdout implements engine.Session.
func (s *Session) Stdout() io.Reader { return s.reader(s.stdout) }

// Stderr implements engine.Session.
func (s *Session) Stderr() io.Reader { return s.reader(s.stderr) }

func (s *Session) reader(p *pipe) io.Reader {
	return readerFunc(func(data []byte) (int, error) { return p.read(context.Background(), data) })
}

// A sessionInput is the caller's end of a session's input.
type sessionInput struct{ s *Session }

// Write implements io.Writer.
func (i sessionInput) Write(data []byte) (int, error) {
	if i.s.tty != nil {
		return i.s.tty.input(data)
	}
	return i.s.stdin.write(context.Background(), data)
}

// Close implements io.Closer: with a terminal it is a ^D.
func (i sessionInput) Close() error {
	if i.s.tty != nil {
		_, err := i.s.tty.input([]byte{endOfFile})
		return err
	}
	i.s.stdin.closeWrite()
	return nil
}

// Resize implements engine.Session.
func (s *Session) Resize(ctx context.Context, size engine.Size) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.tty == nil {
		return failure(caisson.OpExec, s.box, caisson.ErrUnsupported, "resize: there is no terminal")
	}
	s.box.mu.Lock()
	defer s.box.mu.Unlock()
	if err := s.over(); err != nil {
		return err
	}
	s.tty.size = size
	s.deliver(sigWinch)
	return nil
}

// over tells whether the session's program has ended. box.mu is held.
func (s *Session) over() error {
	if !s.box.procs[s.proc] {
		return failure(caisson.OpExec, s.box, caisson.ErrEnded, "the program has ended")
	}
	return nil
}

// deliver sends a signal to all processes of the session. box.mu is held.
func (s *Session) deliver(n int) {
	for p := range s.box.procs {
		if p.session == s {
			p.deliver(n)
		}
	}
}

// Signal implements engine.Session.
func (s *Session) Signal(ctx context.Context, n int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !engine.ValidSignal(n) {
		return failure(caisson.OpSignal, s.box, caisson.ErrInvalid, "no such signal")
	}
	s.box.mu.Lock()
	defer s.box.mu.Unlock()
	if err := s.over(); err != nil {
		return err
	}
	s.proc.deliver(n)
	return nil
}

// Wait implements engine.Session.
func (s *Session) Wait(ctx context.Context) (caisson.Exit, error) {
	select {
	case <-s.done:
		return s.exit, nil
	default:
	}
	select {
	case <-s.done:
		return s.exit, nil
	case <-ctx.Done():
		return caisson.Exit{}, ctx.Err()
	}
}

// hangUpTime is how long a program on a terminal has after the hang-up.
const hangUpTime = 500 * time.Millisecond

// hangUp tells the processes of a terminal that nobody is there any more.
func (s *Session) hangUp() {
	if s.tty == nil {
		return
	}
	s.box.mu.Lock()
	s.deliver(sigHup)
	s.box.mu.Unlock()
	// What it prints goes nowhere.
	s.stdout.closeRead()
	select {
	case <-s.done:
	case <-time.After(hangUpTime):
	}
}

// Close implements engine.Session.
func (s *Session) Close() error {
	s.hangUp()
	s.box.mu.Lock()
	s.killAll()
	s.box.mu.Unlock()
	s.stdin.closeWrite()
	s.stdin.closeRead()
	s.stdout.closeRead()
	s.stderr.closeRead()
	<-s.done
	return nil
}
