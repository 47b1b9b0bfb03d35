//go:build unix

package keeper

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/keeper/internal/wire"
)

// maxFiles is how many descriptors an answer may bring: a program's streams, or
// a sandbox's sockets.
const maxFiles = isolate.MaxSockets

// lastWords is how long a connection that can't be written to may take to end.
const lastWords = time.Second

// A link is one connection to a keeper, with the calls that wait for answers.
// Its goroutine ends when the connection does.
type link struct {
	conn *wire.Conn
	done chan struct{} // closed when the connection has ended

	sending sync.Mutex

	mu    sync.Mutex
	last  uint32
	calls map[uint32]*call
	gone  bool  // the keeper said that the sandbox was destroyed
	err   error // what calls get once the connection has ended
}

// A call is a request that was sent.
type call struct {
	link     *link
	id       uint32
	answered chan struct{} // closed when the fields below are set
	reply    *wire.Reply
	files    []*os.File
	err      error
	// ended, if not nil, takes the exit of a second answer, or nil if the
	// connection ends before. It holds one.
	ended chan *caisson.Exit
}

func newLink(conn *wire.Conn) *link {
	l := &link{conn: conn, done: make(chan struct{}), calls: map[uint32]*call{}}
	go l.receive()
	return l
}

// send sends a request. If ctx ends in the middle of that, the connection is
// of no use any more.
func (l *link) send(ctx context.Context, req *wire.Request) (*call, error) {
	return l.sendCall(ctx, req, &call{})
}

// sendCall is send with a call that the caller has made.
func (l *link) sendCall(ctx context.Context, req *wire.Request, c *call) (*call, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := l.register(req, c); err != nil {
		return nil, err
	}
	err := l.transmit(ctx, req)
	if err == nil {
		return c, nil
	}
	if ctx.Err() == nil {
		// The keeper has ended. What it said last tells why.
		select {
		case <-l.done:
		case <-time.After(lastWords):
		}
	}
	// A part of the request may be sent, so nothing can follow it.
	l.conn.Close()
	<-l.done
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return nil, l.lost()
}

// transmit sends a request, one at a time. The keeper reads at once, unless it
// is halted.
func (l *link) transmit(ctx context.Context, req *wire.Request) error {
	l.sending.Lock()
	defer l.sending.Unlock()
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		l.conn.SetWriteDeadline(time.Now())
		close(cut)
	})
	err := l.conn.Send(req)
	if !stop() {
		<-cut
		l.conn.SetWriteDeadline(time.Time{})
	}
	return err
}

// register gives a request its number.
func (l *link) register(req *wire.Request, c *call) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	l.last++
	req.ID = l.last
	c.link, c.id, c.answered = l, req.ID, make(chan struct{})
	l.calls[req.ID] = c
	return nil
}

// wait waits for the answer and returns the error in it. Several may wait.
func (c *call) wait(ctx context.Context) error {
	select {
	case <-c.answered:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// result is wait for the only one who waits: if ctx ends first, nobody wants
// the answer.
func (c *call) result(ctx context.Context) error {
	err := c.wait(ctx)
	if err != nil {
		c.link.forget(c)
	}
	return err
}

// drop closes descriptors that nobody wants.
func (c *call) drop() {
	for _, f := range c.files {
		f.Close()
	}
	c.files = nil
}

// receive takes answers until the connection ends.
func (l *link) receive() {
	defer close(l.done)
	for {
		reply := new(wire.Reply)
		files, err := l.conn.ReceiveFiles(reply, wire.MaxReply, maxFiles)
		if err != nil {
			break
		}
		l.deliver(reply, files)
	}
	l.conn.Close()
	l.end()
}

// deliver gives an answer to its call.
func (l *link) deliver(reply *wire.Reply, files []*os.File) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = l.gone || reply.Gone
	c := l.calls[reply.ID]
	if c == nil {
		closeAll(files)
		return
	}
	if c.ended == nil || reply.Error != nil || reply.Ended {
		delete(l.calls, reply.ID)
	}
	if c.reply != nil {
		closeAll(files)
		if c.ended != nil && reply.Exit != nil {
			c.ended <- reply.Exit
		}
		return
	}
	c.reply, c.files, c.err = reply, files, reply.Error.Err()
	close(c.answered)
}

// end fails the calls that wait.
func (l *link) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = fail(caisson.ErrUnavailable, errors.New("it is gone: it was killed, or the connection was cut"))
	}
	if l.gone {
		l.err = fail(caisson.ErrAborted, errors.New("the sandbox was destroyed"))
	}
	for _, c := range l.calls {
		if c.reply == nil {
			c.err = l.err
			close(c.answered)
		}
		if c.ended != nil {
			c.ended <- nil
		}
	}
	l.calls = nil
}

// forget drops a call whose answer nobody waits for any more.
func (l *link) forget(c *call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.calls, c.id)
	c.drop()
}

// lost returns why the connection has ended, nil if it has not.
func (l *link) lost() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// isGone reports whether the keeper said that the sandbox was destroyed.
func (l *link) isGone() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.gone
}

// close ends the connection and the calls on it.
func (l *link) close() error {
	l.mu.Lock()
	if l.err == nil {
		l.err = errClosed
	}
	l.mu.Unlock()
	l.conn.Close()
	<-l.done
	return nil
}

var errClosed = fail(caisson.ErrUnavailable, errors.New("the client was closed"))

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
