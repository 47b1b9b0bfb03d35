//go:build unix

package executor

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// enter runs a program in what is kept of a task, and returns what it printed.
func (r *rig) enter(p *process, id string, args ...string) string {
	r.t.Helper()
	s, err := p.Exec(r.t.Context(), id, &engine.ExecSpec{Args: args})
	if err != nil {
		r.t.Fatalf("Exec: %v", err)
	}
	defer s.Close()
	out, err := io.ReadAll(s.Stdout())
	if err != nil {
		r.t.Error(err)
	}
	if exit, err := s.Wait(r.t.Context()); err != nil || exit.Code != 0 {
		r.t.Errorf("an exec ended with %+v, %v", exit, err)
	}
	return string(out)
}

// What decided is what is entered: main, or the step that failed.
func TestEnterKept(t *testing.T) {
	fails := func(step string) func(*caisson.Task) {
		return func(task *caisson.Task) {
			switch step {
			case "pre-0":
				task.Pre = step1("exit 4")
			case "main":
				task.Program = sh("exit 4").Program
			case "post-0":
				task.Post = step1("exit 4")
			}
		}
	}
	for name, c := range map[string]struct {
		change func(*caisson.Task)
		step   string
		status int
	}{
		"Success":    {func(*caisson.Task) {}, "main", 0},
		"PreFailed":  {fails("pre-0"), "pre-0", 4},
		"MainFailed": {fails("main"), "main", 4},
		"PostFailed": {fails("post-0"), "post-0", 4},
		"Finally":    {func(task *caisson.Task) { task.Finally = step1("true") }, "main", 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			p := r.process()
			task := sh("true")
			task.Pre, task.Post = step1("true"), step1("true")
			task.Keep = caisson.Duration(time.Hour)
			c.change(task)
			id := p.submit(task)
			if got := p.attendAsync(id, false)(); got.Status != c.status {
				t.Errorf("result = %+v, want status %d", got, c.status)
			}
			if live := r.world.Live(); len(live) != 1 || !strings.HasSuffix(live[0], c.step) {
				t.Errorf("sandboxes kept: %q, want that of %s alone", live, c.step)
			}
			q := r.process()
			if got := r.enter(q, id, "sh", "-c", "echo $CAISSON_STEP"); got != c.step+"\n" {
				t.Errorf("the sandbox entered is that of %q, want %s", got, c.step)
			}
			if _, err := q.Stats(t.Context(), id); err != nil {
				t.Errorf("Stats = %v", err)
			}
			if info, err := q.Inspect(t.Context(), id); err != nil || !info.KeptUntil.After(time.Now()) {
				t.Errorf("Inspect = %+v, %v: it does not tell until when", info, err)
			}
			if err := q.Remove(t.Context(), id, false); err != nil {
				t.Errorf("Remove = %v", err)
			}
			r.clean()
		})
	}
}

// Whoever enters a task that is to be kept does not come too early.
func TestEnterWaits(t *testing.T) {
	r := newRig(t)
	p := r.process()
	task := sh("write f x; exit 3")
	task.Keep = caisson.Duration(time.Hour)
	id := p.submit(task)
	got := make(chan string, 1)
	go func() { got <- r.enter(r.process(), id, "sh", "-c", "cat f") }()
	p.attendAsync(id, false)()
	if text := <-got; text != "x\n" {
		t.Errorf("an exec printed %q, want x", text)
	}
	if err := p.Remove(t.Context(), id, false); err != nil {
		t.Error(err)
	}
	r.clean()
}

func TestEnterErr(t *testing.T) {
	enter := func(p *process, id string) error {
		s, err := p.Exec(t.Context(), id, &engine.ExecSpec{Args: []string{"true"}})
		if err == nil {
			s.Close()
		}
		return err
	}
	ended := func(t *testing.T, p *process, id, why string) {
		t.Helper()
		if err := enter(p, id); !errors.Is(err, caisson.ErrEnded) || !strings.Contains(err.Error(), why) {
			t.Errorf("Exec = %v, want ErrEnded with %q", err, why)
		}
	}
	kept := func(t *testing.T, r *rig, change func(*caisson.Task)) string {
		t.Helper()
		p := r.process()
		task := sh("exit 3")
		task.Keep = caisson.Duration(time.Hour)
		change(task)
		id := p.submit(task)
		p.attendAsync(id, false)()
		return id
	}
	same := func(*caisson.Task) {}

	t.Run("NotKept", func(t *testing.T) {
		r := newRig(t)
		id := kept(t, r, func(task *caisson.Task) { task.Keep = 0 })
		ended(t, r.process(), id, "--keep")
		r.clean()
	})
	t.Run("Over", func(t *testing.T) {
		r := newRig(t)
		id := kept(t, r, same)
		q := r.process()
		q.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
		ended(t, q, id, "is over")
		if info, err := q.Inspect(t.Context(), id); err != nil || !info.KeptUntil.IsZero() {
			t.Errorf("Inspect = %+v, %v: it is kept no longer", info, err)
		}
		if err := q.Recover(t.Context()); err != nil {
			t.Error(err)
		}
		r.clean()
	})
	// An engine that can't do it keeps the files alone.
	t.Run("FilesAlone", func(t *testing.T) {
		r := newRig(t)
		r.features = func(f *engine.Features) { f.Keep = false }
		id := kept(t, r, same)
		q := r.process()
		ended(t, q, id, "files alone")
		var b strings.Builder
		if err := q.CopyOut(t.Context(), id, ".", &b); err != nil {
			t.Errorf("CopyOut = %v", err)
		}
		if err := q.Remove(t.Context(), id, false); err != nil {
			t.Error(err)
		}
		r.clean()
	})
	// One that was not even made.
	t.Run("NothingRan", func(t *testing.T) {
		r := newRig(t)
		id := kept(t, r, func(task *caisson.Task) { task.Inputs = []caisson.Input{{From: "test:absent", To: "f"}} })
		q := r.process()
		if err := enter(q, id); !errors.Is(err, caisson.ErrEnded) {
			t.Errorf("Exec = %v, want ErrEnded", err)
		}
		if err := q.Remove(t.Context(), id, false); err != nil {
			t.Error(err)
		}
		r.clean()
	})
	// What aborts a task destroys its sandbox.
	t.Run("Aborted", func(t *testing.T) {
		r := newRig(t)
		p := r.process()
		task := sh("hold")
		task.Keep = caisson.Duration(time.Hour)
		id := p.submit(task)
		wait := p.attendAsync(id, false)
		r.reached(id, caisson.EventStarted, "main")
		if err := p.Stop(t.Context(), id, engine.Stop{Reason: caisson.ReasonAborted}); err != nil {
			t.Fatal(err)
		}
		wait()
		if err := enter(p, id); !errors.Is(err, caisson.ErrEnded) {
			t.Errorf("Exec = %v, want ErrEnded", err)
		}
		r.clean()
	})
	// A kill keeps what there was.
	t.Run("Killed", func(t *testing.T) {
		r := newRig(t)
		p := r.process()
		task := sh("write f x; hold")
		task.Keep = caisson.Duration(time.Hour)
		id := p.submit(task)
		wait := p.attendAsync(id, false)
		r.reached(id, caisson.EventStarted, "main")
		if err := p.Stop(t.Context(), id, engine.Stop{Reason: caisson.ReasonKilled}); err != nil {
			t.Fatal(err)
		}
		wait()
		r.enter(p, id, "true")
		if err := p.Remove(t.Context(), id, false); err != nil {
			t.Error(err)
		}
		r.clean()
	})
}

// Another attempt leaves nothing of the one before.
func TestKeepLastAttempt(t *testing.T) {
	r := newRig(t)
	p := r.process()
	task := sh("exit $CAISSON_ATTEMPT")
	task.Retry = caisson.Retry{Limit: 1, Delay: 1}
	task.Keep = caisson.Duration(time.Hour)
	id := p.submit(task)
	p.attendAsync(id, false)()
	if got := r.enter(p, id, "sh", "-c", "echo $CAISSON_ATTEMPT"); got != "2\n" {
		t.Errorf("attempt %q is kept, want 2", got)
	}
	if live := r.world.Live(); len(live) != 1 {
		t.Errorf("sandboxes kept: %q, want one", live)
	}
	if err := p.Remove(t.Context(), id, false); err != nil {
		t.Error(err)
	}
	r.clean()
}
