package gateway_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/caissonrun/caisson/internal/gateway"
)

// need returns the path of a program of this host.
func need(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && os.Geteuid() == 0 {
		t.Fatalf("%s is not installed; scripts/setup does it", name)
	}
	if err != nil {
		t.Skipf("%s is not installed here, and this is an ordinary user", name)
	}
	return path
}

// run runs a program with nothing of this process's environment.
func run(t *testing.T, env []string, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C"}, env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// brokerBeside serves a brokered host at a port of this host, as the sockets of
// a sandbox would, and returns that port and the file of the trusted bundle.
func brokerBeside(t *testing.T, h http.Handler) (port int, bundle string) {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())

	// The port is that of the URL, so that every program can be used.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port = l.Addr().(*net.TCPAddr).Port
	l.Close()
	s := token()
	s.Host = fmt.Sprintf("example.com:%d", port)
	a, err := gateway.NewAuthority([]string{s.Host})
	if err != nil {
		t.Fatal(err)
	}
	p := &gateway.Policy{Brokered: []gateway.Brokered{s}, Authority: a}
	b := open(t, p, func(o *gateway.Options) { o.Roots = roots })
	b.host("example.com", public, port, server.Listener.Addr().String())
	inside := p.Gateway().Sockets[0].Address
	b.listenAt(fmt.Sprintf("127.0.0.1:%d", port), func(int) string { return inside })

	base, err := gateway.HostRoots()
	if err != nil {
		t.Fatal(err)
	}
	bundle = filepath.Join(t.TempDir(), "bundle.pem")
	if err := os.WriteFile(bundle, a.Bundle(base), 0o600); err != nil {
		t.Fatal(err)
	}
	return port, bundle
}

func trustIn(bundle string) []string {
	var env []string
	for _, name := range gateway.TrustVariables() {
		env = append(env, name+"="+bundle)
	}
	return env
}

func TestCurlBroker(t *testing.T) {
	curl := need(t, "curl")
	port, bundle := brokerBeside(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %d %s", r.Header.Get("Authorization"), len(r.Header.Get("Authorization")), body)
	}))
	url := fmt.Sprintf("https://example.com:%d/", port)
	resolve := fmt.Sprintf("example.com:%d:127.0.0.1", port)
	for _, version := range []string{"--http1.1", "--http2"} {
		out, err := run(t, trustIn(bundle), curl, "-sS", version, "--resolve", resolve, "-H", "Authorization: Bearer "+placeholder, "-H", "Expect: 100-continue", "-d", "hello", url)
		want := fmt.Sprintf("Bearer %s %d hello", placeholder, len("Bearer "+value))
		if err != nil || out != want {
			t.Errorf("curl %s: %q, %v; want %q", version, out, err, want)
		}
		out, err = run(t, trustIn(bundle), curl, "-sS", version, "--resolve", resolve, "-u", "me:"+placeholder, url)
		if want := fmt.Sprint(len("Basic ") + (len("me:"+value)+2)/3*4); err != nil || !strings.Contains(out, " "+want+" ") || strings.Contains(out, value) {
			t.Errorf("curl %s -u: %q, %v; want a length of %s", version, out, err, want)
		}
	}
	if out, err := run(t, nil, curl, "-sS", "--resolve", resolve, url); err == nil {
		t.Errorf("curl without the bundle: %q, want a refusal", out)
	}
}

func TestPythonBroker(t *testing.T) {
	python := need(t, "python3")
	port, bundle := brokerBeside(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, len(r.Header.Get("Authorization"))) }))
	script := `
import socket, sys, urllib.request
find = socket.getaddrinfo
socket.getaddrinfo = lambda host, *a, **k: find("127.0.0.1" if host == "example.com" else host, *a, **k)
r = urllib.request.Request(sys.argv[1], headers={"Authorization": sys.argv[2]})
print(urllib.request.urlopen(r).read().decode())
`
	out, err := run(t, trustIn(bundle), python, "-c", script, fmt.Sprintf("https://example.com:%d/", port), placeholder)
	if strings.TrimSpace(out) != strconv.Itoa(len(value)) || err != nil {
		t.Errorf("python: %q, %v; want %d", out, err, len(value))
	}
}

// gitServer serves a repository to those who know the password.
func gitServer(t *testing.T, git, password string) http.Handler {
	t.Helper()
	dir := t.TempDir()
	for _, args := range [][]string{
		{"init", "-q", "--bare", dir + "/repo.git"},
		{"init", "-q", dir + "/work"},
		{"-C", dir + "/work", "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-q", "--allow-empty", "-m", "the first"},
		{"-C", dir + "/work", "push", "-q", dir + "/repo.git", "HEAD:refs/heads/main"},
		{"-C", dir + "/repo.git", "symbolic-ref", "HEAD", "refs/heads/main"},
		{"-C", dir + "/repo.git", "config", "http.receivepack", "true"},
	} {
		if out, err := run(t, nil, git, args...); err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
	exe, err := run(t, nil, git, "--exec-path")
	if err != nil {
		t.Fatal(err)
	}
	backend := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(exe), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=me"},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, got, ok := r.BasicAuth(); !ok || got != password {
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, r)
	})
}

// git clones and pushes with a password that it does not have.
func TestGitBroker(t *testing.T) {
	git := need(t, "git")
	port, bundle := brokerBeside(t, gitServer(t, git, value))
	url := fmt.Sprintf("https://me:%s@example.com:%d/repo.git", placeholder, port)
	dir := t.TempDir() + "/clone"
	env := append(trustIn(bundle), "GIT_TERMINAL_PROMPT=0")
	resolve := fmt.Sprintf("http.curloptResolve=example.com:%d:127.0.0.1", port)
	if out, err := run(t, env, git, "-c", resolve, "clone", "-q", url, dir); err != nil {
		t.Fatalf("git clone: %v: %s", err, out)
	}
	out, err := run(t, env, git, "-C", dir, "-c", resolve, "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-q", "--allow-empty", "-m", "the second")
	if err == nil {
		out, err = run(t, env, git, "-C", dir, "-c", resolve, "push", "-q")
	}
	if err != nil {
		t.Errorf("git push: %v: %s", err, out)
	}
}

// Through a proxy git needs no password at all.
func TestGitProxy(t *testing.T) {
	git := need(t, "git")
	server := httptest.NewServer(gitServer(t, git, value))
	defer server.Close()
	t.Setenv("GATEWAY_TEST_PASSWORD", value)
	p := &gateway.Policy{Proxies: map[string]http.Handler{
		"git": upstreamHandler(t, &gateway.Upstream{URL: server.URL, Username: "me", Password: "env:GATEWAY_TEST_PASSWORD", Paths: []string{"/repo.git"}}),
	}}
	b := open(t, p)
	at := p.Gateway().Names["git"] + ":80"
	front := b.listen(func(int) string { return at })
	// A program of this host can't have the name "git" at port 80, so a second
	// proxy gives the requests their host.
	named := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r2 := r.Clone(r.Context())
		r2.RequestURI, r2.URL.Scheme, r2.URL.Host, r2.Host = "", "http", front.String(), "git"
		res, err := http.DefaultTransport.RoundTrip(r2)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer res.Body.Close()
		for key, values := range res.Header {
			w.Header()[key] = values
		}
		w.WriteHeader(res.StatusCode)
		io.Copy(w, res.Body)
	}))
	defer named.Close()
	dir := t.TempDir() + "/clone"
	out, err := run(t, []string{"GIT_TERMINAL_PROMPT=0"}, git, "clone", "-q", named.URL+"/repo.git", dir)
	if err != nil {
		t.Errorf("git clone: %v: %s", err, out)
	}
	if out, err = run(t, nil, git, "-C", dir, "log", "--format=%s"); out != "the first\n" {
		t.Errorf("the clone has %q, %v", out, err)
	}
}

// curl through the allow-list: what passes is end to end, and what does not says
// why.
func TestCurlAllow(t *testing.T) {
	curl := need(t, "curl")
	b := open(t, allow(t, "example.com:443", "example.com:80"))
	server := httptest.NewUnstartedServer(http.HandlerFunc(hello("outside")))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	b.host("example.com", public, 443, server.Listener.Addr().String())
	b.host("example.com", public, 80, web(t, hello("plain")))
	via := func(name string, port int) string {
		to := b.to(name, port)
		return "::" + b.listen(func(int) string { return to }).String()
	}
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, pemOf(server.TLS), 0o600); err != nil {
		t.Fatal(err)
	}
	secure, plain := via("example.com", 443), via("example.com", 80)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--cacert", roots, "--connect-to", secure, "https://example.com/"}, "outside example.com"},
		{[]string{"--cacert", roots, "--http1.1", "--connect-to", secure, "https://example.com/"}, "outside example.com"},
		{[]string{"--connect-to", plain, "http://example.com/"}, "plain example.com"},
		{[]string{"--connect-to", plain, "http://evil.example/"}, "evil.example:80: asked for on a connection to example.com:80"},
		{[]string{"-k", "--connect-to", secure, "https://evil.example/"}, "alert access denied"},
		{[]string{"-k", "--connect-to", via("evil.example", 443), "https://evil.example/"}, "alert access denied"},
		{[]string{"--connect-to", via("evil.example", 80), "http://evil.example/"}, "evil.example:80: not in network.allow"},
		{[]string{"--http2-prior-knowledge", "--connect-to", plain, "http://example.com/"}, "curl: "},
		{[]string{"--http2", "--connect-to", plain, "http://example.com/"}, "plain example.com"}, // no upgrade to HTTP/2
		{[]string{"-p", "-x", strings.TrimPrefix(plain, "::"), "http://evil.example/"}, "CONNECT"},
		{[]string{"-x", strings.TrimPrefix(plain, "::"), "http://evil.example/"}, "evil.example:80: asked for"},
	} {
		out, _ := run(t, nil, curl, append([]string{"-sS"}, c.args...)...)
		if !strings.Contains(strings.ToLower(out), strings.ToLower(c.want)) {
			t.Errorf("curl %v: %q, want %q", c.args, out, c.want)
		}
	}
}

func pemOf(config *tls.Config) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: config.Certificates[0].Certificate[0]})
}
