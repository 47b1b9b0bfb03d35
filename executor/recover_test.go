//go:build unix

package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/mem"
	"github.com/caissonrun/caisson/internal/state"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// full is a task with one step of every kind, all slow enough to leave.
func full() *caisson.Task {
	task := sh("echo main; write out/a 1; sleep 30ms")
	task.Run = "echo main; write a 1; sleep 30ms"
	task.Pre = step1("echo pre; sleep 30ms")
	task.Sidecars = step1("echo sidecar; hold")
	task.Post = step1("echo post; sleep 30ms")
	task.Finally = step1("echo finally; sleep 30ms")
	task.Outputs = []caisson.Output{{Path: "a", To: "test:x/"}}
	task.Mounts = []caisson.Mount{{Type: "test", Target: "/m"}}
	return task
}

// A detached task is carried to its end by attendants that come and go: one for
// each program that ends.
func TestDetached(t *testing.T) {
	r := newRig(t)
	r.attend = true
	p := r.process()
	id, err := p.Submit(t.Context(), full(), &Submission{Detached: true})
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.Wait(t.Context(), id)
	if err != nil || !got.Success {
		t.Fatalf("result = %+v, %v", got, err)
	}
	r.running.Wait()
	r.result(id)
	if n := len(r.spawned); n < 4 {
		t.Errorf("%d attendants were started, want one for each program at least", n)
	}
	if log := p.log(id, LogOptions{}); log != "1/pre-0: pre\n1/sidecar-0: sidecar\n1/main: main\n1/post-0: post\n1/finally-0: finally\n" {
		t.Errorf("log = %q", log)
	}
	r.clean()
}

// While a program runs that nobody need wait for, nobody attends to the task.
func TestDetachedIsUnattended(t *testing.T) {
	r := newRig(t)
	r.attend = true
	p := r.process()
	id := p.submit(sh("hold"))
	if err := p.Attend(t.Context(), id, true); err != nil {
		t.Fatal(err)
	}
	p.die()
	q := r.process()
	info, err := q.Inspect(t.Context(), id)
	if err != nil || info.Attended || info.State != caisson.StateRunning || info.Step != "main" {
		t.Errorf("Inspect = %+v, %v, want running and unattended", info, err)
	}
	before := len(r.spawned)
	if err := q.Recover(t.Context()); err != nil {
		t.Error(err)
	}
	if len(r.spawned) != before || len(r.world.Live()) != 1 {
		t.Errorf("Recover started %d attendants, sandboxes %q; want it to leave the task alone", len(r.spawned)-before, r.world.Live())
	}
	if err := q.Stop(t.Context(), id, engine.Stop{Reason: caisson.ReasonStopped}); err != nil {
		t.Error(err)
	}
	if _, err := q.Wait(t.Context(), id); err != nil {
		t.Error(err)
	}
	r.running.Wait()
	r.clean()
}

// A caller that dies while a program runs is replaced when that ends.
func TestCallerDies(t *testing.T) {
	r := newRig(t)
	r.attend = true
	p := r.process()
	id := p.submit(sh("write a 1; sleep 50ms; exit 7"))
	ctx, kill := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Attend(ctx, id, false) }()
	r.reached(id, caisson.EventStarted, "main")
	kill()
	<-done
	p.die()
	q := r.process()
	if got, err := q.Wait(t.Context(), id); err != nil || got.Status != 7 {
		t.Errorf("result = %+v, %v, want 7", got, err)
	}
	r.running.Wait()
	r.result(id)
	r.clean()
}

// A step whose sandbox is gone, or whose keeper is, is lost: it is never run
// again in the same attempt, and the attempt is repeated by policy.
func TestLost(t *testing.T) {
	for _, how := range []string{"keeper", "folder", "engine"} {
		t.Run(how, func(t *testing.T) {
			r := newRig(t)
			runs := 0
			var mu sync.Mutex
			r.programs = map[string]mem.Program{"once": func(p *mem.Proc) int {
				mu.Lock()
				runs++
				first := runs == 1
				mu.Unlock()
				if first {
					p.Sleep(time.Hour)
				}
				return 0
			}}
			p := r.process()
			task := &caisson.Task{Program: caisson.Program{Cmd: []string{"once"}}, Finally: step1("true")}
			task.Retry.Limit = 1
			id := p.submit(task)
			ctx, kill := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- p.Attend(ctx, id, false) }()
			r.reached(id, caisson.EventStarted, "main")
			kill()
			<-done
			p.die()

			box := caisson.SandboxID(id, 1, "main")
			switch how {
			case "keeper":
				r.world.End(box, caisson.Exit{Reason: caisson.ReasonLost})
			case "folder":
				if err := os.RemoveAll(r.task(id).Attempt(1).Step("main")); err != nil {
					t.Fatal(err)
				}
			case "engine":
				r.world = mem.NewWorld() // a host where nothing of it runs
			}
			q := r.process()
			if got := q.attendAsync(id, false)(); !got.Success || got.Attempt != 2 {
				t.Errorf("result = %+v, want success of the second attempt", got)
			}
			verdict := newHistory(r.events(id)[:findEvent(r.events(id), caisson.EventAttemptEnd)+1]).verdict
			if verdict.Exit.Reason != caisson.ReasonLost || verdict.Status != 125 {
				t.Errorf("first attempt ended in %+v, want lost", verdict)
			}
			if how == "folder" {
				if err := q.Recover(t.Context()); err != nil { // sweeps the orphan
					t.Error(err)
				}
			}
			r.clean()
		})
	}
}

func findEvent(events []caisson.Event, typ caisson.EventType) int {
	for i, ev := range events {
		if ev.Type == typ {
			return i
		}
	}
	return -1
}

// After a reboot what had begun is lost, and what had not begins.
func TestReboot(t *testing.T) {
	for _, at := range []struct {
		typ     caisson.EventType
		attempt int
	}{{caisson.EventAccepted, 1}, {caisson.EventStaged, 2}, {caisson.EventStarted, 2}, {caisson.EventExited, 2}, {caisson.EventStagedOut, 1}} {
		t.Run(string(at.typ), func(t *testing.T) {
			r := newRig(t)
			p := r.process()
			task := sh("write a 1")
			task.Outputs = []caisson.Output{{Path: "a", To: "test:x/"}}
			task.Finally = step1("true")
			task.Mounts = []caisson.Mount{{Type: "test", Target: "/m"}}
			task.Retry.Limit = 1
			id := p.submit(task)
			crashAfter(r, p, id, at.typ)
			r.boot = "boot-2"
			r.world = mem.NewWorld()
			if got := r.process().attendAsync(id, false)(); !got.Success || got.Attempt != at.attempt {
				t.Errorf("result = %+v, want success of attempt %d", got, at.attempt)
			}
			r.clean()
		})
	}
}

// crashAfter attends to a task and dies once the journal has an event: the
// journal is cut off behind it, as if no later line had reached the disk.
func crashAfter(r *rig, p *process, id string, typ caisson.EventType) {
	r.t.Helper()
	ctx, kill := context.WithCancel(r.t.Context())
	defer kill()
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		for {
			news := p.hub.wait(id)
			if findEvent(r.events(id), typ) >= 0 {
				kill()
				return
			}
			if pauseFor(r.t.Context(), news, time.Millisecond) != nil {
				return
			}
		}
	}()
	_ = p.Attend(ctx, id, false)
	<-stop
	p.die()
	cutJournal(r, id, typ)
	os.Remove(r.task(id).Result())
}

func cutJournal(r *rig, id string, typ caisson.EventType) {
	r.t.Helper()
	path := r.task(id).Journal()
	data, err := os.ReadFile(path)
	if err != nil {
		r.t.Fatal(err)
	}
	n := findEvent(r.events(id), typ) + 1
	lines := strings.SplitAfter(string(data), "\n")
	// And the half of a line, as a writer leaves it that is killed.
	if err := os.WriteFile(path, []byte(strings.Join(lines[:n], "")+`{"seq":`), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// Recover removes what nobody owns, and nothing else.
func TestRecoverSweeps(t *testing.T) {
	r := newRig(t)
	p := r.process()
	id := p.submit(sh("hold"))
	wait := p.attendAsync(id, false)
	r.reached(id, caisson.EventStarted, "main")

	orphan := filepath.Join(t.TempDir(), "orphan")
	other := filepath.Join(t.TempDir(), "other")
	for _, dir := range []string{orphan, other} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	spec := engine.Spec{ID: "orphan", Dir: orphan, Log: filepath.Join(orphan, "..", "log"), Run: "true"}
	if _, err := p.engine.Create(t.Context(), &spec); err != nil {
		t.Fatal(err)
	}
	foreign := mem.New(&mem.Options{World: r.world, Installation: "other"})
	spec.ID, spec.Dir = "foreign", other
	if _, err := foreign.Create(t.Context(), &spec); err != nil {
		t.Fatal(err)
	}

	// A task that was never accepted, its secrets, and those of a removed task.
	half := caisson.NewTaskID(time.Now())
	if err := os.Mkdir(p.folder.Task(half).Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{half, caisson.NewTaskID(time.Now())} {
		if err := p.writeSecrets(name, nil); err != nil {
			t.Fatal(err)
		}
	}

	q := r.process()
	if err := q.Recover(t.Context()); err != nil {
		t.Error(err)
	}
	want := fmt.Sprint([]string{caisson.SandboxID(id, 1, "main"), "foreign"})
	if got := fmt.Sprint(r.world.Live()); got != want {
		t.Errorf("after Recover live = %s, want %s", got, want)
	}
	if ids := mustTasks(t, r); len(ids) != 1 {
		t.Errorf("tasks = %q, want the accepted one", ids)
	}
	if ids, _ := q.secretsKept(); len(ids) != 0 {
		t.Errorf("secrets of %q are left", ids)
	}
	if err := q.Stop(t.Context(), id, engine.Stop{Reason: caisson.ReasonKilled}); err != nil {
		t.Error(err)
	}
	wait()
}

// Many at once recover the same tasks: each is finished by one.
func TestRecoverAtOnce(t *testing.T) {
	r := newRig(t)
	r.attend = true
	var ids []string
	for range 10 {
		p := r.process()
		ids = append(ids, p.submit(sh("echo once")))
		p.die()
	}
	var wg sync.WaitGroup
	for range 8 {
		p := r.process()
		wg.Go(func() {
			if err := p.Recover(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	p := r.process()
	for _, id := range ids {
		if got, err := p.Wait(t.Context(), id); err != nil || !got.Success {
			t.Errorf("result = %+v, %v", got, err)
		}
	}
	r.running.Wait()
	for _, id := range ids {
		r.result(id)
		if log := p.log(id, LogOptions{}); log != "1/main: once\n" {
			t.Errorf("log = %q", log)
		}
	}
	r.clean()
}

// What an attendant left of an ended task is finished by Recover itself.
func TestRecoverFinishes(t *testing.T) {
	r := newRig(t)
	p := r.process()
	task := sh("true")
	task.Secrets = map[string]caisson.Secret{"TOKEN": {}}
	id := p.submit(task)
	p.attendAsync(id, false)()
	// As after a crash between result.json and the journal's last line.
	cutJournal(r, id, caisson.EventAttemptEnd)
	if err := os.WriteFile(r.task(id).Lock(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.writeSecrets(id, nil); err != nil {
		t.Fatal(err)
	}
	if err := r.process().Recover(t.Context()); err != nil {
		t.Error(err)
	}
	r.result(id)
	r.clean()
}

func TestWaitSeesToIt(t *testing.T) {
	r := newRig(t)
	r.attend = true
	p := r.process()
	id := p.submit(sh("true"))
	p.die() // nobody attends to it
	if got, err := r.process().Wait(t.Context(), id); err != nil || !got.Success {
		t.Errorf("Wait = %+v, %v", got, err)
	}
	r.running.Wait()
	r.clean()
}

func TestNewerRecord(t *testing.T) {
	r := newRig(t)
	p := r.process()
	id := p.submit(sh("true"))
	p.die()
	if err := os.WriteFile(r.task(id).Document(), []byte(`{"version": 2}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.process().Attend(t.Context(), id, false); !errors.Is(err, caisson.ErrUnsupported) || !strings.Contains(err.Error(), "newer program") {
		t.Errorf("Attend = %v, want ErrUnsupported", err)
	}
}

func TestFind(t *testing.T) {
	r := newRig(t)
	p := r.process()
	a, b := p.submit(sh("true")), p.submit(sh("true"))
	same := 0
	for a[same] == b[same] {
		same++
	}
	for id, want := range map[string]error{a: nil, b[:same+1]: nil, a[:same]: caisson.ErrInvalid, "": caisson.ErrNotFound, "../" + a: caisson.ErrNotFound, "zzzz": caisson.ErrNotFound} {
		if _, err := p.Inspect(t.Context(), id); (want == nil) != (err == nil) || (want != nil && !errors.Is(err, want)) {
			t.Errorf("Inspect(%q) = %v, want %v", id, err, want)
		}
	}
	all, err := p.List(t.Context(), false)
	if err != nil || len(all) != 2 || all[0].ID != a || all[1].ID != b || all[0].State != caisson.StateAccepted {
		t.Errorf("List = %+v, %v", all, err)
	}
	p.attendAsync(a, false)()
	if running, err := p.List(t.Context(), false); err != nil || len(running) != 1 || running[0].ID != b {
		t.Errorf("List without ended = %+v, %v", running, err)
	}
	if all, err := p.List(t.Context(), true); err != nil || len(all) != 2 || all[0].Result == nil || all[0].Task != nil {
		t.Errorf("List with ended = %+v, %v", all, err)
	}
}

// A follower gets every record once, of all attempts and steps, and ends with
// the task.
func TestLogsFollow(t *testing.T) {
	r := newRig(t)
	r.attend = true
	p := r.process()
	task := sh("echo main; sleep 10ms; exit 1")
	task.Pre = step1("echo pre")
	task.Sidecars = step1("echo sidecar; hold")
	task.Retry.Limit = 1
	id, err := p.Submit(t.Context(), task, &Submission{Detached: true})
	if err != nil {
		t.Fatal(err)
	}
	log := p.log(id, LogOptions{Follow: true})
	for _, want := range []string{"1/pre-0: pre\n", "1/sidecar-0: sidecar\n", "1/main: main\n", "2/pre-0: pre\n", "2/sidecar-0: sidecar\n", "2/main: main\n"} {
		if strings.Count(log, want) != 1 {
			t.Errorf("log = %q, want %q once", log, want)
		}
	}
	if log := p.log(id, LogOptions{Follow: true, Attempt: 1, Step: "main"}); log != "1/main: main\n" {
		t.Errorf("log of one attempt = %q", log)
	}
	r.running.Wait()
	r.clean()
}

func TestLogsChoose(t *testing.T) {
	r := newRig(t)
	p := r.process()
	task := sh("echo one; echo two; cat /nothing; echo -n three")
	task.Pre = step1("echo zero")
	task.Pre[0].Name = "prepare"
	id := p.submit(task)
	p.attendAsync(id, false)()
	for _, c := range []struct {
		opts LogOptions
		want string
	}{
		{LogOptions{Tail: 1, Stream: tasklog.Stdout}, "1/main: three"},
		{LogOptions{Tail: 2, Stream: tasklog.Stdout}, "1/main: two\n1/main: three"},
		{LogOptions{Tail: 2, Stream: tasklog.Stdout, Follow: true}, "1/main: two\n1/main: three"},
		{LogOptions{Tail: 99, Stream: tasklog.Stdout}, "1/prepare: zero\n1/main: one\n1/main: two\n1/main: three"},
		{LogOptions{Step: "prepare"}, "1/prepare: zero\n"},
		{LogOptions{Since: time.Now().Add(time.Hour)}, ""},
	} {
		if got := p.log(id, c.opts); got != c.want {
			t.Errorf("Logs(%+v) = %q, want %q", c.opts, got, c.want)
		}
	}
	if got := p.log(id, LogOptions{Stream: tasklog.Stderr}); !strings.Contains(got, "nothing") {
		t.Errorf("stderr = %q", got)
	}
	for _, opts := range []LogOptions{{Step: "post-0"}, {Attempt: 2}} {
		if err := p.Logs(t.Context(), id, opts, nil); !errors.Is(err, caisson.ErrNotFound) {
			t.Errorf("Logs(%+v) = %v, want ErrNotFound", opts, err)
		}
	}
}

func TestLastLines(t *testing.T) {
	for _, c := range []struct {
		data []string
		max  int
		want string
	}{
		{[]string{"a\nb\n", "c\n"}, 1, "c\n"},
		{[]string{"a\nb\n", "c\n"}, 2, "b\nc\n"},
		{[]string{"a\nb", "c\nd"}, 2, "bc\nd"},
		{[]string{"a\n", "\n", "\n"}, 2, "\n\n"},
		{[]string{"abc"}, 5, "abc"},
		{nil, 5, ""},
	} {
		l := &lastLines{max: c.max}
		for _, d := range c.data {
			l.add(LogRecord{Record: tasklog.Record{Data: []byte(d)}})
		}
		got := ""
		for _, rec := range l.records() {
			got += string(rec.Data)
		}
		if got != c.want {
			t.Errorf("last %d lines of %q = %q, want %q", c.max, c.data, got, c.want)
		}
	}
}

func TestEvents(t *testing.T) {
	r := newRig(t)
	p := r.process()
	ctx, cancel := context.WithCancel(t.Context())
	var all []caisson.Event
	done := make(chan error, 1)
	ended := 0
	go func() {
		done <- p.Events(ctx, "", true, func(ev caisson.Event) error {
			all = append(all, ev)
			if ev.Type == caisson.EventEnded {
				if ended++; ended == 2 {
					cancel()
				}
			}
			return nil
		})
	}()
	a := p.submit(sh("true"))
	b := r.process().submit(sh("true"))
	for _, id := range []string{a, b} {
		r.process().rig.t.Helper()
		if err := p.Attend(t.Context(), id, false); err != nil && !errors.Is(err, caisson.ErrExists) {
			t.Fatal(err)
		}
	}
	for _, q := range r.open {
		_ = q.Attend(t.Context(), b, false)
	}
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Events = %v", err)
	}
	if len(all) != len(r.events(a))+len(r.events(b)) {
		t.Errorf("%d events of all, want %d and %d", len(all), len(r.events(a)), len(r.events(b)))
	}
	n := 0
	if err := p.Events(t.Context(), a, true, func(caisson.Event) error { n++; return nil }); err != nil || n != len(r.events(a)) {
		t.Errorf("Events of one = %v, %d", err, n)
	}
}

// The state folder of a newer program is left alone.
func TestNewErrNewer(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "version.json"), []byte(`{"version": 99, "instance": "x"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := New(&Options{State: dir})
	if !errors.Is(err, caisson.ErrUnsupported) || !strings.Contains(err.Error(), "newer program") {
		t.Errorf("New = %v, want ErrUnsupported", err)
	}
	if _, err := state.Open("relative"); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("Open of a relative path = %v, want ErrInvalid", err)
	}
}
