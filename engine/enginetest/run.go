package enginetest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caissonrun/caisson/engine"
)

const (
	// cleanupDeadline is how long what follows a case may take.
	cleanupDeadline = 20 * time.Second
	// patience is how long what a case made may take to go away by itself.
	patience = 5 * time.Second
	// slowness is how much longer all takes with Harness.Slow.
	slowness = 10
)

// insidePath is where the inside program appears in sandboxes.
const insidePath = "/caisson-inside"

// A suite is one run of the suite on one engine.
type suite struct {
	h        Harness
	name     string
	engine   engine.Engine // that cases share
	features engine.Features
	owner    engine.Owner // of work folders
	tmp      string       // the process's TMPDIR while the suite runs
	token    string       // part of every sandbox's id
	patience time.Duration
	cleanup  time.Duration
	slower   time.Duration // what deadlines are multiplied with
	disk     string        // of Harness.RootFS, where the engine needs one
	boxes    *atomic.Int64
}

// Run checks an engine against every rule of the contract. Cases are subtests
// GROUP/CASE and run one after the other: each compares the host before and
// after.
func Run(t *testing.T, h Harness) {
	s := newSuite(t, h)
	t.Cleanup(adopt(t))
	s.warmUp(t)
	report := &Report{Engine: s.name, Version: s.features.Version, Missing: s.features.Missing}
	for _, feature := range h.Require {
		if has, known := declared(&s.features, feature); !known {
			t.Errorf("Harness.Require: %q is no feature", feature)
		} else if !has {
			t.Errorf("the host must give %q, and Probe does not declare it; missing: %+v", feature, s.features.Missing)
		}
	}
	for _, group := range grouped(Cases()) {
		if len(h.Groups) > 0 && !slices.Contains(h.Groups, group.name) {
			if h.Without != "" {
				t.Run(group.name, func(t *testing.T) { t.Skip(h.Without) })
			}
			continue
		}
		t.Run(group.name, func(t *testing.T) {
			for _, c := range group.cases {
				t.Run(strings.TrimPrefix(c.Name, group.name+"/"), func(t *testing.T) {
					result := s.execute(t, &c)
					result.report(t, &c)
					report.Results = append(report.Results, result)
				})
			}
		})
	}
	report.finish(t)
}

// report tells the outcome of a case to a test.
func (r *Result) report(t *testing.T, c *Case) {
	switch r.Status {
	case Failed:
		t.Errorf("rule broken: %s\n\t%s", c.Rule, strings.Join(r.Why, "\n\t"))
	case Refused, NotApplicable:
		t.Logf("%s: %s", r.Status, strings.Join(r.Why, "; "))
	}
}

// A group is the cases of one topic.
type group struct {
	name  string
	cases []Case
}

// grouped puts cases together by the first part of their names.
func grouped(cases []Case) []group {
	var groups []group
	for _, c := range cases {
		name, _, _ := strings.Cut(c.Name, "/")
		if len(groups) == 0 || groups[len(groups)-1].name != name {
			groups = append(groups, group{name: name})
		}
		last := &groups[len(groups)-1]
		last.cases = append(last.cases, c)
	}
	return groups
}

// newSuite makes what the cases share.
func newSuite(tb testing.TB, h Harness) *suite {
	s := &suite{
		h: h, tmp: filepath.Join(tb.TempDir(), "tmp"), boxes: new(atomic.Int64),
		patience: patience, cleanup: cleanupDeadline, slower: 1,
	}
	if h.Slow {
		s.slower = slowness
		s.patience, s.cleanup = slowness*patience, slowness*cleanupDeadline
	}
	s.token = fmt.Sprintf("et%x", time.Now().UnixNano()&0xffffffffff)
	s.owner = engine.Owner{UID: os.Getuid(), GID: os.Getgid()}
	if os.Geteuid() == 0 {
		const taskUser = 1000
		s.owner = engine.Owner{UID: taskUser, GID: taskUser}
	}
	if err := os.Mkdir(s.tmp, 0o777); err != nil {
		tb.Fatal(err)
	}
	if h.HostPaths {
		// The test's folder is private to its user; programs of others pass it.
		if err := os.Chmod(filepath.Dir(filepath.Dir(s.tmp)), 0o711); err != nil {
			tb.Fatal(err)
		}
	}
	tb.Setenv("TMPDIR", s.tmp)
	s.engine = h.New(tb)
	tb.Cleanup(func() {
		if err := s.engine.Close(); err != nil {
			tb.Errorf("Close = %v", err)
		}
	})
	ctx, cancel := context.WithTimeout(tb.Context(), s.slower*defaultDeadline)
	defer cancel()
	f, err := s.engine.Probe(ctx)
	if err != nil || !f.Usable {
		tb.Fatalf("Probe: error %v, usable %v, missing %+v: there is nothing to check", err, f.Usable, f.Missing)
	}
	s.features = f
	if f.Disk && h.RootFS != "" {
		s.disk = filepath.Join(filepath.Dir(s.tmp), "rootfs.ext4")
		if err := writeDisk(ctx, s.disk, h.RootFS); err != nil {
			tb.Fatal(err)
		}
	}
	if s.name = h.Label; s.name == "" {
		s.name = s.engine.Name()
	}
	return s
}

// warmUp runs one sandbox, so that what a process makes once and keeps is
// there before the first comparison.
func (s *suite) warmUp(tb testing.TB) {
	c := &Case{Name: "warm/up", Rule: "a program runs", body: func(t *T) {
		b, _ := t.run("exit 0")
		b.success()
	}}
	if r := s.attempt(tb, c); r.Status == Failed {
		tb.Fatalf("a program does not run:\n\t%s", strings.Join(r.Why, "\n\t"))
	}
}

func (s *suite) newID() string { return fmt.Sprintf("%s-%d", s.token, s.boxes.Add(1)) }

// program has spec run the inside program.
func (s *suite) program(spec *engine.Spec, args []string) {
	if s.h.Program != nil {
		s.h.Program(spec, args)
		return
	}
	spec.Args = append([]string{insidePath}, args...)
	spec.Mounts = append(spec.Mounts, engine.Mount{
		Type: engine.MountBind, Source: s.h.Inside, Target: insidePath, ReadOnly: s.features.Mounts.ReadOnly,
	})
}

// argv returns the arguments that run the inside program with words(args) in
// an exec.
func (s *suite) argv(args ...string) []string {
	spec := &engine.Spec{}
	s.program(spec, words(args))
	return spec.Args
}

// execute runs a case, if it applies, and compares the host before and after.
func (s *suite) execute(tb testing.TB, c *Case) Result {
	for _, need := range c.Needs {
		has, known := declared(&s.features, need)
		if !known {
			return Result{Case: c.Name, Status: Failed, Why: []string{fmt.Sprintf("%q is no feature", need)}}
		}
		if !has {
			return Result{Case: c.Name, Status: Refused, Why: []string{need + " is not declared"}}
		}
	}
	for _, want := range c.wants {
		if why := want(s); why != "" {
			return Result{Case: c.Name, Status: NotApplicable, Why: []string{why}}
		}
	}
	return s.attempt(tb, c)
}

// attempt runs a case that applies.
func (s *suite) attempt(tb testing.TB, c *Case) Result {
	dir, err := os.MkdirTemp(filepath.Dir(s.tmp), "case-")
	if err != nil {
		return Result{Case: c.Name, Status: Failed, Why: []string{err.Error()}}
	}
	// Without a root of its own the program reaches its work folder through it.
	if err := os.Chmod(dir, 0o755); err != nil {
		return Result{Case: c.Name, Status: Failed, Why: []string{err.Error()}}
	}
	deadline := c.deadline
	if deadline == 0 {
		deadline = defaultDeadline
	}
	deadline *= s.slower
	before := s.snapshot(tb)
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	t := &T{suite: s, ctx: ctx, tb: tb, dir: dir, engine: s.engine}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer t.clean()
		defer t.rescue()
		c.body(t)
	}()
	select {
	case <-done:
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("the caller can't remove its folders: %v", err)
		}
		s.compare(t, before)
	case <-time.After(deadline + s.cleanup):
		t.Errorf("it did not end within %v; goroutines:\n%s", deadline+s.cleanup, stacks())
	}
	if t.failed() {
		t.mu.Lock()
		defer t.mu.Unlock()
		return Result{Case: c.Name, Status: Failed, Why: slices.Clone(t.failures)}
	}
	return Result{Case: c.Name, Status: Passed}
}

// rescue makes a failure of a panic.
func (t *T) rescue() {
	if p := recover(); p != nil {
		t.Errorf("panic: %v\n%s", p, debug.Stack())
	}
}

// clean calls the cleanups, the last first.
func (t *T) clean() {
	for {
		t.mu.Lock()
		n := len(t.cleanups)
		if n == 0 {
			t.mu.Unlock()
			return
		}
		f := t.cleanups[n-1]
		t.cleanups = t.cleanups[:n-1]
		t.mu.Unlock()
		f()
	}
}

// compare fails the case if something is there that was not before, as soon
// as it is clear that it does not go away by itself.
func (s *suite) compare(t *T, before snapshot) {
	var more []string
	for limit := time.Now().Add(s.patience); ; time.Sleep(5 * time.Millisecond) {
		t.reap()
		if more = s.snapshot(t.tb).without(before); len(more) == 0 {
			return
		}
		if time.Now().After(limit) {
			break
		}
	}
	for _, what := range more {
		t.Errorf("left behind: %s", what)
	}
}

// BuildInside builds the program that observes sandboxes from within, for this
// host's processor, and returns its path. Everyone may read and run it.
func BuildInside(tb testing.TB) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "inside")
	// As tests are built, so that what is compiled for those is not compiled again.
	cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", path,
		"github.com/caissonrun/caisson/engine/enginetest/inside")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("building the inside program: %v\n%s", err, out)
	}
	return path
}
