//go:build unix

package git

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/netguard"
)

const dialTimeout = 30 * time.Second

// A proxy is what git reaches web servers through. It looks at the very
// address that it connects to, so that neither a name that changes its address
// nor a redirection leads anywhere private. TLS goes through it untouched.
type proxy struct {
	server  *http.Server
	addr    net.Addr
	user    *url.Userinfo // who may use it: git, and no other user of the host
	private func(hostPort string) bool
	wait    sync.WaitGroup
	stop    context.CancelFunc

	mu     sync.Mutex
	closed bool
	err    error // why something was not reached, first of all
}

// startProxy begins to serve. Only servers that private says so about may be at
// private addresses. The caller must Close it.
func startProxy(private func(hostPort string) bool) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		if l, err = net.Listen("tcp", "[::1]:0"); err != nil {
			return nil, err
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &proxy{addr: l.Addr(), user: url.UserPassword("git", rand.Text()), private: private, stop: stop}
	quiet := log.New(io.Discard, "", 0)
	transport := &http.Transport{DialContext: p.dial, DisableCompression: true}
	forward := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.Out.URL, r.Out.Host = r.In.URL, r.In.Host },
		Transport:     transport,
		FlushInterval: -1,
		ErrorLog:      quiet,
		ErrorHandler:  func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	p.server = &http.Server{
		Handler:           p.guard(forward),
		ErrorLog:          quiet,
		ReadHeaderTimeout: dialTimeout,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	p.wait.Go(func() {
		p.server.Serve(l)
		transport.CloseIdleConnections()
	})
	return p, nil
}

// Close ends all connections. It returns when nothing is left.
func (p *proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.stop()
	err := p.server.Close()
	p.wait.Wait()
	return err
}

// URL is how git is told of the proxy; it holds the password.
func (p *proxy) URL() string {
	u := url.URL{Scheme: "http", User: p.user, Host: p.addr.String()}
	return u.String()
}

// Err returns why something was not reached, if anything.
func (p *proxy) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// begin counts a request, which the server itself does not for a connection
// that is taken over, unless it is too late for any.
func (p *proxy) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.wait.Add(1)
	}
	return !p.closed
}

// guard lets in who knows the password.
func (p *proxy) guard(forward http.Handler) http.Handler {
	password, _ := p.user.Password()
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte(p.user.Username()+":"+password))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !p.begin() {
			return
		}
		defer p.wait.Done()
		switch got := r.Header.Get("Proxy-Authorization"); {
		case subtle.ConstantTimeCompare([]byte(got), []byte(want)) != 1:
			w.Header().Set("Proxy-Authenticate", "Basic")
			w.WriteHeader(http.StatusProxyAuthRequired)
		case r.Method == http.MethodConnect:
			p.tunnel(w, r)
		case r.URL.Scheme == "http" && r.URL.Host != "":
			forward.ServeHTTP(w, r)
		default:
			w.WriteHeader(http.StatusBadRequest)
		}
	})
}

// dial connects to a server that may be reached.
func (p *proxy) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := netguard.Dialer(dialTimeout, p.private(address)).DialContext(ctx, network, address)
	if err != nil {
		p.fail(address, err)
	}
	return conn, err
}

// fail remembers why a server was not reached.
func (p *proxy) fail(address string, err error) {
	kind := caisson.ErrUnavailable
	var dns *net.DNSError
	var opErr *net.OpError
	switch {
	case errors.Is(err, netguard.ErrPrivate):
		kind, err = caisson.ErrDenied, netguard.ErrPrivate
	case errors.As(err, &dns) && dns.IsNotFound:
		kind, err = caisson.ErrNotFound, errors.New("no such host")
	case errors.As(err, &opErr):
		err = opErr.Err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = &caisson.Error{Kind: kind, Err: fmt.Errorf("%q: %w", address, err)}
	}
}

// tunnel joins git to a server and returns when either has ended.
func (p *proxy) tunnel(w http.ResponseWriter, r *http.Request) {
	server, err := p.dial(r.Context(), "tcp", r.Host)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer server.Close()
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer client.Close()
	defer context.AfterFunc(r.Context(), func() { client.Close(); server.Close() })()
	if _, err := io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	p.wait.Go(func() {
		io.Copy(server, buffered)
		if tcp, ok := server.(*net.TCPConn); ok {
			tcp.CloseWrite()
		}
	})
	io.Copy(client, server)
}
