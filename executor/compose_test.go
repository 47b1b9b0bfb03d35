//go:build unix

package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// A recipe is what the test composite is told by ComponentRun.Config: scripts of
// its children, in order.
type recipe struct {
	Scripts []string
	Mounts  []caisson.Mount
	// Fail has Run return an error of that kind in the end.
	Fail caisson.Kind
	// Code is what it exits with.
	Code int
}

// cook is a composite for tests: it prints, runs one child for each script, and
// fails with the first that fails.
type cook struct {
	accepted func(*recipe) error
	during   func(ctx context.Context, j *Job) error // called first; nil: nothing

	mu   sync.Mutex
	runs int
}

func (c *cook) Accept(_ context.Context, task *caisson.Task, _ *Submission) (*Plan, error) {
	r := new(recipe)
	if err := json.Unmarshal([]byte(task.Component.Config), r); err != nil {
		return nil, invalid("component", err)
	}
	if c.accepted != nil {
		if err := c.accepted(r); err != nil {
			return nil, err
		}
	}
	data, err := json.Marshal(r)
	return &Plan{Data: data, Secrets: map[string][]byte{"a": []byte("s3cr3t-value"), "number": []byte("4711"), "short": []byte("x"), "empty": nil}}, err
}

func (c *cook) Run(ctx context.Context, j *Job) (*Outcome, error) {
	c.mu.Lock()
	c.runs++
	c.mu.Unlock()
	r := new(recipe)
	if err := json.Unmarshal(j.Data, r); err != nil {
		return nil, err
	}
	if c.during != nil {
		if err := c.during(ctx, j); err != nil {
			return nil, err
		}
	}
	if err := j.Print("begin", tasklog.Stdout, "begin, with "+string(j.Secrets["a"])+"\n"); err != nil {
		return nil, err
	}
	for i, script := range r.Scripts {
		code, err := c.step(ctx, j, r, i, script)
		if err != nil || code != 0 {
			return &Outcome{Exit: caisson.Exit{Code: code}}, err
		}
	}
	if r.Fail != 0 {
		return nil, &caisson.Error{Item: "cook", Kind: r.Fail, Err: errors.New("burnt, with " + string(j.Secrets["a"]))}
	}
	return &Outcome{
		Exit: caisson.Exit{Code: r.Code}, Output: "done with " + string(j.Secrets["a"]), Document: document(j),
		Outputs: []caisson.OutputFile{{Path: "t", To: "storage:t"}},
	}, nil
}

// document has the secret in it, also where it must stay a number.
func document(j *Job) json.RawMessage {
	return json.RawMessage(`{"tables":["t"],"note":"with ` + string(j.Secrets["a"]) + `","n":4711}`)
}

func (c *cook) step(ctx context.Context, j *Job, r *recipe, i int, script string) (int, error) {
	key := fmt.Sprintf("row-1/%d", i)
	if err := os.MkdirAll(filepath.Join(j.Dir, "data"), 0o700); err != nil {
		return 0, err
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(filepath.Join(j.Dir, "data"), j.Owner.UID, j.Owner.GID); err != nil {
			return 0, err
		}
	}
	task := sh(script)
	task.Mounts = r.Mounts
	id, err := j.Submit(ctx, key, &Child{Task: task, Redact: [][]byte{[]byte("s3cr3t-value"), []byte("y")}})
	if err != nil {
		return 0, err
	}
	result, err := j.Wait(ctx, id)
	if err != nil {
		return 0, err
	}
	err = j.Print(key, tasklog.Stderr, fmt.Sprintf("%s ended with %d\n", key, result.Status))
	return result.Status, errors.Join(err, j.Progress(float64(i+1)/float64(len(r.Scripts))))
}

// composed is a task that is made of one child for each script.
func composed(scripts ...string) *caisson.Task { return composedOf(&recipe{Scripts: scripts}) }

func composedOf(r *recipe) *caisson.Task {
	data, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	return &caisson.Task{
		Name: "cooked", Component: &caisson.ComponentRun{Config: string(data)}, Grace: caisson.Duration(20 * time.Millisecond),
	}
}

func newKitchen(t *testing.T) (*rig, *cook) {
	r, c := newRig(t), new(cook)
	r.composite = c
	return r, c
}

// children lists the children of a task, by its journal.
func (r *rig) children(id string) []string {
	r.t.Helper()
	var ids []string
	for _, ev := range r.events(id) {
		if ev.Type == caisson.EventChild {
			ids = append(ids, ev.Child)
		}
	}
	return ids
}

// cooked is the document as it is kept.
const cooked = `{"n":4711,"note":"with [redacted]","tables":["t"]}`

func TestComposite(t *testing.T) {
	r, c := newKitchen(t)
	p := r.process()
	id := p.submit(composed("echo one s3cr3t-value; echo two", "echo three"))
	if err := p.Attend(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	got := r.result(id)
	if !got.Success || got.Status != 0 || got.Exit.Reason != caisson.ReasonExited || got.Step != "main" || got.Attempt != 1 {
		t.Errorf("result = %+v, want success", got)
	}
	if got.Output != "done with [redacted]" || string(got.Component) != cooked || len(got.Outputs) != 1 {
		t.Errorf("result = %+v", got)
	}
	if got.Usage.Wall <= 0 || got.Exit.StartedAt.IsZero() || got.Exit.EndedAt.Before(got.Exit.StartedAt) {
		t.Errorf("usage %+v, exit %+v", got.Usage, got.Exit)
	}
	words := "accepted attempt staged created:main started:main message:begin child:row-1/0 message:row-1/0 progress:main" +
		" child:row-1/1 message:row-1/1 progress:main exited:main attempt-end ended"
	if diff := cmp.Diff(words, r.words(id)); diff != "" {
		t.Errorf("journal (-want +got):\n%s", diff)
	}
	want := "1/main: begin, with [redacted]\n1/row-1/0: one [redacted]\n1/row-1/0: two\n1/main: row-1/0 ended with 0\n" +
		"1/row-1/1: three\n1/main: row-1/1 ended with 0\n"
	for what, opts := range map[string]LogOptions{
		"all": {}, "followed": {Follow: true}, "more lines than there are": {Tail: 99}, "followed after lines": {Tail: 99, Follow: true},
		"attempt": {Attempt: 1},
	} {
		if diff := cmp.Diff(want, p.log(id, opts)); diff != "" {
			t.Errorf("log, %s (-want +got):\n%s", what, diff)
		}
	}
	for want, opts := range map[string]LogOptions{
		"1/row-1/1: three\n1/main: row-1/1 ended with 0\n": {Tail: 2},
		"1/row-1/1: three\n": {Step: "row-1/1"},
		"1/main: begin, with [redacted]\n1/main: row-1/0 ended with 0\n1/main: row-1/1 ended with 0\n":  {Step: "main"},
		"1/main: row-1/0 ended with 0\n1/main: row-1/1 ended with 0\n":                                  {Stream: tasklog.Stderr},
		"1/main: begin, with [redacted]\n1/row-1/0: one [redacted]\n1/row-1/0: two\n1/row-1/1: three\n": {Stream: tasklog.Stdout},
	} {
		if diff := cmp.Diff(want, p.log(id, opts)); diff != "" {
			t.Errorf("log, %+v (-want +got):\n%s", opts, diff)
		}
	}
	if err := p.Logs(t.Context(), id, LogOptions{Step: "row-2"}, nil); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("Logs of no part = %v, want not found", err)
	}
	if c.runs != 1 {
		t.Errorf("Run was called %d times", c.runs)
	}
	r.cleanComposite()
}

// cleanComposite is clean with what composite tasks have besides.
func (r *rig) cleanComposite() {
	r.t.Helper()
	r.clean()
	if left, _ := filepath.Glob(filepath.Join(r.state, "run", "*", "private", "*")); len(left) > 0 {
		r.t.Errorf("private folders are left: %q", left)
	}
}

func TestCompositeIsListed(t *testing.T) {
	r, _ := newKitchen(t)
	p := r.process()
	id := p.submit(composed("hold"))
	attending := p.attendAsync(id, false)
	r.eventually("the child runs", func() bool {
		kids := r.children(id)
		return len(kids) == 1 && findEventOf(r, kids[0], caisson.EventStarted)
	})
	child := r.children(id)[0]
	list, err := p.List(t.Context(), false)
	if err != nil || len(list) != 1 || list[0].ID != id {
		t.Errorf("List = %+v, %v, want the parent alone", list, err)
	}
	list, err = p.List(t.Context(), true)
	if err != nil || len(list) != 2 || list[1].Parent != id || list[1].Part != "row-1/0" {
		t.Errorf("List of all = %+v, %v, want the child with its parent", list, err)
	}
	info, err := p.Inspect(t.Context(), id)
	if err != nil || info.State != caisson.StateRunning || info.Step != "main" {
		t.Errorf("Inspect = %+v, %v", info, err)
	}
	if diff := cmp.Diff([]Part{{Key: "row-1/0", ID: child, State: caisson.StateRunning}}, info.Parts); diff != "" {
		t.Errorf("parts (-want +got):\n%s", diff)
	}
	session, err := p.Exec(t.Context(), id, &engine.ExecSpec{Args: []string{"true"}})
	if err != nil {
		t.Fatalf("Exec: %v", err)
	}
	if exit, err := session.Wait(t.Context()); err != nil || exit.Code != 0 {
		t.Errorf("exec ended with %+v, %v", exit, err)
	}
	if _, err := p.Stats(t.Context(), id); err != nil {
		t.Errorf("Stats: %v", err)
	}
	if err := p.CopyOut(t.Context(), id, ".", new(strings.Builder)); err != nil {
		t.Errorf("CopyOut: %v", err)
	}
	if err := p.Remove(t.Context(), child, true); !errors.Is(err, caisson.ErrDenied) {
		t.Errorf("Remove of the child = %v, want denied", err)
	}
	if err := p.Signal(t.Context(), id, 9); err != nil {
		t.Errorf("Signal: %v", err)
	}
	if got := attending(); got.Status != 137 {
		t.Errorf("result = %+v, want the child's status", got)
	}
	if _, err := p.Stats(t.Context(), id); !errors.Is(err, caisson.ErrEnded) {
		t.Errorf("Stats of an ended task = %v", err)
	}
	if err := p.CopyOut(t.Context(), id, ".", new(strings.Builder)); !errors.Is(err, caisson.ErrEnded) {
		t.Errorf("CopyOut of an ended task = %v", err)
	}
	r.cleanComposite()
	if err := p.Remove(t.Context(), id, false); err != nil {
		t.Errorf("Remove: %v", err)
	}
	if left, err := p.List(t.Context(), true); err != nil || len(left) > 0 {
		t.Errorf("left: %+v, %v", left, err)
	}
}

func findEventOf(r *rig, id string, typ caisson.EventType) bool {
	r.t.Helper()
	if _, err := os.Stat(r.task(id).Journal()); err != nil {
		return false
	}
	return slices.ContainsFunc(r.events(id), func(ev caisson.Event) bool { return ev.Type == typ })
}

// Whoever asks for the end of a task that is made of others reaches the one that
// runs.
func TestCompositeIsStopped(t *testing.T) {
	for _, reason := range []caisson.Reason{caisson.ReasonStopped, caisson.ReasonKilled, caisson.ReasonAborted, caisson.ReasonCancelled} {
		for _, attended := range []bool{true, false} {
			t.Run(fmt.Sprint(reason, " ", attended), func(t *testing.T) {
				r, _ := newKitchen(t)
				r.attend = !attended
				p := r.process()
				task := composed("hold", "echo never")
				task.Retry.Limit = 1
				id := p.submit(task)
				ctx, kill := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- p.Attend(ctx, id, false) }()
				r.eventually("the child runs", func() bool {
					kids := r.children(id)
					return len(kids) == 1 && findEventOf(r, kids[0], caisson.EventStarted)
				})
				q := p
				if !attended {
					kill()
					<-done
					p.die()
					q = r.process()
				}
				stop := engine.Stop{Reason: reason}
				if reason == caisson.ReasonStopped {
					stop.Grace = caisson.Duration(10 * time.Millisecond)
				}
				if err := q.Stop(t.Context(), id, stop); err != nil {
					t.Fatal(err)
				}
				got, err := q.Wait(t.Context(), id)
				if err != nil || got.Success || got.Exit.Reason != reason || got.Attempt != 1 {
					t.Errorf("result = %+v, %v, want %s", got, err, reason)
				}
				kill()
				r.running.Wait()
				if attended {
					<-done
				}
				kids := r.children(id)
				if len(kids) != 1 {
					t.Fatalf("children %q, want one", kids)
				}
				if got := r.result(kids[0]); got.Exit.Reason != reason {
					t.Errorf("child's result = %+v, want %s", got, reason)
				}
				r.settle(q)
				r.cleanComposite()
			})
		}
	}
}

// settle has a process do what is left to be done.
func (r *rig) settle(p *process) {
	r.t.Helper()
	if err := p.Recover(r.t.Context()); err != nil {
		r.t.Error(err)
	}
	r.running.Wait()
}

func TestCompositeTimeout(t *testing.T) {
	r, _ := newKitchen(t)
	p := r.process()
	task := composed("true", "hold")
	task.Timeout = caisson.Duration(300 * time.Millisecond)
	id := p.submit(task)
	if err := p.Attend(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	if got := r.result(id); got.Status != 124 || got.Exit.Reason != caisson.ReasonTimeout {
		t.Errorf("result = %+v, want timeout", got)
	}
	kids := r.children(id)
	if got := r.result(kids[len(kids)-1]); got.Exit.Reason != caisson.ReasonTimeout {
		t.Errorf("child's result = %+v, want timeout", got)
	}
	r.cleanComposite()
}

// An attempt ends as its composite says, and is repeated by policy.
func TestCompositeEnds(t *testing.T) {
	for _, test := range []struct {
		name     string
		recipe   recipe
		attempts int
		status   int
		kind     caisson.Kind
	}{
		{"Code", recipe{Scripts: []string{"true"}, Code: 1}, 2, 1, 0},
		{"Child", recipe{Scripts: []string{"exit 3", "true"}}, 2, 3, 0},
		{"ErrInvalid", recipe{Fail: caisson.ErrInvalid}, 1, 125, caisson.ErrInvalid},
		{"ErrUnavailable", recipe{Scripts: []string{"true"}, Fail: caisson.ErrUnavailable}, 2, 125, caisson.ErrUnavailable},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, c := newKitchen(t)
			p := r.process()
			task := composedOf(&test.recipe)
			task.Retry.Limit = 1
			got := p.run(task)
			if got.Status != test.status || got.Attempt != test.attempts || c.runs != test.attempts {
				t.Errorf("result = %+v after %d runs, want status %d of attempt %d", got, c.runs, test.status, test.attempts)
			}
			if (got.Error == nil) != (test.kind == 0) || (got.Error != nil && got.Error.Kind != test.kind) {
				t.Errorf("error = %+v, want %v", got.Error, test.kind)
			}
			if got.Error != nil && strings.Contains(got.Error.Message, "s3cr3t") {
				t.Errorf("the secret stands in %q", got.Error.Message)
			}
			r.cleanComposite()
		})
	}
}

func TestCompositePanics(t *testing.T) {
	r, c := newKitchen(t)
	c.during = func(context.Context, *Job) error { panic("on fire") }
	if got := r.process().run(composed("true")); got.Error == nil || got.Error.Kind != caisson.ErrInternal {
		t.Errorf("result = %+v, want internal", got)
	}
	r.cleanComposite()
}

// What a component's definition says can't be said beside it, and where nobody
// runs components they are refused.
func TestCompositeErr(t *testing.T) {
	r, c := newKitchen(t)
	p := r.process()
	for name, change := range map[string]func(*caisson.Task){
		"run":     func(task *caisson.Task) { task.Run = "true" },
		"mounts":  func(task *caisson.Task) { task.Mounts = []caisson.Mount{{Type: "tmpfs", Target: "/x"}} },
		"network": func(task *caisson.Task) { task.Network.Mode = "default" },
		"limits":  func(task *caisson.Task) { task.Limits.Memory = 1 << 20 },
		"keep":    func(task *caisson.Task) { task.Keep = 1 },
		"secrets": func(task *caisson.Task) { task.Secrets = map[string]caisson.Secret{"A": {}} },
	} {
		task := composed("true")
		change(task)
		if _, err := p.Submit(t.Context(), task, &Submission{}); !errors.Is(err, caisson.ErrInvalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("Submit with %s = %v, want invalid", name, err)
		}
	}
	c.accepted = func(*recipe) error { return invalid("recipe", errors.New("too salty")) }
	if _, err := p.Submit(t.Context(), composed("true"), &Submission{}); err == nil || !strings.Contains(err.Error(), "too salty") {
		t.Errorf("Submit = %v, want the composite's error", err)
	}
	r.composite = nil
	if _, err := r.process().Submit(t.Context(), composed("true"), &Submission{}); !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("Submit without a composite = %v, want unsupported", err)
	}
	lent := sh("true")
	lent.Mounts = []caisson.Mount{{Type: "component", Source: "data", Target: "/data"}}
	if _, err := p.Submit(t.Context(), lent, &Submission{Trusted: true}); !errors.Is(err, caisson.ErrDenied) {
		t.Errorf("Submit of a mount of nobody's = %v, want denied", err)
	}
	r.cleanComposite()
}

// What Run asks for is checked.
func TestJobErr(t *testing.T) {
	r, c := newKitchen(t)
	var errs []error
	c.during = func(ctx context.Context, j *Job) error {
		for _, key := range []string{"", "main", "a//b", "../x", "a b", "/a", strings.Repeat("a", 256)} {
			_, err := j.Submit(ctx, key, &Child{Task: sh("true")})
			errs = append(errs, err)
		}
		_, err := j.Submit(ctx, "x", &Child{Task: composed("true")})
		lent := sh("true")
		lent.Mounts = []caisson.Mount{{Type: "component", Source: "../../../task.json", Target: "/data"}}
		_, err2 := j.Submit(ctx, "y", &Child{Task: lent})
		errs = append(errs, err, err2, j.Progress(2), j.Print("a b", tasklog.Stdout, ""))
		if _, err := j.Wait(ctx, j.ID); !errors.Is(err, caisson.ErrNotFound) {
			t.Errorf("Wait for oneself = %v, want not found", err)
		}
		return nil
	}
	p := r.process()
	if got := p.run(composed()); !got.Success {
		t.Errorf("result = %+v, want success", got)
	}
	for i, err := range errs {
		if !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("error %d = %v, want invalid", i, err)
		}
	}
	if kids, err := p.List(t.Context(), true); err != nil || len(kids) != 1 {
		t.Errorf("List = %+v, %v, want no children", kids, err)
	}
	r.cleanComposite()
}

// One child is made for a key, however many ask for it at once.
func TestJobSubmitsOnce(t *testing.T) {
	r, c := newKitchen(t)
	ids := make([]string, 8)
	c.during = func(ctx context.Context, j *Job) error {
		var wg sync.WaitGroup
		errs := make([]error, len(ids))
		for i := range ids {
			wg.Go(func() {
				ids[i], errs[i] = j.Submit(ctx, "same", &Child{Task: sh("echo x")})
				errs[i] = errors.Join(errs[i], j.Print(fmt.Sprint("at-", i), tasklog.Stdout, "x\n"))
				if errs[i] == nil {
					_, errs[i] = j.Wait(ctx, ids[i])
				}
			})
		}
		wg.Wait()
		return errors.Join(errs...)
	}
	if got := r.process().run(composed()); !got.Success {
		t.Errorf("result = %+v, want success", got)
	}
	slices.Sort(ids)
	if len(slices.Compact(ids)) != 1 {
		t.Errorf("ids %q, want one", ids)
	}
	r.cleanComposite()
}

// A child that Run leaves alone does not outlive the attempt.
func TestCompositeLeavesNobody(t *testing.T) {
	r, c := newKitchen(t)
	c.during = func(ctx context.Context, j *Job) error {
		_, err := j.Submit(ctx, "left", &Child{Task: sh("hold")})
		return err
	}
	p := r.process()
	id := p.submit(composed())
	if err := p.Attend(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	if got := r.result(id); !got.Success {
		t.Errorf("result = %+v, want success", got)
	}
	if got := r.result(r.children(id)[0]); got.Exit.Reason != caisson.ReasonAborted {
		t.Errorf("child's result = %+v, want aborted", got)
	}
	r.cleanComposite()
}

// After a reboot the attempt is lost, with its children, and another one begins.
func TestCompositeReboot(t *testing.T) {
	r, c := newKitchen(t)
	p := r.process()
	task := composed("true", "hold")
	id := p.submit(task)
	ctx, kill := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Attend(ctx, id, false) }()
	r.eventually("the second child runs", func() bool {
		kids := r.children(id)
		return len(kids) == 2 && findEventOf(r, kids[1], caisson.EventStarted)
	})
	kill()
	<-done
	p.die()
	r.boot = "boot-2"
	q := r.process()
	r.world.End(caisson.SandboxID(r.children(id)[1], 1, "main"), caisson.Exit{Reason: caisson.ReasonLost})
	if got := q.attendAsync(id, false)(); got.Exit.Reason != caisson.ReasonLost || got.Status != 125 || c.runs != 1 {
		t.Errorf("result = %+v after %d runs, want lost", got, c.runs)
	}
	r.settle(q)
	if got := r.result(r.children(id)[1]); got.Exit.Reason != caisson.ReasonLost && got.Exit.Reason != caisson.ReasonAborted {
		t.Errorf("child's result = %+v, want lost", got)
	}
	r.cleanComposite()
}

// What an attempt has done stays done, whoever reboots or aborts afterwards.
func TestCompositeEndStays(t *testing.T) {
	r, _ := newKitchen(t)
	p := r.process()
	id := p.submit(composed("true"))
	crashAfter(r, p, id, caisson.EventExited)
	r.boot = "boot-2"
	q := r.process()
	if err := q.Stop(t.Context(), id, engine.Stop{Reason: caisson.ReasonAborted}); err != nil {
		t.Fatal(err)
	}
	if got := q.attendAsync(id, false)(); !got.Success {
		t.Errorf("result = %+v, want success", got)
	}
	r.settle(q)
	r.cleanComposite()
}

// crashAtEach lets an attendant die after every event of a task, the parent's
// or a child's, and another one go on.
func TestCompositeSurvivesEveryEvent(t *testing.T) {
	for n := 1; ; n++ {
		r, _ := newKitchen(t)
		r.attend = true
		p := r.process()
		id := p.submit(composed("echo one", "echo two"))
		ctx, kill := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Attend(ctx, id, false) }()
		seen := func() int { return len(r.events(id)) }
		r.eventually("events", func() bool { return seen() >= n || len(done) > 0 })
		last := seen() < n
		kill()
		<-done
		p.die()
		q := r.process()
		if err := q.Recover(t.Context()); err != nil {
			t.Error(err)
		}
		got, err := q.Wait(t.Context(), id)
		if err != nil || !got.Success {
			t.Fatalf("after %d events: %+v, %v", n, got, err)
		}
		r.running.Wait()
		r.settle(q)
		want := "1/main: begin, with [redacted]\n1/row-1/0: one\n1/main: row-1/0 ended with 0\n1/row-1/1: two\n1/main: row-1/1 ended with 0\n"
		if diff := cmp.Diff(want, q.log(id, LogOptions{})); diff != "" {
			t.Errorf("log after %d events (-want +got):\n%s", n, diff)
		}
		if kids := r.children(id); len(kids) != 2 {
			t.Errorf("children %q, want two", kids)
		}
		r.cleanComposite()
		if last || t.Failed() {
			return
		}
	}
}
