//go:build unix

package executor

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// forking has the rig's engine declare forks by disk.
func forking(r *rig) { r.features = func(f *engine.Features) { f.Fork = engine.ForkDisk } }

// Copies of a task have its files as they were, neither its inputs nor its pre
// steps again, and end by themselves, with outputs of their own.
func TestForkByDisk(t *testing.T) {
	r := newRig(t)
	r.attend = true
	forking(r)
	r.store.files["in"] = "given"
	p := r.process()
	task := sh("cat mark && exit 3; write mark 1; hold")
	task.Inputs = []caisson.Input{{From: "test:in", To: "in"}}
	task.Pre = step1("cat mark && exit 9; write before 1")
	task.Outputs = []caisson.Output{{Path: "*", To: "test:x/", When: caisson.WhenAlways}}
	task.Secrets = map[string]caisson.Secret{"TOKEN": {}}
	id := p.submit(task)
	wait := p.attendAsync(id, false)
	r.reached(id, caisson.EventStarted, "main")
	r.eventually("the file", func() bool {
		_, err := os.Stat(filepath.Join(r.task(id).Attempt(1).Work(), "mark"))
		return err == nil
	})
	delete(r.store.files, "in")

	ids, err := p.Fork(t.Context(), id, 3)
	if err != nil || len(ids) != 3 {
		t.Fatalf("Fork = %q, %v", ids, err)
	}
	r.running.Wait()
	for _, copied := range ids {
		got := r.result(copied)
		if got.Exit.Code != 3 || got.Task != copied {
			t.Errorf("result of a copy = %+v, want that its program has seen the original's file", got)
		}
		if info, err := p.Inspect(t.Context(), copied); err != nil || info.ForkOf != id {
			t.Errorf("Inspect = %+v, %v, want a copy of %s", info, err, id)
		}
		for _, name := range []string{"mark", "in", "before"} {
			if !slices.ContainsFunc(got.Outputs, func(f caisson.OutputFile) bool { return f.Path == name }) {
				t.Errorf("outputs of a copy = %+v, want %s too", got.Outputs, name)
			}
		}
	}
	if err := p.Stop(t.Context(), id, engine.Stop{Reason: caisson.ReasonKilled}); err != nil {
		t.Fatal(err)
	}
	if got := wait(); got.Exit.Reason != caisson.ReasonKilled {
		t.Errorf("the original's result = %+v, want that it was killed", got)
	}
	r.clean()
}

// What can't be had twice is refused, and leaves nothing; so is what has ended.
func TestForkRefused(t *testing.T) {
	r := newRig(t)
	r.attend = true
	forking(r)
	p := r.process()
	ported := sh("hold")
	ported.Sidecars = step1("hold")
	id := p.submit(ported)
	wait := p.attendAsync(id, false)
	r.reached(id, caisson.EventStarted, "main")
	if ids, err := p.Fork(t.Context(), id, 1); !errors.Is(err, caisson.ErrUnsupported) || len(ids) > 0 {
		t.Errorf("Fork of a task with a sidecar = %q, %v, want ErrUnsupported", ids, err)
	}
	for _, n := range []int{0, -1, maxForks + 1} {
		if _, err := p.Fork(t.Context(), id, n); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("Fork of %d = %v, want ErrInvalid", n, err)
		}
	}
	if err := p.Stop(t.Context(), id, engine.Stop{Reason: caisson.ReasonKilled}); err != nil {
		t.Fatal(err)
	}
	wait()
	if _, err := p.Fork(t.Context(), id, 1); !errors.Is(err, caisson.ErrEnded) {
		t.Errorf("Fork of an ended task = %v, want ErrEnded", err)
	}
	if ids := mustTasks(t, r); len(ids) != 1 {
		t.Errorf("tasks = %q, want the one", ids)
	}
	r.clean()
}

// An engine that does not declare it makes no copies.
func TestForkUndeclared(t *testing.T) {
	r := newRig(t)
	p := r.process()
	id := p.submit(sh("hold"))
	wait := p.attendAsync(id, false)
	r.reached(id, caisson.EventStarted, "main")
	if _, err := p.Fork(t.Context(), id, 1); !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("Fork = %v, want ErrUnsupported", err)
	}
	task := sh("true")
	task.Forkable = true
	if _, err := p.Submit(t.Context(), task, &Submission{}); !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("Submit of a forkable task = %v, want ErrUnsupported", err)
	}
	if err := p.Stop(t.Context(), id, engine.Stop{Reason: caisson.ReasonKilled}); err != nil {
		t.Fatal(err)
	}
	wait()
	r.clean()
}
