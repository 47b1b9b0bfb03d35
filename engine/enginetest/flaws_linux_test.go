package enginetest

import (
	"context"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/mem"
	"github.com/caissonrun/caisson/engine/mem/inside"
	"github.com/caissonrun/caisson/internal/slowtest"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// A flaw is one way in which an engine can be wrong, and a case that must find
// it.
type flaw struct {
	name string
	find string // a case
	how  string // part of what the case says
	mem  mem.Options
	// What is done wrong. Nil: as mem does it.
	probe   func(*engine.Features)
	create  func(e *broken, ctx context.Context, spec *engine.Spec) (engine.Sandbox, error)
	destroy func(s *brokenSandbox, ctx context.Context) error
	start   func(s *brokenSandbox, ctx context.Context) (engine.Process, error)
	exec    func(s *brokenSandbox, ctx context.Context, spec *engine.ExecSpec) (engine.Session, error)
	files   func(s *brokenSandbox, ctx context.Context) (engine.FS, error)
	put     func(s *brokenSandbox, ctx context.Context, name string, r io.Reader) error
	stats   func(s *brokenSandbox, ctx context.Context) (engine.Stats, error)
	pause   func(s *brokenSandbox, ctx context.Context) error
	sockets func(s *brokenSandbox, ctx context.Context) ([]engine.OpenSocket, error)
	shows   func(s *brokenSandbox, ctx context.Context) ([]engine.Display, error)
	display func(s *brokenSandbox, ctx context.Context, name string) (io.ReadWriteCloser, error)
	wait    func(p *brokenProcess, ctx context.Context) (caisson.Exit, error)
	signal  func(p *brokenProcess, ctx context.Context, n int) error
	stop    func(p *brokenProcess, ctx context.Context, s engine.Stop) error
	sweep   func(e *broken, ctx context.Context, live []string) ([]string, error)
	closing func(e *broken) error
	finding func(e *broken, ctx context.Context, dir string) (engine.Sandbox, error)
}

// broken is a mem engine with a flaw.
type broken struct {
	*mem.Engine
	flaw *flaw
}

type full interface {
	engine.Sandbox
	engine.Execer
	engine.Filer
	engine.StatsReader
	engine.Pauser
	engine.Gatekeeper
	engine.Displayer
}

type brokenSandbox struct {
	full
	flaw *flaw
	spec *engine.Spec
	mu   sync.Mutex
	n    int // of whatever is counted
}

type brokenProcess struct {
	engine.Process
	sandbox *brokenSandbox
	last    caisson.Reason
}

func (e *broken) Probe(ctx context.Context) (engine.Features, error) {
	f, err := e.Engine.Probe(ctx)
	if e.flaw.probe != nil {
		e.flaw.probe(&f)
	}
	return f, err
}

func (e *broken) Create(ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
	if e.flaw.create != nil {
		return e.flaw.create(e, ctx, spec)
	}
	return e.wrap(spec)(e.Engine.Create(ctx, spec))
}

func (e *broken) Recover(ctx context.Context, dir string) (engine.Sandbox, error) {
	if e.flaw.finding != nil {
		return e.flaw.finding(e, ctx, dir)
	}
	return e.wrap(&engine.Spec{Dir: dir})(e.Engine.Recover(ctx, dir))
}

func (e *broken) Sweep(ctx context.Context, live []string) ([]string, error) {
	if e.flaw.sweep != nil {
		return e.flaw.sweep(e, ctx, live)
	}
	return e.Engine.Sweep(ctx, live)
}

func (e *broken) Close() error {
	if e.flaw.closing != nil {
		return e.flaw.closing(e)
	}
	return e.Engine.Close()
}

func (e *broken) wrap(spec *engine.Spec) func(engine.Sandbox, error) (engine.Sandbox, error) {
	return func(sb engine.Sandbox, err error) (engine.Sandbox, error) {
		if err != nil {
			return nil, err
		}
		return &brokenSandbox{full: sb.(full), flaw: e.flaw, spec: spec}, nil
	}
}

func (s *brokenSandbox) process(p engine.Process, err error) (engine.Process, error) {
	if err != nil {
		return nil, err
	}
	return &brokenProcess{Process: p, sandbox: s}, nil
}

func (s *brokenSandbox) Start(ctx context.Context) (engine.Process, error) {
	if s.flaw.start != nil {
		return s.flaw.start(s, ctx)
	}
	return s.process(s.full.Start(ctx))
}

func (s *brokenSandbox) Process(ctx context.Context) (engine.Process, error) {
	return s.process(s.full.Process(ctx))
}

func (s *brokenSandbox) Destroy(ctx context.Context) error {
	if s.flaw.destroy != nil {
		return s.flaw.destroy(s, ctx)
	}
	return s.full.Destroy(ctx)
}

func (s *brokenSandbox) Exec(ctx context.Context, spec *engine.ExecSpec) (engine.Session, error) {
	if s.flaw.exec != nil {
		return s.flaw.exec(s, ctx, spec)
	}
	return s.full.Exec(ctx, spec)
}

func (s *brokenSandbox) FS(ctx context.Context) (engine.FS, error) {
	if s.flaw.files != nil {
		return s.flaw.files(s, ctx)
	}
	return s.full.FS(ctx)
}

func (s *brokenSandbox) Put(ctx context.Context, name string, r io.Reader) error {
	if s.flaw.put != nil {
		return s.flaw.put(s, ctx, name, r)
	}
	return s.full.Put(ctx, name, r)
}

func (s *brokenSandbox) Stats(ctx context.Context) (engine.Stats, error) {
	if s.flaw.stats != nil {
		return s.flaw.stats(s, ctx)
	}
	return s.full.Stats(ctx)
}

func (s *brokenSandbox) Pause(ctx context.Context) error {
	if s.flaw.pause != nil {
		return s.flaw.pause(s, ctx)
	}
	return s.full.Pause(ctx)
}

func (s *brokenSandbox) Sockets(ctx context.Context) ([]engine.OpenSocket, error) {
	if s.flaw.sockets != nil {
		return s.flaw.sockets(s, ctx)
	}
	return s.full.Sockets(ctx)
}

func (s *brokenSandbox) Displays(ctx context.Context) ([]engine.Display, error) {
	if s.flaw.shows != nil {
		return s.flaw.shows(s, ctx)
	}
	return s.full.Displays(ctx)
}

func (s *brokenSandbox) OpenDisplay(ctx context.Context, name string) (io.ReadWriteCloser, error) {
	if s.flaw.display != nil {
		return s.flaw.display(s, ctx, name)
	}
	return s.full.OpenDisplay(ctx, name)
}

func (p *brokenProcess) Wait(ctx context.Context) (caisson.Exit, error) {
	if p.sandbox.flaw.wait != nil {
		return p.sandbox.flaw.wait(p, ctx)
	}
	return p.Process.Wait(ctx)
}

func (p *brokenProcess) Signal(ctx context.Context, n int) error {
	if p.sandbox.flaw.signal != nil {
		return p.sandbox.flaw.signal(p, ctx, n)
	}
	return p.Process.Signal(ctx, n)
}

func (p *brokenProcess) Stop(ctx context.Context, s engine.Stop) error {
	if p.sandbox.flaw.stop != nil {
		return p.sandbox.flaw.stop(p, ctx, s)
	}
	return p.Process.Stop(ctx, s)
}

// changed makes a Create that does what a changed spec says.
func changed(change func(spec *engine.Spec)) func(*broken, context.Context, *engine.Spec) (engine.Sandbox, error) {
	return func(e *broken, ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
		other := *spec
		change(&other)
		return e.wrap(spec)(e.Engine.Create(ctx, &other))
	}
}

// count counts calls on a sandbox, from 1.
func (s *brokenSandbox) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	return s.n
}

// exits makes a Wait whose answer is changed.
func exits(change func(p *brokenProcess, exit *caisson.Exit)) func(*brokenProcess, context.Context) (caisson.Exit, error) {
	return func(p *brokenProcess, ctx context.Context) (caisson.Exit, error) {
		exit, err := p.Process.Wait(ctx)
		if err == nil {
			change(p, &exit)
		}
		return exit, err
	}
}

// TestFlawsAreFound proves that the suite can fail: each flaw must be found by
// its case, for its reason.
func TestFlawsAreFound(t *testing.T) {
	slowtest.Skip(t)
	program := BuildInside(t)
	for _, f := range flaws() {
		t.Run(strings.ReplaceAll(f.name, " ", "-"), func(t *testing.T) {
			f.mem.World = mem.NewWorld()
			f.mem.Programs = map[string]mem.Program{"inside": inside.Program}
			other := f.mem
			other.Installation = "other"
			s := newSuite(t, Harness{
				New:       func(testing.TB) engine.Engine { return &broken{mem.New(&f.mem), &f} },
				Other:     func(testing.TB) engine.Engine { return &broken{mem.New(&other), &f} },
				Inside:    program,
				Program:   func(spec *engine.Spec, args []string) { spec.Args = append([]string{"inside"}, args...) },
				Resources: func(testing.TB) []string { return f.mem.World.Live() },
			})
			s.patience, s.cleanup = 100*time.Millisecond, time.Second
			t.Cleanup(adopt(t))
			c := caseNamed(t, f.find)
			c.deadline = 2 * time.Second
			r := s.execute(t, &c)
			if r.Status != Failed {
				t.Fatalf("case %s: %s %v, want it to fail", f.find, r.Status, r.Why)
			}
			if why := strings.Join(r.Why, "\n"); !strings.Contains(why, f.how) {
				t.Errorf("case %s fails, but does not say %q:\n%s", f.find, f.how, why)
			}
			_, _ = mem.New(&f.mem).Sweep(context.Background(), nil)
			_, _ = mem.New(&other).Sweep(context.Background(), nil)
		})
	}
}

func caseNamed(t *testing.T, name string) Case {
	for _, c := range Cases() {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("there is no case %s", name)
	return Case{}
}

// Without a flaw the wrapper passes what it fails with one.
func TestNoFlawIsFound(t *testing.T) {
	f := flaw{mem: mem.Options{World: mem.NewWorld(), Programs: map[string]mem.Program{"inside": inside.Program}}}
	other := f.mem
	other.Installation = "other"
	s := newSuite(t, Harness{
		New:       func(testing.TB) engine.Engine { return &broken{mem.New(&f.mem), &f} },
		Other:     func(testing.TB) engine.Engine { return &broken{mem.New(&other), &f} },
		Inside:    BuildInside(t),
		Program:   func(spec *engine.Spec, args []string) { spec.Args = append([]string{"inside"}, args...) },
		Resources: func(testing.TB) []string { return f.mem.World.Live() },
	})
	for _, name := range []string{"lifecycle/run", "exit/codes", "stop/tree", "files/links", "recover/sweep", "refusals/ports", "gateway/answers", "gateway/recovered", "displays/picture", "displays/viewers"} {
		c := caseNamed(t, name)
		if r := s.execute(t, &c); r.Status != Passed {
			t.Errorf("case %s: %s %v", name, r.Status, r.Why)
		}
	}
}

// handleID returns the id in the handle in dir.
func handleID(dir string) string {
	h, err := engine.ReadHandle(dir, "mem")
	if err != nil {
		return ""
	}
	return h.ID
}

// cutLog takes the last byte of output out of a log, once.
func cutLog(path string) {
	records := readLog(path)
	if len(records) == 0 || os.Remove(path) != nil {
		return
	}
	last := &records[len(records)-1]
	last.Data = last.Data[:len(last.Data)-1]
	writeLog(path, records)
}

func addToLog(path, text string) {
	writeLog(path, []tasklog.Record{{Stream: tasklog.Stdout, Data: []byte(text)}})
}

func readLog(path string) []tasklog.Record {
	var all []tasklog.Record
	_ = tasklog.Follow(context.Background(), path, 0, func() bool { return true }, func(r tasklog.Record) error {
		all = append(all, r)
		return nil
	})
	return all
}

func writeLog(path string, records []tasklog.Record) {
	w, err := tasklog.Create(path, 0)
	if err != nil {
		return
	}
	defer w.Close()
	for _, r := range records {
		_ = w.Write(r.Stream, time.Now(), r.Data)
	}
}
