package kept

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/carry"
	"github.com/caissonrun/caisson/internal/isolate"
)

// AddGateway has the box be served at the gateway's sockets. It expects a valid
// one, or nil.
func AddGateway(box *isolate.Spec, g *engine.Gateway) {
	if g != nil {
		box.Everything, box.Sockets = g.Everything, Sockets(g)
	}
}

// Sockets are a valid gateway's sockets in the form of package isolate.
func Sockets(g *engine.Gateway) []isolate.Socket {
	var list []isolate.Socket
	for _, s := range g.Sockets {
		at, err := netip.ParseAddrPort(s.Address)
		if err != nil {
			panic(fmt.Sprintf("caisson: bug: socket %q was not checked", s.Address))
		}
		socket := isolate.Socket{UDP: s.Network == "udp", Port: int(at.Port())}
		if !at.Addr().IsUnspecified() {
			socket.IP = at.Addr().Unmap().AsSlice()
		}
		list = append(list, socket)
	}
	return list
}

// GatewayHosts are the gateway's lines of /etc/hosts.
func GatewayHosts(g *engine.Gateway) string {
	if g == nil {
		return ""
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(g.Names)) {
		fmt.Fprintf(&b, "%s %s\n", g.Names[name], name)
	}
	return b.String()
}

// AddTrial gives the sandbox of a probe a gateway, for Trial.Served to look at.
func AddTrial(s *engine.Spec) {
	s.Network = caisson.Network{Mode: caisson.NetworkAllow}
	s.Gateway = &engine.Gateway{
		Sockets: []engine.Socket{
			{Network: "udp", Address: "127.64.0.1:53"},
			{Network: "tcp", Address: "127.64.0.1:80"},
			{Network: "tcp", Address: "[::]:443"},
		},
		Everything: true,
	}
}

// gatewayScript prints which sockets and routes there are, with the shell alone.
const gatewayScript = `for f in tcp tcp6 fib_trie; do
	[ ! -e /proc/net/$f ] || while read -r line; do echo "$line"; done </proc/net/$f
done`

// Carried returns an error unless a connection of a program's reaches who serves
// AddTrial's sockets. The program is to connect to any address of IPv4, at port 443.
func (t *Trial) Carried(ctx context.Context, args ...string) error {
	list, err := gated{t.s}.Sockets(ctx)
	defer func() {
		for i := range list {
			list[i].Close()
		}
	}()
	if err != nil {
		return err
	}
	at := slices.IndexFunc(list, func(s engine.OpenSocket) bool { return s.Listener != nil && strings.HasPrefix(s.Address, "[::]") })
	if at < 0 {
		return errors.New("there is no socket for all addresses")
	}
	accepted := make(chan error, 1)
	go func() {
		conn, err := list[at].Listener.Accept()
		if err == nil {
			err = conn.Close()
		}
		accepted <- err
	}()
	_, err = t.Run(ctx, args...)
	if err == nil {
		select {
		case err = <-accepted:
			return err
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	list[at].Close()
	<-accepted
	return err
}

// Served returns an error unless the sockets of AddTrial are held for this
// process and listen where programs are, and every address leads to them.
func (t *Trial) Served(ctx context.Context) error {
	list, err := gated{t.s}.Sockets(ctx)
	for i := range list {
		list[i].Close()
	}
	if err != nil {
		return err
	}
	said, err := t.Run(ctx, "/bin/sh", "-c", gatewayScript)
	if err != nil {
		return err
	}
	return servedBy(string(said))
}

// servedBy reads what gatewayScript has printed.
func servedBy(said string) error {
	const listens = ":0000 0A "
	const nobody = "00000000"
	for what, found := range map[string]bool{
		"port 80 of a loopback address": strings.Contains(said, ":0050 "+nobody+listens),
		"port 443 of every address": strings.Contains(said, ":01BB "+nobody+listens) ||
			strings.Contains(said, ":01BB "+strings.Repeat(nobody, 4)+listens),
		"the way to other addresses": strings.Contains(said, "/0 host LOCAL"),
	} {
		if !found {
			return fmt.Errorf("a program in a sandbox does not see %s", what)
		}
	}
	return nil
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
	list, err := openAll(s.rec.Sockets, files, s.b.opts.Guests)
	return list, s.said(caisson.OpRecover, err)
}

// openAll makes sockets of package net out of files, which stay the caller's: of
// sockets, or of what a Carrier hands out.
func openAll(sockets []engine.Socket, files []*os.File, carried bool) (list []engine.OpenSocket, err error) {
	for i, f := range files {
		open := engine.OpenSocket{Socket: sockets[i]}
		switch {
		case carried:
			err = openCarried(&open, f)
		case open.Network == "udp":
			open.Packets, err = net.FilePacketConn(f)
		default:
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

// openCarried opens a socket whose traffic is carried out of where it is.
func openCarried(s *engine.OpenSocket, f *os.File) error {
	at, err := netip.ParseAddrPort(s.Address)
	if err != nil {
		return err
	}
	if s.Network == "udp" {
		s.Packets, err = carry.Packets(f, net.UDPAddrFromAddrPort(at))
	} else {
		s.Listener, err = carry.Listener(f, net.TCPAddrFromAddrPort(at))
	}
	return err
}
