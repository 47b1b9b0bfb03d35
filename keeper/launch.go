//go:build unix

package keeper

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/keeper/internal/wire"
)

const (
	// undoTime is how long a keeper that is not wanted any more may take to
	// undo what it has made, before it is killed.
	undoTime = 10 * time.Second
	// maxLaunched bounds what a keeper says at its start, in bytes.
	maxLaunched = 64 << 10
)

// keeperEnv is a keeper's whole environment: settings of Go's runtime that
// must be known when it begins, because a processor that it does not use costs
// memory. Programs in the sandbox never see it.
var keeperEnv = []string{"GOMAXPROCS=1", "GOGC=50", "GODEBUG=containermaxprocs=0,updatemaxprocs=0"}

// Launch starts a keeper in its own session and returns when its sandbox is
// in place. The keeper has neither the caller's environment nor descriptors.
//
// On error nothing is left, also if ctx ends first or if the caller dies
// before Launch returns.
//
// Errors: ErrNotFound if there is no such program as command; those of
// isolate.Start; ErrInvalid if spec contradicts itself or a secret is too short
// to be redacted.
func Launch(ctx context.Context, command Command, spec *Spec) (*Client, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, err := startKeeper(command)
	if err != nil {
		return nil, err
	}
	return s.launch(ctx, spec)
}

// launch has a keeper make its sandbox.
func (s *starting) launch(ctx context.Context, spec *Spec) (*Client, error) {
	input, err := encode(spec)
	if err != nil {
		return nil, errors.Join(fail(caisson.ErrInvalid, err), s.undo())
	}
	l, err := s.handshake(ctx, input, spec.Socket)
	if err != nil {
		return nil, errors.Join(err, s.undo())
	}
	s.input.Close()
	s.output.Close()
	return &Client{dir: spec.Dir, socket: spec.Socket, reaped: s.reaped, link: l}, nil
}

func encode(spec *Spec) ([]byte, error) {
	versioned := *spec
	versioned.Version = wire.Version
	body, err := json.Marshal(&versioned)
	if err != nil {
		return nil, err
	}
	if len(body) > wire.MaxSpec {
		return nil, fmt.Errorf("spec of %d bytes is larger than %d", len(body), wire.MaxSpec)
	}
	data := binary.LittleEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	return append(data, body...), nil
}

// A starting is a keeper that is not ready yet.
type starting struct {
	process *os.Process
	input   *os.File // spec, then the ack
	output  *os.File // wire.Launched, or what a crash says
	reaped  chan struct{}
}

func startKeeper(command Command) (*starting, error) {
	if len(command) == 0 {
		return nil, fail(caisson.ErrInvalid, errors.New("no command to start it"))
	}
	childIn, input, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer childIn.Close()
	output, childOut, err := os.Pipe()
	if err != nil {
		input.Close()
		return nil, err
	}
	defer childOut.Close()
	argv := append([]string{wire.Argv0}, command[1:]...)
	process, err := startProcess(command[0], argv, &os.ProcAttr{
		Dir:   "/",
		Env:   keeperEnv,
		Files: []*os.File{childIn, childOut, childOut},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		input.Close()
		output.Close()
		return nil, startError(err)
	}
	s := &starting{process: process, input: input, output: output, reaped: make(chan struct{})}
	// Ends with the keeper, which may outlive every Client: somebody in this
	// process has to reap it.
	go func() {
		process.Wait()
		close(s.reaped)
	}()
	return s, nil
}

// startProcess tries again where the program was written a moment ago: a
// process that was forked meanwhile may still have it open for writing.
func startProcess(name string, argv []string, attr *os.ProcAttr) (*os.Process, error) {
	for wait := time.Millisecond; ; wait *= 2 {
		process, err := os.StartProcess(name, argv, attr)
		if !errors.Is(err, syscall.ETXTBSY) || wait > 100*time.Millisecond {
			return process, err
		}
		time.Sleep(wait)
	}
}

func startError(err error) error {
	kind := caisson.ErrUnavailable
	switch {
	case errors.Is(err, os.ErrNotExist):
		kind = caisson.ErrNotFound
	case errors.Is(err, os.ErrPermission):
		kind = caisson.ErrDenied
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.EMFILE):
		kind = caisson.ErrExhausted
	}
	return fail(kind, err)
}

// handshake gives the keeper its spec, hears that it is ready, connects to it,
// and as the last thing says that it is wanted.
func (s *starting) handshake(ctx context.Context, spec []byte, socket string) (*link, error) {
	stop := context.AfterFunc(ctx, func() {
		s.input.SetDeadline(time.Now())
		s.output.SetDeadline(time.Now())
	})
	defer stop()
	if err := s.ready(spec); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	l, err := hello(ctx, socket)
	if err != nil {
		return nil, err
	}
	if _, err := s.input.Write([]byte{wire.Ack}); err != nil {
		l.close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fail(caisson.ErrUnavailable, crashed(nil, err))
	}
	return l, nil
}

// ready writes the spec and waits until the keeper is ready.
func (s *starting) ready(spec []byte) error {
	_, writeErr := s.input.Write(spec)
	// A keeper that does not read says why.
	said, readErr := s.hear()
	var launched wire.Launched
	if err := json.Unmarshal(said, &launched); err != nil {
		return fail(caisson.ErrInternal, crashed(said, errors.Join(writeErr, readErr)))
	}
	if err := launched.Error.Err(); err != nil {
		return err
	}
	if !launched.Ready || writeErr != nil {
		return fail(caisson.ErrInternal, errors.Join(errors.New("it is not ready"), writeErr))
	}
	return nil
}

// hear reads one line, or all there is.
func (s *starting) hear() ([]byte, error) {
	var said []byte
	part := make([]byte, 4096)
	for len(said) < maxLaunched {
		n, err := s.output.Read(part)
		said = append(said, part[:n]...)
		if err == io.EOF {
			return said, nil
		}
		if err != nil {
			return said, err
		}
		if said[0] == '{' && bytes.IndexByte(part[:n], '\n') >= 0 {
			return said, nil
		}
	}
	return said, nil
}

// crashed puts into words what a keeper left that ended at its start.
func crashed(said []byte, err error) error {
	line, _, _ := strings.Cut(strings.TrimSpace(string(said)), "\n")
	if line == "" && err != nil {
		return fmt.Errorf("it ended at its start: %w", err)
	}
	return fmt.Errorf("it ended at its start: %q", line)
}

// undo ends a keeper that is not wanted: without its launcher it undoes what
// it has made.
func (s *starting) undo() error {
	s.input.Close()
	s.output.Close()
	select {
	case <-s.reaped:
		return nil
	case <-time.After(undoTime):
	}
	s.process.Kill()
	<-s.reaped
	return fail(caisson.ErrInternal, errors.New("it did not end and was killed: parts of the sandbox may be left"))
}
