// Package qmp talks to a QEMU by its machine protocol: one JSON object a line,
// over a socket. It knows the protocol's rules, and has methods for the few
// commands that Caisson needs.
//
// A guest may have taken over its QEMU: what comes from there is bounded in
// length and number, and whoever breaks the protocol is not talked to any more.
package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/caissonrun/caisson"
)

// MaxMessage bounds one line from QEMU, in bytes. The largest honest one is the
// answer to query-qmp-schema, a quarter of it.
const MaxMessage = 1 << 20

// maxPending bounds how many commands wait for their answers.
const maxPending = 64

// A Version is QEMU's.
type Version struct {
	Major, Minor, Micro int
	// Package is what a distribution adds.
	Package string
}

// String returns the numbers, with dots.
func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Micro) }

// An Event is something that happened in QEMU without being asked for.
type Event struct {
	Name string          `json:"event"` // such as SHUTDOWN
	Data json.RawMessage `json:"data"`  // nil where the event has none
}

// Options change what a Client does.
type Options struct {
	// Event is called for each event, in their order, by the goroutine that
	// reads: it must neither block nor call the client. Nil: events are dropped.
	Event func(Event)
}

// A Client is a connection to one QEMU. Its methods may be called from any
// goroutine.
type Client struct {
	conn    net.Conn
	version Version
	event   func(Event)
	sending chan struct{} // held by who writes
	ended   chan struct{} // closed when nothing is read any more

	mu      sync.Mutex
	next    int64
	pending map[int64]chan answer
	err     error // why nothing is read any more
}

// An answer is what QEMU says to a command.
type answer struct {
	value json.RawMessage
	err   error
}

// A reply is any line of QEMU's.
type reply struct {
	Event
	ID     *int64          `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	Greeting *struct {
		Version struct {
			QEMU    struct{ Major, Minor, Micro int } `json:"qemu"`
			Package string                            `json:"package"`
		} `json:"version"`
	} `json:"QMP"`
}

// New greets the QEMU at conn, which becomes the client's: it is closed by Close,
// or if New fails. ctx bounds the greeting.
//
// Errors: ErrUnavailable if there is no QEMU that speaks the protocol.
func New(ctx context.Context, conn net.Conn, o *Options) (*Client, error) {
	c := &Client{conn: conn, sending: make(chan struct{}, 1), ended: make(chan struct{}), pending: map[int64]chan answer{}}
	if o != nil {
		c.event = o.Event
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	lines := newLines(conn)
	err := c.greet(lines)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, gone(fmt.Errorf("greeting: %w", err))
	}
	go c.read(lines)
	if err := c.Do(ctx, "qmp_capabilities", nil, nil); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Dial connects to QEMU's unix socket. See New.
func Dial(ctx context.Context, path string, o *Options) (*Client, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, gone(err)
	}
	return New(ctx, conn, o)
}

// greet reads what QEMU says first.
func (c *Client) greet(lines *bufio.Scanner) error {
	r, err := nextReply(lines)
	if err != nil {
		return err
	}
	if r.Greeting == nil {
		return errors.New("it does not say which version it is")
	}
	v := r.Greeting.Version
	c.version = Version{v.QEMU.Major, v.QEMU.Minor, v.QEMU.Micro, v.Package}
	return nil
}

// newLines cuts the connection into lines of at most MaxMessage bytes.
func newLines(r io.Reader) *bufio.Scanner {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4096), MaxMessage)
	return lines
}

// nextReply reads one message.
func nextReply(lines *bufio.Scanner) (*reply, error) {
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue
		}
		r := &reply{}
		if err := json.Unmarshal(lines.Bytes(), r); err != nil {
			return nil, fmt.Errorf("a message that is none: %w", err)
		}
		return r, nil
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, fmt.Errorf("a message is longer than %d bytes", MaxMessage)
	case err != nil:
		return nil, err
	}
	return nil, io.EOF
}

// Version returns what QEMU has said at the beginning.
func (c *Client) Version() Version { return c.version }

// Done is closed when the connection has ended. Err says why.
func (c *Client) Done() <-chan struct{} { return c.ended }

// Err returns why the connection has ended, and nil while it has not.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection and returns when nothing is read any more. It can be
// called again. QEMU lives on.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.ended
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// read passes on what QEMU says, until the connection ends.
func (c *Client) read(lines *bufio.Scanner) {
	defer close(c.ended)
	err := c.pass(lines)
	c.conn.Close()
	err = gone(err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	for id, wait := range c.pending {
		delete(c.pending, id)
		wait <- answer{err: err}
	}
}

// pass returns only with an error.
func (c *Client) pass(lines *bufio.Scanner) error {
	for {
		r, err := nextReply(lines)
		switch {
		case err != nil:
			return err
		case r.Name != "":
			if c.event != nil {
				c.event(r.Event)
			}
		case r.ID == nil:
			return errors.New("a message is neither an event nor the answer to a command")
		case r.Return == nil && r.Error == nil:
			return errors.New("an answer says nothing")
		default:
			if err := c.settle(r); err != nil {
				return err
			}
		}
	}
}

// settle passes an answer on to who asked, if he still waits.
func (c *Client) settle(r *reply) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if *r.ID < 0 || *r.ID >= c.next {
		return errors.New("an answer to what nobody has asked")
	}
	wait := c.pending[*r.ID]
	if wait == nil {
		return nil
	}
	delete(c.pending, *r.ID)
	a := answer{value: r.Return}
	if r.Error != nil {
		a.err = commandError(r.Error.Class, r.Error.Desc)
	}
	wait <- a
	return nil
}

// Do has QEMU carry out a command, with arguments as JSON has them (nil: none),
// and decodes the answer into result unless that is nil. ctx bounds the call; a
// command that was sent may be carried out after it.
//
// Errors: ErrUnsupported if this QEMU does not have the command; ErrNotFound if
// what it names is not there; ErrInvalid if QEMU refuses it; ErrUnavailable if
// QEMU has gone; ErrExhausted if too many commands wait; ctx's.
func (c *Client) Do(ctx context.Context, command string, args, result any) error {
	return c.do(ctx, command, args, result, nil)
}

// do is Do with a file that goes along with the command.
func (c *Client) do(ctx context.Context, command string, args, result any, send sender) error {
	id, wait, err := c.expect()
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	defer c.forget(id)
	if err := c.write(ctx, &call{command, args, id}, send); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	select {
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", command, ctx.Err())
	case a := <-wait:
		if a.err == nil && result != nil {
			if err := json.Unmarshal(a.value, result); err != nil {
				a.err = &caisson.Error{Item: "qemu", Kind: caisson.ErrUnavailable, Err: fmt.Errorf("an answer of another form: %w", err)}
			}
		}
		if a.err != nil {
			return fmt.Errorf("%s: %w", command, a.err)
		}
		return nil
	}
}

// A call is a command as it is sent.
type call struct {
	Execute   string `json:"execute"`
	Arguments any    `json:"arguments,omitempty"`
	ID        int64  `json:"id"`
}

// expect makes a place for an answer.
func (c *Client) expect() (id int64, wait chan answer, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, nil, c.err
	}
	if len(c.pending) >= maxPending {
		return 0, nil, &caisson.Error{Item: "qemu", Kind: caisson.ErrExhausted, Err: fmt.Errorf("%d commands wait for an answer", maxPending)}
	}
	id, wait = c.next, make(chan answer, 1)
	c.next++
	c.pending[id] = wait
	return id, wait, nil
}

func (c *Client) forget(id int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, id)
}

// A sender writes a message in another way than Write.
type sender func(message []byte) (int, error)

// write sends one command, or nothing of it. One that was sent in part ends the
// connection: nobody could tell where the next begins.
func (c *Client) write(ctx context.Context, m *call, send sender) error {
	data, err := json.Marshal(m)
	if err != nil {
		return &caisson.Error{Item: "qemu", Kind: caisson.ErrInvalid, Err: err}
	}
	select {
	case c.sending <- struct{}{}:
		defer func() { <-c.sending }()
	case <-ctx.Done():
		return ctx.Err()
	case <-c.ended:
		return c.Err()
	}
	if send == nil {
		send = c.conn.Write
	}
	n, err := c.bounded(ctx, append(data, '\n'), send)
	switch {
	case err == nil:
		return nil
	case n == 0 && ctx.Err() != nil:
		return ctx.Err()
	}
	c.conn.Close()
	return gone(err)
}

// bounded sends until ctx ends.
func (c *Client) bounded(ctx context.Context, data []byte, send sender) (int, error) {
	late := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(late)
		_ = c.conn.SetWriteDeadline(time.Unix(1, 0))
	})
	n, err := send(data)
	if !stop() {
		<-late
		_ = c.conn.SetWriteDeadline(time.Time{})
	}
	return n, err
}

// gone says that QEMU can't be talked to.
func gone(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		err = errors.New("it has ended, or the connection to it")
	}
	return &caisson.Error{Item: "qemu", Kind: caisson.ErrUnavailable, Err: err}
}

// commandError sorts QEMU's refusals.
func commandError(class, text string) error {
	kind := caisson.ErrInvalid
	switch class {
	case "CommandNotFound":
		kind = caisson.ErrUnsupported
	case "DeviceNotFound":
		kind = caisson.ErrNotFound
	}
	return &caisson.Error{Item: "qemu", Kind: kind, Err: fmt.Errorf("%q", shorten(text))}
}

// shorten bounds a text of QEMU's for a message.
func shorten(text string) string {
	if len(text) > 500 {
		return text[:500] + "..."
	}
	return text
}
