package enginetest

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/enginetest/inside/act"
)

func gatewayCases() []Case {
	gateway := []string{"gateway"}
	return append(attacksOnGateways(), []Case{
		{
			Name: "gateway/answers", Rules: []int{87}, Needs: gateway,
			Rule: "the sockets of a gateway are those that were asked for, in order, and answer inside by address, tcp and udp alike",
			body: gatewayAnswers,
		},
		{
			Name: "gateway/http", Rules: []int{88, 91}, Needs: gateway,
			Rule: "HTTP by a gateway has its host, path and body unchanged, a refusal is the program's to see, and what is upgraded is a stream",
			body: gatewayHTTP,
		},
		{
			Name: "gateway/streams", Rules: []int{91}, Needs: gateway,
			Rule: "many megabytes pass both ways at once, each way with its own end",
			body: gatewayStreams,
		},
		{
			Name: "gateway/names", Rules: []int{92}, Needs: gateway, wants: []facility{rooted},
			Rule: "every name of a gateway resolves to its address, and only those do",
			body: gatewayNames,
		},
		{
			Name: "gateway/resolver", Rules: []int{96}, Needs: gateway, wants: []facility{rooted},
			Rule: "a gateway's resolver is the only one in resolv.conf, and is asked",
			body: gatewayResolver,
		},
		{
			Name: "gateway/waits", Rules: []int{87}, Needs: gateway,
			Rule: "who connects while nobody serves a gateway waits, and is answered by whoever opens its sockets first or again",
			body: gatewayWaits,
		},
		{
			Name: "gateway/recovered", Rules: []int{87, 120}, Needs: gateway, wants: []facility{system},
			Rule: "another process finds the same sockets by Recover, and serves who has come meanwhile",
			body: gatewayRecovered,
		},
		{
			Name: "gateway/apart", Rules: []int{89}, Attacks: []int{37}, Needs: gateway,
			Rule: "two sandboxes at once with gateways of the same names and addresses reach each its own",
			body: gatewayApart,
		},
		{
			Name: "gateway/many", Rules: []int{89, 95}, Needs: gateway, deadline: 3 * time.Minute,
			Rule: "twenty sandboxes have gateways of the same addresses at once, and so have those that follow them",
			body: gatewayMany,
		},
		{
			Name: "gateway/nobody-else", Rules: []int{90}, Attacks: []int{37}, Needs: gateway,
			Rule: "neither the host nor another sandbox reaches a gateway, by IPv4 or IPv6",
			body: gatewayNobodyElse, deadline: 3 * time.Minute,
		},
		{
			Name: "gateway/kept", Rules: []int{90}, Attacks: []int{36}, Needs: gateway, wants: []facility{system},
			Rule: "a program can neither take a gateway's address, nor share it, nor end it",
			body: gatewayKept,
		},
		{
			Name: "gateway/ends", Rules: []int{93}, Needs: gateway,
			Rule: "a connection ends with the program, the sockets are ended after it, and aborted after Destroy",
			body: gatewayEnds,
		},
		{
			Name: "gateway/ended-and-kept", Rules: []int{70, 93}, Needs: []string{"gateway", "keep", "exec"},
			Rule: "who looks into a kept sandbox is refused by its gateway at once, and not left waiting",
			body: gatewayEndedAndKept,
		},
		{
			Name: "gateway/everything", Rules: []int{94}, Attacks: []int{36}, Needs: []string{"gateway", "networks.allow"},
			Rule: "with everything, who connects to any address of IPv4 or IPv6 arrives with that address, and at other ports is refused at once",
			body: gatewayEverything,
		},
		{
			Name: "gateway/allow-alone", Rules: []int{94}, Attacks: []int{35, 36}, Needs: []string{"gateway", "networks.allow"},
			Rule: "an allow-list whose gateway takes nothing reaches nothing",
			body: gatewayAllowAlone,
		},
		{
			Name: "gateway/neighbours", Rules: []int{90, 94}, Attacks: []int{37}, Needs: []string{isolation(engine.IsolatedNetwork)},
			Rule: "from no kind of network that keeps tasks apart does one reach another, the host or a metadata service",
			body: attacked("network/neighbours"), deadline: 2 * time.Minute,
		},
		{
			Name: "gateway/shared", Rules: []int{87, 94}, Needs: []string{"gateway", "networks.shared"},
			Rule: "sandboxes on a shared network have the same sockets, and who is left is served when one is gone",
			body: gatewayShared,
		},
		{
			Name: "gateway/none", Rules: []int{87}, Needs: gateway,
			Rule: "a sandbox without a gateway has no sockets, and its network is as without",
			body: gatewayNone,
		},
		{
			Name: "gateway/mistakes", Rules: []int{4, 5, 92}, Needs: gateway,
			Rule: "sockets outside of the loopback network, twice, or of no kind, and names that are none, are refused by their fields",
			body: gatewayMistakes,
		},
		{
			Name: "gateway/undeclared", Rules: []int{4}, wants: []facility{undeclared("gateway")},
			Rule: "an engine without gateways has no sockets to give",
			body: gatewayUndeclared,
		},
	}...)
}

// attacksOnGateways are the attacks on allow-lists, with an allow-list that is
// served as tasks' are.
func attacksOnGateways() []Case {
	var cases []Case
	for name, rule := range map[string]string{
		"address":   "an allow-list of names is not passed by addresses and other ports",
		"sni":       "TLS that asks for another name than the address stands for goes nowhere",
		"host":      "plain HTTP for another host goes nowhere, however it is said",
		"private":   "a name that leads to a private address leads nowhere",
		"names":     "only names that are allowed are, in no other spelling",
		"dns":       "no name that is not allowed is looked up outside",
		"protocols": "what is neither TLS nor HTTP for an allowed name goes nowhere",
	} {
		cases = append(cases, Case{
			Name: "gateway/allow-" + name, Rules: []int{94}, Attacks: []int{36}, Needs: []string{"gateway", "networks.allow"},
			Rule: rule, body: attacked("allow/" + name), deadline: 2 * time.Minute,
		})
	}
	slices.SortFunc(cases, func(a, b Case) int { return strings.Compare(a.Name, b.Name) })
	return cases
}

const (
	proxyPort  = 8137 // nobody listens there on a host of tests
	secondPort = 8139
	proxyAt    = "127.64.0.1:8137"
	otherAt    = "127.64.0.2:8137"
)

func gatewayAnswers(t *T) {
	spec := t.spec("ask", "tcp", proxyAt, "hello\n", ";", "ask", "tcp", otherAt, "hello\n", ";",
		"ask", "udp", "127.64.0.3:53", "hello", ";", "ask", "tcp", "[::1]:8139", "hello\n", ";", "try", "connect", "tcp", "127.64.0.3:8137")
	want := []engine.Socket{
		tcpSocket(otherAt), {Network: "udp", Address: "127.64.0.3:53"}, tcpSocket(proxyAt), tcpSocket("[::1]:8139"),
	}
	spec.Gateway = &engine.Gateway{Sockets: want}
	sb := t.create(spec)
	open := t.sockets(sb)
	if len(open) != len(want) {
		t.Fatalf("Sockets has %d, want %d", len(open), len(want))
	}
	for i, s := range open {
		if s.Socket != want[i] || (s.Listener != nil) == (s.Packets != nil) || (s.Packets != nil) != (want[i].Network == "udp") {
			t.Fatalf("socket %d is %+v, want %+v", i, s, want[i])
		}
		if s.Packets != nil {
			t.packets(s.Packets, fmt.Sprint(i))
		} else {
			t.accept(s.Listener, word(fmt.Sprint(i)))
		}
	}
	b := t.begin(sb, spec)
	b.prints("2 hello "+proxyAt, "0 hello "+otherAt, "1 hello", "3 hello [::1]:8139", "connect ECONNREFUSED")
	if t.features.Exec {
		b := t.served(t.gated([]string{proxyAt}, "hold"), "here")
		if out, _, _ := b.exec("ask", "tcp", proxyAt, "exec\n").finish(); out != "here exec "+proxyAt+"\n" {
			t.Errorf("an exec is answered %q", out)
		}
	}
}

// served by HTTP: what the program sent comes back.
func gatewayHTTP(t *T) {
	spec := t.gated([]string{proxyAt},
		"ask", "tcp", proxyAt, "POST /a%2Fb/c?q=1&q=2 HTTP/1.1\r\nHost: upstream\r\nX-Own: yes\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody", ";",
		"ask", "tcp", proxyAt, "GET /refused HTTP/1.0\r\nHost: upstream\r\n\r\n", ";",
		"ask", "tcp", proxyAt, "GET /stream HTTP/1.1\r\nHost: upstream\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nthere and back\n")
	spec.Gateway.Names = map[string]string{"upstream": "127.64.0.1"}
	mux := http.NewServeMux()
	mux.HandleFunc("/refused", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "not here", http.StatusNotFound) })
	mux.HandleFunc("/stream", func(w http.ResponseWriter, _ *http.Request) { echoOnce(w) })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %s %s", r.Method, r.Host, r.URL.RequestURI(), r.Header.Get("X-Own"), body)
	})
	sb := t.create(spec)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: dialTimeout}
	var serving sync.WaitGroup
	l := t.sockets(sb)[0].Listener
	serving.Go(func() { _ = server.Serve(l) })
	t.after(func() {
		server.Close()
		serving.Wait()
	})
	b := t.begin(sb, spec)
	b.success()
	for _, want := range []string{"200 OK", "POST upstream /a%2Fb/c?q=1&q=2 yes body", "404 Not Found", "not here", "101 Switching", "there and back"} {
		if !strings.Contains(b.stdout(), want) {
			t.Errorf("the program was answered %q, want %q in it", b.stdout(), want)
		}
	}
}

// echoOnce takes the connection over and gives one line back.
func echoOnce(w http.ResponseWriter) {
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	line, _ := rw.ReadString('\n')
	_, _ = rw.WriteString(line)
	_ = rw.Flush()
}

func gatewayStreams(t *T) {
	spec := t.gated([]string{proxyAt}, "pour", proxyAt, "24m", "7")
	sb := t.create(spec)
	t.accept(t.sockets(sb)[0].Listener, func(conn net.Conn) {
		_, _ = io.Copy(conn, conn)
		// Closing early would throw away what is still on its way.
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	})
	b := t.begin(sb, spec)
	b.success()
	sum := sha256.New()
	_, err := io.CopyN(sum, act.Pattern(7), 24<<20)
	t.ok(err, "Pattern")
	if got, want := lines(b.stdout())[0], fmt.Sprintf("%d %x", 24<<20, sum.Sum(nil)); got != want {
		t.Errorf("%s came back, want %s", got, want)
	}
}

func gatewayNames(t *T) {
	names := map[string]string{
		"abc": "127.64.0.1", "upstream": "127.64.0.2", "abcdefghijklmnopqrstuv": "127.64.0.3",
		"api.example.com": "127.65.0.9", "with-dash": "127.64.0.2",
	}
	var args []string
	var want []string
	for name, ip := range names {
		args = append(args, "resolve", name, ";")
		want = append(want, ip)
	}
	args = append(args, "ask", "tcp", "upstream:8137", "by name\n", ";", "try", "resolve", "other.example")
	spec := t.gated([]string{"127.64.0.2:8137"}, args...)
	spec.Gateway.Names = names
	b := t.served(spec, "named")
	b.success()
	got := lines(b.stdout())
	if len(got) != len(want)+2 || !slices.Equal(got[:len(want)], want) || got[len(want)] != "named by name 127.64.0.2:8137" {
		t.Errorf("the names resolve to %q, want %q, and an answer", got, want)
	}
	if last := got[len(got)-1]; strings.HasSuffix(last, " ok") {
		t.Errorf("a name that nobody gave resolves: %q", last)
	}
}

func gatewayResolver(t *T) {
	spec := t.spec("read", "/etc/resolv.conf", ";", "resolve", "any.example.com", ";", "try", "resolve", "absent.example.com")
	spec.Gateway = &engine.Gateway{
		Sockets:  []engine.Socket{{Network: "udp", Address: "127.64.0.1:53"}, tcpSocket("127.64.0.1:53")},
		Resolver: "127.64.0.1",
	}
	sb := t.create(spec)
	open := t.sockets(sb)
	asked := new(atomic.Int64)
	t.answerNames(open[0].Packets, func(name string) string {
		asked.Add(1)
		if name == "any.example.com." {
			return "127.65.0.7"
		}
		return ""
	})
	t.accept(open[1].Listener, func(net.Conn) {})
	b := t.begin(sb, spec)
	b.success()
	var servers []string
	for _, line := range lines(b.stdout()) {
		if rest, ok := strings.CutPrefix(line, "nameserver "); ok {
			servers = append(servers, rest)
		}
	}
	if !slices.Equal(servers, []string{"127.64.0.1"}) {
		t.Errorf("resolv.conf has the servers %q: %q", servers, b.stdout())
	}
	if got := lines(b.stdout()); !slices.Contains(got, "127.65.0.7") || strings.HasSuffix(got[len(got)-1], " ok") || asked.Load() < 2 {
		t.Errorf("of %d questions the answers were %q", asked.Load(), got)
	}
}

func gatewayWaits(t *T) {
	b := t.start(t.gated([]string{proxyAt}, "say", "ready", ";", "ask", "tcp", proxyAt, "first\n", ";", "say", "between", ";",
		"ask", "tcp", proxyAt, "second\n"))
	b.says("ready")
	first := t.sockets(b.Sandbox)
	for _, line := range []string{"first", "second"} {
		conn, err := first[0].Listener.Accept()
		t.ok(err, "Accept")
		got, _ := bufio.NewReader(conn).ReadString('\n')
		if got != line+"\n" {
			t.Errorf("the program sent %q, want %q", got, line)
		}
		// Between the two nobody has the sockets; who opens them again serves on.
		t.ok(first[0].Close(), "Close")
		_, _ = io.WriteString(conn, "answer "+line)
		t.ok(conn.Close(), "Close")
		if line == "first" {
			b.says("between")
			first = t.sockets(b.Sandbox)
		}
	}
	b.prints("ready", "answer first", "between", "answer second")
}

func gatewayRecovered(t *T) {
	t.alone()
	spec := t.gated([]string{proxyAt, otherAt}, "trap", "10", ";", "ask", "tcp", proxyAt, "before\n", ";", "say", "ready", ";",
		"await", "10", ";", "say", "asking", ";", "ask", "tcp", otherAt, "after\n")
	sb := t.create(spec)
	var stops []func()
	for _, socket := range t.sockets(sb) {
		stops = append(stops, t.accept(socket.Listener, word("old")))
	}
	b := t.begin(sb, spec)
	b.says("ready")
	for _, stop := range stops {
		stop()
	}
	t.restart()
	again := t.found(b)
	t.ok(again.process.Signal(t.ctx, sigUsr1), "Signal")
	again.says("asking")
	open := t.sockets(again.Sandbox)
	if len(open) != 2 || open[1].Address != otherAt {
		t.Fatalf("after Recover the sockets are %+v", open)
	}
	t.accept(open[1].Listener, word("new"))
	again.prints("old before "+proxyAt, "ready", "asking", "new after "+otherAt)
}

func gatewayApart(t *T) {
	var boxes []*box
	for _, w := range []string{"one", "two"} {
		spec := t.gated([]string{proxyAt}, "ask", "tcp", proxyAt, "me\n", ";", "say", "asked", ";", "hold")
		boxes = append(boxes, t.served(spec, w))
	}
	for i, w := range []string{"one", "two"} {
		boxes[i].says("asked")
		if got := lines(boxes[i].stdout())[0]; got != w+" me "+proxyAt {
			t.Errorf("the gateway of %s is %q", w, got)
		}
	}
}

func gatewayMany(t *T) {
	n := t.atOnce(20)
	for range 2 {
		boxes := make([]*box, n)
		for i := range boxes {
			spec := t.gated([]string{proxyAt}, "ask", "tcp", proxyAt, fmt.Sprintf("%d\n", i), ";", "say", "asked", ";", "hold")
			boxes[i] = t.served(spec, fmt.Sprintf("box%d", i))
		}
		for i, b := range boxes {
			b.says("asked")
			if got, want := lines(b.stdout())[0], fmt.Sprintf("box%d %d %s", i, i, proxyAt); got != want {
				t.Errorf("sandbox %d was answered %q, want %q", i, got, want)
			}
		}
		parallel(n, func(i int) { t.destroy(boxes[i].Sandbox) })
	}
}

func gatewayNobodyElse(t *T) {
	hits := new(atomic.Int64)
	spec := t.gated([]string{proxyAt, "[::]:8139"}, "say", "ready", ";", "hold")
	sb := t.create(spec)
	for _, s := range t.sockets(sb) {
		t.accept(s.Listener, func(net.Conn) { hits.Add(1) })
	}
	b := t.begin(sb, spec)
	b.says("ready")
	places := []string{proxyAt, "127.0.0.1:8137", "127.0.0.1:8139", "[::1]:8139", "[::1]:8137", "127.64.0.1:8139"}
	for _, address := range hostAddresses() {
		places = append(places, net.JoinHostPort(address, fmt.Sprint(secondPort)), net.JoinHostPort(address, fmt.Sprint(proxyPort)))
	}
	var tries []string
	for _, at := range places {
		if conn, err := net.DialTimeout("tcp", at, time.Second); err == nil {
			conn.Close()
			t.Errorf("the host reaches %s", at)
		}
		tries = append(tries, "try", "connect", "tcp", at, ";")
	}
	for _, other := range t.strangers(tries) {
		other.success()
		for i, line := range lines(other.stdout()) {
			if strings.HasSuffix(line, " ok") {
				t.Errorf("another sandbox reaches %s", places[i])
			}
		}
	}
	if n := hits.Load(); n > 0 {
		t.Errorf("the gateway was reached %d times by others", n)
	}
}

// strangers are sandboxes that are to reach nothing of another's gateway.
func (t *T) strangers(args []string) []*box {
	boxes := []*box{t.launch(args...)}
	// One whose own gateway is elsewhere.
	boxes = append(boxes, t.start(t.gated([]string{"127.64.0.9:9999"}, args...)))
	if t.features.Networks.Default {
		spec := t.spec(args...)
		spec.Network.Mode = caisson.NetworkDefault
		boxes = append(boxes, t.start(spec))
	}
	return boxes
}

func gatewayKept(t *T) {
	const asks = 40
	var args []string
	for _, at := range []string{
		"tcp " + proxyAt, "tcp4 0.0.0.0:8137", "tcp6 [::]:8137", "tcp4 127.0.0.1:8139", "tcp4 0.0.0.0:8139", "tcp6 [::]:8139", "tcp6 [::1]:8139",
		"udp 127.64.0.1:5353", "udp4 0.0.0.0:5353", "udp6 [::]:5353",
	} {
		network, address, _ := strings.Cut(at, " ")
		args = append(args, "try", "steal", network, address, ";")
	}
	for range asks {
		args = append(args, "ask", "tcp", proxyAt, "x\n", ";", "ask", "tcp", "127.0.0.1:8139", "x\n", ";", "ask", "udp", "127.64.0.1:5353", "x", ";")
	}
	spec := t.spec(args...)
	spec.Gateway = &engine.Gateway{Sockets: []engine.Socket{
		tcpSocket(proxyAt), tcpSocket("[::]:8139"), {Network: "udp", Address: "127.64.0.1:5353"},
	}}
	sb := t.create(spec)
	for _, s := range t.sockets(sb) {
		if s.Packets != nil {
			t.packets(s.Packets, "true")
		} else {
			t.accept(s.Listener, word("true"))
		}
	}
	b := t.begin(sb, spec)
	b.success()
	answers := 0
	for _, line := range lines(b.stdout()) {
		switch {
		case strings.HasPrefix(line, "true x"):
			answers++
		case !strings.HasPrefix(line, "steal "):
			t.Errorf("the program was answered %q by another than the gateway", line)
		}
	}
	if answers != 3*asks {
		t.Errorf("of %d questions %d were answered; stderr %q", 3*asks, answers, b.stderr())
	}
}

func gatewayEnds(t *T) {
	spec := t.gated([]string{proxyAt}, "say", "ready", ";", "ask", "tcp", proxyAt, "hold me\n")
	sb := t.create(spec)
	open := t.sockets(sb)
	held, over := make(chan struct{}), make(chan struct{})
	t.accept(open[0].Listener, func(conn net.Conn) {
		close(held)
		_, _ = io.Copy(io.Discard, conn)
		close(over)
	})
	b := t.begin(sb, spec)
	b.says("ready")
	select {
	case <-held:
	case <-t.ctx.Done():
		t.Errorf("the program does not connect")
	}
	b.stop(engine.Stop{Reason: caisson.ReasonKilled})
	b.wait()
	select {
	case <-over:
	case <-t.ctx.Done():
		t.Errorf("the connection outlives the program")
	}
	keeper := sb.(engine.Gatekeeper)
	_, err := keeper.Sockets(t.ctx)
	t.kind(err, "Sockets after the end", caisson.ErrEnded)
	t.destroy(sb)
	_, err = keeper.Sockets(t.ctx)
	t.kind(err, "Sockets after Destroy", caisson.ErrAborted)

	// And one whose program was never started.
	unstarted := t.create(t.gated([]string{proxyAt}, "hold"))
	open = t.sockets(unstarted)
	t.destroy(unstarted)
	_, err = unstarted.(engine.Gatekeeper).Sockets(t.ctx)
	t.kind(err, "Sockets after Destroy", caisson.ErrAborted)
	t.ok(open[0].Close(), "Close")
}

func gatewayEndedAndKept(t *T) {
	spec := t.gated([]string{proxyAt}, "ask", "tcp", proxyAt, "while it runs\n")
	spec.Keep = caisson.Duration(defaultDeadline)
	b := t.served(spec, "answer")
	b.prints("answer while it runs " + proxyAt)
	if out, _, _ := b.exec("try", "ask", "tcp", proxyAt, "afterwards\n").finish(); out != "ask ECONNREFUSED\n" {
		t.Errorf("an exec after the end is told %q", out)
	}
	_, err := b.Sandbox.(engine.Gatekeeper).Sockets(t.ctx)
	t.kind(err, "Sockets of a kept sandbox", caisson.ErrEnded)
}

func gatewayEverything(t *T) {
	ours := []string{
		"192.0.2.1", "10.0.0.1", "8.8.8.8", "169.254.169.254", "127.0.0.1", "127.64.7.8", "240.1.2.3", "2001:db8::1", "fd00:ec2::254", "::1", "::ffff:192.0.2.2",
	}
	args := []string{}
	var want []string
	for _, ip := range ours {
		at := net.JoinHostPort(ip, fmt.Sprint(proxyPort))
		args = append(args, "try", "ask", "tcp", at, "x\n", ";")
		meant := netip.AddrPortFrom(netip.MustParseAddr(ip).Unmap(), proxyPort)
		want = append(want, "all x "+meant.String(), "ask ok")
	}
	for _, at := range []string{"192.0.2.1:81", "[2001:db8::1]:81", "127.0.0.1:1", "10.0.0.1:443", "169.254.169.254:80"} {
		args = append(args, "try", "connect", "tcp", at, ";")
		want = append(want, "connect ECONNREFUSED")
	}
	args = append(args, "ask", "udp", "192.0.2.53:8137", "x", ";", "try", "ask", "udp", "192.0.2.53:53", "x")
	want = append(want, "packet x", "ask ECONNREFUSED")
	spec := t.all(proxyPort, args...)
	spec.Gateway.Sockets = append(spec.Gateway.Sockets, engine.Socket{Network: "udp", Address: "[::]:8137"})
	sb := t.create(spec)
	open := t.sockets(sb)
	t.accept(open[0].Listener, func(conn net.Conn) {
		line, _ := bufio.NewReader(conn).ReadString('\n')
		at, _ := netip.ParseAddrPort(conn.LocalAddr().String())
		fmt.Fprintf(conn, "all %s %s", strings.TrimSpace(line), netip.AddrPortFrom(at.Addr().Unmap().WithZone(""), at.Port()))
	})
	t.packets(open[1].Packets, "packet")
	b := t.begin(sb, spec)
	b.success()
	got := lines(b.stdout())
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Errorf("from line %d on it printed %q, want %q", i, got[min(i, len(got)):], want[min(i, len(want)):])
			break
		}
	}
	wrong := t.all(proxyPort, "exit 0")
	wrong.Network = caisson.Network{}
	if err := t.refused(wrong, caisson.ErrInvalid); err != nil && !strings.Contains(err.Error(), "everything") {
		t.Errorf("Create = %v, want an error that names everything", err)
	}
}

func gatewayAllowAlone(t *T) {
	port := t.listen("tcp", "127.0.0.1:0").Addr().(*net.TCPAddr).Port
	var args []string
	for _, address := range append(hostAddresses(), "127.0.0.1", "169.254.169.254", "::1", "192.0.2.1") {
		args = append(args, "try", "connect", "tcp", net.JoinHostPort(address, fmt.Sprint(port)), ";")
	}
	args = append(args, "try", "connect", "tcp", "example.com:443", ";", "try", "ask", "udp", "192.0.2.1:53", "x")
	for _, everything := range []bool{false, true} {
		spec := t.spec(args...)
		spec.Network = caisson.Network{Mode: caisson.NetworkAllow, Allow: []string{"example.com:443"}}
		spec.Gateway = &engine.Gateway{Everything: everything}
		b := t.start(spec)
		b.success()
		for i, line := range lines(b.stdout()) {
			if strings.HasSuffix(line, " ok") {
				t.Errorf("everything %v: connection %d worked", everything, i)
			}
		}
		if everything && slices.Contains(t.features.Isolation, engine.IsolatedNetwork) {
			report := t.spec("report")
			report.Network, report.Gateway = spec.Network, spec.Gateway
			if got := t.start(report).facts().Interfaces; !slices.Equal(got, []string{"lo"}) {
				t.Errorf("the sandbox has the devices %v, want lo", got)
			}
		}
	}
}

func gatewayShared(t *T) {
	n := t.network("db")
	spec := func(args ...string) *engine.Spec {
		s := n.join("", args...)
		s.Gateway = &engine.Gateway{Sockets: []engine.Socket{tcpSocket(proxyAt)}}
		return s
	}
	const asks = 10
	ask := []string{}
	for range asks {
		ask = append(ask, "ask", "tcp", proxyAt, "x\n", ";")
	}
	first := t.served(spec("say", "ready", ";", "hold"), "ours")
	first.says("ready")
	second := t.served(spec(append(slices.Clone(ask), "say", "ready", ";", "trap", "10", ";", "await", "10", ";", "exit", "0")...), "ours")
	second.says("ready")
	t.destroy(first.Sandbox)
	third := t.served(spec(ask...), "ours")
	third.success()
	for _, b := range []*box{second, third} {
		if got := strings.Count(b.stdout(), "ours x "+proxyAt+"\n"); got != asks {
			t.Errorf("of %d questions %d were answered: %q", asks, got, b.stdout())
		}
	}
}

func gatewayNone(t *T) {
	b := t.start(t.spec("try connect tcp " + proxyAt + " ; hold"))
	b.says("connect ECONNREFUSED")
	if open := t.sockets(b.Sandbox); len(open) > 0 {
		t.Errorf("Sockets = %+v, want none", open)
	}
}

func gatewayMistakes(t *T) {
	for field, change := range map[string]func(*engine.Gateway){
		"gateway.sockets[1]": func(g *engine.Gateway) { g.Sockets = append(g.Sockets, tcpSocket("192.0.2.1:80")) },
		"twice":              func(g *engine.Gateway) { g.Sockets = append(g.Sockets, g.Sockets[0]) },
		"neither tcp":        func(g *engine.Gateway) { g.Sockets[0].Network = "unix" },
		"gateway.names":      func(g *engine.Gateway) { g.Names = map[string]string{"a\n192.0.2.66 b": "127.64.0.1"} },
		"gateway.resolver":   func(g *engine.Gateway) { g.Resolver = "192.0.2.1" },
	} {
		spec := t.gated([]string{proxyAt}, "exit 0")
		change(spec.Gateway)
		if err := t.refused(spec, caisson.ErrInvalid); err != nil && !strings.Contains(err.Error(), field) {
			t.Errorf("Create = %v, want an error with %q", err, field)
		}
	}
}

func gatewayUndeclared(t *T) {
	keeper, ok := t.create(t.spec("hold")).(engine.Gatekeeper)
	if !ok {
		return
	}
	if open, err := keeper.Sockets(t.ctx); !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("Sockets = %v, %v, want unsupported", open, err)
	}
}
