//go:build unix

package executor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/mem"
)

// answer listens at a port and answers each connection until the program is
// killed.
func answer(p *mem.Proc, port int, reply func(c net.Conn)) int {
	l, err := p.Listen(port)
	if err != nil {
		return 1
	}
	defer l.Close()
	for {
		c, err := l.Accept()
		if err != nil {
			return 0
		}
		reply(c)
		c.Close()
	}
}

// shop is a task whose main program needs a data base, and a page that takes a
// moment to be ready.
func shop(r *rig) *caisson.Task {
	tries := 0
	r.programs = map[string]mem.Program{
		"db": func(p *mem.Proc) int {
			return answer(p, 5432, func(c net.Conn) { io.WriteString(c, "rows") })
		},
		"page": func(p *mem.Proc) int {
			return answer(p, 80, func(c net.Conn) {
				tries++
				status := "503 Not Yet"
				if req, err := http.ReadRequest(bufio.NewReader(c)); err == nil && req.URL.Path == "/ready" && tries > 2 {
					status = "204 No Content"
				}
				io.WriteString(c, "HTTP/1.1 "+status+"\r\nConnection: close\r\n\r\n")
			})
		},
		"get": func(p *mem.Proc) int {
			text := []byte("nobody")
			if c, err := p.Connect("tcp", p.Args()[1]); err == nil {
				text, _ = io.ReadAll(c)
				c.Close()
			}
			fmt.Fprintln(p.Stdout(), string(text))
			return 0
		},
	}
	cmd := func(args ...string) caisson.Program { return caisson.Program{Cmd: args} }
	every := caisson.Duration(time.Millisecond)
	return &caisson.Task{
		Program: cmd("get", "my-data-base:5432"), Grace: caisson.Duration(20 * time.Millisecond),
		Pre: []caisson.Step{{Program: cmd("get", "my-data-base:5432")}},
		Sidecars: []caisson.Step{
			{Name: "My Data Base", Program: cmd("db"), Probe: &caisson.Probe{Port: 5432, Interval: every}},
			{Program: cmd("page"), Probe: &caisson.Probe{Port: 80, HTTP: "/ready", Interval: every}},
		},
		Post: []caisson.Step{{Program: cmd("get", "my-data-base:5432")}},
	}
}

func TestSharedNetwork(t *testing.T) {
	r := newRig(t)
	task := shop(r)
	p := r.process()
	id := p.submit(task)
	if err := p.Attend(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	if result := r.result(id); !result.Success {
		t.Fatalf("result: %+v, error %v", result, result.Error)
	}
	want := "1/pre-0: nobody\n1/main: rows\n1/post-0: nobody\n"
	if log := p.log(id, LogOptions{}); log != want {
		t.Errorf("log %q, want %q", log, want)
	}
	r.clean()
}

func TestSharedNetworkNotThere(t *testing.T) {
	r := newRig(t)
	r.features = func(f *engine.Features) { f.Networks.Shared = false }
	task := shop(r)
	p := r.process()
	_, err := p.Submit(t.Context(), task, &Submission{})
	if !errors.Is(err, caisson.ErrUnsupported) || !strings.Contains(err.Error(), "probe") {
		t.Errorf("Submit = %v, want ErrUnsupported about the probe", err)
	}
}

func TestSharedNetworkNames(t *testing.T) {
	r := newRig(t)
	p := r.process()
	task := sh("true")
	task.Sidecars = []caisson.Step{
		{Name: "My DB", Program: caisson.Program{Run: "hold"}}, {Name: "my-db", Program: caisson.Program{Run: "hold"}},
	}
	_, err := p.Submit(t.Context(), task, &Submission{})
	if !errors.Is(err, caisson.ErrInvalid) || !strings.Contains(err.Error(), `"my-db"`) {
		t.Errorf("Submit = %v, want ErrInvalid that tells the name", err)
	}
}

// TestSharedNetworkFails has the network itself fail: it decides the attempt, and
// the next one has another.
func TestSharedNetworkFails(t *testing.T) {
	r := newRig(t)
	task := shop(r)
	task.Retry.Limit = 1
	fails := 0
	r.faults.set(func(op caisson.Op, id string) mem.Fault {
		if op == caisson.OpCreate && strings.HasSuffix(id, "-network") && fails == 0 {
			fails++
			return mem.Fault{Err: &caisson.Error{Op: caisson.OpCreate, Item: "network", Kind: caisson.ErrUnavailable, Err: errors.New("the cable is cut")}}
		}
		return mem.Fault{}
	})
	p := r.process()
	result := p.run(task)
	if !result.Success || result.Attempt != 2 {
		t.Errorf("result: %+v, error %v", result, result.Error)
	}
	r.clean()
}

// TestSharedNetworkStays has its removal fail: the task ends as it does, and the
// next command tries again.
func TestSharedNetworkStays(t *testing.T) {
	r := newRig(t)
	task := shop(r)
	r.faults.set(func(op caisson.Op, id string) mem.Fault {
		if op == caisson.OpDestroy && strings.HasSuffix(id, "-network") {
			return mem.Fault{Err: errors.New("it sticks")}
		}
		return mem.Fault{}
	})
	p := r.process()
	if result := p.run(task); !result.Success {
		t.Errorf("result: %+v, error %v", result, result.Error)
	}
	if live := r.world.Live(); len(live) != 1 || !strings.HasSuffix(live[0], "-network") {
		t.Errorf("left are %q, want the network", live)
	}
	r.faults.set(nil)
	if err := p.Recover(t.Context()); err != nil {
		t.Error(err)
	}
	r.clean()
}

// TestSharedNetworkAdopted kills the attendant while main runs: the next one
// finds the network and removes it.
func TestSharedNetworkAdopted(t *testing.T) {
	r := newRig(t)
	task := shop(r)
	task.Cmd, task.Run = nil, "hold"
	task.Pre, task.Post = nil, []caisson.Step{{Program: caisson.Program{Run: "echo post"}}}
	first := r.process()
	id := first.submit(task)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- first.Attend(ctx, id, false) }()
	r.reached(id, caisson.EventStarted, "main")
	cancel()
	<-done
	first.die()

	second := r.process()
	if err := second.Stop(t.Context(), id, engine.Stop{Reason: caisson.ReasonStopped, Grace: caisson.Duration(time.Millisecond)}); err != nil {
		t.Fatal(err)
	}
	if err := second.Attend(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	if result := r.result(id); result.Exit.Reason != caisson.ReasonStopped {
		t.Errorf("result: %+v", result)
	}
	r.clean()
}

// listed is an engine that tells what its sandboxes are attached to.
type listed struct{ *mem.Engine }

func (l listed) Networks(_ context.Context, dir string) ([]engine.Network, error) {
	return []engine.Network{{Name: "lan", Interface: "eth0", Addresses: []string{"10.1.0.9/24"}, Config: dir}}, nil
}

func TestInspectNetworks(t *testing.T) {
	r := newRig(t)
	r.wrap = func(e engine.Engine) engine.Engine { return listed{e.(*mem.Engine)} }
	p := r.process()
	id := p.submit(sh("hold"))
	wait := p.attendAsync(id, false)
	r.reached(id, caisson.EventStarted, "main")
	info, err := p.Inspect(t.Context(), id)
	if err != nil || len(info.Networks) != 1 || info.Networks[0].Name != "lan" || info.Networks[0].Config != r.task(id).Attempt(1).Step("main") {
		t.Errorf("Inspect = %+v, %v", info, err)
	}
	if err := p.Stop(t.Context(), id, engine.Stop{Reason: caisson.ReasonKilled}); err != nil {
		t.Fatal(err)
	}
	wait()
	if info, err := p.Inspect(t.Context(), id); err != nil || info.Networks != nil {
		t.Errorf("Inspect of a task that has ended = %+v, %v", info.Networks, err)
	}
}
