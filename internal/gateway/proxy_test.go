package gateway_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/gateway"
)

// proxied serves handlers as proxies, in two ways: with a socket for each, and
// where everything arrives.
func proxied(t *testing.T, proxies map[string]http.Handler, f func(t *testing.T, b *box, at map[string]string)) {
	t.Helper()
	for _, everything := range []bool{false, true} {
		t.Run(fmt.Sprintf("Everything=%v", everything), func(t *testing.T) {
			p := &gateway.Policy{Everything: everything, Proxies: proxies}
			at := map[string]string{}
			for name, addr := range p.Gateway().Names {
				at[name] = addr + ":80"
			}
			f(t, open(t, p), at)
		})
	}
}

func ask(t *testing.T, b *box, to, request string) (*http.Response, *bufio.Reader, io.WriteCloser) {
	t.Helper()
	return requestOn(t, b.connect(to), request)
}

func requestOn(t *testing.T, conn io.ReadWriteCloser, request string) (*http.Response, *bufio.Reader, io.WriteCloser) {
	t.Helper()
	io.WriteString(conn, request)
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	return res, r, conn
}

func text(res *http.Response) string {
	body, _ := io.ReadAll(res.Body)
	return string(body)
}

func TestProxyHost(t *testing.T) {
	echo := func(who string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, who, " ", r.Host, " ", r.URL) })
	}
	proxied(t, map[string]http.Handler{"one": echo("first"), "two": echo("second")}, func(t *testing.T, b *box, at map[string]string) {
		for request, want := range map[string]string{
			"GET /a?b HTTP/1.1\r\nHost: one\r\n\r\n":                        "first one /a?b",
			"GET / HTTP/1.1\r\nHost: ONE:80\r\n\r\n":                        "first one /",
			"GET http://one/x HTTP/1.1\r\nHost: other\r\n\r\n":              "first one /x",
			"GET / HTTP/1.1\r\nHost: two\r\n\r\n":                           "caisson: two:80: asked for on a connection to one:80\n",
			"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n":                     "caisson: 127.0.0.1:80: asked for on a connection to one:80\n",
			"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n": "caisson: example.com:443: asked for on a connection to one:80\n",
		} {
			if res, _, _ := ask(t, b, at["one"], request); text(res) == want {
				continue
			}
			res, _, _ := ask(t, b, at["one"], request)
			t.Errorf("%q: %d %q, want %q", request, res.StatusCode, text(res), want)
		}
		if res, _, _ := ask(t, b, at["two"], "GET / HTTP/1.1\r\nHost: two\r\n\r\n"); text(res) != "second two /" {
			t.Error("the other proxy did not answer")
		}
	})
}

// A panic ends its request; the next one is served.
func TestProxyPanics(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/late" {
			io.WriteString(w, "begun")
			w.(http.Flusher).Flush()
		}
		if r.URL.Path != "/fine" {
			panic("handler " + value)
		}
	})
	proxied(t, map[string]http.Handler{"abc": h}, func(t *testing.T, b *box, at map[string]string) {
		res, _, _ := ask(t, b, at["abc"], "GET / HTTP/1.1\r\nHost: abc\r\n\r\n")
		if body := text(res); res.StatusCode != 500 || body != "caisson: the handler of abc failed\n" {
			t.Errorf("%d %q", res.StatusCode, body)
		}
		res, _, _ = ask(t, b, at["abc"], "GET /late HTTP/1.1\r\nHost: abc\r\n\r\n")
		if _, err := io.ReadAll(res.Body); err == nil {
			t.Error("an answer that was cut off looks whole")
		}
		if res, _, _ = ask(t, b, at["abc"], "GET /fine HTTP/1.1\r\nHost: abc\r\n\r\n"); res.StatusCode != 200 {
			t.Errorf("after panics: %d", res.StatusCode)
		}
	})
}

// Bodies stream both ways, and 100-continue is the handler's.
func TestProxyStreams(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		if err := c.EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		in := bufio.NewReader(r.Body)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			fmt.Fprintf(w, "echo %s", line)
			c.Flush()
		}
	})
	proxied(t, map[string]http.Handler{"abc": h}, func(t *testing.T, b *box, at map[string]string) {
		conn := b.connect(at["abc"])
		in := bufio.NewReader(conn)
		io.WriteString(conn, "POST / HTTP/1.1\r\nHost: abc\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
		if line, err := in.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("%q, %v", line, err)
		}
		in.ReadString('\n')
		io.WriteString(conn, "4\r\none\n\r\n")
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		body := bufio.NewReader(res.Body)
		if line, _ := body.ReadString('\n'); line != "echo one\n" {
			t.Errorf("%q", line)
		}
		io.WriteString(conn, "4\r\ntwo\n\r\n0\r\n\r\n")
		if line, _ := body.ReadString('\n'); line != "echo two\n" {
			t.Errorf("%q", line)
		}
	})
}

// Handlers see the end of the sandbox.
func TestProxyContextEnds(t *testing.T) {
	ended := make(chan error, 2)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		ended <- context.Cause(r.Context())
	})
	proxied(t, map[string]http.Handler{"abc": h}, func(t *testing.T, b *box, at map[string]string) {
		ask(t, b, at["abc"], "GET / HTTP/1.1\r\nHost: abc\r\n\r\n")
		b.close()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Error("the handler did not see the end")
		}
	})
}

// A handler that takes the connection over loses it with the sandbox.
func TestProxyHijack(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, buf, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
		line, _ := buf.ReadString('\n')
		io.WriteString(conn, line) // and leaves it open
	})
	proxied(t, map[string]http.Handler{"abc": h}, func(t *testing.T, b *box, at map[string]string) {
		_, in, conn := ask(t, b, at["abc"], "GET / HTTP/1.1\r\nHost: abc\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
		io.WriteString(conn, "hello\n")
		if line, err := in.ReadString('\n'); line != "hello\n" {
			t.Errorf("%q, %v", line, err)
		}
		b.close()
		if _, err := in.ReadByte(); err == nil {
			t.Error("the connection is still open")
		}
	})
}

// A placeholder is not for proxies.
func TestProxyPlaceholder(t *testing.T) {
	s := token()
	s.Host = "http://example.com"
	p := &gateway.Policy{Proxies: map[string]http.Handler{"abc": http.NotFoundHandler()}, Brokered: []gateway.Brokered{s}}
	b := open(t, p)
	res, _, _ := ask(t, b, p.Gateway().Names["abc"]+":80", "GET / HTTP/1.1\r\nHost: abc\r\nAuthorization: "+placeholder+"\r\n\r\n")
	if body := text(res); res.StatusCode != 403 || !strings.Contains(body, "placeholder of the secret TOKEN") {
		t.Errorf("%d %q", res.StatusCode, body)
	}
}

func upstreamHandler(t *testing.T, u *gateway.Upstream) http.Handler {
	t.Helper()
	h, err := u.Handler()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func visit(h http.Handler, method, url string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, url, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// What the operator adds arrives, whatever the task sent, and never comes back.
func TestUpstreamCredentials(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first-" + value)
	t.Setenv("GATEWAY_TEST_KEY", "key-of-the-operator")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Reflected", r.Header.Get("Authorization"))
		fmt.Fprintln(w, r.Host, r.URL.RequestURI(), r.Header.Get("Authorization"), r.Header.Get("X-Key"), r.Header.Get("X-Plain"), r.Header["X-Forwarded-For"])
	}))
	defer server.Close()
	for name, u := range map[string]*gateway.Upstream{
		"Token": {Token: "file:" + file},
		"Basic": {Username: "robot", Password: "file:" + file},
	} {
		u.URL = server.URL + "/base"
		u.Headers = map[string]string{"x-key": "env:GATEWAY_TEST_KEY", "X-Plain": "production", "host": "git.example"}
		h := upstreamHandler(t, u)
		for _, secret := range []string{"first-" + value, "second-" + value} {
			write(secret)
			w := visit(h, "GET", "http://git/repo?q=1", "Authorization", "Bearer mine", "X-Key", "mine",
				"Connection", "X-Key, Authorization, Accept-Encoding", "X-Forwarded-For", "1.2.3.4")
			all := fmt.Sprint(w.Header(), w.Body)
			if w.Code != 200 || !strings.HasPrefix(w.Body.String(), "git.example /base/repo?q=1 ") || !strings.Contains(all, "production") {
				t.Errorf("%s: %d %s", name, w.Code, all)
			}
			encoded := base64.StdEncoding.EncodeToString([]byte("robot:" + secret))
			for _, hidden := range []string{secret, "key-of-the-operator", encoded[12 : len(encoded)-4], "mine", "1.2.3.4"} {
				if strings.Contains(all, hidden) {
					t.Errorf("%s: %q came back: %s", name, hidden, all)
				}
			}
			if !strings.Contains(all, "****") || !strings.Contains(all, strings.Repeat("*", len("key-of-the-operator"))+" production") {
				t.Errorf("%s: nothing was added: %s", name, all)
			}
			if got := w.Header().Get("Content-Length"); got == "" {
				t.Errorf("%s: the length of the answer was lost", name)
			}
		}
	}
	os.Remove(file)
	if w := visit(upstreamHandlerLate(t, server.URL, file, write), "GET", "http://git/"); w.Code != 502 || !strings.Contains(w.Body.String(), "credentials for git could not be read") {
		t.Errorf("without its file: %d %q", w.Code, w.Body)
	}
}

// upstreamHandlerLate makes a handler whose file is gone afterwards.
func upstreamHandlerLate(t *testing.T, url, file string, write func(string)) http.Handler {
	write("x")
	h := upstreamHandler(t, &gateway.Upstream{URL: url, Token: "file:" + file})
	os.Remove(file)
	return h
}

func TestUpstreamRefuses(t *testing.T) {
	var got string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got = r.Method + " " + r.RequestURI + r.Header.Get("X-Http-Method-Override")
	}))
	defer server.Close()
	h := upstreamHandler(t, &gateway.Upstream{URL: server.URL, Methods: []string{"GET", "POST"}, Paths: []string{"/org/", "/api"}})
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/org/repo", 200},
		{"POST", "/api", 200},
		{"GET", "/api/x?y=/../z", 200},
		{"DELETE", "/org/repo", 405},
		{"GET", "/", 403},
		{"GET", "/organisation", 403},
		{"GET", "/org/../admin", 403},
		{"GET", "/org/%2e%2e/admin", 403},
		{"GET", "/org/%2E./admin", 403},
		{"GET", "/org/..%2fadmin", 403},
		{"GET", "/org/..%5cadmin", 403},
		{"GET", "/org/%252e%252e/admin", 403},
		{"GET", "/org/..;/admin", 403},
		{"GET", "//org/repo", 403},
		{"GET", "/org//admin", 403},
	} {
		got = ""
		w := visit(h, c.method, "http://abc"+c.path, "X-HTTP-Method-Override", "DELETE")
		if w.Code != c.status || (got != "") != (c.status == 200) || strings.Contains(got, "DELETE") {
			t.Errorf("%s %s: %d, the service saw %q; want %d", c.method, c.path, w.Code, got, c.status)
		}
	}
}

// A base path is not left by dots, and redirections below it stay in the proxy.
func TestUpstreamBasePath(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+r.Host+"/team/next?x=1", http.StatusFound)
	}))
	defer server.Close()
	h := upstreamHandler(t, &gateway.Upstream{URL: server.URL + "/team/"})
	if w := visit(h, "GET", "http://abc/../x"); w.Code != 403 {
		t.Errorf("dots: %d", w.Code)
	}
	if w := visit(h, "GET", "http://abc/x"); w.Header().Get("Location") != "http://abc/next?x=1" {
		t.Errorf("Location = %q", w.Header().Get("Location"))
	}
}

func TestUpstreamErr(t *testing.T) {
	for name, c := range map[string]struct {
		u    gateway.Upstream
		kind caisson.Kind
		want string
	}{
		"NoScheme":    {gateway.Upstream{URL: "example.com"}, caisson.ErrInvalid, "url: want http:// or https://"},
		"Password":    {gateway.Upstream{URL: "http://u:p@example.com"}, caisson.ErrInvalid, "a password does not belong in it"},
		"Query":       {gateway.Upstream{URL: "http://example.com/?x"}, caisson.ErrInvalid, "a query or fragment"},
		"Variable":    {gateway.Upstream{URL: "http://example.com", Token: "env:GATEWAY_TEST_NONE"}, caisson.ErrNotFound, "token: the variable GATEWAY_TEST_NONE is not set"},
		"File":        {gateway.Upstream{URL: "http://example.com", Username: "u", Password: "file:/nonexistent/x"}, caisson.ErrNotFound, "password: open /nonexistent/x"},
		"Both":        {gateway.Upstream{URL: "http://example.com", Username: "u", Token: "t"}, caisson.ErrInvalid, "can't stand beside username"},
		"Header":      {gateway.Upstream{URL: "http://example.com", Headers: map[string]string{"Connection": "x"}}, caisson.ErrInvalid, `"Connection" can't be set`},
		"Path":        {gateway.Upstream{URL: "http://example.com", Paths: []string{"org"}}, caisson.ErrInvalid, `"org": want a plain path`},
		"Certificate": {gateway.Upstream{URL: "http://example.com", CAFile: "/dev/null"}, caisson.ErrInvalid, "no certificate in PEM"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := c.u.Handler(); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Handler = %v, want %v with %q", err, c.kind, c.want)
			}
		})
	}
}

func TestUpstreamDown(t *testing.T) {
	hang := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
	defer server.Close()
	defer close(hang)
	w := visit(upstreamHandler(t, &gateway.Upstream{URL: server.URL, Timeout: 50 * time.Millisecond}), "GET", "http://abc/")
	if w.Code != 504 || w.Body.String() != "caisson: the service behind abc: gave no answer in time\n" {
		t.Errorf("hanging: %d %q", w.Code, w.Body)
	}
	w = visit(upstreamHandler(t, &gateway.Upstream{URL: "http://127.0.0.1:1"}), "GET", "http://abc/")
	if w.Code != 502 || w.Body.String() != "caisson: the service behind abc: refused the connection\n" {
		t.Errorf("down: %d %q", w.Code, w.Body)
	}
}
