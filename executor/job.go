//go:build unix

package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/crash"
	"github.com/caissonrun/caisson/internal/lockfile"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/internal/state"
	"github.com/caissonrun/caisson/keeper/redact"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// A Job is one attempt of a composite task, as Composite.Run sees it. Its
// methods may be called from any goroutine until Run returns.
type Job struct {
	ID      string
	Attempt int // counted from 1
	Task    *caisson.Task
	BaseDir string // that relative paths start from
	Trusted bool
	// Owner is who files belong to on disk that children are to read and write.
	Owner engine.Owner
	// UID and GID are the submitter's: what is stored in folders of the host
	// becomes theirs.
	UID, GID int
	// Dir is a folder that lasts until the attempt ends, mode 0700. It does not
	// outlive a reboot of the host: the attempt doesn't either.
	Dir string
	// Private is a folder of the runtime folder, for what must not be on disk.
	// It is there as long as Dir.
	Private string
	Data    json.RawMessage   // the Plan's
	Secrets map[string][]byte // the Plan's

	x      *Executor
	a      *attendant
	alive  context.Context // ends when this process is to leave the task as it is
	ctx    context.Context // Run's
	cancel context.CancelFunc
	hidden *redact.Set

	// mu is held while anything of the attendant is used: its journal and its
	// history are one goroutine's otherwise.
	mu      sync.Mutex
	log     *tasklog.Writer
	size    int64 // of the log's file
	said    map[string]bool
	making  map[string]chan struct{} // children that are being submitted
	stopped *engine.Stop
	over    bool // Run has returned
}

// newJob opens the log and makes what Run is to have.
func (a *attendant) newJob(ctx context.Context) (*Job, error) {
	hidden, err := redact.Compile(redactable(a.secrets))
	if err != nil {
		return nil, err
	}
	log, err := a.openLog()
	if err != nil {
		return nil, err
	}
	r := a.record
	j := &Job{
		ID: a.task.ID, Attempt: a.h.attempt, Task: r.Task, BaseDir: r.BaseDir, Trusted: r.Trusted,
		Owner: r.Owner, UID: r.UID, GID: r.GID, Dir: a.attempt().Job(), Private: a.private(),
		Data: r.Data, Secrets: a.secrets,
		x: a.x, a: a, alive: ctx, hidden: hidden, log: log,
		said: make(map[string]bool), making: make(map[string]chan struct{}),
	}
	if err := j.measureLog(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	j.ctx, j.cancel = context.WithCancel(ctx)
	return j, nil
}

func (j *Job) close() {
	j.cancel()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.over = true
	for _, p := range j.a.h.children {
		j.x.setReady(p.id, nil)
	}
	if err := errors.Join(j.log.Sync(), j.log.Close()); err != nil {
		j.a.log.Warn("log", "err", err)
	}
}

// measureLog finds out where the log ends.
func (j *Job) measureLog() error {
	path := j.a.attempt().Log(string(kindMain))
	info, err := os.Stat(path)
	if err != nil {
		return undecided{safefs.Sorted(caisson.OpState, path, err)}
	}
	j.size = info.Size()
	return nil
}

// Stopped returns what was asked for, or a Stop of ReasonTimeout once the time
// is up; nil while the task may go on.
func (j *Job) Stopped() *engine.Stop {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.stopped
}

// look reads what was asked for and ends Run's context once something was.
func (j *Job) look() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.a.look(); err != nil {
		return err
	}
	if j.stopped = j.decide(); j.stopped != nil {
		j.cancel()
	}
	return nil
}

// decide returns why the task is to end: of a request and the end of its time
// the first, unless a request aborts.
func (j *Job) decide() *engine.Stop {
	asked := j.a.asked
	if j.left() <= 0 {
		deadline := j.a.h.startedMain.Add(j.Task.Timeout.Std())
		if len(asked) == 0 || (asked[0].At.After(deadline) && !decisive(asked).aborts()) {
			return &engine.Stop{Reason: caisson.ReasonTimeout, Grace: graceOf(j.Task)}
		}
	}
	if len(asked) == 0 {
		return nil
	}
	stop := decisive(asked).Stop
	return &stop
}

// left returns how much of the task's time is left. The clock on the wall has to
// do, because the time goes on while nobody attends to the task; one that was
// set back does not make it more than there was.
func (j *Job) left() time.Duration {
	limit := j.Task.Timeout.Std()
	if limit == 0 {
		return math.MaxInt64
	}
	return min(limit, time.Until(j.a.h.startedMain.Add(limit)))
}

// passOn has children end as the task was asked to. Each of them is asked once
// for each request.
func (j *Job) passOn(ctx context.Context) {
	j.mu.Lock()
	if j.stopped == nil {
		j.mu.Unlock()
		return
	}
	stops := make([]request, 0, len(j.a.asked)+1)
	stops = append(stops, j.a.asked...)
	if j.stopped.Reason == caisson.ReasonTimeout {
		stops = append(stops, request{At: j.a.h.startedMain, Stop: *j.stopped})
	}
	parts := append([]part{}, j.a.h.children...)
	j.mu.Unlock()
	for _, p := range parts {
		j.x.stopPart(ctx, j.x.folder.Task(p.id), stops)
	}
}

// stopPart asks a child for its end, as far as it was not asked to already.
func (x *Executor) stopPart(ctx context.Context, t state.Task, stops []request) {
	if ended, err := state.Exists(t.Result()); ended || err != nil {
		return
	}
	if accepted, err := state.Exists(t.Document()); !accepted || err != nil {
		return
	}
	known, err := readRequests(t, nil)
	if err != nil {
		x.log.Warn("stop", "task", t.ID, "err", err)
		return
	}
	for _, r := range stops {
		if isPassedOn(known, &r) {
			continue
		}
		if err := x.stop(ctx, t.ID, r.Stop); err != nil && !errors.Is(err, caisson.ErrEnded) {
			x.log.Warn("stop", "task", t.ID, "err", err)
		}
	}
}

func isPassedOn(known []request, r *request) bool {
	for i := range known {
		if known[i].Stop == r.Stop && !known[i].At.Before(r.At) {
			return true
		}
	}
	return false
}

// keyPattern is what keys of children and messages look like.
var keyPattern = regexp.MustCompile(`^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$`)

func checkKey(key string) error {
	local := filepath.IsLocal(key) && filepath.Clean(key) == key && key != "."
	if len(key) > 255 || !keyPattern.MatchString(key) || !local || key == string(kindMain) {
		return invalid("key", fmt.Errorf("%q: use up to 255 letters, digits, ., _, - and /, and not main", key))
	}
	return nil
}

// Submit makes the child of that key, once in this attempt however often it is
// called: later, and after a crash, it returns the id of the first. A key is a
// path of letters, digits, ".", "_" and "-", such as "row-1/main"; it stands in
// logs.
//
// Errors: those of Executor.Submit; ErrAborted once the task was asked to end.
func (j *Job) Submit(ctx context.Context, key string, c *Child) (id string, err error) {
	if err := checkKey(key); err != nil {
		return "", err
	}
	if err := j.claim(ctx, key); err != nil {
		return "", err
	}
	defer j.unclaim(key)
	id, known, err := j.childID(key)
	if err != nil {
		return "", err
	}
	j.x.setReady(id, c.Ready)
	defer func(id string) {
		if err != nil {
			j.x.setReady(id, nil)
		}
	}(id)
	if known {
		if accepted, err := state.Exists(j.x.folder.Task(id).Document()); accepted || err != nil {
			return id, err
		}
	}
	r, sub, err := j.child(ctx, id, key, c)
	if err != nil {
		return "", err
	}
	if !known {
		if err := j.announce(key, id); err != nil {
			return "", err
		}
	} else if err := j.refuse(); err != nil {
		return "", err
	}
	lock, err := j.x.accept(ctx, r, sub, nil)
	if err != nil {
		return "", err
	}
	j.x.log.Info("accepted", "task", r.ID, "engine", r.Engine, "parent", j.ID)
	return r.ID, j.x.hold(r.ID, lock)
}

// claim keeps a key to one caller of Submit at a time.
func (j *Job) claim(ctx context.Context, key string) error {
	for {
		j.mu.Lock()
		busy := j.making[key]
		if busy == nil {
			j.making[key] = make(chan struct{})
			j.mu.Unlock()
			return nil
		}
		j.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (j *Job) unclaim(key string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	close(j.making[key])
	delete(j.making, key)
}

// childID returns the id of the child of that key: the one that is known, or a
// new one.
func (j *Job) childID(key string) (id string, known bool, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, p := range j.a.h.children {
		if p.key == key {
			return p.id, true, nil
		}
	}
	if err := j.refused(); err != nil {
		return "", false, err
	}
	return caisson.NewTaskID(j.x.now()), false, nil
}

// refuse returns an error once the task was asked to end.
func (j *Job) refuse() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.refused()
}

func (j *Job) refused() error {
	if j.over {
		return errRunOver
	}
	if j.stopped == nil {
		return nil
	}
	return &caisson.Error{Item: "task " + j.ID, Kind: caisson.ErrAborted, Err: errors.New("it was asked to end")}
}

// errRunOver is what a goroutine is told that Run has left behind.
var errRunOver = &caisson.Error{Kind: caisson.ErrInternal, Err: errors.New("bug: the run has returned already")}

// child makes the record of a child, and checks it.
func (j *Job) child(ctx context.Context, id, key string, c *Child) (*record, *Submission, error) {
	if c.Task.Component != nil {
		return nil, nil, invalid("component", errors.New("a part of a component's run can't be another one"))
	}
	values := maps.Clone(c.Secrets)
	if values == nil {
		values = make(map[string][]byte)
	}
	for i, v := range redactable(numbered(c.Redact)) {
		values[redactPrefix+strconv.Itoa(i)] = v
	}
	r := &record{
		Version: recordVersion, ID: id, Task: c.Task, BaseDir: j.BaseDir, Trusted: j.Trusted,
		UID: j.UID, GID: j.GID, Owner: j.Owner, Secrets: len(values) > 0,
		Parent: &parentage{ID: j.ID, Attempt: j.Attempt, Key: key}, Links: c.Links, Root: c.Root, served: c.Ready != nil,
	}
	sub := &Submission{BaseDir: j.BaseDir, Trusted: j.Trusted, Secrets: values}
	return r, sub, j.x.check(ctx, r, sub)
}

// redactPrefix begins the names of values that are only taken out of a log. No
// secret of a document has such a name.
const redactPrefix = "redact "

func numbered(values [][]byte) map[string][]byte {
	m := make(map[string][]byte, len(values))
	for i, v := range values {
		m[strconv.Itoa(i)] = v
	}
	return m
}

// announce logs that a child is about to be made. From then on it has its id,
// and its place in the log.
func (j *Job) announce(key, id string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.refused(); err != nil {
		return err
	}
	crash.Point(crash.ChildBefore)
	err := j.a.append(&caisson.Event{Type: caisson.EventChild, Step: key, Child: id, Offset: j.size}, true)
	crash.Point(crash.ChildAfter)
	return err
}

// Wait attends to a child and returns its result. That the task was asked to
// end does not cut it short: the child ends soon, then.
//
// Errors: those of Executor.Attend; ctx's, unless it ended because of Stopped.
func (j *Job) Wait(ctx context.Context, id string) (*caisson.Result, error) {
	t, err := j.mine(id)
	if err != nil {
		return nil, err
	}
	waiting, cancel := context.WithCancel(j.alive)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		// A stop ends the child, whose end is waited for.
		if j.Stopped() == nil {
			cancel()
		}
	})
	defer stop()
	for {
		result, err := j.x.attendChild(waiting, t)
		if err != nil && waiting.Err() != nil && j.alive.Err() == nil {
			return nil, ctx.Err()
		}
		if result != nil || err != nil {
			return result, err
		}
	}
}

// mine returns where a child is kept. Errors: ErrNotFound if there is none of
// that id in this attempt.
func (j *Job) mine(id string) (state.Task, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, p := range j.a.h.children {
		if p.id == id {
			return j.x.folder.Task(id), nil
		}
	}
	return state.Task{}, noTask(id)
}

// Logs is Executor.Logs for a child.
func (j *Job) Logs(ctx context.Context, id string, opts LogOptions, f func(LogRecord) error) error {
	if _, err := j.mine(id); err != nil {
		return err
	}
	return j.x.Logs(ctx, id, opts, f)
}

// Print adds text to the task's own log, with its secrets taken out. With a key
// it does so once in this attempt, however often it is called.
func (j *Job) Print(key string, stream tasklog.Stream, text string) error {
	if key != "" {
		if err := checkKey(key); err != nil {
			return err
		}
	}
	var out strings.Builder
	w := j.hidden.NewWriter(func(b []byte) error { out.Write(b); return nil })
	if err := errors.Join(w.Write([]byte(text)), w.Close()); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.over {
		return errRunOver
	}
	if key != "" {
		said, err := j.say(key)
		if said || err != nil {
			return err
		}
	}
	crash.Point(crash.PrintBefore)
	writeErr := j.log.Write(stream, j.x.now(), []byte(out.String()))
	crash.Point(crash.PrintAfter)
	j.a.x.hub.wake(j.ID)
	return errors.Join(safefs.Sorted(caisson.OpState, "log", writeErr), j.measureLog())
}

// say logs that a message is about to be written, and where. It reports whether
// it is written already: nothing else can have been written there by whoever was
// killed, because a message follows its event at once.
func (j *Job) say(key string) (said bool, err error) {
	if j.said[key] {
		return true, nil
	}
	if offset, known := j.a.h.said[key]; known {
		j.said[key] = true
		return j.size > offset, nil
	}
	crash.Point(crash.MessageBefore)
	err = j.a.append(&caisson.Event{Type: caisson.EventMessage, Step: key, Offset: j.size}, false)
	crash.Point(crash.MessageAfter)
	j.said[key] = err == nil
	return false, err
}

// Progress tells how far the work is, from 0 to 1.
func (j *Job) Progress(v float64) error {
	if math.IsNaN(v) || v < 0 || v > 1 {
		return invalid("progress", fmt.Errorf("%v is not between 0 and 1", v))
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.over {
		return errRunOver
	}
	if v < j.a.h.progress+progressStep && (v < 1 || j.a.h.progress >= 1) {
		return nil
	}
	return j.a.append(&caisson.Event{Type: caisson.EventProgress, Step: string(kindMain), Progress: v}, false)
}

// acquireThere waits for the lock of a task that may be going away: then it
// returns nil.
func acquireThere(ctx context.Context, t state.Task) (*lockfile.Lock, error) {
	lock, err := lockfile.Acquire(ctx, t.Lock())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return lock, err
}
