//go:build unix

package executor

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/internal/crash"
	"github.com/caissonrun/caisson/internal/lockfile"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/internal/state"
)

// takeOver is how long an attendant that is to leave again waits for the one
// before it, whose process may still be ending.
const takeOver = 2 * time.Second

// Attend does what is to be done for a task until it has ended, or, with
// detach, until a program of it runs that nobody need wait for. When ctx ends
// it returns soon, and the task is as it was: whoever attends to it next goes
// on.
//
// Errors: ErrExists if another process attends to it, with detach after a
// moment in which that may have ended; ErrNotFound; ErrExhausted or ErrDenied if
// the state folder can't be written.
func (x *Executor) Attend(ctx context.Context, id string, detach bool) error {
	t, err := x.find(id)
	if err != nil {
		return err
	}
	if settled(t) {
		return nil // and no lock made, which would have to be put away again
	}
	lock, err := x.lock(t)
	if errors.Is(err, caisson.ErrExists) && detach {
		if ended, existsErr := state.Exists(t.Result()); ended && existsErr == nil {
			return nil // what is kept of it is seen to
		}
		limited, cancel := context.WithTimeout(ctx, takeOver)
		defer cancel()
		lock, err = lockfile.Acquire(limited, t.Lock())
	}
	if err != nil {
		return err
	}
	defer lock.Release()
	a, err := x.attendant(t, detach)
	if err != nil {
		return err
	}
	err = x.guard("", func() error { return a.run(ctx) })
	a.closeGate()
	err = errors.Join(err, a.journal.Close())
	x.hub.wake(t.ID)
	if a.handOver {
		err = errors.Join(err, lock.Release(), x.spawn(t.ID))
	}
	return err
}

// An attendant does a task's next actions, one after the other. It holds the
// task's lock.
type attendant struct {
	x       *Executor
	task    state.Task
	record  *record
	steps   script
	engine  *prober
	journal *state.Journal
	h       *history
	asked   []request
	boot    string
	detach  bool
	secrets map[string][]byte
	gone    error // why secrets can't be had
	result  *caisson.Result
	log     *slog.Logger
	// handOver says that another attendant is to go on once the lock is free.
	handOver bool

	// Of the attempt at hand:
	places  *places                   // nil: not read yet
	mounted bool                      // everything in places is there
	live    map[string]engine.Sandbox // by folder: those that this process has made or found
	gate    *gate                     // nil: nothing is served
	waiting bool                      // there is a sandbox of a pool that waits for the main program
	took    []caisson.Phase           // that no event tells of yet
}

// attendant reads all that is known of a task.
func (x *Executor) attendant(t state.Task, detach bool) (*attendant, error) {
	r, err := readRecord(t)
	if err != nil {
		return nil, err
	}
	var p *prober // a composite task has none
	if !r.composite() {
		if p, err = x.engine(r.Engine); err != nil {
			return nil, err
		}
	}
	boot, err := x.bootID()
	if err != nil {
		return nil, stateError("boot id", caisson.ErrUnavailable, err)
	}
	result, err := readResult(t)
	if err != nil {
		return nil, err
	}
	journal, events, err := state.OpenJournal(t.Journal())
	if err != nil {
		return nil, err
	}
	a := &attendant{
		x: x, task: t, record: r, steps: stepsOf(r.Task), engine: p, journal: journal,
		h: newHistory(events), boot: boot, detach: detach, result: result,
		live: make(map[string]engine.Sandbox),
		log:  x.log.With("task", t.ID, "engine", r.Engine),
	}
	a.secrets, a.gone = x.readSecrets(r)
	return a, nil
}

// run does one action after the other.
func (a *attendant) run(ctx context.Context) error {
	if a.h.last == 0 {
		// The line that Submit wrote did not reach the disk before a power cut.
		if err := a.append(&caisson.Event{Type: caisson.EventAccepted, State: caisson.StateAccepted}, false); err != nil {
			return err
		}
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := a.look(); err != nil {
			return err
		}
		act := next(a.view())
		a.log.Debug("next", "op", act.deed)
		leave, err := a.do(ctx, act)
		if leave || err != nil {
			return err
		}
	}
}

// look reads what was asked for, and says so in the journal.
func (a *attendant) look() error {
	asked, err := readRequests(a.task, a.asked)
	if err != nil {
		return err
	}
	a.asked = asked
	if a.h.ended != nil {
		return nil
	}
	for a.h.asked < len(asked) {
		r := asked[a.h.asked]
		if err := a.append(&caisson.Event{Type: caisson.EventStopAsked, Message: string(r.Stop.Reason)}, false); err != nil {
			return err
		}
	}
	return nil
}

func (a *attendant) view() *view {
	return &view{
		task: a.record.Task, steps: a.steps, h: a.h, asked: a.asked,
		boot: a.boot, gone: a.gone, over: a.result != nil, now: a.x.now(),
	}
}

// do does one action. It reports whether there is nothing more to be done now.
func (a *attendant) do(ctx context.Context, act action) (leave bool, err error) {
	switch act.deed {
	case doBegin:
		return false, a.begin(act.attempt)
	case doStage:
		return false, a.stage(ctx)
	case doStep:
		if a.record.composite() {
			return false, a.runComposite(ctx)
		}
		return a.runStep(ctx, act.step)
	case doSidecar:
		return false, a.runSidecar(ctx, act.step)
	case doStopSidecar:
		return false, a.stopSidecar(ctx, act.step)
	case doStageOut:
		return false, a.stageOut(ctx, act.outcome)
	case doEndAttempt:
		return false, a.endAttempt(ctx, act.outcome)
	case doRetry:
		return false, a.announceRetry()
	case doSleep:
		return false, pauseFor(ctx, a.x.hub.wait(a.task.ID), min(pollEvery, time.Until(act.until)))
	case doFinish:
		return false, a.finish()
	default:
		return true, a.afterwards(ctx)
	}
}

// append logs an event of the attempt at hand.
func (a *attendant) append(ev *caisson.Event, durable bool) error {
	ev.Time, ev.Task = a.x.now(), a.task.ID
	if ev.Attempt == 0 {
		ev.Attempt = a.h.attempt
	}
	ev.Phases = a.took
	if err := a.journal.Append(ev, durable); err != nil {
		return undecided{err}
	}
	a.took = nil
	a.h.add(ev)
	a.x.hub.wake(a.task.ID)
	return nil
}

// clock measures a phase until the function that it returns is called.
func (a *attendant) clock(name string) func() {
	start := time.Now()
	return func() {
		a.took = append(a.took, caisson.Phase{Name: name, Took: caisson.Duration(time.Since(start))})
	}
}

// begin begins an attempt.
func (a *attendant) begin(n int) error {
	a.closeGate()
	a.places, a.mounted, a.took, a.waiting = nil, false, nil, false
	clear(a.live)
	crash.Point(crash.AttemptBefore)
	err := a.append(&caisson.Event{Type: caisson.EventAttempt, Attempt: n, State: caisson.StateStaging, Boot: a.boot}, false)
	crash.Point(crash.AttemptAfter)
	return err
}

// folder returns the folder of a step's sandbox.
func (a *attendant) folder(st *step) string { return a.h.folder(a.task.ID, st.name) }

// attempt returns where the attempt at hand is kept.
func (a *attendant) attempt() state.Attempt { return a.task.Attempt(a.h.attempt) }

// blueprint returns what the specs of this attempt's steps are made from.
func (a *attendant) blueprint() *blueprint {
	b := &blueprint{
		record: a.record, attempt: a.attempt(), places: a.places, secrets: a.secrets,
		proxies: a.x.opts.Proxies, logLimit: a.x.opts.LogLimit,
	}
	if len(a.x.opts.Attend) > 0 {
		b.onExit, b.env = a.x.attendArgs(a.task.ID), a.x.attendEnv()
	}
	return b
}

// interruptible calls f with a context that ends when somebody asks for the
// task's end in a way that applies.
func (a *attendant) interruptible(ctx context.Context, applies func(*view) bool, f func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	watched := make(chan struct{})
	defer func() { cancel(); <-watched }()
	v := a.view()
	go func() {
		defer close(watched)
		for {
			news := a.x.hub.wait(a.task.ID)
			if asked, err := readRequests(a.task, v.asked); err == nil {
				v.asked = asked
			}
			if applies(v) {
				cancel()
			}
			if pauseFor(ctx, news, pollEvery) != nil {
				return
			}
		}
	}()
	return f(ctx)
}

// anyAsked reports whether anybody has asked for the task's end.
func anyAsked(v *view) bool { return len(v.asked) > 0 }

// finish forgets the secrets, which nothing needs any more, and makes the result
// durable.
func (a *attendant) finish() error {
	result := a.result
	if result == nil {
		result = a.lastVerdict()
		if err := a.rememberLeftovers(); err != nil {
			return err
		}
		crash.Point(crash.ForgetBefore)
		if err := a.x.forgetSecrets(a.task.ID); err != nil {
			return safefs.Sorted(caisson.OpState, "secrets", err)
		}
		crash.Point(crash.ForgetAfter)
		if err := errors.Join(a.forgetFork(), a.dropSpare()); err != nil {
			return err
		}
		crash.Point(crash.ResultBefore)
		if err := writeJSON(a.task.Result(), result); err != nil {
			return undecided{err}
		}
		crash.Point(crash.ResultAfter)
		a.result = result
	}
	crash.Point(crash.EndedBefore)
	ev := &caisson.Event{Type: caisson.EventEnded, State: caisson.StateEnded, Attempt: result.Attempt, Exit: &result.Exit, Error: result.Error, Result: result}
	if err := a.append(ev, false); err != nil {
		return err
	}
	crash.Point(crash.EndedAfter)
	a.log.Info("ended", "success", result.Success, "status", result.Status, "reason", result.Exit.Reason)
	a.wakeParent()
	return nil
}

// afterwards does what is left to do for a task that has ended. Its lock's file
// goes last: where it is gone, nobody needs to look at the task again.
func (a *attendant) afterwards(ctx context.Context) error {
	kept, err := a.keep(ctx)
	if kept || err != nil {
		return err
	}
	if err := a.tidy(); err != nil {
		return err
	}
	if err := os.Remove(a.task.Lock()); !errors.Is(err, fs.ErrNotExist) {
		return safefs.Sorted(caisson.OpState, a.task.Lock(), err)
	}
	return nil
}

// removeRequests removes what was asked for, also while others still ask: what
// they write into the folder while it goes makes it one more round.
func removeRequests(t state.Task) error {
	for range maxRequests {
		if err := os.RemoveAll(t.Control()); !errors.Is(err, syscall.ENOTEMPTY) {
			return err
		}
	}
	return os.RemoveAll(t.Control())
}

// tidy removes what was asked for, and temporary files of writers that were
// killed.
func (a *attendant) tidy() error {
	if err := removeRequests(a.task); err != nil {
		return safefs.Sorted(caisson.OpState, a.task.Control(), err)
	}
	entries, err := os.ReadDir(a.task.Dir)
	if err != nil {
		return safefs.Sorted(caisson.OpState, a.task.Dir, err)
	}
	for _, e := range entries {
		if !atomicfile.IsTemp(e.Name()) {
			continue
		}
		if err := os.Remove(filepath.Join(a.task.Dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return safefs.Sorted(caisson.OpState, a.task.Dir, err)
		}
	}
	return nil
}
