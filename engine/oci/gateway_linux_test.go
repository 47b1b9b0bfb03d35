package oci_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/oci"
)

// proxied gives a spec a gateway of one name, and says what fetches from it.
func proxied(s *engine.Spec) *engine.Spec {
	s.Gateway = &engine.Gateway{
		Sockets: []engine.Socket{{Network: "tcp", Address: "127.64.0.1:80"}, {Network: "tcp", Address: "[::]:443"}},
		Names:   map[string]string{"git": "127.64.0.1"},
	}
	return s
}

const fetches = "busybox wget -q -O - http://git/"

// serve answers every connection of a sandbox's sockets with a word, by HTTP, until
// the test ends.
func serve(t *testing.T, box engine.Sandbox, word string) []engine.OpenSocket {
	t.Helper()
	list, err := box.(engine.Gatekeeper).Sockets(t.Context())
	if err != nil {
		t.Fatalf("Sockets = %v", err)
	}
	for i := range list {
		t.Cleanup(func() { list[i].Close() })
		go func() {
			for {
				conn, err := list[i].Listener.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Read(make([]byte, 4096))
				_, _ = io.WriteString(conn, "HTTP/1.0 200 OK\r\n\r\n"+word+"\n")
				conn.Close()
			}
		}()
	}
	return list
}

// begun starts a spec's program.
func begun(t *testing.T, e engine.Engine, s *engine.Spec) (engine.Sandbox, engine.Process) {
	t.Helper()
	box := create(t, e, s)
	p, err := box.Start(t.Context())
	if err != nil {
		t.Fatalf("Start = %v", err)
	}
	return box, p
}

// TestGatewayOnNetworks has sandboxes that are on networks served as well, and
// nobody on these networks reach them.
func TestGatewayOnNetworks(t *testing.T) {
	opts, subnet := networks(t)
	root, e := newRoot(t), newEngine(t, opts)
	for _, mode := range []string{caisson.NetworkDefault, "lan"} {
		s := proxied(newSpec(t, root, "cat /etc/hosts; "+fetches+"; echo done; exec sleep 1000"))
		s.Network.Mode = mode
		if mode == "lan" {
			s.Network = caisson.Network{Attach: []caisson.NetworkAttach{{Name: "lan", Args: map[string]string{"IP": subnet + ".7"}}}}
		}
		box, _ := begun(t, e, s)
		serve(t, box, "served")
		waitFor(t, s, "done")
		for _, want := range []string{"127.64.0.1 git\n", "served\n"} {
			if !strings.Contains(output(t, s), want) {
				t.Errorf("on %s there is no %q: %s", mode, want, output(t, s))
			}
		}
	}
	if conn, err := net.Dial("tcp", subnet+".7:443"); err == nil {
		conn.Close()
		t.Error("the host reaches a socket by the sandbox's address")
	}
	near := newSpec(t, root, "busybox nc -w 5 "+subnet+".7 443 </dev/null && echo reached")
	near.Network.Mode = "lan"
	if exit, out := run(t, e, near); strings.Contains(out, "reached") {
		t.Errorf("a neighbour reaches a socket by the sandbox's address: %+v", exit)
	}
}

// TestGatewayShared has two steps of one attempt served by their own sockets at
// the same places.
func TestGatewayShared(t *testing.T) {
	opts, _ := networks(t)
	root, e := newRoot(t), newEngine(t, opts)
	for _, mode := range []string{caisson.NetworkNone, caisson.NetworkAllow} {
		t.Run(mode, func(t *testing.T) {
			net := &engine.NetworkSpec{ID: "shared-" + mode, Dir: t.TempDir(), Network: caisson.Network{Mode: mode}}
			if err := e.MakeNetwork(t.Context(), net); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := e.RemoveNetwork(context.Background(), net.Dir); err != nil {
					t.Errorf("RemoveNetwork = %v", err)
				}
			})
			made := func(script string) *engine.Spec {
				s := proxied(newSpec(t, root, script))
				s.Network, s.SharedNetwork = net.Network, net.Dir
				s.Gateway.Everything = mode == caisson.NetworkAllow
				return s
			}
			sidecar := made("sleep 1000")
			first, _ := begun(t, e, sidecar)
			serve(t, first, "one")
			s := made(fetches + "; busybox nc 192.0.2.1 443 </dev/null && echo all; " + fetches)
			second := create(t, e, s)
			serve(t, second, "two")
			p, err := second.Start(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			out := output(t, s)
			if n := strings.Count(out, "one\n") + strings.Count(out, "two\n"); n < 2 {
				t.Errorf("of two questions %d were answered: %q", n, out)
			}
			if strings.Contains(out, "all\n") != (mode == caisson.NetworkAllow) {
				t.Errorf("with network %s the program says %q", mode, out)
			}
		})
	}
}

// TestGatewayTaken has a sidecar listen where a gateway is to be.
func TestGatewayTaken(t *testing.T) {
	opts, _ := networks(t)
	root, e := newRoot(t), newEngine(t, opts)
	net := &engine.NetworkSpec{ID: "shared-taken", Dir: t.TempDir(), Network: caisson.Network{Mode: caisson.NetworkNone}}
	if err := e.MakeNetwork(t.Context(), net); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.RemoveNetwork(context.Background(), net.Dir); err != nil {
			t.Errorf("RemoveNetwork = %v", err)
		}
	})
	sidecar := newSpec(t, root, "busybox httpd -p 8443 -h /work; echo listens; sleep 1000")
	sidecar.SharedNetwork = net.Dir
	begun(t, e, sidecar)
	waitFor(t, sidecar, "listens")
	s := proxied(newSpec(t, root, "true"))
	s.SharedNetwork, s.Gateway.Sockets[1].Address = net.Dir, "[::]:8443"
	box, err := e.Create(t.Context(), s)
	if err == nil {
		_ = box.Destroy(context.Background())
	}
	if !errors.Is(err, caisson.ErrInvalid) || !strings.Contains(err.Error(), "8443") {
		t.Errorf("Create = %v, want ErrInvalid that names the port", err)
	}
}

// TestGatewayRefused chooses a runtime with a network of its own.
func TestGatewayRefused(t *testing.T) {
	rootOnly(t)
	root, e := newRoot(t), newEngine(t, oci.Options{Prefer: []string{"builtin", "runsc"}, AllowRuntimes: true})
	s := withOptions(proxied(newSpec(t, root, "true")), `{"runtime": "runsc"}`)
	box, err := e.Create(t.Context(), s)
	if err == nil {
		_ = box.Destroy(context.Background())
	}
	if !errors.Is(err, caisson.ErrUnsupported) || !strings.Contains(err.Error(), "gateway") {
		t.Errorf("Create = %v, want ErrUnsupported that names the gateway", err)
	}
}
