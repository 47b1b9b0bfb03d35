//go:build unix

package executor

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/lockfile"
)

// limited is what the pool's sandboxes, and the tasks that want one, are limited to.
var limited = caisson.Limits{Memory: 64 * caisson.MiB}

// A pooled is a rig's process with a warm pool.
type pooled struct {
	*process
	fills []string // pools for which a process was started
}

func (r *rig) pooled(size int) *pooled {
	p := &pooled{process: r.process()}
	p.opts.Pools = map[string]*Pool{"small": {Task: &caisson.Task{Limits: limited}, Size: size}}
	p.opts.Settings, p.opts.Fill = "settings", []string{"warm", "fill"}
	p.start = func(cmd *exec.Cmd) error {
		p.fills = append(p.fills, cmd.Args[len(cmd.Args)-1])
		return nil
	}
	return p
}

func (p *pooled) fillUp(want int) {
	p.rig.t.Helper()
	if made, err := p.Fill(p.rig.t.Context(), "small"); err != nil || made != want {
		p.rig.t.Fatalf("Fill = %d, %v, want %d", made, err, want)
	}
}

func (p *pooled) ready() int {
	p.rig.t.Helper()
	list, err := p.Pools(p.rig.t.Context())
	if err != nil || len(list) != 1 {
		p.rig.t.Fatalf("Pools = %+v, %v", list, err)
	}
	return list[0].Ready
}

// limitedTask is one that the pool is for.
func limitedTask(script string) *caisson.Task {
	task := sh(script)
	task.Limits = limited
	return task
}

// from is what the sandbox of a task's main program began with.
func (r *rig) from(id string) string {
	for _, ev := range r.events(id) {
		if ev.Type == caisson.EventCreated && ev.Step == "main" {
			return ev.Message
		}
	}
	return "no sandbox"
}

// runs submits a task, attends to it, and returns its id and result.
func (p *pooled) runs(task *caisson.Task, secrets map[string][]byte) (string, *caisson.Result) {
	p.rig.t.Helper()
	id, err := p.Submit(p.rig.t.Context(), task, &Submission{Secrets: secrets})
	if err == nil {
		err = p.Attend(p.rig.t.Context(), id, false)
	}
	if err != nil {
		p.rig.t.Fatal(err)
	}
	result, err := p.Wait(p.rig.t.Context(), id)
	if err != nil {
		p.rig.t.Fatal(err)
	}
	return id, result
}

func TestWarmClaim(t *testing.T) {
	r := newRig(t)
	p := r.pooled(2)
	p.fillUp(2)
	p.fillUp(0)
	if list, err := p.List(t.Context(), true); err != nil || len(list) != 0 {
		t.Errorf("List = %+v, %v: what waits is no task", list, err)
	}
	r.store.files["in"] = "input"
	task := limitedTask("echo $X $TOKEN ; exit 3")
	task.Env = map[string]string{"X": "given"}
	task.Inputs = []caisson.Input{{From: "test:in", To: "in.txt"}}
	task.Outputs = []caisson.Output{{Path: "in.txt", To: "test:out/", When: caisson.WhenAlways}}
	task.Secrets = map[string]caisson.Secret{"TOKEN": {}}
	id, result := p.runs(task, map[string][]byte{"TOKEN": []byte("0123456789")})
	if result.Exit.Code != 3 || r.from(id) != fromPool {
		t.Errorf("exit %+v, its sandbox %q", result.Exit, r.from(id))
	}
	if out := p.log(id, LogOptions{}); !strings.HasPrefix(out, "1/main: given ") || strings.Contains(out, "0123456789") {
		t.Errorf("log %q", out)
	}
	if data, _ := r.store.get("out/in.txt"); data != "input" {
		t.Errorf("output %q", data)
	}
	if p.ready() != 1 || !slices.Equal(p.fills, []string{"small"}) {
		t.Errorf("%d wait, and fills %q", p.ready(), p.fills)
	}
	// Each is used once, and who finds none has one made.
	for i, want := range []string{fromPool, ""} {
		if id, result := p.runs(limitedTask("exit 0"), nil); !result.Success || r.from(id) != want {
			t.Errorf("task %d: %+v, its sandbox %q", i, result.Exit, r.from(id))
		}
	}
	r.clean()
}

// A task gets nothing that it has not asked for.
func TestWarmOthers(t *testing.T) {
	r := newRig(t)
	p := r.pooled(1)
	p.fillUp(1)
	for name, change := range map[string]func(*caisson.Task){
		"NoLimit":    func(task *caisson.Task) { task.Limits = caisson.Limits{} },
		"OtherLimit": func(task *caisson.Task) { task.Limits.Memory *= 2 },
		"Hostname":   func(task *caisson.Task) { task.Hostname = "chosen" },
		"Mount":      func(task *caisson.Task) { task.Mounts = []caisson.Mount{{Type: "test", Target: "/data"}} },
		"Sidecar":    func(task *caisson.Task) { task.Sidecars = step1("sleep 100") },
		"File":       func(task *caisson.Task) { task.Files = map[string]string{"/etc/x": "y"} },
		"Keep":       func(task *caisson.Task) { task.Keep = caisson.Duration(time.Millisecond) },
		"Allow":      func(task *caisson.Task) { task.Network = caisson.Network{Allow: []string{"example.com:443"}} },
	} {
		task := limitedTask("exit 0")
		change(task)
		if p.poolFor(&record{Task: task, Engine: "mem"}) != "" {
			t.Errorf("%s: the pool's sandbox is for it", name)
		}
	}
	if p.poolFor(&record{Task: limitedTask("exit 0"), Engine: "mem"}) != "small" {
		t.Error("the pool's sandbox is for nobody")
	}
	drained(t, p, 1)
	r.clean()
}

func drained(t *testing.T, p *pooled, want int) {
	t.Helper()
	if removed, err := p.Drain(t.Context(), "small"); err != nil || removed != want {
		t.Errorf("Drain = %d, %v, want %d", removed, err, want)
	}
}

// What was made under something else is not given to anybody, and replaced.
func TestWarmStale(t *testing.T) {
	for name, change := range map[string]func(r *rig, p *pooled){
		"Settings": func(_ *rig, p *pooled) { p.opts.Settings = "others" },
		"Reboot":   func(r *rig, p *pooled) { r.boot = "boot-2" },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			p := r.pooled(1)
			p.fillUp(1)
			change(r, p)
			if p.ready() != 0 {
				t.Error("it is said to wait")
			}
			if id, result := p.runs(limitedTask("exit 0"), nil); !result.Success || r.from(id) != "" {
				t.Errorf("%+v, its sandbox %q", result.Exit, r.from(id))
			}
			p.fillUp(1)
			if id, result := p.runs(limitedTask("exit 0"), nil); !result.Success || r.from(id) != fromPool {
				t.Errorf("after Fill: %+v, its sandbox %q", result.Exit, r.from(id))
			}
			r.clean()
		})
	}
}

// A sandbox that is lost, or in which something ran, is not used.
func TestWarmLost(t *testing.T) {
	r := newRig(t)
	p := r.pooled(1)
	p.fillUp(1)
	ids, err := p.spares("small")
	if err != nil || len(ids) != 1 {
		t.Fatalf("spares %q, %v", ids, err)
	}
	sb, err := p.engine.Recover(t.Context(), p.folder.Task(ids[0]).Attempt(1).Step("main"))
	if err == nil {
		_, err = sb.Start(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	id, result := p.runs(limitedTask("exit 5"), nil)
	if result.Exit.Code != 5 || r.from(id) != "" {
		t.Errorf("%+v, its sandbox %q", result.Exit, r.from(id))
	}
	p.fillUp(1)
	drained(t, p, 1)
	r.clean()
}

// Somebody asks for the end of a task before it begins.
func TestWarmStopped(t *testing.T) {
	r := newRig(t)
	p := r.pooled(1)
	p.fillUp(1)
	id, err := p.Submit(t.Context(), limitedTask("sleep 100"), &Submission{})
	if err == nil {
		err = p.Stop(t.Context(), id, engine.Stop{Reason: caisson.ReasonStopped})
	}
	if err == nil {
		err = p.Attend(t.Context(), id, false)
	}
	if err != nil {
		t.Fatal(err)
	}
	if result, err := p.Wait(t.Context(), id); err != nil || result.Exit.Reason != caisson.ReasonStopped {
		t.Errorf("%+v, %v", result, err)
	}
	r.clean()
}

// Whoever fills a pool is killed: what is half made goes, and what waits stays.
func TestWarmHalfMade(t *testing.T) {
	r := newRig(t)
	p := r.pooled(2)
	p.fillUp(2)
	ids, err := p.spares("small")
	if err != nil {
		t.Fatal(err)
	}
	half := p.folder.Task(ids[0])
	s, err := readSpare(half)
	if err != nil {
		t.Fatal(err)
	}
	s.Ready = false
	if err := writeJSON(half.Warm(), s); err != nil {
		t.Fatal(err)
	}
	if err := p.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if there, err := exists(half.Dir); there || err != nil || p.ready() != 1 {
		t.Errorf("what was half made is there: %v, %v; %d wait", there, err, p.ready())
	}
	r.boot = "boot-2"
	if err := p.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := p.spares("small"); err != nil || len(left) != 0 {
		t.Errorf("after a reboot %q wait, %v", left, err)
	}
	r.clean()
}

// A task that was given a sandbox goes on after its attendant was killed.
func TestWarmKilled(t *testing.T) {
	r := newRig(t)
	p := r.pooled(1)
	p.fillUp(1)
	id, err := p.Submit(t.Context(), limitedTask("exit 6"), &Submission{})
	if err != nil {
		t.Fatal(err)
	}
	// It died once it had begun to use the sandbox.
	if err := os.Remove(p.folder.Task(id).Warm()); err != nil {
		t.Fatal(err)
	}
	p.die()
	later := r.pooled(1)
	if err := later.Attend(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	if result, err := later.Wait(t.Context(), id); err != nil || result.Exit.Code != 6 || r.from(id) != "" {
		t.Errorf("%+v, %v, its sandbox %q", result, err, r.from(id))
	}
	r.clean()
}

func TestWarmRefused(t *testing.T) {
	r := newRig(t)
	r.features = func(f *engine.Features) { f.Warm = false }
	p := r.pooled(1)
	if _, err := p.Fill(t.Context(), "absent"); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("Fill of no pool = %v", err)
	}
	if _, err := p.Drain(t.Context(), "absent"); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("Drain of no pool = %v", err)
	}
	if _, err := p.Fill(t.Context(), "small"); !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("Fill with an engine that can't = %v", err)
	}
	list, err := p.Pools(t.Context())
	if err != nil || len(list) != 1 || list[0].Error == "" || list[0].Ready != 0 {
		t.Errorf("Pools = %+v, %v, want the reason", list, err)
	}
	r.clean()
}

// Of several who fill, one does and one looks again.
func TestWarmFillers(t *testing.T) {
	r := newRig(t)
	p := r.pooled(1)
	if err := os.MkdirAll(p.poolDir("small"), 0o700); err != nil {
		t.Fatal(err)
	}
	fills, err := lockfile.Try(filepath.Join(p.poolDir("small"), fillLock))
	if err != nil {
		t.Fatal(err)
	}
	waits := make(chan int, 1)
	go func() {
		made, _ := p.Fill(t.Context(), "small")
		waits <- made
	}()
	r.eventually("one waits", func() bool {
		held, err := lockfile.Held(filepath.Join(p.poolDir("small"), nextLock))
		return held && err == nil
	})
	p.fillUp(0)
	if err := fills.Release(); err != nil {
		t.Fatal(err)
	}
	if made := <-waits; made != 1 {
		t.Errorf("who waited has made %d, want 1", made)
	}
	drained(t, p, 1)
	r.clean()
}
