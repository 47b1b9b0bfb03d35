//go:build unix

package run_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/mem"
)

// A killer ends the process that attends to a run, at one point: nothing of it
// happens from there on.
type killer struct {
	mu     sync.Mutex
	cancel context.CancelFunc // of the process at hand
	at     int                // the point
	points int                // passed
	dead   bool
}

var errKilled = errors.New("killed")

// point is a moment at which a process may be killed.
func (k *killer) point() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dead {
		return errKilled
	}
	if k.points++; k.points-1 == k.at {
		k.dead = true
		k.cancel()
		return errKilled
	}
	return nil
}

// next is another process, which nobody kills.
func (k *killer) next() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dead, k.at = false, -1
}

// deadly is a storage in which the process may be killed before and after each
// change.
type deadly struct {
	storage.Storage
	*killer
}

func (d deadly) Load(ctx context.Context, l *storage.Load) (*storage.Loaded, error) {
	if err := d.point(); err != nil {
		return nil, err
	}
	out, err := d.Storage.Load(context.WithoutCancel(ctx), l)
	return out, errors.Join(err, d.point())
}

func (d deadly) PutDocument(ctx context.Context, name string, data []byte, version string) (string, error) {
	if err := d.point(); err != nil {
		return "", err
	}
	v, err := d.Storage.PutDocument(context.WithoutCancel(ctx), name, data, version)
	return v, errors.Join(err, d.point())
}

// lastStep is about the point at which the last step has run.
const lastStep = 14

// TestKilled kills the process at every point in turn. Another one goes on; each
// step runs once, nothing is loaded twice, and the state is the run's.
func TestKilled(t *testing.T) {
	for _, fails := range []bool{false, true} {
		t.Run(fmt.Sprintf("Fails=%v", fails), func(t *testing.T) {
			at := 0
			if fails {
				at = lastStep // before it is nothing that the other run does not have
			}
			first := at
			for killedAt(t, at, fails) {
				at++
			}
			if at < first+5 {
				t.Errorf("only %d points", at-first)
			}
		})
	}
}

// killedAt reports whether there was such a point.
func killedAt(t *testing.T, at int, fails bool) bool {
	t.Helper()
	r := newRig(t)
	r.load("in.c-main.people", "id,name", "1,ann\n")
	var runs atomic.Int32
	program := func(p *mem.Proc) int {
		runs.Add(1)
		fmt.Fprintf(p.Stdout(), "%s\n", p.Getenv("KBC_COMPONENTID"))
		put(p, "/data/out/state.json", `{"a": 1}`)
		put(p, "/data/out/usage.json", `[{"metric": "m", "value": 1}]`)
		put(p, "/data/out/tables/t.csv", read(p, "/data/in/tables/t.csv"))
		put(p, "/data/out/tables/t.csv.manifest", `{"incremental": true, "write_always": true}`)
		if fails && p.Getenv("KBC_COMPONENTID") == "after" {
			return 1
		}
		return 0
	}
	r.define("main", "", program)
	r.define("after", "", program)
	r.config("main", `"storage": {
		"input": {"tables": [{"source": "in.c-main.people", "destination": "t.csv"}]},
		"output": {"tables": [{"source": "t.csv", "destination": "out.c-main.t"}]}},
		"processors": {"after": [{"definition": {"component": "after"}}]}`)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	k := &killer{at: at, cancel: cancel}
	r.storage = func(st storage.Storage) storage.Storage { return deadly{st, k} }
	r.saving = k.point

	x := r.executor()
	id, err := r.submit(x, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Attend(ctx, id, false); err == nil {
		if k.dead {
			t.Errorf("point %d: the run ended although its process was killed", at)
		}
		return false
	}
	x.Close()
	k.next()
	again := r.executor()
	if err := again.Attend(t.Context(), id, false); err != nil {
		t.Fatalf("point %d: Attend = %v", at, err)
	}
	got := r.ended(again, id)
	if got.Success == fails || got.Attempt != 1 {
		t.Errorf("point %d: success %v in attempt %d: %s", at, got.Success, got.Attempt, got.Component)
	}
	if n := runs.Load(); n != 2 {
		t.Errorf("point %d: %d programs ran, want 2", at, n)
	}
	if table := r.table("out.c-main.t"); strings.Count(table, "\n") != 2 {
		t.Errorf("point %d: table = %q, want one row", at, table)
	}
	if got.out != "main\nafter\n" || len(got.doc.Usage) != 1 {
		t.Errorf("point %d: log %q, usage %v, want each once", at, got.out, got.doc.Usage)
	}
	if s := r.state(""); (s == nil) != fails {
		t.Errorf("point %d: state = %v", at, s)
	}
	r.clean()
	return true
}

// TestStateRace holds that of two runs of one configuration the second to end
// does not overwrite the state of the first.
func TestStateRace(t *testing.T) {
	r := newRig(t)
	var once sync.Once
	r.define("main", "", func(p *mem.Proc) int {
		once.Do(func() {
			_, err := r.store().PutDocument(t.Context(), "state/main/12", []byte(`{"component": {"other": 1}}`), "")
			if err != nil {
				t.Error(err)
			}
		})
		put(p, "/data/out/state.json", `{"mine": 1}`)
		return 0
	})
	r.config("main", "")
	got := r.run(nil)
	if got.Status != 1 || got.doc.Error == nil || !strings.Contains(got.doc.Error.Message, "another run of this configuration") {
		t.Errorf("status %d, %+v, want that another run was quicker", got.Status, got.doc.Error)
	}
	if s := r.state(""); s == nil || r.json(s.Component) != `{"other":1}` {
		t.Errorf("state = %+v, want the other's", s)
	}
}

// TestStopped holds that a run that is asked to end does, and leaves nothing.
func TestStopped(t *testing.T) {
	r := newRig(t)
	started := make(chan struct{})
	r.define("main", "", func(p *mem.Proc) int {
		put(p, "/data/out/tables/out.c-main.t", people)
		close(started)
		<-p.Notify(15)
		return 143
	})
	r.config("main", "")
	x := r.executor()
	id, err := r.submit(x, nil)
	if err != nil {
		t.Fatal(err)
	}
	var owned sync.WaitGroup
	owned.Go(func() {
		<-started
		if err := x.Stop(t.Context(), id, engine.Stop{Reason: caisson.ReasonStopped, Grace: caisson.Duration(time.Second)}); err != nil {
			t.Error(err)
		}
	})
	if err := x.Attend(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	owned.Wait()
	got := r.ended(x, id)
	if got.Success || got.Exit.Reason != caisson.ReasonStopped || r.table("out.c-main.t") != "" || r.state("") != nil {
		t.Errorf("%+v, want stopped and nothing stored", got.Exit)
	}
	r.clean()
}

// TestRunTimeout holds that the time of a whole run ends what runs of it.
func TestRunTimeout(t *testing.T) {
	r := newRig(t)
	r.define("main", "", func(p *mem.Proc) int {
		<-p.Notify(15)
		return 143
	})
	r.config("main", "")
	x := r.executor()
	task := &caisson.Task{Component: &caisson.ComponentRun{Config: "conf"}, Timeout: caisson.Duration(100 * time.Millisecond)}
	id, err := x.Submit(t.Context(), task, r.submission())
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Attend(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	got := r.ended(x, id)
	if got.Status != 124 || got.doc.Error == nil || !strings.Contains(got.doc.Error.Message, "the time of the run was up") {
		t.Errorf("status %d, %+v, want 124 and why", got.Status, got.doc.Error)
	}
	r.clean()
}
