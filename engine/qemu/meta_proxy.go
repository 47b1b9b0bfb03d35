//go:build unix

package qemu

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"strings"
	"sync"

	"github.com/caissonrun/caisson/internal/carry"
)

// The proxies of a machine without an agent are below the metadata service, as
// taskcluster-worker's were: http://169.254.169.254/NAME/PATH is what other programs
// find at http://NAME/PATH. The keeper carries each request to whoever serves the
// task, as it carries connections of an agent's.

const (
	// metaReserved is the service's own name, which no proxy can have.
	metaReserved = "engine"
	// proxyPort is where proxies are served.
	proxyPort = 80
)

// A metaProxies serves the proxies of one machine.
type metaProxies struct {
	gate    *carry.Carrier
	servers map[string]http.Handler // by name
}

// newMetaProxies carries what comes for names to the sockets of a gateway.
func newMetaProxies(g *guestGateway, names map[string]string) (*metaProxies, error) {
	x := &metaProxies{servers: map[string]http.Handler{}}
	ports := map[netip.AddrPort]*metaSocket{}
	sources := make([]carry.Source, len(g.Sockets))
	for i, s := range g.Sockets {
		p := &metaSocket{addr: &net.TCPAddr{IP: s.IP, Port: s.Port}, conns: make(chan net.Conn), shut: make(chan struct{})}
		ports[unmapped(p.addr)], sources[i].Listener = p, p
	}
	for name, address := range names {
		at, err := netip.ParseAddr(address)
		if err != nil {
			return nil, err
		}
		p := ports[netip.AddrPortFrom(at.Unmap(), proxyPort)]
		if p == nil || name == metaReserved {
			return nil, fmt.Errorf("caisson: bug: nobody serves %s", name)
		}
		x.servers[name] = http.StripPrefix("/"+name, p.handler(name))
	}
	var err error
	x.gate, err = carry.New(sources)
	return x, err
}

func unmapped(a *net.TCPAddr) netip.AddrPort {
	at := a.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// handler returns what serves a request for a name, or nil.
func (x *metaProxies) handler(r *http.Request) http.Handler {
	if x == nil {
		return nil
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	return x.servers[name]
}

// A metaSocket is a socket that the keeper alone has.
type metaSocket struct {
	addr  *net.TCPAddr
	conns chan net.Conn
	once  sync.Once
	shut  chan struct{}
}

// handler passes requests on to the port, for a name.
func (p *metaSocket) handler(name string) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", name, name
			if r.Out.URL.Path == "" {
				r.Out.URL.Path = "/"
			}
		},
		// Nothing is kept for a later request: a guest has what it has connected.
		Transport:     &http.Transport{DialContext: p.dial, DisableKeepAlives: true, DisableCompression: true},
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			reject(w, http.StatusBadGateway, "nobody serves "+name+" any more")
		},
	}
}

// dial makes a connection that waits until somebody serves it.
func (p *metaSocket) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- &metaConn{Conn: theirs, local: p.addr}:
		return ours, nil
	case <-p.shut:
	case <-ctx.Done():
	}
	ours.Close()
	theirs.Close()
	return nil, net.ErrClosed
}

// Accept implements net.Listener.
func (p *metaSocket) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.shut:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (p *metaSocket) Close() error {
	p.once.Do(func() { close(p.shut) })
	return nil
}

// Addr implements net.Listener.
func (p *metaSocket) Addr() net.Addr { return p.addr }

// A metaConn is the other end of a connection, with the addresses of one that came
// over a network.
type metaConn struct {
	net.Conn
	local *net.TCPAddr
}

// LocalAddr implements net.Conn.
func (c *metaConn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn: all of the machine's are one client's.
func (c *metaConn) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.ParseIP(metaAddress).To4(), Port: proxyPort}
}

// Sockets implements server.Gatekeeper.
func (m *metaBox) Sockets() ([]int, error) {
	if m.proxies == nil {
		return nil, nil
	}
	return m.proxies.gate.Sockets()
}

// Shut implements server.Gatekeeper.
func (m *metaBox) Shut() {
	if m.proxies != nil {
		m.proxies.gate.Shut()
	}
}

// onlyProxies returns what of a gateway there is besides proxies, or "".
func onlyProxies(everything bool, parts []string) string {
	if everything {
		return "network.allow"
	}
	for _, part := range parts {
		name, ok := strings.CutPrefix(part, "proxies.")
		if !ok || name == metaReserved {
			return part
		}
	}
	return ""
}
