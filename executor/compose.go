//go:build unix

package executor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/crash"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/internal/state"
	"github.com/caissonrun/caisson/keeper/redact"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// privatesDir is the folder, in the runtime folder, of what composite tasks keep
// off the disk.
const privatesDir = "private"

// privateDir is where an attempt keeps what must not be on disk.
func (x *Executor) privateDir(id string, attempt int) string {
	return filepath.Join(x.runtime, privatesDir, id+"-"+strconv.Itoa(attempt))
}

// plan has the composite accept a task. It returns the submission with the
// secrets that are kept.
func (x *Executor) plan(ctx context.Context, r *record, sub *Submission) (*Submission, error) {
	if x.opts.Composite == nil {
		return nil, &caisson.Error{
			Op: caisson.OpValidate, Item: "component", Kind: caisson.ErrUnsupported,
			Err: errors.New("this program runs no components"),
		}
	}
	if err := onlyComponent(r.Task); err != nil {
		return nil, err
	}
	var plan *Plan
	err := x.guard(caisson.OpValidate, func() (err error) {
		plan, err = x.opts.Composite.Accept(ctx, r.Task, sub)
		return err
	})
	if err != nil {
		return nil, err
	}
	planned := *sub
	planned.Secrets = plan.Secrets
	r.Data, r.Secrets = plan.Data, len(plan.Secrets) > 0
	return &planned, nil
}

// onlyComponent refuses what a task with a component can't have: its definition
// says it, or nobody would do it.
func onlyComponent(task *caisson.Task) error {
	rest := *task
	rest.Version, rest.Name, rest.Engine, rest.Component = 0, "", "", nil
	rest.Timeout, rest.Grace, rest.Retry = 0, 0, caisson.Retry{}
	data, err := json.Marshal(&rest)
	if err != nil {
		return invalid("component", err)
	}
	var set map[string]json.RawMessage
	if err := json.Unmarshal(data, &set); err != nil {
		return invalid("component", err)
	}
	for name := range set {
		return invalid(name, errors.New("does not go with a component, whose definition says what is run and how"))
	}
	return nil
}

// makeJob makes the folders of a composite task's attempt.
func (a *attendant) makeJob() error {
	att := a.attempt()
	crash.Point(crash.WorkBefore)
	a.places = &places{Version: placesVersion}
	for _, dir := range []string{att.Job(), a.private()} {
		err := os.MkdirAll(dir, 0o700)
		for errors.Is(err, fs.ErrNotExist) {
			err = os.MkdirAll(dir, 0o700) // somebody has just put the empty folder above away
		}
		if err != nil {
			return safefs.Sorted(caisson.OpStageIn, dir, err)
		}
	}
	crash.Point(crash.WorkAfter)
	return nil
}

func (a *attendant) private() string { return a.x.privateDir(a.task.ID, a.h.attempt) }

// cleanJob sees to the end of all children of the attempt at hand and removes
// what is kept off the disk.
func (a *attendant) cleanJob(ctx context.Context) error {
	if err := a.endChildren(ctx); err != nil {
		return err
	}
	if err := a.removeAll(ctx, a.private()); err != nil {
		return err
	}
	if os.Remove(filepath.Dir(a.private())) == nil { // it was the last
		_ = os.Remove(a.x.runtime)
	}
	return nil
}

// runComposite takes the work of a composite task from where it is to its end
// and logs that.
func (a *attendant) runComposite(ctx context.Context) error {
	if err := a.beginComposite(); err != nil {
		return err
	}
	out, err := a.compose(ctx)
	var open undecided
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &open):
		return err
	}
	if endErr := a.endChildren(ctx); endErr != nil {
		return undecided{endErr}
	}
	return a.endComposite(out, err)
}

// beginComposite logs that the work has begun. It has no sandbox.
func (a *attendant) beginComposite() error {
	p := a.h.steps[string(kindMain)]
	if p == nil {
		crash.Point(crash.CreatedBefore)
		if err := a.append(&caisson.Event{Type: caisson.EventCreated, Step: string(kindMain)}, true); err != nil {
			return err
		}
		crash.Point(crash.CreatedAfter)
	}
	if p = a.h.steps[string(kindMain)]; p.started {
		return nil
	}
	crash.Point(crash.StartedBefore)
	err := a.append(&caisson.Event{Type: caisson.EventStarted, Step: string(kindMain), State: caisson.StateRunning}, false)
	crash.Point(crash.StartedAfter)
	return err
}

// endComposite logs how the work ended. That is durable: what it has stored is
// so, too, and a reboot must not take it back.
func (a *attendant) endComposite(out *Outcome, err error) error {
	ev := &caisson.Event{Type: caisson.EventExited, Step: string(kindMain), State: caisson.StateEnding, Error: failure(err)}
	if out != nil {
		ev.Exit, ev.Output, ev.Outputs, ev.Component = &out.Exit, out.Output, out.Outputs, out.Document
		a.took = append(a.took, caisson.Phase{Name: "run " + string(kindMain), Took: out.Exit.Usage.Wall})
		if err := a.redactNames(ev); err != nil {
			return undecided{err}
		}
		if err := a.redact(&ev.Exit.Message, &ev.Output); err != nil {
			return undecided{err}
		}
		if ev.Component, err = a.redactJSON(ev.Component); err != nil {
			return undecided{err}
		}
	} else if err := a.redactNames(ev); err != nil {
		return undecided{err}
	}
	crash.Point(crash.ExitedBefore)
	if err := a.append(ev, true); err != nil {
		return err
	}
	crash.Point(crash.ExitedAfter)
	return nil
}

// redactJSON takes secrets out of a document. Only texts are changed, so that it
// stays one.
func (a *attendant) redactJSON(doc json.RawMessage) (json.RawMessage, error) {
	text := string(doc)
	if err := a.redact(&text); err != nil || text == string(doc) {
		return doc, err
	}
	decoder := json.NewDecoder(bytes.NewReader(doc))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		return nil, err
	}
	v, err := a.redactValue(v)
	if err != nil {
		return nil, err
	}
	return json.Marshal(v)
}

func (a *attendant) redactValue(v any) (any, error) {
	switch v := v.(type) {
	case string:
		err := a.redact(&v)
		return v, err
	case []any:
		for i := range v {
			var err error
			if v[i], err = a.redactValue(v[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			value, err := a.redactValue(v[key])
			if err != nil {
				return nil, err
			}
			delete(v, key)
			if err := a.redact(&key); err != nil {
				return nil, err
			}
			v[key] = value
		}
	}
	return v, nil
}

// compose calls Run and sees to what is asked for meanwhile.
func (a *attendant) compose(ctx context.Context) (*Outcome, error) {
	switch {
	case a.h.boot != a.boot:
		return a.lost(rebooted.Message), nil
	case a.gone != nil:
		return a.lost(a.gone.Error()), nil
	case a.x.opts.Composite == nil:
		return nil, undecided{stateError(a.task.Document(), caisson.ErrUnsupported, errors.New("this program runs no components"))}
	}
	j, err := a.newJob(ctx)
	if err != nil {
		return nil, err
	}
	defer j.close()
	answer := make(chan error, 1)
	var out *Outcome
	go func() {
		answer <- a.x.guard("", func() (err error) {
			out, err = a.x.opts.Composite.Run(j.ctx, j)
			return err
		})
	}()
	err, lookErr := a.overlook(ctx, j, answer)
	if lookErr != nil {
		return nil, undecided{lookErr}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return a.conclude(j, out, err)
}

// overlook passes on what is asked for until Run has answered, and returns that.
// An error of the journal ends Run, and what it answers then decides nothing.
func (a *attendant) overlook(ctx context.Context, j *Job, answer <-chan error) (runErr, lookErr error) {
	for {
		news := a.x.hub.wait(a.task.ID)
		if lookErr == nil {
			if lookErr = j.look(); lookErr != nil {
				j.cancel()
			} else {
				j.passOn(ctx)
			}
		}
		wait := pollEvery
		if left := j.left(); left > 0 {
			wait = min(wait, left)
		}
		timer := time.NewTimer(wait)
		select {
		case runErr = <-answer:
			timer.Stop()
			return runErr, lookErr
		case <-news:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// conclude makes of what Run returned what the attempt ends in.
func (a *attendant) conclude(j *Job, out *Outcome, err error) (*Outcome, error) {
	stopped := j.stopped
	switch {
	case err != nil && stopped != nil:
		out = &Outcome{Exit: caisson.Exit{Reason: stopped.Reason}}
		if !errors.Is(err, context.Canceled) && !errors.Is(err, caisson.ErrAborted) {
			out.Exit.Message = err.Error()
		}
	case err != nil:
		return nil, err
	case out == nil:
		return nil, &caisson.Error{Kind: caisson.ErrInternal, Err: errors.New("bug: a component's run ended without an outcome")}
	}
	if n := len(out.Document); n > int(MaxDocument) {
		return nil, &caisson.Error{
			Op: caisson.OpStageOut, Item: "result", Kind: caisson.ErrInvalid,
			Err: fmt.Errorf("it has %s, the most is %s", caisson.Bytes(n), MaxDocument),
		}
	}
	if len(out.Document) > 0 && !json.Valid(out.Document) {
		return nil, &caisson.Error{Op: caisson.OpStageOut, Item: "result", Kind: caisson.ErrInternal, Err: errors.New("bug: it is no JSON")}
	}
	if out.Exit.Reason == "" {
		out.Exit.Reason = caisson.ReasonExited
		if stopped != nil {
			out.Exit.Reason = stopped.Reason
		}
	}
	a.measure(&out.Exit)
	return out, nil
}

// measure fills in when the work was done and what its children used.
func (a *attendant) measure(exit *caisson.Exit) {
	if exit.StartedAt.IsZero() {
		exit.StartedAt, exit.EndedAt = a.h.startedMain, a.x.now()
	}
	if exit.Usage != (caisson.Usage{}) {
		return
	}
	exit.Usage.Wall = caisson.Duration(max(0, exit.EndedAt.Sub(exit.StartedAt)))
	for _, child := range a.h.children {
		result, err := readResult(a.x.folder.Task(child.id))
		if result == nil || err != nil {
			continue
		}
		exit.Usage.CPU += result.Usage.CPU
		exit.Usage.PeakMemory = max(exit.Usage.PeakMemory, result.Usage.PeakMemory)
	}
}

func (a *attendant) lost(why string) *Outcome {
	return &Outcome{Exit: caisson.Exit{Reason: caisson.ReasonLost, Message: why, StartedAt: a.h.startedMain, EndedAt: a.x.now()}}
}

// endChildren aborts the children of the attempt at hand that still run, and
// waits for their ends. Those whose making was cut short are removed.
func (a *attendant) endChildren(ctx context.Context) error {
	for _, child := range a.h.children {
		t := a.x.folder.Task(child.id)
		for {
			result, err := readResult(t)
			if err != nil {
				return err
			}
			accepted, err := state.Exists(t.Document())
			if err != nil {
				return err
			}
			if result != nil {
				break
			}
			if !accepted {
				if err := a.x.clearHalfMade(ctx, t); err != nil {
					return fmt.Errorf("part %s: %w", child.key, err)
				}
				break
			}
			if err := a.x.endChild(ctx, t); err != nil {
				return fmt.Errorf("part %s: %w", child.key, err)
			}
		}
	}
	return nil
}

// endChild aborts a child and attends to it for a while.
func (x *Executor) endChild(ctx context.Context, t state.Task) error {
	err := x.stop(ctx, t.ID, engine.Stop{Reason: caisson.ReasonAborted})
	if err != nil && !errors.Is(err, caisson.ErrEnded) {
		return err
	}
	_, err = x.attendChild(ctx, t)
	return err
}

// attendChild attends to a child and returns its result, or nil where another
// process attends to it and is not ready.
func (x *Executor) attendChild(ctx context.Context, t state.Task) (*caisson.Result, error) {
	err := x.Attend(ctx, t.ID, false)
	if err != nil && !errors.Is(err, caisson.ErrExists) {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	result, err := x.Wait(limited, t.ID)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, nil
	}
	return result, err
}

// clearHalfMade removes what is left of a child that was not accepted, once
// nobody else is at it.
func (x *Executor) clearHalfMade(ctx context.Context, t state.Task) error {
	if there, err := state.Exists(t.Dir); !there || err != nil {
		return err
	}
	lock, err := acquireThere(ctx, t)
	if lock == nil || err != nil {
		return err
	}
	defer lock.Release()
	if accepted, err := state.Exists(t.Document()); accepted || err != nil {
		return errors.Join(err, stateError(t.Dir, caisson.ErrExists, errors.New("it was accepted")))
	}
	return x.removeFolder(ctx, t)
}

// wakeParent starts an attendant for the task that this one is a part of, if
// nobody attends to that.
func (a *attendant) wakeParent() {
	p := a.record.Parent
	if p == nil {
		return
	}
	crash.Point(crash.WakeBefore)
	a.x.hub.wake(p.ID)
	parent := a.x.folder.Task(p.ID)
	accepted, err := state.Exists(parent.Document())
	ended, endedErr := state.Exists(parent.Result())
	if err = errors.Join(err, endedErr); err == nil && accepted && !ended && !a.x.attended(parent) {
		err = a.x.spawn(p.ID)
	}
	if err != nil {
		a.log.Warn("wake", "parent", p.ID, "err", err)
	}
	crash.Point(crash.WakeAfter)
}

// redactable returns the values that can be found in a text.
func redactable(values map[string][]byte) [][]byte {
	var list [][]byte
	for _, v := range values {
		if n := len(strings.TrimRight(string(v), "\r\n")); n >= redact.MinSecret && n <= redact.MaxSecret {
			list = append(list, v)
		}
	}
	return list
}

// openLog opens the composite task's own log, without what a killed writer left
// of a record.
func (a *attendant) openLog() (*tasklog.Writer, error) {
	path := a.attempt().Log(string(kindMain))
	w, err := tasklog.Create(path, a.x.opts.LogLimit)
	if err != nil {
		return nil, undecided{safefs.Sorted(caisson.OpState, path, err)}
	}
	return w, nil
}
