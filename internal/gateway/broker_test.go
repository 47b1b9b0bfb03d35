package gateway_test

import (
	"bufio"
	"compress/gzip"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caissonrun/caisson/internal/gateway"
)

const (
	value        = "s3cret/value+of=the%token"
	placeholder  = "CAISSON_PLACEHOLDER_ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	placeholder2 = "CAISSON_PLACEHOLDER_2BCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// A vault is a box with brokered secrets, and the client of a program in it that
// trusts what it is told to.
type vault struct {
	*box
	client *http.Client
}

// openVault serves secrets whose hosts all lead to h by TLS. With allow, network
// allow is what is listed.
func openVault(t *testing.T, h http.HandlerFunc, allow []string, secrets ...gateway.Brokered) *vault {
	t.Helper()
	server, roots := secureWeb(t, h)
	var hosts []string
	for _, s := range secrets {
		hosts = append(hosts, s.Host)
	}
	a, err := gateway.NewAuthority(hosts)
	if err != nil {
		t.Fatal(err)
	}
	p := &gateway.Policy{Everything: true, Allow: rules(t, allow...), Brokered: secrets, Authority: a}
	b := open(t, p, func(o *gateway.Options) { o.Roots = roots })
	b.host("example.com", public, 443, server)
	b.host("api.example.com", public, 443, server)
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(a.Bundle(nil))
	return &vault{b, b.client(trusted)}
}

func token() gateway.Brokered {
	return gateway.Brokered{Name: "TOKEN", Placeholder: placeholder, Value: value, Host: "example.com"}
}

func with(key, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Add(key, value) }
}

func TestBrokerReplaces(t *testing.T) {
	var got http.Header
	var proto string
	v := openVault(t, func(_ http.ResponseWriter, r *http.Request) { got, proto = r.Header, r.Proto }, nil, token())
	basic := func(text string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(text)) }
	for sent, want := range map[string]string{
		"Bearer " + placeholder:           "Bearer " + value,
		placeholder + "," + placeholder:   value + "," + value,
		basic("user:" + placeholder):      basic("user:" + value),
		basic(placeholder + ":"):          basic(value + ":"),
		"Bearer nothing":                  "Bearer nothing",
		basic("user:password"):            basic("user:password"),
		"Basic !!!":                       "Basic !!!",
		"basic " + basic(placeholder)[6:]: "basic " + basic(value)[6:],
	} {
		if status, _ := get(t, v.client, "https://example.com/", with("Authorization", sent), with("X-Other", placeholder), with("Range", "bytes=0-1")); status != 200 {
			t.Fatalf("status %d", status)
		}
		if got.Get("Authorization") != want {
			t.Errorf("%q arrived as %q, want %q", sent, got.Get("Authorization"), want)
		}
		if got.Get("X-Other") != placeholder {
			t.Errorf("another header arrived as %q: only one is for the value", got.Get("X-Other"))
		}
		if replaced := sent != want; replaced == (got.Get("Range") != "") {
			t.Errorf("%q: Range arrived as %q: parts of an answer could be parts of the value", sent, got.Get("Range"))
		}
	}
	if proto != "HTTP/2.0" {
		t.Errorf("the host was spoken to by %s, want HTTP/2", proto)
	}
}

// In no form does the value come back.
func TestBrokerAnswers(t *testing.T) {
	v := openVault(t, func(w http.ResponseWriter, r *http.Request) {
		auth := r.Header.Get("Authorization")
		w.Header().Set("Location", "https://example.com/?t="+auth)
		w.Header().Add("Set-Cookie", "t="+auth)
		w.Header().Set("X-"+hex.EncodeToString([]byte(value)), "1")
		w.Header().Set("Trailer", "X-Trailer")
		w.Header().Set("Link", "</"+auth+">")
		w.WriteHeader(http.StatusEarlyHints)
		fmt.Fprintln(w, auth)
		for i := range auth {
			io.WriteString(w, auth[:i])
			w.(http.Flusher).Flush()
			io.WriteString(w, auth[i:])
			w.(http.Flusher).Flush()
		}
		fmt.Fprintln(w, base64.StdEncoding.EncodeToString([]byte(value)), base64.URLEncoding.EncodeToString([]byte("x"+value)), hex.EncodeToString([]byte(value)))
		w.Header().Set("X-Trailer", auth)
	}, nil, token())
	r, _ := http.NewRequestWithContext(t.Context(), "GET", "https://example.com/", nil)
	r.Header.Set("Authorization", placeholder)
	res, err := v.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprint(res.Header, res.Trailer, string(body))
	inner := base64.StdEncoding.EncodeToString([]byte(value))[:20]
	for _, form := range []string{value, inner, hex.EncodeToString([]byte(value))} {
		if strings.Contains(strings.ToLower(all), strings.ToLower(form)) {
			t.Errorf("the value came in as %q: %s", form, all)
		}
	}
	if n := strings.Count(string(body), placeholder); n != 1+len(value) {
		t.Errorf("the body has %d placeholders, want %d: %s", n, 1+len(value), body)
	}
	for _, h := range []string{res.Header.Get("Location"), res.Header.Get("Set-Cookie"), res.Trailer.Get("X-Trailer")} {
		if !strings.Contains(h, placeholder) {
			t.Errorf("a header has no placeholder in the value's place: %q", h)
		}
	}
}

// What Basic authentication encoded comes back as it was sent.
func TestBrokerBasicReflected(t *testing.T) {
	v := openVault(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Header.Get("Authorization")) }, nil, token())
	sent := "Basic " + base64.StdEncoding.EncodeToString([]byte("u:"+placeholder))
	if _, body := get(t, v.client, "https://example.com/", with("Authorization", sent)); body != sent {
		t.Errorf("reflected as %q, want %q", body, sent)
	}
}

func TestBrokerCompressed(t *testing.T) {
	v := openVault(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "identity" {
			t.Errorf("asked for %q", r.Header.Get("Accept-Encoding"))
		}
		if r.URL.Path == "/br" {
			w.Header().Set("Content-Encoding", "br")
			io.WriteString(w, "xyz")
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		io.WriteString(z, "it is "+r.Header.Get("Authorization"))
		z.Close()
	}, nil, token())
	if status, body := get(t, v.client, "https://example.com/", with("Authorization", placeholder)); status != 200 || body != "it is "+placeholder {
		t.Errorf("compressed: %d %q", status, body)
	}
	if status, body := get(t, v.client, "https://example.com/br"); status != 502 || !strings.Contains(body, `encoding "br"`) {
		t.Errorf("in an encoding that can't be read: %d %q, want 502", status, body)
	}
}

// To anybody else a placeholder stays one, and where it is seen it is refused.
func TestBrokerWrongHost(t *testing.T) {
	other := token()
	other.Name, other.Placeholder, other.Value, other.Host, other.Header = "OTHER", placeholder2, "another value", "api.example.com", "x-api-key"
	var got http.Header
	v := openVault(t, func(_ http.ResponseWriter, r *http.Request) { got = r.Header }, []string{"plain.example:80", "example.com:80"}, token(), other)
	v.host("plain.example", public, 80, web(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("a request arrived: %v", r.Header) }))
	for _, c := range []struct{ url, header, value string }{
		{"http://plain.example/", "Authorization", placeholder},
		{"http://plain.example/", "Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte("u:"+placeholder))},
		{"http://plain.example/?t=" + placeholder, "X", "y"},
		{"http://example.com/", "Authorization", placeholder}, // without TLS
		{"https://api.example.com/", "Authorization", placeholder},
	} {
		status, body := get(t, v.client, c.url, with(c.header, c.value))
		if status != 403 || !strings.Contains(body, "placeholder of the secret TOKEN, which is for example.com:443 only") {
			t.Errorf("%s: %d %q, want 403", c.url, status, body)
		}
	}
	v.wasBlocked("plain.example:80: the placeholder of the secret TOKEN")
	if status, _ := get(t, v.client, "https://api.example.com/", with("X-Api-Key", placeholder2), with("Authorization", "Bearer mine")); status != 200 {
		t.Errorf("status %d", status)
	}
	if got.Get("X-Api-Key") != "another value" || got.Get("Authorization") != "Bearer mine" {
		t.Errorf("arrived: %v", got)
	}
}

func TestBrokerPlain(t *testing.T) {
	s := token()
	s.Host = "http://127.0.0.1:8099"
	p := &gateway.Policy{Brokered: []gateway.Brokered{s}}
	g := p.Gateway()
	if len(g.Sockets) != 1 || g.Sockets[0].Address != "127.0.0.1:8099" || len(g.Names) != 0 {
		t.Errorf("Gateway = %+v", g)
	}
	b := open(t, p)
	b.host("", "127.0.0.1", 8099, web(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, len(r.Header.Get("Authorization")), " ", r.Header.Get("Authorization"))
	}))
	want := fmt.Sprint(len(value), " ", placeholder)
	if status, body := get(t, b.client(nil), "http://127.0.0.1:8099/", with("Authorization", placeholder)); status != 200 || body != want {
		t.Errorf("%d %q, want %q", status, body, want)
	}
}

// A host with a secret has a name in /etc/hosts where the network has others.
func TestBrokerBesideNetwork(t *testing.T) {
	a, err := gateway.NewAuthority([]string{"example.com"})
	if err != nil {
		t.Fatal(err)
	}
	p := &gateway.Policy{Brokered: []gateway.Brokered{token()}, Authority: a}
	g := p.Gateway()
	addr := g.Names["example.com"]
	if len(g.Sockets) != 1 || g.Sockets[0].Address != addr+":443" || g.Resolver != "" || g.Everything {
		t.Fatalf("Gateway = %+v", g)
	}
	server, roots := secureWeb(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, len(r.Header.Get("Authorization"))) })
	b := open(t, p, func(o *gateway.Options) { o.Roots = roots })
	b.host("example.com", "10.1.2.3", 443, server) // private: its certificate is verified
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(a.Bundle(nil))
	c := b.client(trusted)
	r, _ := http.NewRequestWithContext(t.Context(), "GET", "https://"+addr+"/", nil)
	c.Transport.(*http.Transport).TLSClientConfig.ServerName = "example.com"
	r.Host = "example.com"
	r.Header.Set("Authorization", placeholder)
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); string(body) != fmt.Sprint(len(value)) {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}

// The host has to be who it says, or nothing is sent.
func TestBrokerUntrustedHost(t *testing.T) {
	s := token()
	server, _ := secureWeb(t, func(http.ResponseWriter, *http.Request) { t.Error("a request arrived") })
	a, err := gateway.NewAuthority([]string{s.Host})
	if err != nil {
		t.Fatal(err)
	}
	b := open(t, &gateway.Policy{Everything: true, Brokered: []gateway.Brokered{s}, Authority: a}, func(o *gateway.Options) { o.Roots = x509.NewCertPool() })
	b.host("example.com", public, 443, server)
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(a.Bundle(nil))
	status, body := get(t, b.client(trusted), "https://example.com/", with("Authorization", placeholder))
	if status != 502 || !strings.Contains(body, "its certificate is not trusted") {
		t.Errorf("%d %q, want 502", status, body)
	}
}

// Websockets pass, with the value taken out and every length kept.
func TestBrokerWebsocket(t *testing.T) {
	v := openVault(t, func(w http.ResponseWriter, r *http.Request) {
		auth := r.Header.Get("Authorization")
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		line, _ := buf.ReadString('\n')
		fmt.Fprintf(conn, "%s%s\n", line, auth)
		// A beginning of the value, and no more: it must not wait for ever.
		io.WriteString(conn, value[:3])
		buf.ReadString('\n')
	}, nil, token())
	r, _ := http.NewRequestWithContext(t.Context(), "GET", "https://example.com/", nil)
	r.Header.Set("Authorization", placeholder)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	res, err := v.client.Do(r)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v %v", res, err)
	}
	stream := res.Body.(io.ReadWriteCloser)
	defer stream.Close()
	fmt.Fprintln(stream, "hello")
	in := bufio.NewReader(stream)
	hello, _ := in.ReadString('\n')
	auth, _ := in.ReadString('\n')
	if hello != "hello\n" || len(auth) != len(value)+1 || strings.Contains(auth, value) || auth[:10] != placeholder[:10] {
		t.Errorf("%q, %q", hello, auth)
	}
	part := make([]byte, 3)
	if _, err := io.ReadFull(in, part); err != nil || string(part) != value[:3] {
		t.Errorf("the beginning of a value alone: %q, %v", part, err)
	}
	fmt.Fprintln(stream)
}

// Server-sent events arrive one by one.
func TestBrokerStreams(t *testing.T) {
	next := make(chan struct{})
	v := openVault(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			<-next
		}
	}, nil, token())
	res, err := v.client.Get("https://example.com/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	in := bufio.NewReader(res.Body)
	for i := range 3 {
		line, err := in.ReadString('\n')
		if want := fmt.Sprintf("data: %d\n", i); line != want || err != nil {
			t.Fatalf("event %q, %v; want %q", line, err, want)
		}
		in.ReadString('\n')
		next <- struct{}{}
	}
}

// A host that hangs is told from one that is not there.
func TestBrokerHostDown(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	server, roots := secureWeb(t, func(http.ResponseWriter, *http.Request) { <-hang })
	s := token()
	a, err := gateway.NewAuthority([]string{s.Host})
	if err != nil {
		t.Fatal(err)
	}
	b := open(t, &gateway.Policy{Everything: true, Brokered: []gateway.Brokered{s}, Authority: a}, func(o *gateway.Options) {
		o.Roots, o.HeaderTimeout = roots, 50*time.Millisecond
	})
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(a.Bundle(nil))
	c := b.client(trusted)
	if status, body := get(t, c, "https://example.com/"); status != 502 || body != "caisson: example.com:443: there is no such host\n" {
		t.Errorf("without a name: %d %q", status, body)
	}
	b.host("example.com", public, 443, "127.0.0.1:1")
	if status, body := get(t, c, "https://example.com/"); status != 502 || body != "caisson: example.com:443: refused the connection\n" {
		t.Errorf("refusing: %d %q", status, body)
	}
	b.host("", public, 443, server)
	if status, body := get(t, c, "https://example.com/"); status != 504 || body != "caisson: example.com:443: gave no answer in time\n" {
		t.Errorf("hanging: %d %q", status, body)
	}
}

// Inside of TLS that ends here, requests are for the host that TLS was for; also
// where only that told which one it is.
func TestBrokerHostOfAnotherSite(t *testing.T) {
	other := token()
	other.Name, other.Placeholder, other.Value, other.Host = "OTHER", placeholder2, "another value", "api.example.com"
	v := openVault(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host) }, []string{"plain.example:443"}, token(), other)
	roots := v.client.Transport.(*http.Transport).TLSClientConfig.RootCAs
	for _, to := range []string{v.to("example.com", 443), "127.65.9.9:443"} {
		for _, c := range []struct {
			host   string
			status int
		}{
			{"example.com", 200},
			{"example.com:443", 200},
			{"api.example.com", 403},
			{"plain.example", 403},
			{"evil.example", 403},
			{"example.com:80", 403},
		} {
			conn := tls.Client(v.connect(to), &tls.Config{ServerName: "example.com", RootCAs: roots})
			res, _, _ := requestOn(t, conn, "GET / HTTP/1.1\r\nHost: "+c.host+"\r\n\r\n")
			if body := text(res); res.StatusCode != c.status {
				t.Errorf("to %s for %q: %d %q, want %d", to, c.host, res.StatusCode, body, c.status)
			}
			conn.Close()
		}
	}
	v.wasBlocked("api.example.com:443: asked for on a connection to example.com:443")
}

// A server that begins anew does not know which name an address was for: TLS
// tells, and has to be for one that is allowed.
func TestAllowAfterRestart(t *testing.T) {
	b := open(t, allow(t, "*.example.com:443", "*.example.com:25"))
	b.host("a.example.com", public, 443, listen(t, func(conn net.Conn) { io.WriteString(conn, "hello"); io.Copy(io.Discard, conn) }))
	conn := b.connect("127.65.9.9:443")
	conn.Write(clientHello(t, "a.example.com"))
	if text, err := io.ReadAll(io.LimitReader(conn, 5)); string(text) != "hello" {
		t.Errorf("an allowed name: %q, %v", text, err)
	}
	for _, name := range []string{"evil.example", "example.com"} {
		conn := b.connect("127.65.9.9:443")
		conn.Write(clientHello(t, name))
		if text, _ := io.ReadAll(conn); len(text) != 7 || text[6] != 49 {
			t.Errorf("%s: %q, want an alert", name, text)
		}
	}
	conn = b.connect("127.65.9.9:25")
	io.WriteString(conn, "EHLO x\r\n")
	if text, _ := io.ReadAll(conn); len(text) > 0 {
		t.Errorf("what tells no name: %q", text)
	}
}
