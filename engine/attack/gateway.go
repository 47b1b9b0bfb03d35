package attack

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/gateway"
)

// ownServers is the Bound of attacks on allow-lists.
const ownServers = "names lead to servers of the attack's own on the loopback device; nothing is sent to any other"

func gateways() []Attack {
	needs := []string{"gateway", "networks.allow"}
	return []Attack{
		{
			ID: "E35", Name: "network/none", Run: networkNone, Bound: ownServers, Needs: []string{"networks.none"},
			Tries: "get out of a network that is none: the host's loopback by TCP and UDP, names, IPv6, AF_VSOCK",
		},
		{
			ID: "E37", Name: "network/neighbours", Run: neighbours, Bound: ownServers,
			Tries: "reach another task, the host and 169.254.169.254 from every kind of network that the engine has",
			CVE:   []string{"CVE-2020-8558"},
		},
		{
			ID: "E36", Name: "allow/address", Run: allowAddress, Bound: ownServers, Needs: needs,
			Tries: "pass an allow-list of names by an address, its own or another, of IPv4 or IPv6, and by other ports",
		},
		{
			ID: "E36", Name: "allow/sni", Run: allowSNI, Bound: ownServers, Needs: needs,
			Tries: "ask for one name's address and say another by TLS, none, or an address; say an allowed one to another's address",
		},
		{
			ID: "E36", Name: "allow/host", Run: allowHost, Bound: ownServers, Needs: needs,
			Tries: "say another host in plain HTTP: Host, twice, in the target, in the second request, behind a smuggled body, by CONNECT, by :authority",
		},
		{
			ID: "E36", Name: "allow/private", Run: allowPrivate, Bound: ownServers, Needs: needs,
			Tries: "have allowed names lead to the host, private networks and metadata services, at once or after a first good answer",
			CVE:   []string{"CVE-2024-29021"},
		},
		{
			ID: "E36", Name: "allow/names", Run: allowNames, Bound: ownServers, Needs: needs,
			Tries: "pass *.example.com by example.com, notexample.com, names in front and behind, other ports and odd spellings",
		},
		{
			ID: "E36", Name: "allow/dns", Run: allowDNS, Bound: ownServers, Needs: needs,
			Tries: "carry data out by names that are looked up, ask other servers, and fill the resolver's tables",
		},
		{
			ID: "E36", Name: "allow/protocols", Run: allowProtocols, Bound: ownServers, Needs: needs,
			Tries: "leave by QUIC, UDP, ICMP, another protocol at an allowed port, or a redirect",
		},
	}
}

// What names lead to in these attacks. Nothing is ever sent there: whoever
// dials is given a server of the attack's own.
var (
	goodAddr  = netip.MustParseAddr("8.8.4.4")
	otherAddr = netip.MustParseAddr("9.9.9.9")
)

// A door is an allow-list that is served for a sandbox, and what is outside of
// it.
type door struct {
	t      *Trial
	policy *gateway.Policy
	server *gateway.Server

	mu       sync.Mutex
	names    map[string][]netip.Addr // what names lead to
	later    map[string][]netip.Addr // and from the second look on
	lookedUp []string
	dialled  []netip.AddrPort
	arrived  []string // what servers outside were sent: the first line, or the name that TLS asked for
}

// newDoor makes an allow-list.
func (t *Trial) newDoor(allow ...string) *door {
	rules, err := gateway.ParseRules(append(allow, t.loose...))
	t.OK(err, "ParseRules")
	d := &door{
		t: t, policy: &gateway.Policy{Everything: true, Allow: rules},
		names: map[string][]netip.Addr{"good.example": {goodAddr}, "other.example": {otherAddr}},
	}
	d.server, err = gateway.New(d.policy, &gateway.Options{Lookup: d.lookUp, Dial: d.dial})
	t.OK(err, "gateway.New")
	t.After(d.server.Close)
	return d
}

// lookUp is asked for the addresses of names.
func (d *door) lookUp(_ context.Context, name string) ([]netip.Addr, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name = strings.TrimSuffix(name, ".")
	again := slices.Contains(d.lookedUp, name)
	d.lookedUp = append(d.lookedUp, name)
	if found := d.later[name]; found != nil && again {
		return found, nil
	}
	if found := d.names[name]; found != nil {
		return found, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

// dial gives every connection the same server, which notes what it is sent.
func (d *door) dial(_ context.Context, to netip.AddrPort) (net.Conn, error) {
	ours, theirs := net.Pipe()
	d.mu.Lock()
	d.dialled = append(d.dialled, to)
	d.mu.Unlock()
	go d.serve(theirs)
	return ours, nil
}

// serve answers HTTP, and refuses TLS once it has told what name it is for.
func (d *door) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	const handshake = 22
	if first, err := in.Peek(1); err != nil {
		return
	} else if first[0] == handshake {
		_ = tls.Server(buffered{conn, in}, &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			d.note("tls " + hello.ServerName)
			return nil, io.EOF
		}}).Handshake()
		return
	}
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		d.note("http " + r.Host + " " + r.URL.Path)
		_, _ = io.Copy(io.Discard, r.Body)
		if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nreached\n"); err != nil || r.Close {
			return
		}
	}
}

// buffered reads what was looked at before.
type buffered struct {
	net.Conn
	in *bufio.Reader
}

func (b buffered) Read(p []byte) (int, error) { return b.in.Read(p) }

func (d *door) note(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.arrived = append(d.arrived, what)
}

// run runs a program behind the door to its end.
func (d *door) run(args ...string) *box {
	t := d.t
	spec := t.Spec(args...)
	spec.Network = caisson.Network{Mode: caisson.NetworkAllow, Allow: []string{"good.example:443"}}
	spec.Gateway = d.policy.Gateway()
	sb, err := t.Engine.Create(t.ctx, spec)
	t.OK(err, "Create")
	b := &box{t: t, spec: spec, Sandbox: sb}
	t.After(b.destroy)
	sockets, err := sb.(engine.Gatekeeper).Sockets(t.ctx)
	t.OK(err, "Sockets")
	ctx, cancel := context.WithCancel(t.ctx)
	var serving sync.WaitGroup
	serving.Go(func() { d.server.Serve(ctx, sockets) })
	t.After(func() {
		cancel()
		serving.Wait()
	})
	b.process, err = sb.Start(t.ctx)
	t.OK(err, "Start")
	b.success()
	return b
}

// outside checks that nothing but these came to servers outside, that all
// connections went to the good address, and that only allowed names were looked
// up.
func (d *door) outside(want ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	slices.Sort(d.arrived)
	slices.Sort(want)
	if got := slices.Compact(slices.Clone(d.arrived)); !slices.Equal(got, want) {
		for _, what := range got {
			if !slices.Contains(want, what) {
				d.t.Errorf("a server outside was sent %q", what)
			}
		}
		if missing := slices.DeleteFunc(slices.Clone(want), func(w string) bool { return slices.Contains(got, w) }); len(missing) > 0 && !d.t.Failed() {
			d.t.OK(fmt.Errorf("what is allowed did not arrive: %q; %q did, %v were dialled", missing, got, d.dialled), "the allowed way")
		}
	}
	for _, to := range d.dialled {
		if to.Addr() != goodAddr {
			d.t.Errorf("a connection was made to %s", to)
		}
	}
	for _, name := range d.lookedUp {
		if name != "good.example" && !strings.HasSuffix(name, ".allowed.example") {
			d.t.Errorf("the name %q was looked up outside", name)
		}
	}
}

// hello returns what a TLS client sends first, in hexadecimal digits. An empty
// name leaves it out.
func hello(name string) string {
	ours, theirs := net.Pipe()
	go func() {
		defer ours.Close()
		_ = tls.Client(ours, &tls.Config{
			ServerName: name, InsecureSkipVerify: true, CurvePreferences: []tls.CurveID{tls.X25519}, // nobody is spoken to, in few bytes
		}).Handshake()
	}()
	defer theirs.Close()
	record := make([]byte, 1<<14)
	n, err := theirs.Read(record)
	if err != nil {
		return ""
	}
	return hex.EncodeToString(record[:n])
}

// get is a request in plain HTTP.
func get(host string) string {
	return fmt.Sprintf("GET /plain HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host)
}

func networkNone(t *Trial) {
	hits := make(chan string, 100)
	l := t.listen("tcp", "127.0.0.1:0")
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			hits <- "its TCP server"
			conn.Close()
		}
	}()
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	t.OK(err, "ListenPacket")
	t.After(func() { u.Close() })
	go func() {
		buf := make([]byte, 1<<10)
		for {
			if _, _, err := u.ReadFrom(buf); err != nil {
				return
			}
			hits <- "its UDP socket"
		}
	}()
	_, port, err := net.SplitHostPort(l.Addr().String())
	t.OK(err, "SplitHostPort")
	args := []string{"try", "ask", "udp", u.LocalAddr().String(), "x", ";"}
	for _, host := range []string{"127.0.0.1", "::1", "::ffff:127.0.0.1", "localhost", "169.254.169.254", "192.0.2.1", "2001:db8::1"} {
		args = append(args, "try", "connect", "tcp", net.JoinHostPort(host, port), ";")
	}
	args = append(args, "try", "resolve", "example.com", ";", "try", "ask", "udp", "192.0.2.53:53", "x", ";", "attempt", "vsock-socket")
	spec := t.Spec(args...)
	spec.Network.Mode = caisson.NetworkNone
	b := t.start(spec)
	b.success()
	for _, line := range lines(b.stdout()) {
		if strings.HasSuffix(line, " ok") {
			t.Errorf("without a network: %s", line)
		}
	}
	select {
	case what := <-hits:
		t.Errorf("without a network the host's loopback device was reached: %s", what)
	default:
	}
}

// neighbours looks from each kind of network at another task and the host.
func neighbours(t *Trial) {
	l := t.listen("tcp", "127.0.0.1:0")
	for _, mode := range t.networks() {
		other := t.Spec("serve", "8163", "another-task", ";", "say", "ready", ";", "hold")
		t.on(other, mode)
		victim := t.start(other)
		victim.says("ready")
		places := append(t.addresses(victim), "127.0.0.1:8163", "[::1]:8163", l.Addr().String(), "169.254.169.254:80", "[fd00:ec2::254]:80")
		var args []string
		for _, at := range places {
			args = append(args, "try", "connect", "tcp", at, ";")
		}
		spec := t.Spec(args...)
		t.on(spec, mode)
		b := t.start(spec)
		b.success()
		for i, line := range lines(b.stdout()) {
			if strings.HasSuffix(line, " ok") {
				t.Errorf("on the network %s a task reaches %s", mode, places[i])
			}
		}
		victim.kill()
		victim.destroy()
	}
}

// networks returns the kinds of network that are to keep tasks apart here.
func (t *Trial) networks() []string {
	var modes []string
	for mode, has := range map[string]bool{
		caisson.NetworkNone: t.Features.Networks.None, caisson.NetworkDefault: t.Features.Networks.Default,
		caisson.NetworkAllow: t.Features.Networks.Allow && t.Features.Gateway,
	} {
		if has {
			modes = append(modes, mode)
		}
	}
	if len(modes) == 0 {
		t.Inapplicable("every task has the host's network")
	}
	slices.Sort(modes)
	return modes
}

// on puts a spec on a kind of network, where nobody serves anything.
func (t *Trial) on(spec *engine.Spec, mode string) {
	spec.Network.Mode = mode
	if mode == caisson.NetworkAllow {
		spec.Network.Allow = []string{"good.example:443"}
		spec.Gateway = &engine.Gateway{Everything: true}
	}
}

// addresses returns where a sandbox could be reached from others.
func (t *Trial) addresses(b *box) []string {
	lister, ok := t.Engine.(engine.NetworkLister)
	if !ok {
		return nil
	}
	list, err := lister.Networks(t.ctx, b.spec.Dir)
	t.OK(err, "Networks")
	var all []string
	for _, n := range list {
		for _, address := range n.Addresses {
			host, _, _ := strings.Cut(address, "/")
			all = append(all, net.JoinHostPort(host, "8163"))
		}
	}
	return all
}

func allowAddress(t *Trial) {
	d := t.newDoor("good.example:443", "good.example:80")
	args := []string{"raw", "good.example:443", hello("good.example"), ";", "ask", "tcp", "good.example:80", get("good.example"), ";"}
	for _, host := range []string{
		goodAddr.String(), otherAddr.String(), "127.0.0.1", "10.0.0.1", "169.254.169.254", "100.100.100.200", "2001:4860:4860::8844", "::1", "fd00:ec2::254",
		"::ffff:8.8.4.4", "64:ff9b::808:404",
	} {
		for _, port := range []string{"443", "80", "8080", "22"} {
			at := net.JoinHostPort(host, port)
			args = append(args, "try", "raw", at, hello("good.example"), ";", "try", "ask", "tcp", at, get("good.example"), ";", "try", "ask", "tcp", at, get(host), ";")
		}
	}
	for _, at := range []string{"good.example:22", "good.example:8443", "other.example:443", "other.example:80"} {
		args = append(args, "try", "raw", at, hello("good.example"), ";", "try", "ask", "tcp", at, get("good.example"), ";")
	}
	d.run(args...)
	d.outside("tls good.example", "http good.example /plain")
}

func allowSNI(t *Trial) {
	d := t.newDoor("good.example:443", "good.example:80", "good.example:8443")
	var args []string
	for _, name := range []string{
		"other.example", "", "good.example.other.example", "xgood.example", "goodXexample", "169.254.169.254", "sub.good.example", "localhost",
	} {
		for _, port := range []string{"443", "80", "8443"} {
			args = append(args, "try", "raw", "good.example:"+port, hello(name), ";")
		}
	}
	// The allowed name, where the address stands for another.
	args = append(args, "try", "raw", "other.example:443", hello("good.example"), ";", "try", "raw", "other.example:443", hello("other.example"), ";",
		"try", "raw", otherAddr.String()+":443", hello("good.example"), ";")
	// In pieces, with a second hello behind the first, and with garbage before it.
	good, bad := hello("good.example"), hello("other.example")
	args = append(args, "try", "raw", "good.example:443", bad+good, ";", "try", "raw", "good.example:443", "00"+good, ";",
		"try", "raw", "good.example:443", bad[:20], ";", "raw", "good.example:443", good)
	d.run(args...)
	d.outside("tls good.example")
}

func allowHost(t *Trial) {
	d := t.newDoor("good.example:80", "good.example:443")
	ask := func(text string) []string {
		return []string{"try", "raw", "good.example:80", hex.EncodeToString([]byte(text)), ";"}
	}
	var args []string
	for _, text := range []string{
		get("other.example"), get("other.example:80"), get("good.example.other.example"), get("169.254.169.254"), get("good.example, other.example"), get(""),
		"GET /twice HTTP/1.1\r\nHost: good.example\r\nHost: other.example\r\nConnection: close\r\n\r\n",
		"GET /folded HTTP/1.1\r\nHost:\r\n other.example\r\nConnection: close\r\n\r\n",
		"GET http://other.example/target HTTP/1.1\r\nHost: good.example\r\nConnection: close\r\n\r\n",
		"GET http://other.example@good.example/user HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n",
		"GET //other.example/slashes HTTP/1.0\r\n\r\n",
		"CONNECT other.example:443 HTTP/1.1\r\nHost: other.example:443\r\n\r\n",
		"CONNECT other.example:443 HTTP/1.1\r\nHost: good.example\r\n\r\n",
		// A request of one's own behind the first: next, smuggled, upgraded.
		"GET /first HTTP/1.1\r\nHost: good.example\r\n\r\n" + get("other.example"),
		"POST /first HTTP/1.1\r\nHost: good.example\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + get("other.example"),
		"POST /first HTTP/1.1\r\nHost: good.example\r\nContent-Length: 0\r\nContent-Length: 90\r\n\r\n" + get("other.example"),
		"GET /first HTTP/1.1\r\nHost: good.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + get("other.example"),
	} {
		args = append(args, ask(text)...)
	}
	args = append(args, "try", "raw", "good.example:80", http2Request("other.example"), ";", "try", "ask", "tcp", "other.example:80", get("good.example"), ";",
		"try", "ask", "tcp", "other.example:80", get("other.example"), ";")
	args = append(args, "ask", "tcp", "good.example:80", get("good.example"))
	d.run(args...)
	d.mu.Lock()
	for _, what := range d.arrived {
		if !strings.HasPrefix(what, "http good.example /") {
			t.Errorf("a server outside was sent %q", what)
		}
	}
	came := slices.Contains(d.arrived, "http good.example /plain")
	d.arrived = nil
	d.mu.Unlock()
	if !came && !t.Failed() {
		t.OK(io.EOF, "the allowed request")
	}
	d.outside()
}

// http2Request is a request of HTTP/2 without TLS for a host, in hexadecimal
// digits: the preface, empty settings, and one frame of headers.
func http2Request(host string) string {
	const method, scheme, path, authority = "\x82", "\x86", "\x44\x03/h2", "\x41" // GET, http, /h2, and the name alone
	head := method + scheme + path + authority + string(rune(len(host))) + host
	frame := "\x00\x00" + string(rune(len(head))) + "\x01\x05\x00\x00\x00\x01" + head
	return hex.EncodeToString([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00" + frame))
}

func allowPrivate(t *Trial) {
	bad := []string{
		"127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "::1", "fd00::1", "fe80::1", "::ffff:127.0.0.1",
		"64:ff9b::a9fe:a9fe", "2002:7f00:1::",
	}
	allow := []string{"good.example:443", "good.example:80"}
	var args []string
	for i := range bad {
		name := fmt.Sprintf("n%d.allowed.example", i)
		allow = append(allow, name+":443", name+":80")
		args = append(args, "try", "raw", name+":443", hello(name), ";", "try", "ask", "tcp", name+":80", get(name), ";")
	}
	d := t.newDoor(append(allow, "turns.allowed.example:80", "later.allowed.example:80", "later.allowed.example:443")...)
	for i, address := range bad {
		d.names[fmt.Sprintf("n%d.allowed.example", i)] = []netip.Addr{netip.MustParseAddr(address)}
	}
	// A name that is good, and bad at the same time or afterwards.
	metadata := netip.MustParseAddr("169.254.169.254")
	d.names["turns.allowed.example"] = []netip.Addr{metadata, goodAddr}
	d.names["later.allowed.example"] = []netip.Addr{goodAddr}
	d.later = map[string][]netip.Addr{"later.allowed.example": {metadata}}
	for range 3 {
		for _, name := range []string{"turns.allowed.example", "later.allowed.example"} {
			args = append(args, "try", "ask", "tcp", name+":80", get(name), ";")
		}
		args = append(args, "try", "raw", "later.allowed.example:443", hello("later.allowed.example"), ";")
	}
	args = append(args, "ask", "tcp", "good.example:80", get("good.example"))
	d.run(args...)
	d.mu.Lock()
	// Whether what is good of both is used is the gateway's to decide.
	d.arrived = slices.DeleteFunc(d.arrived, func(what string) bool {
		return what == "http turns.allowed.example /plain" || strings.Contains(what, " later.allowed.example")
	})
	d.mu.Unlock()
	d.outside("http good.example /plain")
}

func allowNames(t *Trial) {
	d := t.newDoor("*.allowed.example:443", "good.example:443")
	for _, name := range []string{"allowed.example", "notallowed.example", "a.allowed.example.other.example", "a.allowed.example"} {
		d.names[name] = []netip.Addr{goodAddr}
	}
	var args []string
	for _, name := range []string{
		"allowed.example", "notallowed.example", ".allowed.example", "*.allowed.example", "a.allowed.example.other.example", "a.allowedXexample",
		"a.allowed.example%00.other.example", "a.allowed.exampl", "good.example.other.example", "xn--good-.example",
	} {
		args = append(args, "try", "raw", name+":443", hello(strings.Trim(name, ".*")), ";")
	}
	args = append(args, "try", "raw", "a.allowed.example:80", hello("a.allowed.example"), ";", "try", "raw", "a.allowed.example:443", hello("b.other.example"), ";",
		"raw", "a.allowed.example:443", hello("a.allowed.example"))
	d.run(args...)
	d.outside("tls a.allowed.example")
}

func allowDNS(t *Trial) {
	const many = 150
	d := t.newDoor("good.example:443")
	var args []string
	for i := range many {
		name := fmt.Sprintf("%s.%03d.data-%s.other.example", strings.Repeat("a", 60), i, strings.Repeat("b", 50))
		args = append(args, "try", "resolve", name, ";")
		if i < 5 {
			args = append(args, "try", "raw", name+":443", hello(name), ";")
		}
	}
	for _, name := range []string{"good.example.other.example", "data.good.example", "_tcp.good.example", "localhost.other.example", "1.0.0.127.in-addr.arpa"} {
		args = append(args, "try", "resolve", name, ";")
	}
	for _, server := range []string{"8.8.8.8:53", "192.0.2.1:53", "[2001:4860:4860::8888]:53", "127.0.0.1:53"} {
		args = append(args, "try", "ask", "udp", server, "data", ";", "try", "ask", "tcp", server, "data", ";")
	}
	// The resolver serves on, whatever it was sent.
	args = append(args, "try", "ask", "udp", "127.64.0.1:53", strings.Repeat("x", 600), ";", "try", "raw", "127.64.0.1:53", "ffff00", ";",
		"raw", "good.example:443", hello("good.example"))
	d.run(args...)
	d.outside("tls good.example")
}

func allowProtocols(t *Trial) {
	d := t.newDoor("good.example:443", "good.example:80")
	args := []string{"attempt", "raw-socket", "packet-socket", ";"}
	for _, at := range []string{"good.example:443", "good.example:80", goodAddr.String() + ":443", "8.8.8.8:53", "[2001:4860:4860::8888]:443"} {
		args = append(args, "try", "ask", "udp", at, "QUIC", ";")
	}
	for _, text := range []string{"SSH-2.0-x\r\n", "\x16\x03", "EHLO x\r\n", "\x00\x00\x00\x00"} {
		args = append(args, "try", "raw", "good.example:443", hex.EncodeToString([]byte(text)), ";", "try", "raw", "good.example:80", hex.EncodeToString([]byte(text)), ";")
	}
	// Where a redirect leads is one more request, to another host.
	args = append(args, "try", "ask", "tcp", "169.254.169.254:80", get("169.254.169.254"), ";", "try", "ask", "tcp", "other.example:80", get("other.example"), ";",
		"raw", "good.example:443", hello("good.example"))
	b := d.run(args...)
	for _, line := range lines(b.stdout()) {
		if line == "raw-socket ok" || line == "packet-socket ok" {
			t.Errorf("%s", line)
		}
	}
	d.outside("tls good.example")
}
