//go:build unix

package executor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/mem"
)

// attendAsync attends to a task in the background; wait returns its result.
func (p *process) attendAsync(id string, detach bool) (wait func() *caisson.Result) {
	p.rig.t.Helper()
	done := make(chan error, 1)
	go func() { done <- p.Attend(context.Background(), id, detach) }()
	return func() *caisson.Result {
		p.rig.t.Helper()
		select {
		case err := <-done:
			if err != nil {
				p.rig.t.Fatalf("Attend: %v", err)
			}
		case <-time.After(20 * time.Second):
			p.rig.t.Fatal("Attend does not return")
		}
		return p.rig.result(id)
	}
}

// A stopCase stops a task when its journal has an event.
type stopCase struct {
	name   string
	task   func(*caisson.Task)
	typ    caisson.EventType
	step   string
	stop   engine.Stop
	status int
	reason caisson.Reason
	stored bool // outputs of failures are
	begun  string
}

var stopCases = []stopCase{
	{name: "stop", typ: "started", step: "main", stop: engine.Stop{Reason: "stopped", Grace: caisson.Duration(time.Minute)}, status: 143, reason: "stopped", stored: true, begun: "main finally-0"},
	{name: "stop with a signal", typ: "started", step: "main", stop: engine.Stop{Reason: "stopped", Signal: 2, Grace: caisson.Duration(time.Minute)}, status: 130, reason: "stopped", stored: true, begun: "main finally-0"},
	{name: "stop of the deaf", task: func(t *caisson.Task) {
		t.Run, t.Cmd, t.Files = "", []string{"stubborn"}, map[string]string{"a": "1"}
	}, typ: "started", step: "main", stop: engine.Stop{Reason: "stopped", Grace: caisson.Duration(20 * time.Millisecond)}, status: 137, reason: "stopped", stored: true, begun: "main finally-0"},
	{name: "kill", typ: "started", step: "main", stop: engine.Stop{Reason: "killed"}, status: 137, reason: "killed", stored: true, begun: "main finally-0"},
	{name: "cancel", typ: "started", step: "main", stop: engine.Stop{Reason: "cancelled", Grace: caisson.Duration(time.Minute)}, status: 143, reason: "cancelled", stored: true, begun: "main finally-0"},
	{name: "abort", typ: "started", step: "main", stop: engine.Stop{Reason: "aborted"}, status: 137, reason: "aborted", begun: "main finally-0"},
	{name: "stop of pre", task: func(t *caisson.Task) { t.Pre = step1("hold") }, typ: "started", step: "pre-0", stop: engine.Stop{Reason: "stopped", Grace: caisson.Duration(time.Minute)}, status: 143, reason: "stopped", begun: "pre-0 finally-0"},
	{name: "kill of finally", task: func(t *caisson.Task) {
		t.Run = "true"
		t.Finally = append(step1("hold"), step1("true")...)
	}, typ: "started", step: "finally-0", stop: engine.Stop{Reason: "killed"}, reason: "exited", begun: "main finally-0"},
	{name: "stop in the pause", task: func(t *caisson.Task) {
		t.Run = "exit 3"
		t.Retry = caisson.Retry{Limit: 1, Delay: caisson.Duration(time.Hour)}
	}, typ: "retry", stop: engine.Stop{Reason: "stopped"}, status: 3, reason: "exited", begun: "main finally-0"},
	{name: "stop with sidecars", task: func(t *caisson.Task) { t.Sidecars = step1("hold") }, typ: "started", step: "main", stop: engine.Stop{Reason: "stopped", Grace: caisson.Duration(time.Minute)}, status: 143, reason: "stopped", stored: true, begun: "sidecar-0 main finally-0"},
	{name: "stop while a sidecar gets ready", task: func(t *caisson.Task) {
		t.Sidecars = step1("hold")
		t.Sidecars[0].Probe = &caisson.Probe{Cmd: []string{"false"}}
	}, typ: "started", step: "sidecar-0", stop: engine.Stop{Reason: "stopped", Grace: caisson.Duration(time.Minute)}, status: 143, reason: "stopped", begun: "sidecar-0 finally-0"},
}

func stoppable(c *stopCase) *caisson.Task {
	task := sh("write a 1; hold")
	task.Outputs = []caisson.Output{{Path: "a", To: "test:x/", When: caisson.WhenFailure, Optional: true}}
	task.Finally = step1("true")
	task.Retry.Limit = 1
	if c.task != nil {
		c.task(task)
	}
	return task
}

// A task can be stopped by another process at any time, whoever attends to it.
func TestStop(t *testing.T) {
	for _, c := range stopCases {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			p, other := r.process(), r.process()
			id := p.submit(stoppable(&c))
			wait := p.attendAsync(id, false)
			r.reached(id, c.typ, c.step)
			if c.stored {
				r.eventually("the file", func() bool {
					_, err := os.Stat(r.task(id).Attempt(1).Work() + "/a")
					return err == nil
				})
			}
			if err := other.Stop(t.Context(), id, c.stop); err != nil {
				t.Fatalf("Stop: %v", err)
			}
			checkStopped(r, &c, id, wait())
			if err := other.Stop(t.Context(), id, c.stop); !errors.Is(err, caisson.ErrEnded) {
				t.Errorf("Stop after the end = %v, want ErrEnded", err)
			}
		})
	}
}

func checkStopped(r *rig, c *stopCase, id string, got *caisson.Result) {
	r.t.Helper()
	if got.Status != c.status || got.Exit.Reason != c.reason || got.Attempt > 1 {
		r.t.Errorf("result = status %d, reason %q, attempt %d; want %d, %q, 1; error %+v", got.Status, got.Exit.Reason, got.Attempt, c.status, c.reason, got.Error)
	}
	if _, stored := r.store.get("x/a"); stored != c.stored {
		r.t.Errorf("outputs of failures stored: %v, want %v", stored, c.stored)
	}
	var begun []string
	for _, ev := range r.events(id) {
		if ev.Type == caisson.EventCreated {
			begun = append(begun, ev.Step)
		}
	}
	if words := strings.Join(begun, " "); words != c.begun {
		r.t.Errorf("steps = %q, want %q", words, c.begun)
	}
	if !strings.Contains(r.words(id), "stop-asked") {
		r.t.Errorf("the journal does not tell of the stop: %s", r.words(id))
	}
	r.clean()
}

// Stop starts an attendant where there is none, and tells the program at once.
func TestStopWithoutAttendant(t *testing.T) {
	for _, reason := range []caisson.Reason{caisson.ReasonStopped, caisson.ReasonKilled, caisson.ReasonAborted} {
		t.Run(string(reason), func(t *testing.T) {
			r := newRig(t)
			r.attend = true
			p := r.process()
			id := p.submit(sh("hold"))
			if err := p.Attend(t.Context(), id, true); err != nil {
				t.Fatal(err)
			}
			p.die()
			if _, err := readResult(r.task(id)); err != nil || r.task(id).ID == "" {
				t.Fatal(err)
			}
			q := r.process()
			if err := q.Stop(t.Context(), id, engine.Stop{Reason: reason, Grace: caisson.Duration(time.Second)}); err != nil {
				t.Fatal(err)
			}
			got, err := q.Wait(t.Context(), id)
			if err != nil || got.Exit.Reason != reason || got.Success {
				t.Errorf("result = %+v, %v, want %s", got, err, reason)
			}
			r.running.Wait()
			r.clean()
		})
	}
}

// A stop before anything has begun ends the task without an attempt.
func TestStopBeforeAll(t *testing.T) {
	r := newRig(t)
	p := r.process()
	id := p.submit(sh("true"))
	if err := r.process().Stop(t.Context(), id, engine.Stop{Reason: caisson.ReasonCancelled}); err != nil {
		t.Fatal(err)
	}
	got := p.attendAsync(id, false)()
	if got.Attempt != 0 || got.Exit.Reason != caisson.ReasonCancelled || got.Status != 137 {
		t.Errorf("result = %+v, want cancelled without an attempt", got)
	}
	r.clean()
}

// Staging that takes long is cut short.
func TestStopWhileStaging(t *testing.T) {
	for _, op := range []caisson.Op{caisson.OpStageIn, caisson.OpMount} {
		r := newRig(t)
		r.store.files["in"] = "x"
		hang := func(ctx context.Context, at caisson.Op) error {
			if at != op {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		r.store.fault, r.mounts.fault = hang, hang
		p := r.process()
		task := sh("true")
		task.Inputs = []caisson.Input{{From: "test:in", To: "in"}}
		task.Mounts = []caisson.Mount{{Type: "test", Target: "/m"}}
		id := p.submit(task)
		wait := p.attendAsync(id, false)
		r.reached(id, caisson.EventAttempt, "")
		if err := p.Stop(t.Context(), id, engine.Stop{Reason: caisson.ReasonStopped, Grace: 1}); err != nil {
			t.Fatal(err)
		}
		if got := wait(); got.Exit.Reason != caisson.ReasonStopped || got.Status != 143 || got.Error != nil {
			t.Errorf("%s: result = %+v, want stopped", op, got)
		}
		r.clean()
	}
}

// Stops of all kinds, from several processes, at any time: one outcome, and
// nothing left.
func TestStopsAtOnce(t *testing.T) {
	r := newRig(t)
	r.attend = true
	var wg sync.WaitGroup
	for i := range 20 {
		p, q := r.process(), r.process()
		task := sh("write a 1; sleep 5ms")
		task.Finally = step1("true")
		id := p.submit(task)
		wg.Go(func() { p.Attend(context.Background(), id, false) })
		for j, reason := range []caisson.Reason{caisson.ReasonStopped, caisson.ReasonKilled, caisson.ReasonAborted, caisson.ReasonCancelled} {
			wg.Go(func() {
				time.Sleep(time.Duration(i*j) * time.Millisecond / 4) // different interleavings, not an order
				err := q.Stop(context.Background(), id, engine.Stop{Reason: reason})
				if err != nil && !errors.Is(err, caisson.ErrEnded) {
					t.Errorf("Stop: %v", err)
				}
			})
		}
		wg.Go(func() {
			if _, err := q.Wait(context.Background(), id); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	r.running.Wait()
	for _, id := range mustTasks(t, r) {
		r.result(id)
	}
	r.clean()
}

func mustTasks(t *testing.T, r *rig) []string {
	t.Helper()
	ids, err := r.process().folder.Tasks()
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func TestStopErr(t *testing.T) {
	r := newRig(t)
	p := r.process()
	if err := p.Stop(t.Context(), "0000000000000000", engine.Stop{Reason: caisson.ReasonKilled}); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("Stop of no task = %v, want ErrNotFound", err)
	}
	if err := p.Stop(t.Context(), "0", engine.Stop{Reason: caisson.ReasonExited}); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("Stop by %q = %v, want ErrInvalid", caisson.ReasonExited, err)
	}
}

// While one attends to a task, no other does, nor waits for it: this one would not end.
func TestOneAttendant(t *testing.T) {
	r := newRig(t)
	p := r.process()
	id := p.submit(sh("hold"))
	wait := p.attendAsync(id, false)
	r.reached(id, caisson.EventStarted, "main")
	if err := r.process().Attend(t.Context(), id, false); !errors.Is(err, caisson.ErrExists) {
		t.Errorf("second Attend = %v, want ErrExists", err)
	}
	if err := p.Stop(t.Context(), id, engine.Stop{Reason: caisson.ReasonKilled}); err != nil {
		t.Error(err)
	}
	wait()
	r.clean()
}

// What commands do with a task that runs.
func TestLiveSandbox(t *testing.T) {
	r := newRig(t)
	p := r.process()
	id := p.submit(sh("write f inside; hold"))
	if err := p.Signal(t.Context(), id, 15); !errors.Is(err, caisson.ErrUnavailable) {
		t.Errorf("Signal before the start = %v, want ErrUnavailable", err)
	}
	wait := p.attendAsync(id, false)
	r.reached(id, caisson.EventStarted, "main")
	q := r.process()
	session, err := q.Exec(t.Context(), id[:12], &engine.ExecSpec{Args: []string{"exit", "4"}})
	if err != nil {
		t.Fatal(err)
	}
	if exit, err := session.Wait(t.Context()); err != nil || exit.Code != 4 {
		t.Errorf("exec ended with %+v, %v", exit, err)
	}
	session.Close()
	if stats, err := q.Stats(t.Context(), id); err != nil || stats.PIDs < 1 {
		t.Errorf("Stats = %+v, %v", stats, err)
	}
	var b strings.Builder
	r.eventually("the file, written", func() bool {
		b.Reset()
		return q.CopyOut(t.Context(), id, "f", &b) == nil && strings.Contains(b.String(), "inside\n")
	})
	if err := q.CopyIn(t.Context(), id, ".", strings.NewReader(b.String())); err != nil {
		t.Errorf("CopyIn = %v", err)
	}
	if err := q.Signal(t.Context(), id, 15); err != nil {
		t.Error(err)
	}
	if got := wait(); got.Exit.Reason != caisson.ReasonSignaled {
		t.Errorf("result = %+v", got)
	}
	for what, err := range map[string]error{
		"Signal": q.Signal(t.Context(), id, 15),
		"Stop":   q.Stop(t.Context(), id, engine.Stop{Reason: caisson.ReasonKilled}),
		"copy":   q.CopyOut(t.Context(), id, "f", &b),
	} {
		if !errors.Is(err, caisson.ErrEnded) {
			t.Errorf("%s after the end = %v, want ErrEnded", what, err)
		}
	}
	r.clean()
}

func TestKeep(t *testing.T) {
	r := newRig(t)
	p := r.process()
	task := sh("write f kept; exit 3")
	task.Keep = caisson.Duration(time.Hour)
	id := p.submit(task)
	if got := p.attendAsync(id, false)(); got.Status != 3 {
		t.Errorf("result = %+v", got)
	}
	if live := r.world.Live(); len(live) != 1 {
		t.Errorf("sandboxes kept: %q, want main's", live)
	}
	var b strings.Builder
	if err := r.process().CopyOut(t.Context(), id, "f", &b); err != nil || !strings.Contains(b.String(), "kept\n") {
		t.Errorf("CopyOut = %q, %v", b.String(), err)
	}
	q := r.process()
	if err := q.Recover(t.Context()); err != nil {
		t.Error(err)
	}
	if live := r.world.Live(); len(live) != 1 {
		t.Errorf("sandboxes kept after Recover: %q, want main's", live)
	}
	q.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	if err := q.Recover(t.Context()); err != nil {
		t.Error(err)
	}
	r.clean()
}

// Where attendants can be started, one waits until the time is over, or the task
// is removed.
func TestKeepUntilRemoved(t *testing.T) {
	r := newRig(t)
	r.attend = true
	p := r.process()
	task := sh("exit 3")
	task.Keep = caisson.Duration(time.Hour)
	id := p.submit(task)
	if err := p.Attend(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	r.eventually("an attendant", func() bool { return p.attended(r.task(id)) })
	if err := r.process().Remove(t.Context(), id, false); err != nil {
		t.Errorf("Remove = %v", err)
	}
	r.running.Wait()
	if ids := mustTasks(t, r); len(ids) > 0 {
		t.Errorf("left: %q", ids)
	}
	r.clean()
}

func TestRemove(t *testing.T) {
	r := newRig(t)
	r.attend = true
	p := r.process()
	ended := p.submit(sh("true"))
	if err := p.Attend(t.Context(), ended, false); err != nil {
		t.Fatal(err)
	}
	task := sh("hold")
	task.Finally = step1("hold")
	running := p.submit(task)
	if err := p.Attend(t.Context(), running, true); err != nil {
		t.Fatal(err)
	}
	p.die()
	q := r.process()
	if err := q.Remove(t.Context(), running, false); !errors.Is(err, caisson.ErrExists) {
		t.Errorf("Remove of a running task = %v, want ErrExists", err)
	}
	for _, id := range []string{ended, running} {
		if err := q.Remove(t.Context(), id, true); err != nil {
			t.Errorf("Remove = %v", err)
		}
		if err := q.Remove(t.Context(), id, true); !errors.Is(err, caisson.ErrNotFound) {
			t.Errorf("Remove again = %v, want ErrNotFound", err)
		}
	}
	r.running.Wait()
	if ids := mustTasks(t, r); len(ids) > 0 {
		t.Errorf("left: %q", ids)
	}
	r.clean()
}

// Where nobody can be started, Remove attends to the task itself.
func TestRemoveAlone(t *testing.T) {
	r := newRig(t)
	p := r.process()
	id := p.submit(sh("hold"))
	ctx, kill := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Attend(ctx, id, false) }()
	r.reached(id, caisson.EventStarted, "main")
	kill()
	<-done
	p.die()
	if err := r.process().Remove(t.Context(), id, true); err != nil {
		t.Errorf("Remove = %v", err)
	}
	if ids := mustTasks(t, r); len(ids) > 0 {
		t.Errorf("left: %q", ids)
	}
	r.clean()
}

// The end of Attend's context leaves the task to the next attendant, whatever
// was going on.
func TestContextEnds(t *testing.T) {
	for _, at := range []caisson.Op{caisson.OpCreate, caisson.OpStart, caisson.OpWait, caisson.OpStageIn, caisson.OpStageOut, caisson.OpMount} {
		t.Run(string(at), func(t *testing.T) {
			r := newRig(t)
			r.store.files["in"] = "x"
			ctx, cancel := context.WithCancel(t.Context())
			hang := func(ctx context.Context, op caisson.Op) error {
				if op == at {
					cancel()
					<-ctx.Done()
					return ctx.Err()
				}
				return nil
			}
			r.store.fault, r.mounts.fault = hang, hang
			r.faults.set(func(op caisson.Op, id string) mem.Fault {
				if op == at {
					cancel()
					return mem.Fault{Hang: true}
				}
				return mem.Fault{}
			})
			task := sh("write a 1")
			task.Inputs = []caisson.Input{{From: "test:in", To: "in"}}
			task.Outputs = []caisson.Output{{Path: "a", To: "test:x/"}}
			task.Mounts = []caisson.Mount{{Type: "test", Target: "/m"}}
			p := r.process()
			id := p.submit(task)
			if err := p.Attend(ctx, id, false); !errors.Is(err, context.Canceled) {
				t.Fatalf("Attend = %v, want Canceled", err)
			}
			r.store.fault, r.mounts.fault = nil, nil
			r.faults.set(nil)
			if got := r.process().attendAsync(id, false)(); !got.Success {
				t.Errorf("result = %+v, %v", got, fmt.Sprint(got.Error))
			}
			r.clean()
		})
	}
}

// What was asked for goes, however fast others go on asking.
func TestRemoveRequestsWhileAsked(t *testing.T) {
	r := newRig(t)
	task := r.task(r.process().submit(sh("true")))
	var asking sync.WaitGroup
	over := make(chan struct{})
	for range 4 {
		asking.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
					if err := os.Mkdir(task.Control(), 0o700); err == nil || errors.Is(err, fs.ErrExist) {
						writeRequest(task, &request{Version: requestVersion, Stop: engine.Stop{Reason: caisson.ReasonKilled}})
					}
				}
			}
		})
	}
	for range 200 {
		if err := removeRequests(task); err != nil {
			t.Error(err)
			break
		}
	}
	close(over)
	asking.Wait()
}
