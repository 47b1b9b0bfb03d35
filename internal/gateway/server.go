package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// Bounds of what one attempt's programs can keep busy.
const (
	maxConns    = 1024 // connections from inside
	maxRequests = 512  // HTTP requests at once
)

// defaultHeaderTimeout is long because some services answer with what they had
// to compute first.
const defaultHeaderTimeout = 5 * time.Minute

// Options are what a Server can be given. The zero value is usable.
type Options struct {
	// Lookup finds the addresses of an allowed name. Nil: as this host does.
	Lookup func(ctx context.Context, name string) ([]netip.Addr, error)
	// Dial connects to an address that was checked. Nil: TCP.
	Dial func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	// Roots are trusted for the hosts of brokered secrets. Nil: those of the host.
	Roots *x509.CertPool
	// HeaderTimeout is how long the server of an HTTP request may take to begin
	// its answer. 0: 5 minutes.
	HeaderTimeout time.Duration
	// Logger gets what is wrong with handlers. Nil: nothing is logged.
	Logger *slog.Logger
	// Blocked is told of each thing that was blocked when it is tried for the first
	// time, at most caisson.MaxBlocked of them, one after the other, from several
	// goroutines. It must not block for long.
	Blocked func(caisson.Blocked)
}

// A Server serves the sockets of one attempt's sandboxes by one policy. Names
// that were looked up, addresses and what was blocked are shared by all of them.
type Server struct {
	plan     *plan
	opts     Options
	names    *names
	blocked  *blocked
	leaves   map[endpoint]*tls.Certificate // of brokers with TLS
	conns    chan struct{}                 // a place for each connection
	requests chan struct{}                 // and for each request
	buffers  buffers
	ends     []func() // of what proxies have started

	mu    sync.Mutex
	dests map[endpoint]*dest
}

// New returns a Server for a policy. Errors: those of Policy.Check.
func New(p *Policy, opts *Options) (*Server, error) {
	plan, err := compile(p)
	if err != nil {
		return nil, err
	}
	s := &Server{
		plan: plan, names: newNames(plan.exact()), leaves: map[endpoint]*tls.Certificate{}, dests: map[endpoint]*dest{},
		conns: make(chan struct{}, maxConns), requests: make(chan struct{}, maxRequests),
	}
	if opts != nil {
		s.opts = *opts
	}
	s.blocked = newBlocked(s.opts.Blocked)
	if s.opts.Lookup == nil {
		s.opts.Lookup = lookup
	}
	if s.opts.Dial == nil {
		s.opts.Dial = dialTCP
	}
	if s.opts.HeaderTimeout == 0 {
		s.opts.HeaderTimeout = defaultHeaderTimeout
	}
	if s.opts.Logger == nil {
		s.opts.Logger = slog.New(slog.DiscardHandler)
	}
	for e, b := range plan.brokers {
		if b.plain {
			continue
		}
		if s.leaves[e], err = p.Authority.leaf(e.name, e.addr); err != nil {
			return nil, err
		}
	}
	s.openProxies()
	return s, nil
}

// openProxies gives the server proxies of its own where there is more to them
// than a handler.
func (s *Server) openProxies() {
	for addr, p := range s.plan.proxies {
		o, ok := p.handler.(Opener)
		if !ok {
			continue
		}
		var end func()
		p.handler, end = o.Open(s.opts.Logger.With("proxy", p.name))
		s.plan.proxies[addr] = p
		s.ends = append(s.ends, end)
	}
}

// Serve serves sockets that an engine has opened, until ctx ends: the sandbox
// is gone, or another process takes over. Then it closes them and all that came
// through them, and returns when nothing of it is left. It may be called for
// several sandboxes at once.
func (s *Server) Serve(ctx context.Context, sockets []engine.OpenSocket) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	v := newServing(ctx, s)
	for i := range sockets {
		socket := &sockets[i]
		switch {
		case socket.Listener != nil:
			v.wait.Go(func() { v.accept(socket.Listener) })
		case socket.Packets != nil:
			v.wait.Go(func() { v.guarded(func() { v.packets(socket.Packets) }) })
		}
	}
	<-ctx.Done()
	for i := range sockets {
		if sockets[i].Listener != nil || sockets[i].Packets != nil {
			sockets[i].Close()
		}
	}
	v.close()
}

// Close gives up what the server holds outside, ends what its proxies have
// started, and counts the names that were
// only looked up to what was blocked. It is called once, after the last Serve
// has returned.
func (s *Server) Close() {
	s.mu.Lock()
	dests := s.dests
	s.dests = nil
	s.mu.Unlock()
	for _, d := range dests {
		d.transport.CloseIdleConnections()
	}
	var ends sync.WaitGroup
	for _, end := range s.ends {
		ends.Go(end)
	}
	ends.Wait()
	list, others := s.names.onlyLookedUp()
	for _, name := range list {
		s.blocked.add(name, 0, whyNotAllowed)
	}
	s.blocked.more(others)
}

// Blocked returns what was blocked, at most caisson.MaxBlocked entries with how
// often each was tried, and how often anything else was.
func (s *Server) Blocked() (list []caisson.Blocked, rest int) { return s.blocked.all() }

// block notes that something may not be reached.
func (s *Server) block(e endpoint, why string) {
	if e.name != "" {
		s.names.tried(e.name)
	}
	s.blocked.add(e.host(), e.port, why)
}

// A serving is one call of Serve.
type serving struct {
	server *Server
	ctx    context.Context
	wait   sync.WaitGroup // of all goroutines
	web    *web

	mu   sync.Mutex
	open map[net.Conn]struct{} // nil: closed
}

func newServing(ctx context.Context, s *Server) *serving {
	v := &serving{server: s, ctx: ctx, open: map[net.Conn]struct{}{}}
	v.web = newWeb(v)
	return v
}

// close ends everything that came through the sockets, and waits for it.
func (v *serving) close() {
	v.mu.Lock()
	open := v.open
	v.open = nil
	v.mu.Unlock()
	for conn := range open {
		conn.Close()
	}
	v.web.close()
	v.wait.Wait()
}

// hold remembers a connection, so that it ends with the sandbox. It reports
// false, having closed it, if that has ended.
func (v *serving) hold(conn net.Conn) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.open == nil {
		conn.Close()
		return false
	}
	v.open[conn] = struct{}{}
	return true
}

// drop closes a connection and forgets it.
func (v *serving) drop(conn net.Conn) {
	conn.Close()
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.open, conn)
}

// accept takes connections until the listener is closed. Beyond the bound they
// wait in the kernel's queue, where nobody but this sandbox waits.
func (v *serving) accept(l net.Listener) {
	wait := backoff{}
	for {
		conn, err := v.next(l, &wait)
		if err != nil || !v.hold(conn) {
			return
		}
		select {
		case v.server.conns <- struct{}{}:
		case <-v.ctx.Done():
			v.drop(conn)
			return
		}
		v.wait.Go(func() {
			defer func() { <-v.server.conns }()
			defer v.drop(conn)
			v.guarded(func() { v.connection(conn) })
		})
	}
}

// next returns the next connection. Errors pass, but for the listener's end.
func (v *serving) next(l net.Listener, wait *backoff) (net.Conn, error) {
	for {
		conn, err := l.Accept()
		if err == nil {
			*wait = backoff{}
			return conn, nil
		}
		if errors.Is(err, net.ErrClosed) || !wait.pause(v.ctx) {
			return nil, err
		}
	}
}

// guarded calls f, and survives its panic.
func (v *serving) guarded(f func()) {
	defer func() {
		if p := recover(); p != nil {
			v.server.opts.Logger.Error("a connection of the gateway panicked", "error", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	f()
}

// A backoff waits longer after each failure.
type backoff struct{ delay time.Duration }

// pause reports false if ctx has ended.
func (b *backoff) pause(ctx context.Context) bool {
	const least, most = 5 * time.Millisecond, time.Second
	b.delay = min(max(2*b.delay, least), most)
	select {
	case <-ctx.Done():
		return false
	case <-time.After(b.delay):
		return true
	}
}
