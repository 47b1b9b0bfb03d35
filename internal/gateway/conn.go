package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Times of the beginning of connections.
const (
	handshakeTimeout = 30 * time.Second // until it is clear what a connection wants
	// refusalWait is how long a connection that is refused may take to tell how
	// its program would understand that.
	refusalWait = time.Second
	// firstWait is how long the side that connects is given to speak first, before
	// the server is connected to, which then may.
	firstWait = 50 * time.Millisecond
)

// maxPeek bounds what is read to tell protocols apart.
const maxPeek = 4 << 10

// A client is a connection from inside, with what was read of it already.
type client struct {
	net.Conn
	target
	secure bool // TLS of it ends here

	buf  []byte
	once sync.Once
	done chan struct{} // closed with the connection, where HTTP is spoken
}

func (c *client) Read(p []byte) (int, error) {
	if len(c.buf) > 0 {
		n := copy(p, c.buf)
		c.buf = c.buf[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

func (c *client) Close() error {
	c.once.Do(func() { close(c.done) })
	return c.Conn.Close()
}

// CloseWrite ends what the program is sent.
func (c *client) CloseWrite() error {
	closeWrite(c.Conn)
	return nil
}

// peek reads until it is clear what the program speaks, and keeps what it read.
// timeout 0 means no limit.
func (c *client) peek(timeout time.Duration) (protocol, error) {
	if timeout > 0 {
		c.SetReadDeadline(time.Now().Add(timeout))
		defer c.SetReadDeadline(time.Time{})
	}
	for {
		kind := firstBytes(c.buf)
		if kind != unknownYet {
			return kind, nil
		}
		if len(c.buf) >= maxPeek {
			return isHTTP, nil // which refuses that
		}
		more := make([]byte, maxPeek-len(c.buf))
		n, err := c.Conn.Read(more)
		c.buf = append(c.buf, more[:n]...)
		if n == 0 && err != nil {
			return unknownYet, err
		}
	}
}

// connection serves one connection from inside until it ends.
func (v *serving) connection(conn net.Conn) {
	tcp, ok := conn.LocalAddr().(*net.TCPAddr)
	if !ok {
		return
	}
	local := tcp.AddrPort()
	if local.Port() == dnsPort && local.Addr().Unmap() == resolverAddr {
		v.questions(conn)
		return
	}
	s := v.server
	c := &client{Conn: conn, target: s.target(local), done: make(chan struct{})}
	switch {
	case c.proxy != nil:
		v.web.take(c)
	case !c.unnamed && !s.plan.allows(c.endpoint):
		v.refuse(c)
	case c.port == httpPort || c.port == httpsPort || c.unnamed || s.plan.brokers[c.endpoint] != nil:
		kind, _ := c.peek(handshakeTimeout)
		v.speak(c, kind)
	default:
		v.either(c)
	}
}

// refuse ends a connection to what is not allowed, in a way that its program
// understands.
func (v *serving) refuse(c *client) {
	kind, _ := c.peek(refusalWait)
	switch kind {
	case isHTTP:
		v.web.take(c)
	case isTLS:
		v.refuseTLS(c, c.endpoint, whyNotAllowed)
	default:
		v.server.block(c.endpoint, whyNotAllowed)
	}
}

func (v *serving) refuseTLS(c *client, e endpoint, why string) {
	v.server.block(e, why)
	c.alert(alertDenied)
}

// alert tells the program why its TLS ends. What it still sends is read for a
// moment: the end of a connection with unread bytes could overtake the alert.
func (c *client) alert(record []byte) {
	c.SetDeadline(time.Now().Add(refusalWait))
	if _, err := c.Write(record); err != nil {
		return
	}
	closeWrite(c.Conn)
	io.Copy(io.Discard, io.LimitReader(c.Conn, maxHello))
}

// speak goes on with a connection of which it is known what it speaks.
func (v *serving) speak(c *client, kind protocol) {
	switch kind {
	case isTLS:
		v.tls(c)
	case isHTTP:
		v.web.take(c)
	case isOther:
		v.server.block(endpoint{name: c.show(), port: c.port}, "neither HTTP nor TLS is spoken")
	}
}

// tls checks the name that TLS asks for, and joins the connection to the host,
// or ends TLS here where a secret goes there.
func (v *serving) tls(c *client) {
	d, ok := v.checkTLS(c)
	if !ok {
		return
	}
	if d.broker != nil {
		v.web.takeTLS(c, v.server.leaves[d.endpoint])
		return
	}
	up, err := v.connect(d)
	if err != nil {
		v.unreached(c, d, err)
		return
	}
	defer v.drop(up)
	v.join(c, up)
}

// checkTLS reads the name that TLS asks for, and returns what it leads to. If
// that may not be, the connection has been refused.
func (v *serving) checkTLS(c *client) (*dest, bool) {
	s := v.server
	c.SetReadDeadline(time.Now().Add(handshakeTimeout))
	name, raw, err := readHello(c)
	c.SetReadDeadline(time.Time{})
	c.buf = append(raw, c.buf...)
	if err != nil {
		v.refuseTLS(c, endpoint{name: c.show(), port: c.port}, err.Error())
		return nil, false
	}
	e, why := c.named(name)
	if why == "" && !s.plan.allows(e) {
		why = whyNotAllowed
	}
	if b := s.plan.brokers[e]; why == "" && b != nil && b.plain {
		why = "a secret goes there by plain HTTP: use http://, or name the host without it"
	}
	if why != "" {
		v.refuseTLS(c, e, why)
		return nil, false
	}
	d, err := s.dest(e)
	if err != nil {
		v.refuseTLS(c, e, err.Error())
		return nil, false
	}
	// From here on the connection is for this name and no other.
	c.endpoint, c.unnamed = e, false
	return d, true
}

// connect connects to a dest for as long as the sandbox is there. The caller
// drops the connection.
func (v *serving) connect(d *dest) (net.Conn, error) {
	up, err := v.server.connect(v.ctx, d)
	if err != nil {
		return nil, err
	}
	if !v.hold(up) {
		return nil, context.Canceled
	}
	return up, nil
}

// unreached ends a connection whose host could not be connected to.
func (v *serving) unreached(c *client, d *dest, err error) {
	var private *errPrivate
	if errors.As(err, &private) {
		v.server.block(d.endpoint, private.Error())
	}
	kind := firstBytes(c.buf)
	switch {
	case kind == isTLS && private != nil:
		c.alert(alertDenied)
	case kind == isTLS:
		c.alert(alertInternal)
	}
}

// join passes bytes between the program and its host, first of all those that
// were read already.
func (v *serving) join(c *client, up net.Conn) {
	if len(c.buf) > 0 {
		if _, err := up.Write(c.buf); err != nil {
			return
		}
		c.buf = nil
	}
	relay(c.Conn, up)
}

// either serves a port at which the server may speak first. Programs that speak
// first do so at once, so that it is known what they speak before anything is
// connected to.
func (v *serving) either(c *client) {
	kind, err := c.peek(firstWait)
	if kind == isTLS || kind == isHTTP {
		v.speak(c, kind)
		return
	}
	d, destErr := v.server.dest(c.endpoint)
	if destErr != nil {
		v.server.block(c.endpoint, destErr.Error())
		return
	}
	up, upErr := v.connect(d)
	if upErr != nil {
		v.unreached(c, d, upErr)
		return
	}
	defer v.drop(up)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		v.listen(c, up)
		return
	}
	v.join(c, up)
}

// listen passes on what the server says while the program says nothing, and
// looks at what that says first: a request of HTTP to a server that waits for
// one is not passed on unseen.
func (v *serving) listen(c *client, up net.Conn) {
	first := &turn{}
	var wait sync.WaitGroup
	wait.Go(func() { v.guarded(func() { passFirst(c.Conn, up, first) }) })
	defer wait.Wait()
	kind, err := c.peek(0)
	switch {
	case kind == isHTTP && first.take(byClient):
		up.Close()
		wait.Wait()
		v.web.take(c)
		return
	case kind == isTLS:
		if _, ok := v.checkTLS(c); !ok {
			up.Close()
			return
		}
	case kind == unknownYet && !errors.Is(err, io.EOF):
		up.Close()
		return
	}
	if _, err := up.Write(c.buf); err != nil {
		return
	}
	c.buf = nil
	pass(up, c.Conn)
}

// A turn is who spoke first on a connection.
type turn struct {
	mu  sync.Mutex
	who speaker
}

type speaker int

const (
	nobody speaker = iota
	byClient
	byServer
)

// take reports whether who is the first to speak, or was.
func (t *turn) take(who speaker) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.who == nobody {
		t.who = who
	}
	return t.who == who
}

// passFirst passes on what the server says, unless the program spoke before it.
func passFirst(to, from net.Conn, first *turn) {
	buf := make([]byte, maxPeek)
	n, err := from.Read(buf)
	if n > 0 {
		if !first.take(byServer) {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			from.Close()
			return
		}
	}
	if err != nil && first.take(byServer) {
		closeWrite(to)
		return
	}
	if err == nil {
		pass(to, from)
	}
}
