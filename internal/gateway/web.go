package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

// Bounds of HTTP from inside.
const (
	maxHeader     = 64 << 10
	maxStreams    = 100       // of one connection of HTTP/2
	maxUnread     = 256 << 10 // bytes of one connection that wait for a handler
	idleTimeout   = 2 * time.Minute
	headerTimeout = 30 * time.Second
	// closeGrace is how long handlers are waited for after their requests' contexts
	// have ended.
	closeGrace = 5 * time.Second
)

// web serves the connections on which HTTP is spoken.
type web struct {
	v      *serving
	server *http.Server
	conns  chan net.Conn // on their way to server
	closed chan struct{}

	mu       sync.Mutex
	ended    bool
	handlers sync.WaitGroup
}

func newWeb(v *serving) *web {
	w := &web{v: v, conns: make(chan net.Conn), closed: make(chan struct{})}
	w.server = &http.Server{
		Handler:                      w,
		ReadHeaderTimeout:            headerTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeader,
		HTTP2:                        &http.HTTP2Config{MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerConnection: maxUnread, MaxReceiveBufferPerStream: maxUnread},
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(v.server.opts.Logger.Handler(), slog.LevelDebug),
		BaseContext:                  func(net.Listener) context.Context { return v.ctx },
		ConnContext:                  withClient,
	}
	v.wait.Go(func() { w.server.Serve(w) })
	return w
}

// clientKey is the key of a request's *client in its context.
type clientKey struct{}

func withClient(ctx context.Context, conn net.Conn) context.Context {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	return context.WithValue(ctx, clientKey{}, conn.(*client))
}

// take serves a connection until it has ended.
func (w *web) take(c *client) { w.serve(c, c) }

// takeTLS serves a connection whose TLS ends here.
func (w *web) takeTLS(c *client, cert *tls.Certificate) {
	c.secure = true
	w.serve(c, tls.Server(c, &tls.Config{
		Certificates: []tls.Certificate{*cert},
		NextProtos:   []string{"h2", "http/1.1"},
		MinVersion:   tls.VersionTLS12,
	}))
}

func (w *web) serve(c *client, conn net.Conn) {
	select {
	case w.conns <- conn:
	case <-w.closed:
		return
	}
	select {
	case <-c.done:
	case <-w.v.ctx.Done():
	}
}

// Accept, Close and Addr make it the server's listener.
func (w *web) Accept() (net.Conn, error) {
	select {
	case conn := <-w.conns:
		return conn, nil
	case <-w.closed:
		return nil, net.ErrClosed
	}
}

func (w *web) Close() error   { return nil }
func (w *web) Addr() net.Addr { return &net.TCPAddr{} }

// close ends all requests and waits for their handlers, though not for ever: a
// handler that does not end with its request's context is somebody else's.
func (w *web) close() {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	close(w.closed)
	w.server.Close()
	done := make(chan struct{})
	go func() {
		w.handlers.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(closeGrace):
		w.v.server.opts.Logger.Error("a handler of a proxy goes on after its sandbox's end")
	}
}

// begin counts a request, unless it is too late for any.
func (w *web) begin() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended {
		w.handlers.Add(1)
	}
	return !w.ended
}

// ServeHTTP implements http.Handler.
func (w *web) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if !w.begin() {
		return
	}
	defer w.handlers.Done()
	places := w.v.server.requests
	select {
	case places <- struct{}{}:
		defer func() { <-places }()
	default:
		deny(rw, http.StatusServiceUnavailable, "too many requests at once")
		return
	}
	a := &reply{ResponseWriter: rw}
	defer w.survive(a, r)
	w.v.server.route(a, r, r.Context().Value(clientKey{}).(*client))
}

// survive turns the panic of a handler into an answer, or, where that has begun,
// into the end of the connection.
func (w *web) survive(a *reply, r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(http.ErrAbortHandler)
	}
	w.v.server.opts.Logger.Error("a handler panicked", "host", clip(r.Host), "error", fmt.Sprint(p), "stack", string(debug.Stack()))
	if a.begun {
		panic(http.ErrAbortHandler)
	}
	deny(a, http.StatusInternalServerError, "the handler of "+clip(r.Host)+" failed")
}

// deny answers with one line that says why.
func deny(rw http.ResponseWriter, status int, why string) {
	h := rw.Header()
	clear(h)
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	rw.WriteHeader(status)
	fmt.Fprintf(rw, "caisson: %s\n", why)
}

// route answers a request: it finds out what it is for, by the connection and by
// the host that it names, and refuses or forwards it.
func (s *Server) route(rw http.ResponseWriter, r *http.Request, c *client) {
	e, why := s.asked(r, c)
	if why == "" && c.proxy == nil && !s.plan.allows(e) {
		why = whyNotAllowed
	}
	if why == "" {
		why = s.stray(r, e)
	}
	if why != "" {
		s.block(e, why)
		text := clip(e.String()) + ": " + why
		if why == whyNotAllowed {
			text += fmt.Sprintf("; add %q to reach it", clip(e.String()))
		}
		deny(rw, http.StatusForbidden, text)
		return
	}
	if c.proxy != nil {
		r.Host, r.URL.Scheme, r.URL.Host = c.proxy.name, "", ""
		r.RequestURI = r.URL.RequestURI()
		c.proxy.handler.ServeHTTP(rw, r)
		return
	}
	d, err := s.dest(e)
	if err != nil {
		s.block(e, err.Error())
		deny(rw, http.StatusForbidden, err.Error())
		return
	}
	d.forward.ServeHTTP(rw, r)
}

// asked returns what a request is for, and why not if that is not what the
// connection was made for.
func (s *Server) asked(r *http.Request, c *client) (e endpoint, why string) {
	host, port, err := splitPort(r.Host)
	if err != nil {
		host, port = r.Host, c.port
	}
	if port == 0 {
		port = c.port
	}
	e, why = c.named(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	scheme := "http"
	if c.secure {
		scheme = "https"
	}
	switch {
	case why != "":
		e.port = port
	case r.Method == http.MethodConnect:
		return endpoint{name: r.Host, port: port}, "CONNECT on a connection to " + e.String() + ", which is no proxy"
	case r.URL.IsAbs() && r.URL.Scheme != scheme:
		return e, "a request for " + clip(r.URL.Scheme) + ": on a connection for " + scheme
	case port != c.port:
		return endpoint{name: host, port: port}, "asked for on a connection to " + e.String()
	}
	if b := s.plan.brokers[e]; why == "" && b != nil && !b.plain && !c.secure {
		why = "a secret goes there by TLS only: use https://"
	}
	return e, why
}

// A reply knows whether a handler has begun it.
type reply struct {
	http.ResponseWriter
	begun bool
}

func (a *reply) WriteHeader(status int) {
	a.begun = a.begun || status >= http.StatusOK || status == http.StatusSwitchingProtocols
	a.ResponseWriter.WriteHeader(status)
}

func (a *reply) Write(p []byte) (int, error) {
	a.begun = true
	return a.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (a *reply) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Flush implements http.Flusher.
func (a *reply) Flush() {
	a.begun = true
	http.NewResponseController(a.ResponseWriter).Flush()
}

// Hijack implements http.Hijacker, for handlers of websockets.
func (a *reply) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := http.NewResponseController(a.ResponseWriter).Hijack()
	a.begun = a.begun || err == nil
	return conn, buf, err
}
