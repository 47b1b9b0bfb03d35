//go:build unix

package keeper

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/keeper/internal/wire"
)

// straggle is how long the output of an exec is waited for after its end:
// processes that it left behind may hold it for ever.
const straggle = 200 * time.Millisecond

// Exec starts another program in the sandbox, with a terminal if p asks for
// one. The program's descriptors come to the caller, so that its output never
// passes through the keeper. The caller must Close the Exec.
//
// ctx bounds the starting; timeout (0: none) how long the program may run. A
// program that can't be executed has ended, with code 127 or 126.
//
// Errors: ErrEnded if the main program does not run, unless the sandbox is kept.
func (c *Client) Exec(ctx context.Context, p *isolate.Program, timeout time.Duration) (*Exec, error) {
	if err := c.link.lost(); err != nil {
		return nil, err
	}
	// A connection of its own: when it closes, for whatever reason, the keeper
	// kills what still runs.
	l, err := hello(ctx, c.socket)
	if err != nil {
		return nil, c.dialError(err)
	}
	call := &call{ended: make(chan *caisson.Exit, 1)}
	req := &wire.Request{Op: wire.OpExec, Program: p, Timeout: caisson.Duration(max(timeout, 0))}
	if _, err = l.sendCall(ctx, req, call); err == nil {
		err = call.wait(ctx)
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return newExec(l, call, p.Terminal)
}

// dialError returns why a second connection can't be had.
func (c *Client) dialError(err error) error {
	if lost := c.link.lost(); lost != nil {
		return lost
	}
	if caisson.KindOf(err) != caisson.ErrUnknown || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fail(caisson.ErrUnavailable, err)
}

// An Exec is a program started by Client.Exec.
type Exec struct {
	link     *link
	call     *call
	terminal *os.File // nil without one
	stdin    io.WriteCloser
	stdout   io.Reader
	stderr   io.Reader
	files    []*os.File

	done chan struct{} // closed when exit is set
	exit caisson.Exit
}

func newExec(l *link, call *call, terminal bool) (*Exec, error) {
	e := &Exec{link: l, call: call, files: call.files, done: make(chan struct{})}
	switch {
	case call.reply.Ended && call.reply.Exit != nil:
		// It could not be executed.
		e.stdin, e.stdout, e.stderr = nowhere{}, nothing{}, nothing{}
		e.exit = *call.reply.Exit
		close(e.done)
		return e, nil
	case terminal && len(e.files) == 1:
		e.terminal = e.files[0]
		e.stdin, e.stdout, e.stderr = terminalInput{e.terminal}, &output{e.terminal}, nothing{}
	case !terminal && len(e.files) == 3:
		e.stdin, e.stdout, e.stderr = e.files[0], &output{e.files[1]}, &output{e.files[2]}
	default:
		call.drop()
		l.close()
		return nil, errGarbled
	}
	go e.await()
	return e, nil
}

// await takes the exit. It ends with the connection at the latest.
func (e *Exec) await() {
	exit := <-e.call.ended
	switch {
	case exit != nil:
		e.exit = *exit
	case errors.Is(e.link.lost(), errClosed):
		e.exit = caisson.Exit{Reason: caisson.ReasonKilled, Signal: int(syscall.SIGKILL), EndedAt: time.Now()}
	default:
		why := "its keeper was killed"
		if e.link.isGone() {
			why = "its sandbox was removed"
		}
		e.exit = caisson.Exit{Reason: caisson.ReasonAborted, Message: why, Signal: int(syscall.SIGKILL), EndedAt: time.Now()}
	}
	for _, f := range e.files {
		f.SetReadDeadline(time.Now().Add(straggle))
	}
	close(e.done)
}

// Stdin returns where to write the program's input. Closing it ends the
// input; with a terminal it sends an end of file (^D) and nothing else.
func (e *Exec) Stdin() io.WriteCloser { return e.stdin }

// Stdout returns the program's output; with a terminal, all of it. It ends
// soon after the program, also where processes that it left behind hold it.
func (e *Exec) Stdout() io.Reader { return e.stdout }

// Stderr returns the program's error output; nothing with a terminal.
func (e *Exec) Stderr() io.Reader { return e.stderr }

// Resize changes the terminal's size.
//
// Errors: ErrUnsupported without a terminal; ErrEnded after the end.
func (e *Exec) Resize(_ context.Context, cols, rows uint16) error {
	if e.terminal == nil {
		return fail(caisson.ErrUnsupported, errors.New("the program has no terminal"))
	}
	select {
	case <-e.done:
		return errExecEnded
	default:
	}
	raw, err := e.terminal.SyscallConn()
	if err == nil {
		var ioctlErr error
		err = raw.Control(func(fd uintptr) {
			ioctlErr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Col: cols, Row: rows})
		})
		err = errors.Join(err, ioctlErr)
	}
	if errors.Is(err, os.ErrClosed) || errors.Is(err, unix.EIO) {
		return errExecEnded
	}
	return err
}

// Signal sends a signal to the program. Errors: ErrEnded after the end.
func (e *Exec) Signal(ctx context.Context, signal int) error {
	select {
	case <-e.done:
		return errExecEnded
	default:
	}
	call, err := e.link.send(ctx, &wire.Request{Op: wire.OpSignal, Signal: signal})
	if err == nil {
		err = call.result(ctx)
	}
	if err != nil && ctx.Err() == nil && e.link.lost() != nil {
		return errExecEnded
	}
	return err
}

// Wait returns how the program ended. Reason is ReasonAborted where the
// sandbox ended first, and ReasonKilled after Close.
func (e *Exec) Wait(ctx context.Context) (caisson.Exit, error) {
	select {
	case <-e.done:
		return e.exit, nil
	case <-ctx.Done():
		return caisson.Exit{}, ctx.Err()
	}
}

// Close hangs up: whatever of the program still runs is killed, and the
// streams end. It can be called again.
func (e *Exec) Close() error {
	err := e.link.close()
	<-e.done
	for _, f := range e.files {
		f.Close()
	}
	return err
}

var errExecEnded = fail(caisson.ErrEnded, errors.New("the program has ended"))

// output is the reading end of a program's output.
type output struct{ file *os.File }

// Read implements io.Reader.
func (o *output) Read(p []byte) (int, error) {
	n, err := o.file.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		// The program has ended: take what is there, and nothing more.
		n, err = o.readNow(p)
	}
	if errors.Is(err, os.ErrClosed) || errors.Is(err, unix.EIO) {
		// A terminal that is hung up gives EIO.
		err = io.EOF
	}
	return n, err
}

func (o *output) readNow(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	raw, err := o.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	var readErr error
	err = raw.Control(func(fd uintptr) {
		n, readErr = unix.Read(int(fd), p)
	})
	if err = errors.Join(err, readErr); err != nil && !errors.Is(err, unix.EAGAIN) {
		return 0, err
	}
	if n <= 0 {
		return 0, io.EOF
	}
	return n, nil
}

// terminalInput is a terminal as the input that is written to.
type terminalInput struct{ file *os.File }

// Write implements io.Writer.
func (t terminalInput) Write(p []byte) (int, error) { return t.file.Write(p) }

// Close implements io.Closer by typing ^D.
func (t terminalInput) Close() error {
	_, err := t.file.Write([]byte{4})
	return err
}

// nothing and nowhere are the streams of a program that never ran.
type (
	nothing struct{}
	nowhere struct{}
)

func (nothing) Read([]byte) (int, error)    { return 0, io.EOF }
func (nowhere) Write(p []byte) (int, error) { return 0, syscall.EPIPE }
func (nowhere) Close() error                { return nil }
