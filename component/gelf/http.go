package gelf

import (
	"bytes"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

// Bounds of a request besides the message.
const (
	maxHeader   = 16 << 10
	requestTime = 30 * time.Second
	idleTime    = time.Minute
)

// newServer answers POST /gelf.
func (l *Listener) newServer() *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /gelf", l.post)
	return &http.Server{
		Handler: mux, MaxHeaderBytes: maxHeader,
		ReadTimeout: requestTime, WriteTimeout: requestTime, IdleTimeout: idleTime,
		ErrorLog: log.New(io.Discard, "", 0),
	}
}

func (l *Listener) serveHTTP() {
	defer l.senders.Done()
	l.server.Serve(&bounded{Listener: l.stream, slots: l.slots, done: l.done}) // ends by Close
}

func (l *Listener) post(w http.ResponseWriter, r *http.Request) {
	if !l.begin() {
		http.Error(w, "closed", http.StatusServiceUnavailable)
		return
	}
	defer l.senders.Done()
	body, err := io.ReadAll(io.LimitReader(r.Body, int64(l.opts.MaxMessage)+1))
	if err != nil {
		return // the sender is gone, or too slow
	}
	if len(body) > l.opts.MaxMessage {
		l.give(bad(body, "longer than %d bytes", l.opts.MaxMessage))
		http.Error(w, "message too long", http.StatusRequestEntityTooLarge)
		return
	}
	plain, err := unpack(body, l.opts.MaxMessage)
	if err != nil {
		l.give(bad(body, "%v", err))
		http.Error(w, "message can't be read", http.StatusBadRequest)
		return
	}
	if !l.take(bytes.TrimRight(plain, "\x00 \r\n")) {
		http.Error(w, "not a GELF message", http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

// A bounded listener takes a new connection only when there is a slot for it.
type bounded struct {
	net.Listener
	slots chan struct{}
	done  chan struct{}
}

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	select {
	case b.slots <- struct{}{}:
	case <-b.done:
		return nil, net.ErrClosed
	}
	conn, err := b.Listener.Accept()
	if err != nil {
		<-b.slots
		return nil, err
	}
	return &slotConn{Conn: conn, slots: b.slots}, nil
}

// A slotConn gives its slot back when it is closed.
type slotConn struct {
	net.Conn
	slots chan struct{}
	once  sync.Once
}

// Close implements net.Conn.
func (c *slotConn) Close() error {
	c.once.Do(func() { <-c.slots })
	return c.Conn.Close()
}
