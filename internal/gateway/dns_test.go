package gateway_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/gateway"
)

func query(t *testing.T, name string, kind dnsmessage.Type) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}},
	}
	text, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// resolver serves the resolver of a policy by UDP and returns its address.
func resolver(t *testing.T, p *gateway.Policy) (string, *gateway.Server) {
	t.Helper()
	s, err := gateway.New(p, &gateway.Options{Lookup: func(context.Context, string) ([]netip.Addr, error) {
		t.Error("the outside was asked")
		return nil, io.EOF
	}})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Serve(ctx, []engine.OpenSocket{{Packets: conn}})
		s.Close()
	}()
	t.Cleanup(func() { stop(); <-done })
	return conn.LocalAddr().String(), s
}

func exchange(t *testing.T, addr string, message []byte) dnsmessage.Message {
	t.Helper()
	conn, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(message); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1500)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	var m dnsmessage.Message
	if err := m.Unpack(buf[:n]); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestResolver(t *testing.T) {
	p := allow(t, "example.com:443", "*.example.org:443")
	addr, _ := resolver(t, p)
	seen := map[string]string{}
	for _, c := range []struct {
		name string
		kind dnsmessage.Type
		code dnsmessage.RCode
		n    int
	}{
		{"example.com.", dnsmessage.TypeA, 0, 1},
		{"EXAMPLE.com.", dnsmessage.TypeALL, 0, 1},
		{"a.b.example.org.", dnsmessage.TypeA, 0, 1},
		{"evil.example.", dnsmessage.TypeA, 0, 1},
		{"localhost.", dnsmessage.TypeA, 0, 1},
		{"localhost.", dnsmessage.TypeAAAA, 0, 1},
		{"example.com.", dnsmessage.TypeAAAA, 0, 0},
		{"example.com.", dnsmessage.TypeTXT, 0, 0},
		{"example.com.", dnsmessage.TypeMX, 0, 0},
		{"example.com.", 65, 0, 0},
		{"evil.example.", dnsmessage.TypeTXT, 0, 0},
		{"1.0.65.127.in-addr.arpa.", dnsmessage.TypePTR, dnsmessage.RCodeNameError, 0},
		{"2130706433.", dnsmessage.TypeA, dnsmessage.RCodeNameError, 0},
		{"127.0.0.1.", dnsmessage.TypeA, dnsmessage.RCodeNameError, 0},
		{".", dnsmessage.TypeA, dnsmessage.RCodeNameError, 0},
	} {
		m := exchange(t, addr, query(t, c.name, c.kind))
		if m.RCode != c.code || len(m.Answers) != c.n || m.ID != 7 || !m.Response || len(m.Questions) != 1 {
			t.Errorf("%s %v: %+v, want code %v and %d answers", c.name, c.kind, m, c.code, c.n)
		}
		if a, ok := first(m).(*dnsmessage.AResource); ok {
			name := strings.ToLower(c.name)
			ip := netip.AddrFrom4(a.A).String()
			if old := seen[name]; old != "" && old != ip || !strings.HasPrefix(ip, "127.") {
				t.Errorf("%s has the address %s, and had %q", name, ip, old)
			}
			seen[name] = ip
		}
	}
	if seen["localhost."] != "127.0.0.1" || seen["example.com."] == seen["a.b.example.org."] || seen["example.com."] == seen["evil.example."] {
		t.Errorf("addresses: %v", seen)
	}

	// A second process gives the same addresses.
	again, _ := resolver(t, p)
	for _, name := range []string{"a.b.example.org.", "example.com."} {
		m := exchange(t, again, query(t, name, dnsmessage.TypeA))
		if got := netip.AddrFrom4(first(m).(*dnsmessage.AResource).A).String(); got != seen[name] {
			t.Errorf("after a restart %s has the address %s, want %s", name, got, seen[name])
		}
	}
}

func first(m dnsmessage.Message) dnsmessage.ResourceBody {
	if len(m.Answers) == 0 {
		return nil
	}
	return m.Answers[0].Body
}

// What is no question is not answered, and the next one is.
func TestResolverMalformed(t *testing.T) {
	addr, _ := resolver(t, allow(t, "example.com:443"))
	conn, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	good := query(t, "example.com.", dnsmessage.TypeA)
	response := append([]byte(nil), good...)
	response[2] |= 0x80
	for _, text := range [][]byte{nil, {0}, good[:len(good)-1], response, make([]byte, 4096)} {
		conn.Write(text)
	}
	two := append([]byte(nil), good...)
	binary.BigEndian.PutUint16(two[4:], 2)
	conn.Write(append(two, good[12:]...))
	update := append([]byte(nil), good...)
	update[2] = 5 << 3
	conn.Write(update)
	good[0] = 9
	conn.Write(good)
	var got []string
	for len(got) == 0 || got[len(got)-1] != "9 RCodeSuccess" {
		buf := make([]byte, 1500)
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		var m dnsmessage.Message
		if err := m.Unpack(buf[:n]); err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(m.ID>>8, " ", m.RCode))
	}
	want := []string{"0 RCodeFormatError", "0 RCodeFormatError", "0 RCodeNotImplemented", "9 RCodeSuccess"}
	if !slices.Equal(got, want) {
		t.Errorf("answers %q, want %q", got, want)
	}
}

// The tables are bounded; names beyond them go by what TLS and HTTP ask for.
func TestResolverBounded(t *testing.T) {
	b := open(t, allow(t, "*.example.com:80"))
	b.host("last.example.com", public, 80, web(t, hello("outside")))
	addr, s := resolver(t, allow(t, "*.example.com:80"))
	for i := range 5000 {
		exchange(t, addr, query(t, fmt.Sprintf("n%d.example.com.", i), dnsmessage.TypeA))
		exchange(t, addr, query(t, fmt.Sprintf("n%d.evil.example.", i), dnsmessage.TypeA))
	}
	shared := func(name string) string {
		return netip.AddrFrom4(first(exchange(t, addr, query(t, name, dnsmessage.TypeA))).(*dnsmessage.AResource).A).String()
	}
	if good, bad := shared("last.example.com."), shared("last.evil.example."); good != "127.65.255.254" || bad != good {
		t.Errorf("names beyond the table have the addresses %s and %s", good, bad)
	}
	s.Close()
	if list, rest := s.Blocked(); len(list) != 100 || rest < 4000 || list[0].Port != 0 || !strings.HasSuffix(list[0].Host, ".evil.example") {
		t.Errorf("%d blocked, %d more: %v", len(list), rest, list[:1])
	}

	ask := func(host string) int {
		conn := b.connect("127.65.255.254:80")
		defer conn.Close()
		res, _, _ := requestOn(t, conn, "GET / HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
		return res.StatusCode
	}
	if status := ask("last.example.com"); status != 200 {
		t.Errorf("an allowed name by the shared address: %d", status)
	}
	for _, host := range []string{"last.evil.example", "example.com", "", "127.0.0.1"} {
		if status := ask(host); status != 403 {
			t.Errorf("%q by the shared address: %d, want 403", host, status)
		}
	}
}
