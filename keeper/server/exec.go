//go:build unix

package server

import (
	"cmp"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/keeper/internal/wire"
)

// A session is a program beside the main one. It lives at most as long as the
// connection that asked for it.
type session struct {
	conn     *conn
	id       uint32 // of the request
	proc     *isolate.Proc
	leader   leader
	terminal bool
	began    time.Time
	late     bool // the main program had ended

	mu      sync.Mutex
	timer   *time.Timer
	expired bool
	ended   string // why it was ended together with the sandbox, or the main program
	closed  bool   // leader is
}

// exec starts a program and gives the client its descriptors.
func (c *conn) exec(req *wire.Request) {
	err := c.tryExec(req)
	if err == nil {
		return
	}
	reply := &wire.Reply{ID: req.ID}
	var execErr *isolate.ExecError
	if errors.As(err, &execErr) {
		now := time.Now()
		reply.Ended = true
		reply.Exit = &caisson.Exit{
			Reason: caisson.ReasonExited, Code: execErr.Code, Message: wire.Cut(execErr.Error()), StartedAt: now, EndedAt: now,
		}
	} else {
		reply.Error = wire.NewFailure(err)
	}
	c.send(reply)
}

func (c *conn) tryExec(req *wire.Request) error {
	if c.session != nil {
		return failure(caisson.OpExec, caisson.ErrExists, "the connection has a program already")
	}
	if req.Program == nil || len(req.Program.Args) == 0 {
		return failure(caisson.OpExec, caisson.ErrInvalid, "there is no program")
	}
	s := &session{conn: c, id: req.ID, terminal: req.Program.Terminal}
	files, err := s.start(req.Program)
	if err != nil {
		return err
	}
	c.session = s
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
		// The client waits for them with its runtime's poller.
		unix.SetNonblock(fds[i], true)
	}
	c.send(&wire.Reply{ID: req.ID}, fds...)
	closeFiles(files)
	if req.Timeout > 0 {
		s.limit(req.Timeout.Std())
	}
	go s.wait()
	return nil
}

// start starts the program and returns the client's ends of its streams.
func (s *session) start(p *isolate.Program) (files []*os.File, err error) {
	k := s.conn.k
	k.awaitKeep()
	k.spawning.Lock()
	defer k.spawning.Unlock()
	if s.late, err = k.mayExec(); err != nil {
		return nil, err
	}

	var inside [3]*os.File
	if !p.Terminal {
		if inside, files, err = pipes(); err != nil {
			return nil, err
		}
	}
	defer closeFiles(inside[:])
	s.began = time.Now()
	s.proc, err = k.spawnWith(p, inside[0], inside[1], inside[2])
	if err != nil {
		closeFiles(files)
		return nil, err
	}
	s.leader = newLeader(s.proc)
	if p.Terminal {
		files = []*os.File{s.proc.Terminal}
	}
	k.mu.Lock()
	k.sessions[s] = struct{}{}
	k.execs++
	k.mu.Unlock()
	return files, nil
}

// mayExec returns why no program can be started beside the main one, and, where
// one can, whether that has ended. The caller holds spawning.
func (k *keeper) mayExec() (late bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.doomed:
		return false, errDestroyed(caisson.OpExec)
	case k.phase < running:
		return false, failure(caisson.OpExec, caisson.ErrEnded, "the program was not started")
	case k.phase == running || k.keep.on:
		return k.phase > running, nil
	case k.keep.over:
		return false, failure(caisson.OpExec, caisson.ErrEnded, "the program has ended, and "+keepIsOver)
	}
	return false, errEnded(caisson.OpExec)
}

// pipes makes three pipes and returns the program's ends and the client's.
func pipes() (inside [3]*os.File, outside []*os.File, err error) {
	for i := range inside {
		r, w, err := newPipe()
		if err != nil {
			closeFiles(inside[:])
			closeFiles(outside)
			return inside, nil, err
		}
		read, write := os.NewFile(uintptr(r), "exec"), os.NewFile(uintptr(w), "exec")
		if i == 0 {
			inside[i], outside = read, append(outside, write)
		} else {
			inside[i], outside = write, append(outside, read)
		}
	}
	return inside, outside, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// limit kills the program when its time is up.
func (s *session) limit(timeout time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = time.AfterFunc(timeout, func() {
		s.mu.Lock()
		s.expired = true
		s.mu.Unlock()
		s.kill()
	})
}

// wait tells the client how the program ended.
func (s *session) wait() {
	code, signal, _ := s.proc.Wait()
	exit := &caisson.Exit{Code: code, Signal: signal, StartedAt: s.began, EndedAt: time.Now()}
	exit.Usage.Wall = caisson.Duration(time.Since(s.began))
	exit.Reason, exit.Message = s.reason(signal)
	k := s.conn.k
	k.mu.Lock()
	k.execs-- // before the client knows: it may ask
	k.mu.Unlock()
	s.conn.send(&wire.Reply{ID: s.id, Exit: exit, Ended: true})
	k.mu.Lock()
	delete(k.sessions, s)
	k.mu.Unlock()
}

// reason returns why the program has ended, with a sentence where it did not do
// so by itself.
func (s *session) reason(signal int) (reason caisson.Reason, message string) {
	s.mu.Lock()
	if s.timer != nil {
		s.timer.Stop()
	}
	expired, why := s.expired, s.ended
	s.mu.Unlock()
	k := s.conn.k
	k.mu.Lock()
	over := why != "" || !s.late && (k.phase > running || k.stop != nil)
	k.mu.Unlock()
	switch {
	case expired:
		return caisson.ReasonTimeout, ""
	case over && signal == int(syscall.SIGKILL):
		return caisson.ReasonAborted, cmp.Or(why, mainHasEnded)
	case signal != 0:
		return caisson.ReasonSignaled, ""
	}
	return caisson.ReasonExited, ""
}

func (s *session) signal(number int) error { return signalProc(s.proc, number) }

// hangUpTime is how long a program on a terminal has after the hang-up, which
// the kernel tells it when the client's end is closed.
const hangUpTime = 500 * time.Millisecond

// hangUp ends the program because its client is gone.
func (s *session) hangUp() {
	if s.terminal {
		select {
		case <-s.proc.Done():
		case <-time.After(hangUpTime):
		}
	}
	s.kill()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.leader.close()
}

// kill kills the program with what it has started.
func (s *session) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.leader.kill()
	}
}
