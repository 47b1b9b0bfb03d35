//go:build unix

package executor

import (
	"math"
	"slices"
	"time"

	"github.com/caissonrun/caisson"
)

// A deed is what an attendant does next.
type deed string

const (
	doNothing     deed = "nothing" // the task has ended
	doBegin       deed = "begin"   // an attempt
	doStage       deed = "stage"   // inputs and mounts
	doSidecar     deed = "sidecar" // start one
	doStep        deed = "step"    // create, start and wait, or go on with it
	doStopSidecar deed = "stop sidecar"
	doStageOut    deed = "stage out"
	doEndAttempt  deed = "end attempt" // destroy, release, remove
	doRetry       deed = "retry"       // say so
	doSleep       deed = "sleep"       // until the next attempt is due
	doFinish      deed = "finish"      // write the result
)

// An action is a deed with what it is about.
type action struct {
	deed    deed
	step    *step     // of doSidecar, doStep, doStopSidecar
	attempt int       // of doBegin
	until   time.Time // of doSleep
	outcome *outcome  // of doStageOut, doEndAttempt
}

// A view is all that the next action depends on.
type view struct {
	task  *caisson.Task
	steps script
	h     *history
	asked []request // to end, in order
	boot  string    // the host's boot id
	gone  error     // why no more step could be started, such as secrets that are lost; nil: they can
	over  bool      // the result is there
	now   time.Time
}

// An outcome is how the work of an attempt, all but its finally steps, ended.
type outcome struct {
	success bool
	step    string // that decided
	exit    caisson.Exit
	failure *caisson.Failure
	reboot  bool // the host was rebooted under it: its files can't be trusted
}

// next decides what is to be done. It looks at nothing but v, so whoever takes
// up a task goes on where the last attendant was.
func next(v *view) action {
	h := v.h
	switch {
	case h.ended != nil:
		return action{deed: doNothing}
	case v.over:
		return action{deed: doFinish} // whatever a power cut has left of the journal
	case h.attempt == 0 && (len(v.asked) > 0 || v.gone != nil):
		return action{deed: doFinish}
	case h.attempt == 0:
		return action{deed: doBegin, attempt: 1}
	case !h.open:
		return v.between()
	}
	out := v.outcome()
	if out == nil {
		return v.work()
	}
	if st := v.liveSidecar(); st != nil {
		return action{deed: doStopSidecar, step: st}
	}
	if h.out == nil && v.stagesOut(out) {
		return action{deed: doStageOut, outcome: out}
	}
	if st := v.finallyLeft(); st != nil {
		return action{deed: doStep, step: st}
	}
	return action{deed: doEndAttempt, outcome: out}
}

// work returns the next action of an attempt that is not decided.
func (v *view) work() action {
	if v.h.staged == nil {
		return action{deed: doStage}
	}
	for _, st := range v.steps[kindPre] {
		if !v.h.steps[st.name].over() {
			return action{deed: doStep, step: &st}
		}
	}
	main := v.steps.main()
	if v.h.steps[main.name].over() {
		if st := v.liveSidecar(); st != nil {
			return action{deed: doStopSidecar, step: st}
		}
		for _, st := range v.steps[kindPost] {
			if !v.h.steps[st.name].over() {
				return action{deed: doStep, step: &st}
			}
		}
	}
	for _, st := range v.steps[kindSidecar] {
		if p := v.h.steps[st.name]; p == nil || (!p.started && !p.over()) {
			return action{deed: doSidecar, step: &st}
		}
	}
	return action{deed: doStep, step: main}
}

// outcome returns how the attempt's work ended, or nil while that is open. What
// a reboot or an abort came before is taken back.
func (v *view) outcome() *outcome {
	out := v.decided()
	if out == nil {
		return nil
	}
	if v.h.boot != v.boot && v.h.out == nil && !v.composed() {
		if out.success {
			out = &outcome{step: out.step, exit: rebooted}
		}
		out.reboot = true
	}
	if v.aborted() {
		out.success = false
		out.exit.Reason = caisson.ReasonAborted
	}
	return out
}

// composed reports whether the work of a composite task's attempt is over, with
// all that it has stored.
func (v *view) composed() bool {
	return v.task.Component != nil && v.h.steps[string(kindMain)].over()
}

// rebooted is the exit of an attempt that the host did not live to see the end
// of: of what its programs wrote, anything may be missing on disk.
var rebooted = caisson.Exit{Reason: caisson.ReasonLost, Message: "the host was rebooted"}

func (v *view) decided() *outcome {
	h := v.h
	if h.staged != nil && h.staged.Error != nil {
		if len(v.asked) > 0 {
			return &outcome{exit: exitAsked(v.asked)}
		}
		return &outcome{failure: h.staged.Error}
	}
	if out := v.failed(); out != nil {
		return out
	}
	if v.done() {
		return &outcome{success: true, step: string(kindMain), exit: *h.steps[string(kindMain)].exit}
	}
	current := h.current()
	switch {
	case current != "" && kindOf(current) != kindSidecar:
		return nil // its end decides
	case h.boot != v.boot:
		return &outcome{exit: rebooted}
	case len(v.asked) > 0:
		return &outcome{exit: exitAsked(v.asked)}
	case v.gone != nil:
		return &outcome{exit: caisson.Exit{Reason: caisson.ReasonLost, Message: v.gone.Error()}, failure: failure(v.gone)}
	}
	return nil
}

// failed returns the outcome of the first step that failed, or nil.
func (v *view) failed() *outcome {
	for _, k := range []kind{kindPre, kindSidecar, kindMain, kindPost} {
		if k == kindSidecar && v.h.steps[string(kindMain)] != nil {
			continue // once main is there, sidecars may end as they like
		}
		for _, st := range v.steps[k] {
			p := v.h.steps[st.name]
			if !p.over() || v.succeeded(&st, p) {
				continue
			}
			out := &outcome{step: st.name, failure: p.failure}
			if p.exit != nil {
				out.exit = *p.exit
			}
			return out
		}
	}
	return nil
}

// succeeded reports whether a step that is over did what it should.
func (v *view) succeeded(st *step, p *past) bool {
	switch {
	case p.failure != nil, p.exit.Reason != caisson.ReasonExited:
		return false
	case st.kind == kindSidecar:
		return false // it ended before main began
	case st.kind == kindMain && len(v.task.Success.Codes) > 0:
		return slices.Contains(v.task.Success.Codes, p.exit.Code)
	}
	return p.exit.Code == 0
}

// done reports whether main and all post steps are over.
func (v *view) done() bool {
	for _, k := range []kind{kindMain, kindPost} {
		for _, st := range v.steps[k] {
			if !v.h.steps[st.name].over() {
				return false
			}
		}
	}
	return true
}

func (v *view) liveSidecar() *step {
	for _, st := range v.steps[kindSidecar] {
		if v.h.steps[st.name].running() {
			return &st
		}
	}
	return nil
}

// stagesOut reports whether there may be something to be staged out.
func (v *view) stagesOut(out *outcome) bool {
	ready := v.h.staged != nil && v.h.staged.Error == nil && v.task.Component == nil
	return ready && !out.reboot && out.exit.Reason != caisson.ReasonAborted
}

// finallyLeft returns the next finally step that is not over. Who asks for the
// task's end while they run means them, too: then no more are begun.
func (v *view) finallyLeft() *step {
	for _, st := range v.steps[kindFinally] {
		p := v.h.steps[st.name]
		if p.over() {
			continue
		}
		if p == nil && (v.gone != nil || len(v.askedOf(kindFinally)) > 0) {
			return nil
		}
		return &st
	}
	return nil
}

// between returns the next action when one attempt is over.
func (v *view) between() action {
	if !v.again() {
		return action{deed: doFinish}
	}
	if v.h.retry == nil {
		return action{deed: doRetry}
	}
	if due := v.due(); v.now.Before(due) {
		return action{deed: doSleep, until: due}
	}
	return action{deed: doBegin, attempt: v.h.attempt + 1}
}

// again reports whether another attempt follows the one that is over: by the
// task's policy, never after a stop, and for an error of ours only if it may
// pass.
func (v *view) again() bool {
	r := v.h.verdict
	if r == nil || r.Success || len(v.asked) > 0 || v.gone != nil || v.h.attempt > v.task.Retry.Limit {
		return false
	}
	switch r.Exit.Reason {
	case caisson.ReasonStopped, caisson.ReasonKilled, caisson.ReasonAborted, caisson.ReasonCancelled, caisson.ReasonPolicy:
		return false
	}
	return r.Error == nil || r.Error.Kind.Retryable()
}

// maxDelay bounds the growth of the pause between attempts.
const maxDelay = 24 * time.Hour

// pause returns how long after an attempt's end the next one begins.
func pause(r *caisson.Retry, attempt int) time.Duration {
	factor := r.Factor
	if factor <= 0 {
		factor = 2
	}
	d := float64(r.Delay) * math.Pow(factor, float64(attempt-1))
	return time.Duration(min(d, float64(maxDelay)))
}

// due returns when the next attempt begins. A clock that was set back does not
// make the wait longer than the pause.
func (v *view) due() time.Time {
	d := pause(&v.task.Retry, v.h.attempt)
	due := v.h.retry.Time.Add(d)
	if due.After(v.now.Add(d)) {
		return v.now.Add(d)
	}
	return due
}
