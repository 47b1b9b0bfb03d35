package enginetest

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

func tcpSocket(at string) engine.Socket { return engine.Socket{Network: "tcp", Address: at} }

// gated returns a spec with a gateway of TCP sockets.
func (t *T) gated(at []string, args ...string) *engine.Spec {
	spec := t.spec(args...)
	spec.Gateway = new(engine.Gateway)
	for _, a := range at {
		spec.Gateway.Sockets = append(spec.Gateway.Sockets, tcpSocket(a))
	}
	return spec
}

// all returns a spec with a gateway for everything that is sent to a port.
func (t *T) all(port int, args ...string) *engine.Spec {
	spec := t.gated([]string{fmt.Sprintf("[::]:%d", port)}, args...)
	spec.Network = caisson.Network{Mode: caisson.NetworkAllow, Allow: []string{"example.com:443"}}
	spec.Gateway.Everything = true
	return spec
}

// sockets opens the sockets of a sandbox's gateway. They are closed after the
// case.
func (t *T) sockets(sb engine.Sandbox) []engine.OpenSocket {
	keeper, ok := sb.(engine.Gatekeeper)
	if !ok {
		t.Fatalf("gateways are declared, and the sandbox is no Gatekeeper")
	}
	open, err := keeper.Sockets(t.ctx)
	t.ok(err, "Sockets")
	for _, s := range open {
		t.after(func() { s.Close() })
	}
	return open
}

// accept has every connection to a listener served, until what it returns is
// called, or the case ends.
func (t *T) accept(l net.Listener, serve func(net.Conn)) (stop func()) {
	var serving sync.WaitGroup
	ctx, cancel := context.WithCancel(t.ctx)
	stop = func() {
		cancel()
		l.Close()
		serving.Wait()
	}
	t.after(stop)
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				serve(conn)
			})
		}
	})
	return stop
}

// word answers a line with a word, the line, and the address that it was sent
// to.
func word(w string) func(net.Conn) {
	return func(conn net.Conn) {
		line, _ := bufio.NewReader(conn).ReadString('\n')
		fmt.Fprintf(conn, "%s %s %s", w, strings.TrimSpace(line), conn.LocalAddr())
	}
}

// packets answers every packet with a word and what is in it.
func (t *T) packets(c net.PacketConn, w string) {
	t.replies(c, func(packet []byte) []byte { return fmt.Appendf(nil, "%s %s", w, packet) })
}

// replies answers every packet with what reply makes of it; nil is no answer.
func (t *T) replies(c net.PacketConn, reply func(packet []byte) []byte) {
	var serving sync.WaitGroup
	t.after(func() {
		c.Close()
		serving.Wait()
	})
	serving.Go(func() {
		buf := make([]byte, 1<<10)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			if answer := reply(buf[:n]); answer != nil {
				_, _ = c.WriteTo(answer, from)
			}
		}
	})
}

// served creates and starts a sandbox whose TCP sockets answer with a word.
func (t *T) served(spec *engine.Spec, w string) *box {
	sb := t.create(spec)
	for _, s := range t.sockets(sb) {
		t.accept(s.Listener, word(w))
	}
	return t.begin(sb, spec)
}

// begin starts a sandbox's program.
func (t *T) begin(sb engine.Sandbox, spec *engine.Spec) *box {
	b := &box{t: t, spec: spec, Sandbox: sb}
	var err error
	b.process, err = sb.Start(t.ctx)
	t.ok(err, "Start")
	return b
}

// prints checks that a program printed these lines, and ended well.
func (b *box) prints(want ...string) {
	b.success()
	if got := lines(b.stdout()); !slices.Equal(got, want) {
		b.t.Errorf("it printed %q, want %q", got, want)
	}
}

// answerNames answers questions for the IPv4 address of a name, as a DNS
// server does: with what lookUp returns, or that there is no such name.
func (t *T) answerNames(c net.PacketConn, lookUp func(name string) string) {
	t.replies(c, func(question []byte) []byte { return dnsAnswer(question, lookUp) })
}

// dnsAnswer makes the answer to one question; nil where it is none.
func dnsAnswer(query []byte, lookUp func(name string) string) []byte {
	const header, typeA, noSuchName = 12, 1, 3
	name, at := "", header
	for at < len(query) && query[at] != 0 {
		end := at + 1 + int(query[at])
		if end >= len(query) {
			return nil
		}
		name += string(query[at+1:end]) + "."
		at = end
	}
	end := at + 5 // the name's end, type and class
	if end > len(query) {
		return nil
	}
	ip, err := netip.ParseAddr(lookUp(name))
	answer := append([]byte{query[0], query[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, query[header:end]...)
	switch {
	case err != nil:
		answer[3] |= noSuchName
	case query[at+2] == typeA:
		answer[7] = 1
		answer = append(answer, 0xc0, header, 0, typeA, 0, 1, 0, 0, 0, 4, 0, 4)
		answer = append(answer, ip.AsSlice()...)
	}
	return answer
}
