//go:build unix

package server

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson/keeper/internal/wire"
	"github.com/caissonrun/caisson/keeper/redact"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// idleTime is after how long without output a prompt that looks like the
// beginning of a secret is let through.
const idleTime = 100 * time.Millisecond

// An output brings the program's two streams into the log.
type output struct {
	log     *tasklog.Writer
	secrets *redact.Set
	ended   chan struct{} // closed when both streams are at their end
	skipped [4]int64      // by stream: bytes that the log holds already

	mu   sync.Mutex // of log and buf: one stream at a time
	buf  []byte     // made with the first output
	left int        // streams that go on

	streams []*stream
}

// A stream is one of the program's pipes.
type stream struct {
	of     *output
	number tasklog.Stream
	file   *os.File
	raw    syscall.RawConn
	clean  *redact.Writer
	done   chan struct{} // closed when its goroutine has ended

	mu      sync.Mutex
	last    bool // only what is there now is to be read
	bounded bool // the next waiting has a deadline
}

func newOutput(spec *wire.Spec) (*output, error) {
	secrets, err := redact.Compile(spec.Redact)
	if err != nil {
		return nil, err
	}
	spec.Redact = nil
	log, err := tasklog.Create(spec.Log, spec.LogLimit)
	if err != nil {
		return nil, err
	}
	return &output{log: log, secrets: secrets, ended: make(chan struct{})}, nil
}

// open makes the pipes and begins to read them. It returns the program's ends.
func (o *output) open() (stdout, stderr *os.File, err error) {
	out, stdout, err := o.pipe(tasklog.Stdout)
	if err != nil {
		return nil, nil, err
	}
	errs, stderr, err := o.pipe(tasklog.Stderr)
	if err != nil {
		out.file.Close()
		stdout.Close()
		return nil, nil, err
	}
	o.streams = []*stream{out, errs}
	o.left = len(o.streams)
	for _, s := range o.streams {
		go s.copy()
	}
	return stdout, stderr, nil
}

// pipe makes a stream and returns the program's end of it.
func (o *output) pipe(number tasklog.Stream) (*stream, *os.File, error) {
	r, w, err := newPipe()
	if err != nil {
		return nil, nil, err
	}
	// Only the keeper's end is of the runtime's poller.
	unix.SetNonblock(r, true)
	read, write := os.NewFile(uintptr(r), "output"), os.NewFile(uintptr(w), "output")
	raw, err := read.SyscallConn()
	if err != nil {
		read.Close()
		write.Close()
		return nil, nil, err
	}
	s := &stream{of: o, number: number, file: read, raw: raw, done: make(chan struct{})}
	s.clean = o.secrets.NewWriter(func(data []byte) error {
		// What can't be written is counted by the log.
		return o.log.Write(number, time.Now(), o.fresh(number, data))
	})
	return s, write, nil
}

// reset forgets the streams of a program that was not started.
func (o *output) reset() {
	o.finish()
	o.streams = nil
	o.ended = make(chan struct{})
}

// copy reads the stream to its end.
func (s *stream) copy() {
	defer close(s.done)
	for s.step() {
	}
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	s.clean.Close()
	s.of.left--
	if s.of.left == 0 {
		close(s.of.ended)
	}
}

// step waits for output and takes one piece of it. It returns false at the
// stream's end.
func (s *stream) step() bool {
	s.setDeadline()
	more := true
	err := s.raw.Read(func(fd uintptr) bool {
		n, err := s.take(int(fd))
		more = n > 0
		return err != unix.EAGAIN
	})
	if err == nil {
		return more
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	if s.isLast() {
		s.drain()
		return false
	}
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	s.clean.Idle()
	return true
}

// setDeadline bounds the next waiting if something is held back, and takes
// back a bound from before.
func (s *stream) setDeadline() {
	s.of.mu.Lock()
	holds := s.clean.Holds()
	s.of.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last || holds == s.bounded && !holds {
		return
	}
	var deadline time.Time
	if holds {
		deadline = time.Now().Add(idleTime)
	}
	s.file.SetReadDeadline(deadline)
	s.bounded = holds
}

// take reads once and hands on what it got.
func (s *stream) take(fd int) (int, error) {
	o := s.of
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.buf == nil {
		o.buf = make([]byte, tasklog.MaxData)
	}
	for {
		n, err := unix.Read(fd, o.buf)
		if err == unix.EINTR {
			continue
		}
		if n > 0 {
			s.clean.Write(o.buf[:n])
		}
		return n, err
	}
}

// drain takes what is there and waits for nothing.
func (s *stream) drain() {
	s.raw.Control(func(fd uintptr) {
		for {
			if n, err := s.take(int(fd)); n <= 0 || err != nil {
				return
			}
		}
	})
}

func (s *stream) isLast() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// finish takes what is still in the pipes and closes them.
func (o *output) finish() {
	for _, s := range o.streams {
		s.mu.Lock()
		s.last = true
		s.file.SetReadDeadline(time.Now())
		s.mu.Unlock()
		<-s.done
		s.file.Close()
	}
}

// close makes the log durable and closes it.
func (o *output) close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf = nil
	return errors.Join(o.log.Sync(), o.log.Close())
}
