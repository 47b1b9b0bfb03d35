package kept

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/isolate"
)

// AddGateway has the box be served at the gateway's sockets. It expects a valid
// one, or nil.
func AddGateway(box *isolate.Spec, g *engine.Gateway) {
	if g == nil {
		return
	}
	box.Everything = g.Everything
	for _, s := range g.Sockets {
		at, err := netip.ParseAddrPort(s.Address)
		if err != nil {
			panic(fmt.Sprintf("caisson: bug: socket %q was not checked", s.Address))
		}
		socket := isolate.Socket{UDP: s.Network == "udp", Port: int(at.Port())}
		if !at.Addr().IsUnspecified() {
			socket.IP = at.Addr().Unmap().AsSlice()
		}
		box.Sockets = append(box.Sockets, socket)
	}
}

// GatewayHosts are the gateway's lines of /etc/hosts.
func GatewayHosts(g *engine.Gateway) []byte {
	if g == nil {
		return nil
	}
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(g.Names)) {
		fmt.Fprintf(&b, "%s %s\n", g.Names[name], name)
	}
	return b.Bytes()
}

// Sockets implements engine.Gatekeeper.
func (g gated) Sockets(ctx context.Context) ([]engine.OpenSocket, error) {
	s := g.sandbox
	if err := s.alive(caisson.OpRecover); err != nil {
		return nil, err
	}
	if len(s.rec.Sockets) == 0 {
		return nil, nil
	}
	if s.keeper() == nil {
		return nil, s.lostBefore(caisson.OpRecover)
	}
	files, err := s.keeper().Sockets(ctx)
	if err != nil && s.gone(ctx, err) && s.revived(ctx) {
		files, err = s.keeper().Sockets(ctx)
	}
	if err != nil {
		return nil, s.said(caisson.OpRecover, err)
	}
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if len(files) != len(s.rec.Sockets) {
		// They are closed when the program ends.
		return nil, ended(caisson.OpRecover, s.id)
	}
	list, err := openAll(s.rec.Sockets, files)
	return list, s.said(caisson.OpRecover, err)
}

// openAll makes sockets of package net out of files, which stay the caller's.
func openAll(sockets []engine.Socket, files []*os.File) (list []engine.OpenSocket, err error) {
	for i, f := range files {
		open := engine.OpenSocket{Socket: sockets[i]}
		if open.Network == "udp" {
			open.Packets, err = net.FilePacketConn(f)
		} else {
			open.Listener, err = net.FileListener(f)
		}
		if err != nil {
			for i := range list {
				list[i].Close()
			}
			return nil, fmt.Errorf("%s %s: %w", open.Network, open.Address, err)
		}
		list = append(list, open)
	}
	return list, nil
}
