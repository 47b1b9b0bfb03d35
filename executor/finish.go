//go:build unix

package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/crash"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/internal/state"
)

const (
	resultVersion = 1
	keepVersion   = 1
)

// endAttempt removes everything of the attempt, unless it is to be kept, and
// logs what it ended in. Finally steps, and what can't be removed, do not change
// that.
func (a *attendant) endAttempt(ctx context.Context, out *outcome) error {
	if err := a.settleGate(); err != nil {
		return err
	}
	result := a.verdict(out)
	a.gate = nil
	ev := &caisson.Event{Type: caisson.EventAttemptEnd, Result: result}
	if a.keeps(result) {
		if err := a.beginKeep(ctx, out); err != nil {
			return undecided{err}
		}
	} else if err := a.cleanAttempt(ctx); err != nil {
		a.log.Warn("clean", "err", err)
		ev.Message = "left behind: " + err.Error()
	}
	result.Phases = append(a.h.phases, a.took...)
	result.EndedAt = a.x.now()
	crash.Point(crash.EndBefore)
	if err := a.append(ev, a.againAfter(result)); err != nil {
		return err
	}
	crash.Point(crash.EndAfter)
	return nil
}

// verdict is what the attempt ended in.
func (a *attendant) verdict(out *outcome) *caisson.Result {
	r := &caisson.Result{
		Version: resultVersion,
		Task:    a.task.ID,
		Name:    a.record.Task.Name,
		Engine:  a.record.Engine,
		Attempt: a.h.attempt,
		Success: out.success,
		Exit:    out.exit,
		Step:    a.steps.label(out.step),
		Error:   out.failure,

		Blocked: a.blocked(),

		AcceptedAt: a.record.AcceptedAt,
		StartedAt:  a.h.started,
	}
	if a.h.out != nil {
		r.Output, r.Outputs = a.h.out.Output, a.h.out.Outputs
		if a.h.out.Error != nil {
			r.Success = false
			if r.Error == nil {
				r.Error = a.h.out.Error
			}
		}
	}
	if p := a.h.steps[string(kindMain)]; a.record.composite() && p.over() {
		r.Output, r.Outputs, r.Component = p.end.Output, p.end.Outputs, p.end.Component
	}
	for _, p := range a.h.steps {
		if p.exit == nil {
			continue
		}
		r.Usage.Wall += p.exit.Usage.Wall
		r.Usage.CPU += p.exit.Usage.CPU
		r.Usage.PeakMemory = max(r.Usage.PeakMemory, p.exit.Usage.PeakMemory)
	}
	r.Status = a.status(r)
	return r
}

// status is what a command line exits with for the result.
func (a *attendant) status(r *caisson.Result) int {
	if r.Success {
		return 0
	}
	switch r.Exit.Reason {
	case "":
		return 125 // Caisson could not do its part
	case caisson.ReasonStopped, caisson.ReasonKilled, caisson.ReasonAborted, caisson.ReasonCancelled, caisson.ReasonPolicy:
		if s := r.Exit.Status(); s != 0 {
			return s
		}
		return 128 + a.askedSignal()
	}
	if s := r.Exit.Status(); s != 0 {
		return s
	}
	if r.Error != nil {
		return 125 // main succeeded, and its outputs could not be had
	}
	return 1 // exit 0, which success.codes does not list
}

// askedSignal is the signal by which the task was asked to end.
func (a *attendant) askedSignal() int {
	const kill, term = 9, 15
	if len(a.asked) == 0 {
		return kill
	}
	stop := decisive(a.asked).Stop
	switch {
	case stop.Grace <= 0:
		return kill
	case stop.Signal != 0:
		return stop.Signal
	}
	if n, err := caisson.ParseSignal(a.record.Task.StopSignal); err == nil {
		return n
	}
	return term
}

// lastVerdict is what the task ends in: the last attempt's verdict, or, where
// none began, why not.
func (a *attendant) lastVerdict() *caisson.Result {
	if a.h.verdict != nil {
		r := *a.h.verdict
		r.EndedAt = a.x.now()
		return &r
	}
	out := &outcome{}
	switch {
	case len(a.asked) > 0:
		out.exit = exitAsked(a.asked)
	case a.gone != nil:
		out.exit = caisson.Exit{Reason: caisson.ReasonLost, Message: a.gone.Error()}
		out.failure = failure(a.gone)
	}
	r := a.verdict(out)
	r.EndedAt = a.x.now()
	return r
}

// announceRetry logs that another attempt follows.
func (a *attendant) announceRetry() error {
	after := pause(&a.record.Task.Retry, a.h.attempt)
	crash.Point(crash.RetryBefore)
	ev := &caisson.Event{Type: caisson.EventRetry, State: caisson.StateWaiting, Message: fmt.Sprintf("attempt %d begins in %v", a.h.attempt+1, after)}
	if err := a.append(ev, false); err != nil {
		return err
	}
	crash.Point(crash.RetryAfter)
	return nil
}

// A keeping is keep.json: the last attempt, or what could not be removed of an
// earlier one, is still there.
type keeping struct {
	Version int       `json:"version"`
	Until   time.Time `json:"until"`
	Attempt int       `json:"attempt"`
	// Step is the one whose sandbox can be entered. Empty: files alone are kept.
	Step string `json:"step,omitempty"`
}

// keeps reports whether the sandbox stays after the attempt that ends with r:
// if the document asks for it, nobody aborts, and no other attempt follows.
func (a *attendant) keeps(r *caisson.Result) bool {
	return a.record.Task.Keep > 0 && r.Exit.Reason != caisson.ReasonAborted && !a.againAfter(r)
}

// againAfter reports whether another attempt follows the one at hand, if that
// ends with r.
func (a *attendant) againAfter(r *caisson.Result) bool {
	v := a.view()
	after := *a.h
	after.open, after.verdict = false, r
	v.h = &after
	return v.again()
}

// beginKeep notes what is kept, and removes what nobody would look at: the
// sandboxes of steps that did not decide. Where the sandbox can be entered its
// engine counts the time from the end of its program on, and so does this.
func (a *attendant) beginKeep(ctx context.Context, out *outcome) error {
	k := &keeping{Until: a.x.now().Add(a.record.Task.Keep.Std())}
	there, err := a.keptStep(out.step)
	if err != nil {
		return err
	}
	if there {
		a.disposeOthers(ctx, out.step)
		if a.record.Sharing.Enter {
			k.Step = out.step
			if end := a.h.steps[out.step].end.Time; end.Before(a.x.now()) {
				k.Until = end.Add(a.record.Task.Keep.Std())
			}
		}
	}
	return a.writeKeep(k)
}

// keptStep reports whether there is a sandbox of the step.
func (a *attendant) keptStep(name string) (bool, error) {
	if name == "" || !keepable(kindOf(name)) {
		return false, nil
	}
	return exists(a.attempt().Step(a.h.folder(a.task.ID, name)))
}

// disposeOthers destroys all sandboxes of the attempt but that of one step. What
// is left of one waits for the end of the time.
func (a *attendant) disposeOthers(ctx context.Context, but string) {
	names, err := a.sandboxes()
	for _, name := range names {
		if name != a.h.folder(a.task.ID, but) && name != state.NetworkDir {
			err = errors.Join(err, a.dispose(ctx, name))
		}
	}
	if err != nil {
		a.log.Warn("destroy", "err", err)
	}
}

func (a *attendant) writeKeep(k *keeping) error {
	k.Version, k.Attempt = keepVersion, a.h.attempt
	crash.Point(crash.KeepBefore)
	err := writeJSON(a.task.Keep(), k)
	crash.Point(crash.KeepAfter)
	return err
}

// rememberLeftovers notes that something of an attempt could not be removed, so
// that the next command tries again.
func (a *attendant) rememberLeftovers() error {
	if there, err := exists(a.task.Keep()); there || err != nil {
		return err
	}
	if left, err := a.leftovers(); len(left) == 0 {
		return err
	}
	return a.writeKeep(&keeping{Until: a.x.now()})
}

// leftovers lists the attempts of which more than logs is there.
func (a *attendant) leftovers() ([]int, error) {
	attempts, err := a.task.Attempts()
	if err != nil {
		return nil, err
	}
	var left []int
	for _, n := range attempts {
		removed, err := a.task.Attempt(n).Removed()
		if err != nil {
			return nil, err
		}
		if !removed {
			left = append(left, n)
		}
	}
	return left, nil
}

// keep sees to what is kept of an ended task. It reports whether there still is
// something: until its time is over, or somebody asks for its removal.
//
// Who is to leave soon starts an attendant that waits; one that is nobody's
// foreground waits here.
func (a *attendant) keep(ctx context.Context) (kept bool, err error) {
	k, err := readKeep(a.task)
	if k == nil || err != nil {
		return err != nil, err
	}
	for a.x.now().Before(k.Until) && !a.removalAsked() {
		if !a.detach {
			a.handOver = true
			return true, nil
		}
		news := a.x.hub.wait(a.task.ID)
		if err := pauseFor(ctx, news, min(pollEvery, time.Until(k.Until))); err != nil {
			return true, err
		}
		if err := a.look(); err != nil {
			return true, err
		}
	}
	left, err := a.leftovers()
	if err != nil {
		return true, err
	}
	for _, n := range left {
		a.h.attempt = n
		a.places = nil
		clear(a.live)
		if err := a.cleanAttempt(ctx); err != nil {
			// The task has ended all the same. Every command tries again.
			a.log.Warn("clean", "err", err)
			return true, nil
		}
	}
	return false, safefs.Sorted(caisson.OpState, a.task.Keep(), os.Remove(a.task.Keep()))
}

// removalAsked reports whether somebody wants an ended task to be gone.
func (a *attendant) removalAsked() bool {
	for _, r := range a.asked {
		if r.Seq >= a.h.ended.Seq {
			return true
		}
	}
	return false
}
