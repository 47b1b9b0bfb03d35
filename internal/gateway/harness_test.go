package gateway_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/gateway"
)

// A box stands for a sandbox: connections from "inside" are made to any address
// that a test names, and arrive at the server as if they had been.
type box struct {
	t      testing.TB
	server *gateway.Server
	opts   gateway.Options
	stop   context.CancelFunc
	ended  chan struct{}
	inside *inside

	mu      sync.Mutex
	names   map[string][]netip.Addr // what the outside's resolver says
	lookups map[string]int
	routes  map[netip.AddrPort]string // outside addresses, and who answers there
	dials   []string
	blocked []string
}

// open serves a policy.
func open(t testing.TB, p *gateway.Policy, change ...func(*gateway.Options)) *box {
	t.Helper()
	b := &box{
		t: t, ended: make(chan struct{}), inside: &inside{conns: make(chan net.Conn), closed: make(chan struct{})},
		names: map[string][]netip.Addr{}, lookups: map[string]int{}, routes: map[netip.AddrPort]string{},
	}
	b.opts = gateway.Options{Lookup: b.lookup, Dial: b.dialOutside, Blocked: func(w caisson.Blocked) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.blocked = append(b.blocked, w.String())
	}}
	for _, f := range change {
		f(&b.opts)
	}
	s, err := gateway.New(p, &b.opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	b.server, b.stop = s, stop
	go func() {
		defer close(b.ended)
		s.Serve(ctx, []engine.OpenSocket{{Listener: b.inside}})
		s.Close()
	}()
	t.Cleanup(b.close)
	return b
}

func (b *box) close() {
	b.stop()
	select {
	case <-b.ended:
	case <-time.After(20 * time.Second):
		b.t.Error("Serve did not return after its context had ended")
	}
}

func (b *box) lookup(_ context.Context, name string) ([]netip.Addr, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lookups[name]++
	if addrs := b.names[name]; addrs != nil {
		return addrs, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (b *box) dialOutside(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	b.mu.Lock()
	b.dials = append(b.dials, to.String())
	real, ok := b.routes[to]
	b.mu.Unlock()
	if !ok {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("nobody is there")}
	}
	return new(net.Dialer).DialContext(ctx, "tcp", real)
}

// host makes a name of the outside lead to a public address, where a server
// answers.
func (b *box) host(name, addr string, port int, server string) {
	a := netip.MustParseAddr(addr)
	b.mu.Lock()
	defer b.mu.Unlock()
	if name != "" {
		b.names[name] = append(b.names[name], a)
	}
	b.routes[netip.AddrPortFrom(a, uint16(port))] = server
}

// connect connects from inside to an address of the sandbox.
func (b *box) connect(to string) *net.TCPConn {
	b.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	defer l.Close()
	out, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.t.Fatal(err)
	}
	in, err := l.Accept()
	if err != nil {
		b.t.Fatal(err)
	}
	b.arrive(in, to)
	b.t.Cleanup(func() { out.Close() })
	return out.(*net.TCPConn)
}

func (b *box) arrive(conn net.Conn, to string) {
	select {
	case b.inside.conns <- &arrived{TCPConn: conn.(*net.TCPConn), to: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(to))}:
	case <-b.ended:
		conn.Close()
	}
}

// listen returns an address of this host at which programs reach an address of
// the sandbox.
func (b *box) listen(to func(port int) string) *net.TCPAddr {
	b.t.Helper()
	return b.listenAt("127.0.0.1:0", to)
}

func (b *box) listenAt(at string, to func(port int) string) *net.TCPAddr {
	b.t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		b.t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			b.arrive(conn, to(addr.Port))
		}
	}()
	b.t.Cleanup(func() { l.Close(); b.close(); <-done })
	return addr
}

// address asks the resolver for a name over TCP.
func (b *box) address(name string) netip.Addr {
	b.t.Helper()
	r := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return streamOnly{b.connect("127.64.0.1:53")}, nil
	}}
	addrs, err := r.LookupNetIP(b.t.Context(), "ip4", name+".")
	if err != nil || len(addrs) != 1 {
		b.t.Fatalf("LookupNetIP(%s) = %v, %v; want one address", name, addrs, err)
	}
	return addrs[0].Unmap()
}

// to returns where a program connects for a name.
func (b *box) to(name string, port int) string {
	b.t.Helper()
	return netip.AddrPortFrom(b.address(name), uint16(port)).String()
}

// client returns an HTTP client of the inside that goes by the resolver.
func (b *box) client(roots *x509.CertPool) *http.Client {
	transport := &http.Transport{
		DialContext: func(_ context.Context, _, addr string) (net.Conn, error) {
			host, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			if _, err := netip.ParseAddr(host); err == nil {
				return b.connect(addr), nil
			}
			return b.connect(net.JoinHostPort(b.address(host).String(), port)), nil
		},
		TLSClientConfig:   &tls.Config{RootCAs: roots},
		ForceAttemptHTTP2: true, DisableCompression: true,
	}
	b.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// wasBlocked waits until something was told as blocked.
func (b *box) wasBlocked(want string) {
	b.t.Helper()
	eventually(b.t, "blocked: "+want, func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, got := range b.blocked {
			if strings.Contains(got, want) {
				return true
			}
		}
		return false
	}, func() string { return fmt.Sprint(b.blocked) })
}

func (b *box) noDials() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.dials) > 0 {
		b.t.Errorf("the outside was connected to: %v", b.dials)
	}
}

func eventually(t testing.TB, what string, ok func() bool, state func() string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never: %s; %s", what, state())
}

// inside is the listener of all sockets of a box.
type inside struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *inside) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *inside) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *inside) Addr() net.Addr { return &net.TCPAddr{} }

// arrived is a connection with the address that it was meant for.
type arrived struct {
	*net.TCPConn
	to *net.TCPAddr
}

func (a *arrived) LocalAddr() net.Addr { return a.to }

// streamOnly keeps the resolver of the standard library from taking a connection
// for one of packets.
type streamOnly struct{ net.Conn }

func rules(t testing.TB, list ...string) []gateway.Rule {
	t.Helper()
	r, err := gateway.ParseRules(list)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func allow(t testing.TB, list ...string) *gateway.Policy {
	t.Helper()
	return &gateway.Policy{Everything: true, Allow: rules(t, list...)}
}

// web starts a server of the outside.
func web(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// secureWeb starts one with TLS and HTTP/2, and returns the certificates to
// trust for the names "example.com" and below.
func secureWeb(t *testing.T, h http.HandlerFunc) (addr string, roots *x509.CertPool) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	roots = x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return s.Listener.Addr().String(), roots
}

// get asks for a URL and returns status and body.
func get(t *testing.T, c *http.Client, url string, change ...func(*http.Request)) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(r)
	}
	res, err := c.Do(r)
	if err != nil {
		t.Fatalf("GET %s: %v", url, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("GET %s: %v", url, err)
	}
	return res.StatusCode, string(body)
}

// public is an address of the public Internet for names of tests.
const public = "93.184.216.34"

func hangingLookup(asked chan<- struct{}) func(context.Context, string) ([]netip.Addr, error) {
	return func(ctx context.Context, _ string) ([]netip.Addr, error) {
		asked <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
}
