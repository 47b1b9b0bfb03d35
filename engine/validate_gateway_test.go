package engine_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

func gated() *engine.Spec {
	s := valid()
	s.Network.Mode = caisson.NetworkAllow
	s.Gateway = &engine.Gateway{
		Sockets: []engine.Socket{
			{Network: "tcp", Address: "127.64.0.1:80"},
			{Network: "tcp", Address: "[::]:443"},
			{Network: "udp", Address: "127.64.0.1:53"},
			{Network: "tcp", Address: "[::1]:80"},
		},
		Names:    map[string]string{"upstream": "127.64.0.1", "api.example.com": "127.65.0.1"},
		Resolver: "127.64.0.1", Everything: true,
	}
	return s
}

func TestValidateGatewayOK(t *testing.T) {
	if err := gated().Validate(); err != nil {
		t.Errorf("Validate = %v, want nil", err)
	}
}

func TestValidateGatewayErr(t *testing.T) {
	socket := func(network, address string) func(*engine.Gateway) {
		return func(g *engine.Gateway) {
			g.Sockets = append(g.Sockets, engine.Socket{Network: network, Address: address})
		}
	}
	for field, change := range map[string]func(*engine.Gateway){
		`neither tcp nor udp`:                           socket("unix", "127.0.0.1:80"),
		`gateway.sockets[4]: "proxy:80" is not`:         socket("tcp", "proxy:80"),
		`"127.0.0.1" is not IP:PORT`:                    socket("tcp", "127.0.0.1"),
		`"127.0.0.1:0" has no port`:                     socket("tcp", "127.0.0.1:0"),
		`"192.0.2.1" is no address of the loopback`:     socket("tcp", "192.0.2.1:80"),
		`"0.0.0.0" is no address of the loopback`:       socket("tcp", "0.0.0.0:80"),
		`"::1%lo" is no address`:                        socket("tcp", "[::1%lo]:80"),
		`is there twice`:                                socket("tcp", "127.64.0.1:80"),
		`gateway.names."a b": not a host name`:          func(g *engine.Gateway) { g.Names["a b"] = "127.0.0.1" },
		`gateway.names."a\n1.2.3.4 b": not`:             func(g *engine.Gateway) { g.Names["a\n1.2.3.4 b"] = "127.0.0.1" },
		`gateway.names."localhost": not a host name`:    func(g *engine.Gateway) { g.Names["localhost"] = "127.64.0.1" },
		`gateway.names."10.0.0.1": not a host name`:     func(g *engine.Gateway) { g.Names["10.0.0.1"] = "127.64.0.1" },
		`gateway.names."far": "192.0.2.1" is no`:        func(g *engine.Gateway) { g.Names["far"] = "192.0.2.1" },
		`gateway.resolver: "127.0.0.1\nx" is no`:        func(g *engine.Gateway) { g.Resolver = "127.0.0.1\nx" },
		`gateway.sockets: there are 300, at most 200 c`: func(g *engine.Gateway) { g.Sockets = make([]engine.Socket, 300) },
	} {
		s := gated()
		change(s.Gateway)
		if err := s.Validate(); !errors.Is(err, caisson.ErrInvalid) || !strings.Contains(err.Error(), field) {
			t.Errorf("Validate = %v, want invalid with %q", err, field)
		}
	}
	s := gated()
	s.Network.Mode = caisson.NetworkNone
	if err := s.Validate(); !errors.Is(err, caisson.ErrInvalid) || !strings.Contains(err.Error(), "gateway.everything") {
		t.Errorf("Everything without an allow list: %v, want invalid", err)
	}
}
