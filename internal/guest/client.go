//go:build unix

// Package guest is the host's side of the agent in a virtual machine: see package
// wire for what they say to each other, and docs/guest.md for why.
//
// Whoever is in the machine may have replaced the agent. So nothing that it says is
// taken for granted: an answer is bounded, checked and, where it is text, made fit
// to be shown; what breaks a rule of the protocol ends the session. No call waits
// for longer than its context, or than Options.Patience where it has none.
package guest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/guest/wire"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/internal/safefs"
)

const (
	// maxMessage bounds an answer: that with the most in it lists the programs.
	maxMessage = 256 << 10
	// maxConnections is how many connections to sockets inside may be open.
	maxConnections = 512
	// helloPause is how often the greeting is repeated: the agent may be starting, or
	// may have lost it among what was left of an earlier session.
	helloPause = 250 * time.Millisecond
	// defaultPatience is Options.Patience if that is zero.
	defaultPatience = time.Minute
)

// What is sent as it is. See package wire.
type (
	Info      = wire.Info
	Setup     = wire.Setup
	Program   = wire.Program
	Running   = wire.Running
	Mount     = wire.Mount
	Interface = wire.Interface
	Route     = wire.Route
	Owner     = wire.Owner
	Name      = wire.Name
	File      = wire.File
	Who       = wire.Who
	Person    = wire.Person
	Host      = wire.Host
	Identity  = wire.Identity
)

// Options configures a Client. Nil is the default.
type Options struct {
	// Patience is how long one step of reading files may take, which has no context.
	// Zero: a minute.
	Patience time.Duration
}

// A Client is a session with the agent. Its methods may be called from any
// goroutine.
//
// Errors of all methods: ErrUnavailable if the session has ended, or the agent does
// not keep to the protocol; the context's; otherwise what the agent says, sorted.
type Client struct {
	mux      *wire.Mux
	patience time.Duration
	nonce    wire.Nonce
	boot     wire.Nonce
	ended    chan struct{} // closed when all goroutines of the session have ended

	mu       sync.Mutex
	hellos   int // that may still be answered
	gateways map[uint32]*Gateway
	nextKey  uint32
	shares   int          // connections of Share
	relayed  atomic.Int32 // calls that came by them and are open
}

// Dial begins a session over a stream that is the client's from now on, also if
// that fails. Ctx bounds the greeting: a guest that is still booting answers late.
//
// Errors: ErrUnsupported if the agent speaks other versions; ErrUnavailable if the
// stream ends; the context's.
func Dial(ctx context.Context, conn io.ReadWriteCloser, opts *Options) (*Client, error) {
	c := &Client{patience: defaultPatience, ended: make(chan struct{}), gateways: map[uint32]*Gateway{}}
	if opts != nil && opts.Patience > 0 {
		c.patience = opts.Patience
	}
	if _, err := rand.Read(c.nonce[:]); err != nil {
		conn.Close()
		return nil, err
	}
	welcome := make(chan wire.Welcome, 1)
	c.mux = wire.NewMux(conn, wire.MuxOptions{
		MaxMessage: maxMessage, MaxCalls: maxConnections, Serve: c.serve, Greeting: c.greeted,
		Begin: func(r *wire.Reader) error { return c.find(r, welcome) },
	})
	go func() {
		defer close(c.ended)
		_ = c.mux.Run(wire.NewReader(conn), func() { _ = conn.Close() })
	}()
	if err := c.greet(ctx, welcome); err != nil {
		c.mux.Stop(err)
		<-c.ended
		return nil, c.sorted(caisson.OpStart, err)
	}
	return c, nil
}

// greet says hello until the agent answers.
func (c *Client) greet(ctx context.Context, welcome <-chan wire.Welcome) error {
	hello := wire.Hello{Nonce: c.nonce, Lowest: wire.Version, Highest: wire.Version}
	before := wire.Preamble
	again := time.NewTicker(helloPause)
	defer again.Stop()
	for {
		c.mu.Lock()
		c.hellos++
		c.mu.Unlock()
		c.mux.Greet(before, hello.Frame())
		before = nil
		select {
		case w := <-welcome:
			if w.Version != wire.Version {
				return &caisson.Error{
					Op: caisson.OpStart, Item: "guest agent", Kind: caisson.ErrUnsupported,
					Err: fmt.Errorf("it speaks versions %d to %d of the protocol, and this program %d", w.Lowest, w.Highest, wire.Version),
				}
			}
			return nil
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-c.mux.Done():
			return c.mux.Why()
		}
	}
}

// find skips what is left of earlier sessions, up to the answer to this one's
// greeting.
func (c *Client) find(r *wire.Reader, welcome chan<- wire.Welcome) error {
	for {
		f, err := r.Greeting(wire.KindWelcome)
		if err != nil {
			return err
		}
		if w, err := wire.ParseWelcome(f.Body); err == nil && w.Nonce == c.nonce {
			c.mu.Lock()
			c.hellos--
			c.boot = w.Boot
			c.mu.Unlock()
			welcome <- w
			return nil
		}
	}
}

// greeted takes the answers to greetings that were repeated.
func (c *Client) greeted(f *wire.Frame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	w, err := wire.ParseWelcome(f.Body)
	if f.Kind != wire.KindWelcome || err != nil || w.Nonce != c.nonce || w.Boot != c.boot || c.hellos == 0 {
		return errors.New("a greeting that nobody asked for")
	}
	c.hellos--
	return nil
}

// Close ends the session. Programs that are not kept are killed by the agent as soon
// as it learns of it. It may be called again.
func (c *Client) Close() error {
	c.mux.Stop(errors.New("it was closed"))
	<-c.ended
	return nil
}

// Done is closed when the session has ended.
func (c *Client) Done() <-chan struct{} { return c.mux.Done() }

// Err returns what the session has ended for; nil while it has not.
func (c *Client) Err() error {
	if err := c.mux.Why(); err != nil {
		return c.sorted("", err)
	}
	return nil
}

// Boot identifies the agent: another value in a later session says that the guest was
// started again, or was told that it is a copy. See Reseed.
func (c *Client) Boot() [16]byte { return c.boot }

// ask makes a call that has one answer, and reads that into result.
func (c *Client) ask(ctx context.Context, op caisson.Op, name string, params, result any) error {
	call, err := c.mux.Call(ctx, name, params)
	if err != nil {
		return c.sorted(op, err)
	}
	defer call.Cancel()
	body, last, err := call.Next(ctx)
	switch {
	case err != nil:
		return c.sorted(op, err)
	case !last:
		return c.broken(op, errors.New("more than one answer"))
	case result == nil:
		return nil
	}
	if err := json.Unmarshal(body, result); err != nil {
		return c.broken(op, err)
	}
	return nil
}

// broken ends the session because of what the agent says.
func (c *Client) broken(op caisson.Op, err error) error {
	c.mux.Stop(fmt.Errorf("the agent does not keep to the protocol: %w", err))
	return c.sorted(op, c.mux.Why())
}

// kinds are those that an agent can decide. It is never changed.
var kinds = map[string]caisson.Kind{
	caisson.ErrInvalid.Error(): caisson.ErrInvalid, caisson.ErrUnsupported.Error(): caisson.ErrUnsupported,
	caisson.ErrNotFound.Error(): caisson.ErrNotFound, caisson.ErrExists.Error(): caisson.ErrExists,
	caisson.ErrDenied.Error(): caisson.ErrDenied, caisson.ErrExhausted.Error(): caisson.ErrExhausted,
	caisson.ErrEnded.Error(): caisson.ErrEnded, caisson.ErrAborted.Error(): caisson.ErrAborted,
}

// sorted gives an error its kind.
func (c *Client) sorted(op caisson.Op, err error) error {
	var sorted *caisson.Error
	var said *wire.Failure
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.As(err, &sorted):
		return err
	case errors.Is(err, wire.ErrSession):
		return &caisson.Error{Op: op, Item: "guest", Kind: caisson.ErrUnavailable, Err: err}
	case !errors.As(err, &said):
		return &caisson.Error{Op: op, Item: "guest", Kind: safefs.Kind(err), Err: err}
	case said.Exec == 126 || said.Exec == 127:
		return &isolate.ExecError{Code: said.Exec, Err: said}
	}
	kind, ok := kinds[said.Kind]
	if !ok {
		kind = safefs.Kind(said)
	}
	return &caisson.Error{Op: op, Item: "guest", Kind: kind, Err: said}
}
