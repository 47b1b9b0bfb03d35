package gateway_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func hello(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s %s", name, r.Host) }
}

func TestAllowHTTP(t *testing.T) {
	b := open(t, allow(t, "example.com:80", "*.example.org:8080"))
	server := web(t, hello("outside"))
	b.host("example.com", public, 80, server)
	b.host("a.b.example.org", public, 8080, server)
	c := b.client(nil)
	for url, want := range map[string]string{
		"http://example.com/":               "outside example.com",
		"http://example.com:80/":            "outside example.com:80",
		"http://EXAMPLE.com/":               "outside EXAMPLE.com",
		"http://a.b.example.org:8080/x?a;b": "outside a.b.example.org:8080",
	} {
		if status, body := get(t, c, url); status != 200 || body != want {
			t.Errorf("%s = %d %q, want %q", url, status, body, want)
		}
	}
	if n := b.lookups["example.com"]; n != 1 {
		t.Errorf("example.com was looked up %d times, want once: answers are pinned", n)
	}
}

// Whatever is not listed is refused, in words that help.
func TestAllowRefused(t *testing.T) {
	b := open(t, allow(t, "example.com:80", "*.example.org:80", "10.1.2.3:80"))
	c := b.client(nil)
	for url, host := range map[string]string{
		"http://evil.example/":                         "evil.example:80",
		"http://example.org/":                          "example.org:80", // the apex is not below itself
		"http://notexample.com/":                       "notexample.com:80",
		"http://example.com.evil.example/":             "example.com.evil.example:80",
		"http://93.184.216.34/":                        "93.184.216.34:80",
		"http://10.1.2.4/":                             "10.1.2.4:80",
		"http://169.254.169.254/":                      "169.254.169.254:80",
		"http://127.0.0.1/":                            "127.0.0.1:80",
		"http://[2606:2800:220:1:248:1893:25c8:1946]/": "[2606:2800:220:1:248:1893:25c8:1946]:80",
		"http://[64:ff9b::a01:203]/":                   "[64:ff9b::a01:203]:80",
		"http://example.com:443/":                      "example.com:443",
	} {
		status, body := get(t, c, url)
		want := fmt.Sprintf("caisson: %s: not in network.allow; add %q to reach it\n", host, host)
		if status != 403 || body != want {
			t.Errorf("%s = %d %q, want 403 %q", url, status, body, want)
		}
		b.wasBlocked(host + ": not in network.allow")
	}
	b.noDials()
	if len(b.lookups) > 0 {
		t.Errorf("names were asked for outside: %v", b.lookups)
	}
}

// The host that a request names is the one that the connection was made for,
// in every request of it.
func TestAllowHostOfAnotherSite(t *testing.T) {
	b := open(t, allow(t, "example.com:80", "other.example.com:80", "10.1.2.3:80"))
	b.host("example.com", public, 80, web(t, hello("outside")))
	b.host("", "10.1.2.3", 80, web(t, hello("inside")))
	for _, head := range []string{
		"GET / HTTP/1.1\r\nHost: evil.example\r\n",
		"GET / HTTP/1.1\r\nHost: other.example.com\r\n", // allowed, but not here
		"GET http://evil.example/ HTTP/1.1\r\nHost: example.com\r\n",
		"GET https://example.com/ HTTP/1.1\r\nHost: example.com\r\n",
		"GET / HTTP/1.1\r\nHost: example.com:8080\r\n",
		"GET / HTTP/1.1\r\nHost: example.com.\x80\r\n",
		"GET / HTTP/1.0\r\n",
		"CONNECT evil.example:443 HTTP/1.1\r\nHost: example.com\r\n",
		"CONNECT example.com:80 HTTP/1.1\r\nHost: example.com\r\n",
	} {
		// The first request is a good one.
		conn := b.connect(b.to("example.com", 80))
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
		r := bufio.NewReader(conn)
		res, err := http.ReadResponse(r, nil)
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("the first request: %v %v", res, err)
		}
		io.Copy(io.Discard, res.Body)
		fmt.Fprintf(conn, "%s\r\n", head)
		res, err = http.ReadResponse(r, nil)
		if err != nil || res.StatusCode != 403 && res.StatusCode != 400 {
			t.Errorf("%q: %v %v, want 403", head, res, err)
		}
		conn.Close()
	}
	// By its address there is no name but that.
	c := b.client(nil)
	if status, body := get(t, c, "http://10.1.2.3/"); status != 200 || body != "inside 10.1.2.3" {
		t.Errorf("by a listed address: %d %q", status, body)
	}
	if status, _ := get(t, c, "http://10.1.2.3/", func(r *http.Request) { r.Host = "evil.example" }); status != 403 {
		t.Errorf("another host at a listed address: %d, want 403", status)
	}
	b.wasBlocked("evil.example:80: asked for on a connection to example.com:80")
}

// What a lenient server could take for a request is not passed by unseen.
func TestAllowMalformed(t *testing.T) {
	seen := make(chan string, 10)
	l := listen(t, func(conn net.Conn) {
		text, _ := io.ReadAll(conn)
		seen <- string(text)
	})
	for _, port := range []int{80, 8080} {
		b := open(t, allow(t, fmt.Sprintf("example.com:%d", port)))
		b.host("example.com", public, port, l)
		for _, text := range []string{
			"\r\nget / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
			"GET  / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
			" GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
			"GET / HTTP/1.1\nHost: evil.example\n\n",
			"GET\t/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
			"FROB http://evil.example/ HTTP/1.1\r\n\r\n",
			"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: example.com\r\nHost: evil.example\r\n\r\n",
			strings.Repeat("\r\n", 4000) + "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
		} {
			conn := b.connect(b.to("example.com", port))
			conn.Write([]byte(text))
			conn.CloseWrite()
			answer, _ := io.ReadAll(conn)
			if !strings.HasPrefix(string(answer), "HTTP/1.1 4") && !strings.HasPrefix(string(answer), "HTTP/1.1 5") {
				t.Errorf("port %d, %.40q: answer %.60q, want a refusal", port, text, answer)
			}
			conn.Close()
		}
	}
	if len(seen) > 0 {
		t.Errorf("the server saw %q", <-seen)
	}
}

// Requests that trickle in letter by letter are seen as what they become.
func TestAllowTrickle(t *testing.T) {
	seen := make(chan string, 1)
	b := open(t, allow(t, "example.com:8080"))
	b.host("example.com", public, 8080, listen(t, func(conn net.Conn) {
		if text, _ := io.ReadAll(conn); len(text) > 0 {
			seen <- string(text)
		}
	}))
	conn := b.connect(b.to("example.com", 8080))
	for _, c := range "GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n" {
		fmt.Fprintf(conn, "%c", c)
		if c == 'G' || c == 'T' {
			time.Sleep(100 * time.Millisecond) // longer than a first word is waited for
		}
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 403") {
		t.Errorf("answer %q, %v; want 403", answer, err)
	}
	select {
	case text := <-seen:
		t.Errorf("the server saw %q", text)
	default:
	}
}

func TestAllowTLS(t *testing.T) {
	b := open(t, allow(t, "example.com:443", "example.com:8443", "93.184.216.35:443"))
	server, roots := secureWeb(t, hello("outside"))
	b.host("example.com", public, 443, server)
	b.host("example.com", public, 8443, server)
	c := b.client(roots)
	for _, url := range []string{"https://example.com/", "https://example.com:8443/"} {
		status, body := get(t, c, url)
		if status != 200 || !strings.HasPrefix(body, "outside example.com") {
			t.Errorf("%s = %d %q", url, status, body)
		}
	}
}

func TestAllowTLSRefused(t *testing.T) {
	b := open(t, allow(t, "example.com:443", "example.com:8443", "other.example.com:443", "93.184.216.35:443"))
	b.host("example.com", public, 443, "127.0.0.1:1")
	for _, c := range []struct {
		to, port, name, blocked string
	}{
		{"example.com", "443", "evil.example", "evil.example:443: asked for on a connection to example.com:443"},
		{"example.com", "443", "other.example.com", "other.example.com:443: asked for on a connection to example.com:443"},
		{"example.com", "443", "", "example.com:443: a connection that asks for no name"},
		{"example.com", "8443", "evil.example", "evil.example:8443: asked for on a connection to example.com:8443"},
		{"evil.example", "443", "example.com", "evil.example:443: not in network.allow"},
		{"evil.example", "443", "evil.example", "evil.example:443: not in network.allow"},
		{"93.184.216.34", "443", "example.com", "93.184.216.34:443: not in network.allow"},
		{"93.184.216.35", "443", "evil.example", "evil.example:443: asked for on a connection to 93.184.216.35:443"},
	} {
		addr, err := netip.ParseAddr(c.to)
		if err != nil {
			addr = b.address(c.to)
		}
		conn := tls.Client(b.connect(net.JoinHostPort(addr.String(), c.port)), &tls.Config{ServerName: c.name, InsecureSkipVerify: true})
		err = conn.Handshake()
		if err == nil || !strings.Contains(err.Error(), "access denied") {
			t.Errorf("to %s:%s for %q: %v, want access denied", c.to, c.port, c.name, err)
		}
		b.wasBlocked(c.blocked)
	}
	b.noDials()
}

// A port of the web passes nothing that nobody can look at.
func TestAllowOtherOnWebPorts(t *testing.T) {
	b := open(t, allow(t, "example.com:443", "example.com:80"))
	b.host("example.com", public, 443, "127.0.0.1:1")
	for _, port := range []int{80, 443} {
		conn := b.connect(b.to("example.com", port))
		conn.Write([]byte("SSH-2.0-OpenSSH_9.2\r\n"))
		if text, _ := io.ReadAll(conn); len(text) > 0 {
			t.Errorf("port %d: answer %q", port, text)
		}
		b.wasBlocked(fmt.Sprintf("example.com:%d: neither HTTP nor TLS", port))
	}
	b.noDials()
}

// Other protocols pass, whoever speaks first, with their half-closed ends.
func TestAllowRelay(t *testing.T) {
	server := listen(t, func(conn net.Conn) {
		io.WriteString(conn, "220 ready\n")
		text, _ := io.ReadAll(conn)
		fmt.Fprintf(conn, "got %d", len(text))
	})
	silent := listen(t, func(conn net.Conn) {
		text, _ := io.ReadAll(conn)
		fmt.Fprintf(conn, "got %d", len(text))
	})
	b := open(t, allow(t, "example.com:25", "example.com:5432", "[fd00::1]:5432"))
	b.host("example.com", public, 25, server)
	b.host("example.com", public, 5432, silent)
	b.host("", "fd00::1", 5432, silent)

	conn := b.connect(b.to("example.com", 25))
	r := bufio.NewReader(conn)
	if line, err := r.ReadString('\n'); line != "220 ready\n" {
		t.Fatalf("the server speaks first: %q, %v", line, err)
	}
	// What the program says then may look like anything.
	io.WriteString(conn, "GET / HTTP/1.1\r\n\r\n")
	conn.CloseWrite()
	if rest, err := io.ReadAll(r); string(rest) != "got 18" || err != nil {
		t.Errorf("after the greeting: %q, %v", rest, err)
	}

	for _, to := range []string{b.to("example.com", 5432), "[fd00::1]:5432"} {
		conn := b.connect(to)
		conn.Write(make([]byte, 1<<20))
		conn.CloseWrite()
		if text, err := io.ReadAll(conn); string(text) != fmt.Sprintf("got %d", 1<<20) || err != nil {
			t.Errorf("%s: %q, %v", to, text, err)
		}
	}
	// Nothing at all is said before the end.
	conn = b.connect(b.to("example.com", 5432))
	conn.CloseWrite()
	if text, err := io.ReadAll(conn); string(text) != "got 0" || err != nil {
		t.Errorf("a silent program: %q, %v", text, err)
	}
}

// Names lead to public addresses only, by whatever spelling, unless the address
// itself is listed.
func TestAllowPrivate(t *testing.T) {
	for _, addr := range []string{
		"127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "::1", "fd00::1", "fe80::1",
		"::ffff:10.1.2.3", "64:ff9b::a01:203", "2002:a01:203::1",
	} {
		b := open(t, allow(t, "rebind.example.com:80", "rebind.example.com:443", "10.1.2.3:81"))
		b.names["rebind.example.com"] = []netip.Addr{netip.MustParseAddr(addr)}
		status, body := get(t, b.client(nil), "http://rebind.example.com/")
		if status != 403 || !strings.Contains(body, "not a public address") {
			t.Errorf("a name that leads to %s: %d %q, want 403", addr, status, body)
		}
		err := tls.Client(b.connect(b.to("rebind.example.com", 443)), &tls.Config{ServerName: "rebind.example.com"}).Handshake()
		if err == nil || !strings.Contains(err.Error(), "access denied") {
			t.Errorf("a name that leads to %s: %v, want access denied", addr, err)
		}
		b.wasBlocked("rebind.example.com:443: leads to")
		b.noDials()
	}
}

func TestAllowPrivateListed(t *testing.T) {
	b := open(t, allow(t, "db.example.com:80", "10.1.2.3:80"))
	b.host("db.example.com", "10.9.9.9", 80, "127.0.0.1:1")
	b.host("db.example.com", "10.1.2.3", 80, web(t, hello("db")))
	if status, body := get(t, b.client(nil), "http://db.example.com/"); status != 200 || body != "db db.example.com" {
		t.Errorf("a name that leads to a listed address: %d %q", status, body)
	}
	if len(b.dials) != 1 || b.dials[0] != "10.1.2.3:80" {
		t.Errorf("connected to %v, want 10.1.2.3:80 only", b.dials)
	}
}

// An answer stays as long as an address of it answers; another one is checked as
// the first was.
func TestAllowPinned(t *testing.T) {
	b := open(t, allow(t, "example.com:80"))
	b.host("example.com", public, 80, web(t, hello("first")))
	c := b.client(nil)
	get(t, c, "http://example.com/")
	c.CloseIdleConnections()
	b.mu.Lock()
	b.names["example.com"] = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	b.mu.Unlock()
	if status, body := get(t, c, "http://example.com/"); status != 200 || !strings.HasPrefix(body, "first") {
		t.Errorf("after the name has changed: %d %q", status, body)
	}
}

// listen serves connections of the outside.
func listen(t testing.TB, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return l.Addr().String()
}
