package gateway

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Bounds of what is asked of the resolver.
const (
	maxQuery   = 4096
	dnsIdle    = 30 * time.Second // between two questions on one connection
	dnsTTL     = 60               // seconds; an address stands for its name as long as the sandbox lives
	maxPending = 1                // questions in one message
)

// answer returns the answer to a message, or nil to what is no question. It asks
// nobody: a name that is allowed has an address of the sandbox's own, and is
// looked up outside when something connects to that.
func (s *Server) answer(message []byte) []byte {
	var p dnsmessage.Parser
	header, err := p.Start(message)
	if err != nil || header.Response {
		return nil
	}
	reply := dnsmessage.Header{
		ID: header.ID, Response: true, OpCode: header.OpCode,
		RecursionDesired: header.RecursionDesired, RecursionAvailable: true,
	}
	if header.OpCode != 0 {
		reply.RCode = dnsmessage.RCodeNotImplemented
		return pack(reply, nil, nil)
	}
	questions, err := p.AllQuestions()
	if err != nil {
		return nil
	}
	if len(questions) != maxPending {
		reply.RCode = dnsmessage.RCodeFormatError
		return pack(reply, nil, nil)
	}
	q := questions[0]
	var addrs []netip.Addr
	addrs, reply.RCode = s.resolve(q)
	return pack(reply, &q, addrs)
}

// resolve says which addresses a name has inside.
func (s *Server) resolve(q dnsmessage.Question) ([]netip.Addr, dnsmessage.RCode) {
	if q.Class != dnsmessage.ClassINET && q.Class != dnsmessage.ClassANY {
		return nil, dnsmessage.RCodeRefused
	}
	name, err := canonical(q.Name.String())
	if err != nil || name == "arpa" || strings.HasSuffix(name, ".arpa") {
		return nil, dnsmessage.RCodeNameError
	}
	wantsA := q.Type == dnsmessage.TypeA || q.Type == dnsmessage.TypeALL
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		switch {
		case wantsA:
			return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, dnsmessage.RCodeSuccess
		case q.Type == dnsmessage.TypeAAAA:
			return []netip.Addr{netip.IPv6Loopback()}, dnsmessage.RCodeSuccess
		}
		return nil, dnsmessage.RCodeSuccess
	}
	addr, ok := s.plan.hosts[name]
	if !ok {
		addr = s.names.address(name, s.plan.knows(name))
	}
	if !wantsA {
		return nil, dnsmessage.RCodeSuccess
	}
	return []netip.Addr{addr}, dnsmessage.RCodeSuccess
}

// pack makes a message. What can't be packed is not answered.
func pack(header dnsmessage.Header, q *dnsmessage.Question, addrs []netip.Addr) []byte {
	m := dnsmessage.Message{Header: header}
	if q != nil {
		m.Questions = []dnsmessage.Question{*q}
	}
	for _, addr := range addrs {
		r := dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: dnsTTL}}
		if addr.Is4() {
			r.Body = &dnsmessage.AResource{A: addr.As4()}
		} else {
			r.Body = &dnsmessage.AAAAResource{AAAA: addr.As16()}
		}
		m.Answers = append(m.Answers, r)
	}
	text, err := m.Pack()
	if err != nil {
		return nil
	}
	return text
}

// packets answers at a UDP socket until it is closed.
func (v *serving) packets(conn net.PacketConn) {
	buf := make([]byte, maxQuery)
	wait := backoff{}
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) || !wait.pause(v.ctx) {
				return
			}
			continue
		}
		wait = backoff{}
		if reply := v.server.answer(buf[:n]); reply != nil {
			// Who does not read the answer asks again.
			conn.WriteTo(reply, from)
		}
	}
}

// questions answers on a TCP connection until it ends.
func (v *serving) questions(conn net.Conn) {
	buf := make([]byte, maxQuery)
	for {
		conn.SetDeadline(time.Now().Add(dnsIdle))
		var length [2]byte
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(length[:]))
		if n > len(buf) {
			return
		}
		if _, err := io.ReadFull(conn, buf[:n]); err != nil {
			return
		}
		reply := v.server.answer(buf[:n])
		if reply == nil {
			return
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
			return
		}
	}
}
