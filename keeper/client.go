//go:build unix

package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/keeper/internal/wire"
)

// A Client talks to one keeper. It may be used by several goroutines.
//
// Its calls end with the context's error where that ends first. Once the
// sandbox was destroyed, by whomever, they return ErrAborted; once the keeper
// was killed, or Close was called, ErrUnavailable.
type Client struct {
	dir    string
	socket string
	// reaped is closed when the keeper's process is gone. Nil if another
	// process launched it.
	reaped <-chan struct{}

	link *link

	mu     sync.Mutex
	exited *call // the one request for the exit that all Waits share
}

// Status returns what the keeper says of itself.
func (c *Client) Status(ctx context.Context) (Status, error) {
	reply, err := c.ask(ctx, &wire.Request{Op: wire.OpStatus})
	if err != nil {
		return Status{}, err
	}
	if reply.Status == nil {
		return Status{}, errGarbled
	}
	return *reply.Status, nil
}

// Own says that the caller sees to what follows the exit, as long as the
// Client is not closed: Spec.OnExit is not started meanwhile.
func (c *Client) Own(ctx context.Context) error { return c.do(ctx, wire.OpOwn) }

// Assign puts another program in the place of the one that was not started yet.
//
// Errors: ErrExists if one was started; ErrUnsupported if the keeper is of an older
// version, or the program is not its own to start; ErrInvalid.
func (c *Client) Assign(ctx context.Context, a *Assignment) error {
	_, err := c.ask(ctx, &wire.Request{Op: wire.OpAssign, Assign: a})
	return err
}

// Start starts the program and returns when it runs. A program that can't be
// executed has ended at once, with code 127 or 126.
//
// Errors: ErrExists if it was started before.
func (c *Client) Start(ctx context.Context) error { return c.do(ctx, wire.OpStart) }

// Wait returns the exit once it is durable. It may be called before Start.
//
// Errors: ErrUnavailable if the keeper was killed before: the exit is lost;
// ErrAborted if the sandbox was destroyed before the program was started.
func (c *Client) Wait(ctx context.Context) (caisson.Exit, error) {
	call, err := c.waiting()
	if err == nil {
		err = call.wait(ctx)
	}
	if err == nil && call.reply.Exit == nil {
		err = errGarbled
	}
	if err == nil {
		return *call.reply.Exit, nil
	}
	if ctx.Err() == nil && c.link.lost() != nil {
		if exit, exitErr := ReadExit(c.dir); exitErr == nil {
			return exit, nil
		}
	}
	return caisson.Exit{}, err
}

// waiting asks for the exit, unless it was asked for before.
func (c *Client) waiting() (*call, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.exited != nil {
		return c.exited, nil
	}
	call, err := c.link.send(context.Background(), &wire.Request{Op: wire.OpWait})
	if err == nil {
		c.exited = call
	}
	return call, err
}

// Signal sends a signal to the program itself.
//
// Errors: ErrEnded if it has ended; ErrNotFound if it was not started;
// ErrInvalid if there is no such signal.
func (c *Client) Signal(ctx context.Context, signal int) error {
	_, err := c.ask(ctx, &wire.Request{Op: wire.OpSignal, Signal: signal})
	return err
}

// Stop has the keeper stop the program: signal (0: Spec.StopSignal), after
// grace the end of everything in the sandbox. Without grace, or with less, it
// is killed at once. It returns when the keeper has taken it on. The first
// stop gives the exit its reason; a later one can only make it quicker.
//
// Errors: ErrEnded if the program has ended; ErrNotFound if it was not started.
func (c *Client) Stop(ctx context.Context, reason caisson.Reason, signal int, grace time.Duration) error {
	_, err := c.ask(ctx, &wire.Request{
		Op: wire.OpStop, Reason: reason, Signal: signal, Grace: caisson.Duration(max(grace, 0)),
	})
	return err
}

// Pause halts every process in the sandbox; the timeout runs on. Pausing twice
// is nil, and so is resuming what runs. A stop resumes first.
//
// Errors: ErrEnded.
func (c *Client) Pause(ctx context.Context) error { return c.do(ctx, wire.OpPause) }

// Resume undoes Pause.
func (c *Client) Resume(ctx context.Context) error { return c.do(ctx, wire.OpResume) }

// Stats returns what the sandbox uses, after the end of the program, and of its
// keep, the last figures. What can't be measured is -1.
func (c *Client) Stats(ctx context.Context) (isolate.Stats, error) {
	reply, err := c.ask(ctx, &wire.Request{Op: wire.OpStats})
	if err != nil {
		return isolate.Stats{}, err
	}
	if reply.Stats == nil {
		return isolate.Stats{}, errGarbled
	}
	return reply.Stats.Stats(), nil
}

// Root returns the sandbox's root folder as an O_PATH descriptor, which is the
// caller's to close.
func (c *Client) Root(ctx context.Context) (*os.File, error) {
	call, err := c.call(ctx, &wire.Request{Op: wire.OpRoot})
	if err != nil {
		return nil, err
	}
	if len(call.files) != 1 {
		call.drop()
		return nil, errGarbled
	}
	return call.files[0], nil
}

// Sockets returns duplicates of the sockets of Spec.Box, in that order, which are
// the caller's to close. They can be had as often as they are asked for, until
// the program has ended.
//
// Errors: ErrEnded if the program has ended.
func (c *Client) Sockets(ctx context.Context) ([]*os.File, error) {
	call, err := c.call(ctx, &wire.Request{Op: wire.OpSockets})
	if err != nil {
		return nil, err
	}
	return call.files, nil
}

// Do asks the sandbox's box something that only it and the engine know of, at any
// time until Destroy, several at once. Params is sent as JSON; the answer is read
// into result, unless that is nil. Files are the caller's to close. A call whose
// ctx ends is not taken back.
//
// Errors: ErrUnsupported if the box, or a keeper of an older version, knows no such
// request; otherwise what the box says.
func (c *Client) Do(ctx context.Context, op string, params, result any) (files []*os.File, err error) {
	req := &wire.Request{Op: wire.OpDo, Name: op}
	if params != nil {
		if req.Params, err = json.Marshal(params); err != nil {
			return nil, err
		}
	}
	if err := c.link.lost(); err != nil {
		return nil, err
	}
	// A connection of its own, because there may be many answers that take long.
	l, err := hello(ctx, c.socket)
	if err != nil {
		return nil, c.dialError(err)
	}
	defer l.close()
	call, err := l.send(ctx, req)
	if err == nil {
		err = call.result(ctx)
	}
	if err != nil {
		return nil, err
	}
	if result != nil {
		if err := json.Unmarshal(call.reply.Result, result); err != nil {
			call.drop()
			return nil, errGarbled
		}
	}
	return call.files, nil
}

// Destroy ends the program, the sandbox and the keeper, and returns when
// nothing of them is left. A sandbox that was destroyed is nil.
//
// Errors: what is left behind: the keeper then lives on, and Destroy can be
// called again. ErrUnavailable if the keeper was killed: no program is left
// then, but the engine has to remove what else was made.
func (c *Client) Destroy(ctx context.Context) error {
	if err := c.do(ctx, wire.OpDestroy); err != nil && !c.link.isGone() {
		return err
	}
	// The keeper's end closes the connection.
	select {
	case <-c.link.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if c.reaped == nil {
		return nil
	}
	select {
	case <-c.reaped:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close closes the connection; the keeper lives on. It can be called again.
func (c *Client) Close() error { return c.link.close() }

func (c *Client) do(ctx context.Context, op string) error {
	_, err := c.ask(ctx, &wire.Request{Op: op})
	return err
}

// ask waits for an answer that has no descriptors.
func (c *Client) ask(ctx context.Context, req *wire.Request) (*wire.Reply, error) {
	call, err := c.call(ctx, req)
	if err != nil {
		return nil, err
	}
	call.drop()
	return call.reply, nil
}

// call waits for an answer for as long as a keeper may take that is not halted
// or stuck itself. Its files are the caller's.
func (c *Client) call(ctx context.Context, req *wire.Request) (*call, error) {
	if patience := patienceFor(req.Op); patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, patience, errSilent)
		defer cancel()
	}
	call, err := c.link.send(ctx, req)
	if err == nil {
		err = call.result(ctx)
	}
	switch {
	case err == nil:
		return call, nil
	case errors.Is(context.Cause(ctx), errSilent):
		return nil, errSilent
	}
	return nil, err
}

var errSilent = fail(caisson.ErrUnavailable, errors.New("the keeper does not answer: it is halted, or the host is; see ps for caisson-keeper"))

// patienceFor returns how long a request may take; 0: as long as the caller
// lets it. Starting a program waits for it to be executed.
func patienceFor(op string) time.Duration {
	switch op {
	case wire.OpDestroy, wire.OpWait:
		return 0
	case wire.OpStart, wire.OpExec:
		return time.Minute
	}
	return 10 * time.Second
}

var errGarbled = fail(caisson.ErrInternal, errors.New("an answer that does not fit the request"))

// hello opens a connection to a keeper and learns that it can be talked to.
func hello(ctx context.Context, socket string) (*link, error) {
	conn, err := wire.Dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	l := newLink(conn)
	ctx, cancel := context.WithTimeoutCause(ctx, patienceFor(wire.OpHello), errSilent)
	defer cancel()
	call, err := l.send(ctx, &wire.Request{Op: wire.OpHello, Version: wire.Version})
	if err == nil {
		err = call.result(ctx)
	}
	if err == nil && call.reply.Version > wire.Version {
		err = fail(caisson.ErrUnsupported,
			fmt.Errorf("keeper speaks version %d, this program up to %d: use the newer one", call.reply.Version, wire.Version))
	}
	if err != nil {
		l.close()
		if errors.Is(context.Cause(ctx), errSilent) {
			err = errSilent
		}
		return nil, err
	}
	return l, nil
}
