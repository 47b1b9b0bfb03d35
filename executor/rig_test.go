//go:build unix

package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/mem"
	"github.com/caissonrun/caisson/internal/state"
	"github.com/caissonrun/caisson/mount"
	"github.com/caissonrun/caisson/mount/component"
	"github.com/caissonrun/caisson/stage"
)

// A rig is a host for executors: one state folder, one world of mem sandboxes,
// and a store and mounts that remember what was done to them.
type rig struct {
	t        *testing.T
	state    string
	world    *mem.World
	store    *store
	mounts   *mounts
	faults   faults
	features func(*engine.Features)
	programs map[string]mem.Program
	boot     string
	attend   bool // attendants are started, as goroutines
	wrap     func(engine.Engine) engine.Engine
	limits   limits
	// composite carries out tasks with a component.
	composite Composite
	images    Images
	// What tasks' gateways lead to.
	proxies map[string]http.Handler
	lookup  func(ctx context.Context, name string) ([]netip.Addr, error)
	dial    func(ctx context.Context, to netip.AddrPort) (net.Conn, error)

	mu      sync.Mutex
	spawned []string // ids of tasks for which an attendant was started
	running sync.WaitGroup
	open    []*process
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, state: filepath.Join(t.TempDir(), "state"), world: mem.NewWorld(), store: newStore(), mounts: newMounts(), boot: "boot-1"}
	r.limits = limits{create: time.Second, start: time.Second, call: time.Second, destroy: time.Second, stay: 20 * time.Millisecond, staySure: 300 * time.Millisecond}
	t.Cleanup(r.close)
	return r
}

// close ends every process and waits for their goroutines.
func (r *rig) close() {
	r.running.Wait()
	for _, p := range r.open {
		p.engine.Close()
		p.Close()
	}
}

// A process is an executor with an engine of its own, as one program has.
type process struct {
	*Executor
	rig    *rig
	engine *mem.Engine
}

func (r *rig) process() *process {
	r.t.Helper()
	e := mem.New(&mem.Options{
		World: r.world, Installation: "rig", Features: r.features, Programs: r.programs,
		Fault:  r.faults.engine,
		OnExit: func(id string, argv, env []string) { r.spawn(argv[len(argv)-1]) },
	})
	var used engine.Engine = e
	if r.wrap != nil {
		used = r.wrap(e)
	}
	opts := &Options{
		State: r.state, Engines: []engine.Engine{used},
		Mounters: []mount.Mounter{r.mounts, component.New()}, Stagers: []stage.Stager{r.store},
		Composite: r.composite, Images: r.images,
		Proxies: r.proxies, Lookup: r.lookup, Dial: r.dial,
	}
	if r.attend {
		opts.Attend = []string{"attend"}
	}
	x, err := New(opts)
	if err != nil {
		r.t.Fatal(err)
	}
	x.bootID = func() (string, error) { return r.boot, nil }
	x.start = func(cmd *exec.Cmd) error {
		r.spawn(cmd.Args[len(cmd.Args)-1])
		return nil
	}
	x.limits = r.limits
	p := &process{Executor: x, rig: r, engine: e}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open = append(r.open, p)
	return p
}

// spawn is an attendant: a process that attends to one task and ends.
func (r *rig) spawn(id string) {
	r.mu.Lock()
	r.spawned = append(r.spawned, id)
	r.mu.Unlock()
	r.running.Go(func() {
		p := r.process()
		defer p.engine.Close()
		err := p.Attend(context.Background(), id, true)
		if err != nil && !errors.Is(err, caisson.ErrExists) && !errors.Is(err, caisson.ErrNotFound) {
			r.t.Errorf("attendant of %s: %v", id, err)
		}
	})
}

// die ends a process as kill -9 does: nothing is said to anybody.
func (p *process) die() {
	p.engine.Close()
	p.Close()
}

// submit submits a task that this process attends to.
func (p *process) submit(task *caisson.Task) string {
	p.rig.t.Helper()
	id, err := p.Submit(p.rig.t.Context(), task, &Submission{Secrets: map[string][]byte{"TOKEN": []byte("s3cr3t-value")}})
	if err != nil {
		p.rig.t.Fatalf("Submit: %v", err)
	}
	return id
}

// run submits a task, attends to it, and returns its result.
func (p *process) run(task *caisson.Task) *caisson.Result {
	p.rig.t.Helper()
	id := p.submit(task)
	if err := p.Attend(p.rig.t.Context(), id, false); err != nil {
		p.rig.t.Fatalf("Attend: %v", err)
	}
	return p.rig.result(id)
}

// result returns the result of a task that has ended, and checks what holds
// for every one.
func (r *rig) result(id string) *caisson.Result {
	r.t.Helper()
	task := r.task(id)
	result, err := readResult(task)
	if err != nil || result == nil {
		r.t.Fatalf("result of %s = %v, %v", id, result, err)
	}
	events := r.events(id)
	checkJournal(r.t, events)
	last := events[len(events)-1]
	if last.Type != caisson.EventEnded {
		r.t.Errorf("last event is %s, want ended", last.Type)
	}
	return result
}

func (r *rig) task(id string) state.Task {
	r.t.Helper()
	f, err := state.Open(r.state)
	if err != nil {
		r.t.Fatal(err)
	}
	return f.Task(id)
}

func (r *rig) events(id string) []caisson.Event {
	r.t.Helper()
	events, _, err := state.ReadJournal(r.task(id).Journal(), 0)
	if err != nil {
		r.t.Fatal(err)
	}
	return events
}

// checkJournal checks that events are numbered without gaps, and that in one
// attempt no step begins twice and no thing happens again that must not.
func checkJournal(t *testing.T, events []caisson.Event) {
	t.Helper()
	seen := make(map[string]bool)
	for i, ev := range events {
		if ev.Seq != int64(i+1) {
			t.Errorf("event %d has number %d", i+1, ev.Seq)
		}
		switch ev.Type {
		case caisson.EventProgress, caisson.EventStopAsked, caisson.EventBlocked:
			continue
		}
		key := fmt.Sprint(ev.Type, " ", ev.Attempt, " ", ev.Step)
		if seen[key] {
			t.Errorf("event %q stands in the journal twice", key)
		}
		seen[key] = true
	}
}

// words is a journal in short.
func (r *rig) words(id string) string {
	r.t.Helper()
	var words []string
	for _, ev := range r.events(id) {
		w := string(ev.Type)
		if ev.Step != "" {
			w += ":" + ev.Step
		}
		if ev.Error != nil {
			w += "!"
		}
		words = append(words, w)
	}
	return strings.Join(words, " ")
}

// clean checks that nothing is left of the tasks but their records and logs.
func (r *rig) clean() {
	r.t.Helper()
	if live := r.world.Live(); len(live) > 0 {
		r.t.Errorf("sandboxes are left: %q", live)
	}
	if held := r.mounts.list(); len(held) > 0 {
		r.t.Errorf("mounts are left: %q", held)
	}
	allowed := map[string]bool{"task.json": true, "journal.jsonl": true, "result.json": true, "control": true, "attempt-1": true, "attempt-2": true, "attempt-3": true, "attend.log": true}
	dirs, err := filepath.Glob(filepath.Join(r.state, "tasks", "*"))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, dir := range dirs {
		for _, name := range list(r.t, dir) {
			if !allowed[name] {
				r.t.Errorf("%s is left in a task's folder", name)
			}
		}
		attempts, _ := filepath.Glob(filepath.Join(dir, "attempt-*", "*"))
		for _, path := range attempts {
			if !strings.HasSuffix(path, ".log") {
				r.t.Errorf("%s is left", path)
			}
		}
	}
	secrets, _ := filepath.Glob(filepath.Join(r.state, "run", "*", "secrets", "*"))
	if len(secrets) > 0 {
		r.t.Errorf("secrets are left: %q", secrets)
	}
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// eventually waits for a condition.
func (r *rig) eventually(what string, cond func() bool) {
	r.t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); {
		if time.Now().After(end) {
			r.t.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// reached waits until the journal has an event.
func (r *rig) reached(id string, typ caisson.EventType, step string) {
	r.t.Helper()
	r.eventually(fmt.Sprintf("event %s %s", typ, step), func() bool {
		return slices.ContainsFunc(r.events(id), func(ev caisson.Event) bool { return ev.Type == typ && ev.Step == step })
	})
}

// log returns what a task has printed, each record with its step.
func (p *process) log(id string, opts LogOptions) string {
	p.rig.t.Helper()
	var b strings.Builder
	err := p.Logs(p.rig.t.Context(), id, opts, func(rec LogRecord) error {
		fmt.Fprintf(&b, "%d/%s: %s", rec.Attempt, rec.Step, rec.Data)
		return nil
	})
	if err != nil {
		p.rig.t.Fatalf("Logs: %v", err)
	}
	return b.String()
}

// sh is a task that runs a script of mem's little shell.
func sh(script string) *caisson.Task {
	return &caisson.Task{Program: caisson.Program{Run: script}, Grace: caisson.Duration(20 * time.Millisecond)}
}

func step1(script string) []caisson.Step {
	return []caisson.Step{{Program: caisson.Program{Run: script}}}
}

// faults orders what goes wrong.
type faults struct {
	mu      sync.Mutex
	ordered func(op caisson.Op, id string) mem.Fault
}

func (f *faults) engine(op caisson.Op, id string) mem.Fault {
	f.mu.Lock()
	ordered := f.ordered
	f.mu.Unlock()
	if ordered == nil {
		return mem.Fault{}
	}
	return ordered(op, id)
}

func (f *faults) set(ordered func(op caisson.Op, id string) mem.Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ordered = ordered
}

// A store is a stager of URLs test:NAME whose files lie in memory.
type store struct {
	mu    sync.Mutex
	files map[string]string
	fault func(ctx context.Context, op caisson.Op) error
	times int // how often something was stored
}

func newStore() *store { return &store{files: make(map[string]string)} }

func (s *store) Schemes() []string { return []string{"test"} }

func (s *store) CheckInput(in *caisson.Input, env *stage.Env) error {
	if strings.HasSuffix(in.From, "denied") {
		return &caisson.Error{Op: caisson.OpStageIn, Item: in.From, Kind: caisson.ErrDenied}
	}
	return nil
}

func (s *store) Fetch(ctx context.Context, in *caisson.Input, work *os.Root, env *stage.Env) (*stage.Fetched, error) {
	if err := s.trip(ctx, caisson.OpStageIn); err != nil {
		return nil, err
	}
	s.mu.Lock()
	data, ok := s.files[strings.TrimPrefix(in.From, "test:")]
	s.mu.Unlock()
	if !ok {
		return nil, &caisson.Error{Op: caisson.OpStageIn, Item: in.From, Kind: caisson.ErrNotFound}
	}
	if dir := filepath.Dir(in.To); dir != "." {
		if err := work.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	return &stage.Fetched{Bytes: int64(len(data))}, work.WriteFile(in.To, []byte(data), 0o644)
}

func (s *store) CheckOutput(out *caisson.Output, env *stage.Env) error { return nil }

func (s *store) Store(ctx context.Context, out *caisson.Output, files []stage.File, env *stage.Env) ([]caisson.OutputFile, error) {
	if err := s.trip(ctx, caisson.OpStageOut); err != nil {
		return nil, err
	}
	var stored []caisson.OutputFile
	for _, f := range files {
		if !f.Mode.IsRegular() {
			continue
		}
		file, err := f.Open()
		if err != nil {
			return stored, err
		}
		data, err := io.ReadAll(file)
		file.Close()
		if err != nil {
			return stored, err
		}
		name := strings.TrimPrefix(out.To, "test:") + f.Rel
		s.mu.Lock()
		s.files[name] = string(data)
		s.times++
		s.mu.Unlock()
		stored = append(stored, caisson.OutputFile{Path: f.Path, To: "test:" + name, Size: int64(len(data))})
	}
	return stored, nil
}

func (s *store) trip(ctx context.Context, op caisson.Op) error {
	s.mu.Lock()
	fault := s.fault
	s.mu.Unlock()
	if fault == nil {
		return nil
	}
	return fault(ctx, op)
}

func (s *store) get(name string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, ok := s.files[name]
	return data, ok
}

// mounts is a mounter of type "test" that remembers what is mounted.
type mounts struct {
	mu    sync.Mutex
	held  map[string]bool
	log   []string
	fault func(ctx context.Context, op caisson.Op) error
}

func newMounts() *mounts { return &mounts{held: make(map[string]bool)} }

func (m *mounts) Type() string { return "test" }

func (m *mounts) Check(mt caisson.Mount, env mount.Env) error { return nil }

func (m *mounts) Mount(ctx context.Context, req *mount.Request) (*mount.Place, error) {
	place := &mount.Place{Type: "test", Source: req.Dir, Target: req.Mount.Target, Owned: true, Data: map[string]string{"task": req.Task}}
	if err := req.Save(place); err != nil {
		return nil, err
	}
	m.mu.Lock()
	m.held[req.Mount.Target] = true
	m.log = append(m.log, "mount "+req.Mount.Target)
	fault := m.fault
	m.mu.Unlock()
	if fault != nil {
		if err := fault(ctx, caisson.OpMount); err != nil {
			return nil, err
		}
	}
	return place, nil
}

func (m *mounts) Release(ctx context.Context, place *mount.Place) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.held, place.Target)
	m.log = append(m.log, "release "+place.Target)
	return nil
}

func (m *mounts) list() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for name := range m.held {
		names = append(names, name)
	}
	return names
}
