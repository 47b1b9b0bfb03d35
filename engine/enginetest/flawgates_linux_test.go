package enginetest

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// A spoiled listener hands on what a flaw makes of its connections.
type spoiled struct {
	net.Listener
	spoil func(net.Conn) net.Conn
}

func (l spoiled) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		conn = l.spoil(conn)
	}
	return conn, err
}

// spoils makes a Sockets whose TCP connections are spoiled.
func spoils(spoil func(net.Conn) net.Conn) func(*brokenSandbox, context.Context) ([]engine.OpenSocket, error) {
	return func(s *brokenSandbox, ctx context.Context) ([]engine.OpenSocket, error) {
		open, err := s.full.Sockets(ctx)
		for i := range open {
			if open[i].Listener != nil {
				open[i].Listener = spoiled{open[i].Listener, spoil}
			}
		}
		return open, err
	}
}

// A shouting connection changes what is read.
type shouting struct{ net.Conn }

func (c shouting) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	copy(p, bytes.ReplaceAll(p[:n], []byte("upstream"), []byte("UPSTREAM")))
	return n, err
}

// A cut connection ends after a megabyte.
type cut struct {
	net.Conn
	left *atomic.Int64
}

func (c cut) Read(p []byte) (int, error) {
	if c.left.Load() <= 0 {
		return 0, io.EOF
	}
	n, err := c.Conn.Read(p)
	c.left.Add(-int64(n))
	return n, err
}

// A stolen connection has another's answer.
type stolen struct{ net.Conn }

func (c stolen) Write(p []byte) (int, error) {
	_, err := io.WriteString(c.Conn, "stolen")
	return len(p), err
}

// A deaf listener accepts nobody.
type deaf struct{ net.Listener }

func (deaf) Accept() (net.Conn, error) { return nil, net.ErrClosed }

// gatewayWith makes a Create with another gateway.
func gatewayWith(change func(g *engine.Gateway)) func(*broken, context.Context, *engine.Spec) (engine.Sandbox, error) {
	return changed(func(s *engine.Spec) {
		if s.Gateway == nil {
			return
		}
		g := *s.Gateway
		g.Sockets, g.Names = slices.Clone(g.Sockets), maps.Clone(g.Names)
		change(&g)
		s.Gateway = &g
	})
}

// ofTheFirst gives every sandbox the sockets of the first.
func ofTheFirst() func(*brokenSandbox, context.Context) ([]engine.OpenSocket, error) {
	var first atomic.Pointer[brokenSandbox]
	return func(s *brokenSandbox, ctx context.Context) ([]engine.OpenSocket, error) {
		first.CompareAndSwap(nil, s)
		return first.Load().full.Sockets(ctx)
	}
}

func flawsOfGateways() []flaw {
	destroyed := new(atomic.Bool)
	return []flaw{
		{name: "sockets are in another order", find: "gateway/answers", how: "socket 0 is", sockets: func(s *brokenSandbox, ctx context.Context) ([]engine.OpenSocket, error) {
			open, err := s.full.Sockets(ctx)
			slices.Reverse(open)
			return open, err
		}},
		{name: "a gateway changes what is sent", find: "gateway/http", how: "POST upstream", sockets: spoils(func(c net.Conn) net.Conn { return shouting{c} })},
		{name: "a gateway cuts streams", find: "gateway/streams", sockets: spoils(func(c net.Conn) net.Conn {
			left := new(atomic.Int64)
			left.Store(1 << 20)
			return cut{c, left}
		})},
		{name: "names are dropped", find: "gateway/names", create: gatewayWith(func(g *engine.Gateway) { g.Names = nil })},
		{name: "the resolver is another", find: "gateway/resolver", how: "resolv.conf has the servers", create: gatewayWith(func(g *engine.Gateway) { g.Resolver = "127.0.0.1" })},
		{name: "sockets can be opened once", find: "gateway/waits", how: "Accept", sockets: func(s *brokenSandbox, ctx context.Context) ([]engine.OpenSocket, error) {
			open, err := s.full.Sockets(ctx)
			if s.count() > 1 {
				open[0].Listener = deaf{open[0].Listener}
			}
			return open, err
		}},
		{name: "sockets are the process's that made them", find: "gateway/recovered", how: "after Recover the sockets are", sockets: func(s *brokenSandbox, ctx context.Context) ([]engine.OpenSocket, error) {
			if s.spec.Gateway == nil {
				return nil, nil
			}
			return s.full.Sockets(ctx)
		}},
		{name: "sandboxes share their gateway", find: "gateway/apart", sockets: ofTheFirst()},
		{name: "many sandboxes share their gateway", find: "gateway/many", sockets: ofTheFirst()},
		{name: "the host reaches a gateway", find: "gateway/nobody-else", how: "the host reaches", sockets: func(s *brokenSandbox, ctx context.Context) ([]engine.OpenSocket, error) {
			l, err := net.Listen("tcp", "127.0.0.1:8137")
			if err != nil {
				return nil, err
			}
			time.AfterFunc(2*time.Second, func() { l.Close() })
			return s.full.Sockets(ctx)
		}},
		{name: "a program takes connections", find: "gateway/kept", how: "by another than the gateway", sockets: spoils(func(c net.Conn) net.Conn { return stolen{c} })},
		{name: "sockets outlive the program", find: "gateway/ends", how: "Sockets after the end", sockets: func(s *brokenSandbox, ctx context.Context) ([]engine.OpenSocket, error) {
			open, _ := s.full.Sockets(ctx)
			return open, nil
		}},
		{name: "a kept sandbox has sockets", find: "gateway/ended-and-kept", how: "Sockets of a kept sandbox", sockets: func(s *brokenSandbox, ctx context.Context) ([]engine.OpenSocket, error) {
			open, _ := s.full.Sockets(ctx)
			return open, nil
		}},
		{name: "everything is loopback alone", find: "gateway/everything", how: "it printed", create: gatewayWith(func(g *engine.Gateway) { g.Everything = false })},
		{name: "everything is for any network", find: "gateway/everything", how: "Create succeeded", create: changed(func(s *engine.Spec) {
			if s.Network.Mode == "" {
				s.Network.Mode = caisson.NetworkAllow
			}
		})},
		{name: "an allow-list reaches the host", find: "gateway/allow-alone", how: "worked", create: func(e *broken, ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
			at := slices.IndexFunc(spec.Args, func(arg string) bool { return strings.HasPrefix(arg, "127.0.0.1:") })
			return gatewayWith(func(g *engine.Gateway) {
				g.Sockets = append(g.Sockets, tcpSocket(spec.Args[at]))
			})(e, ctx, spec)
		}},
		{
			name: "shared sockets end with one sandbox", find: "gateway/shared", how: "were answered",
			destroy: func(s *brokenSandbox, ctx context.Context) error {
				destroyed.Store(true)
				return s.full.Destroy(ctx)
			},
			sockets: spoils(func(c net.Conn) net.Conn {
				if destroyed.Load() {
					c.Close()
				}
				return c
			}),
		},
		{name: "there are sockets without a gateway", find: "gateway/none", how: "want none", sockets: func(s *brokenSandbox, ctx context.Context) ([]engine.OpenSocket, error) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			return []engine.OpenSocket{{Listener: l}}, err
		}},
		{name: "a gateway's mistakes are dropped", find: "gateway/mistakes", how: "Create succeeded", create: changed(func(s *engine.Spec) { s.Gateway = nil })},
		{
			name: "sockets that are not declared", find: "gateway/undeclared", how: "want unsupported",
			probe:   func(f *engine.Features) { f.Gateway = false },
			sockets: func(*brokenSandbox, context.Context) ([]engine.OpenSocket, error) { return nil, nil },
		},
	}
}
