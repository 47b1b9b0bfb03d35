//go:build unix

package executor

import (
	"strconv"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
)

// A history is what a task's journal says, up to some event.
type history struct {
	last    int64 // number of the last event
	state   caisson.State
	started time.Time // the first attempt's beginning
	// startedMain is when the newest attempt's main program began, or the work of
	// a composite task.
	startedMain time.Time
	asked       int // how many requests to end it the journal tells of
	progress    float64
	attempt     int // the newest one's number; 0: none has begun
	open        bool
	// Of the newest attempt:
	boot    string
	staged  *caisson.Event // inputs and mounts are in place, or could not be
	steps   map[string]*past
	order   []string       // of steps, as they were created
	out     *caisson.Event // outputs are at their places, or could not be
	finally int64          // number of the first event of a finally step
	phases  []caisson.Phase
	blocked []caisson.Blocked // what programs might not reach
	// Of a composite task's:
	children []part
	said     map[string]int64 // messages by their keys: where in the log they begin
	verdict  *caisson.Result  // once it is over
	retry    *caisson.Event   // that another attempt will follow it
	// ended is the task's last event.
	ended *caisson.Event
}

// past is what has happened to a step.
type past struct {
	created bool // its sandbox is there, and its program may run
	sandbox string
	started bool // its program runs, or has run
	began   time.Time
	exit    *caisson.Exit
	failure *caisson.Failure // Caisson could not do its part
	end     *caisson.Event   // that tells it
}

// A part is a child of an attempt.
type part struct {
	key    string
	id     string
	offset int64 // of the parent's log: how much of that comes before the child's
}

// over reports whether the step has ended. A nil past has not begun.
func (p *past) over() bool { return p != nil && (p.exit != nil || p.failure != nil) }

// running reports whether the step's program may run.
func (p *past) running() bool { return p != nil && p.created && !p.over() }

func newHistory(events []caisson.Event) *history {
	h := new(history)
	for i := range events {
		h.add(&events[i])
	}
	return h
}

// add takes note of one more event.
func (h *history) add(ev *caisson.Event) {
	h.last = ev.Seq
	if ev.State != "" {
		h.state = ev.State
	}
	if ev.Type == caisson.EventAttempt {
		h.begin(ev)
	}
	h.phases = append(h.phases, ev.Phases...)
	switch ev.Type {
	case caisson.EventStaged:
		h.staged = ev
	case caisson.EventCreated:
		p := h.step(ev)
		p.created, p.sandbox = true, ev.Sandbox
	case caisson.EventStarted:
		p := h.step(ev)
		p.started, p.began = true, ev.Time
		if kindOf(ev.Step) == kindMain {
			h.startedMain = ev.Time
		}
	case caisson.EventExited:
		p := h.step(ev)
		p.exit, p.failure, p.end = ev.Exit, ev.Error, ev
	case caisson.EventChild:
		h.children = append(h.children, part{key: ev.Step, id: ev.Child, offset: ev.Offset})
	case caisson.EventMessage:
		if h.said == nil {
			h.said = make(map[string]int64)
		}
		h.said[ev.Step] = ev.Offset
	case caisson.EventBlocked:
		if ev.Blocked != nil {
			h.blocked = append(h.blocked, *ev.Blocked)
		}
	case caisson.EventStopAsked:
		h.asked++
	case caisson.EventProgress:
		h.progress = ev.Progress
	case caisson.EventStagedOut:
		h.out = ev
	case caisson.EventAttemptEnd:
		h.open, h.verdict = false, ev.Result
	case caisson.EventRetry:
		h.retry = ev
	case caisson.EventEnded:
		h.ended = ev
	}
}

// begin forgets the attempt before.
func (h *history) begin(ev *caisson.Event) {
	started := h.started
	if started.IsZero() {
		started = ev.Time
	}
	*h = history{
		last: ev.Seq, state: ev.State, started: started, asked: h.asked,
		attempt: ev.Attempt, open: true, boot: ev.Boot, steps: make(map[string]*past),
	}
}

// step returns the event's step, new if nothing was known of it.
func (h *history) step(ev *caisson.Event) *past {
	p := h.steps[ev.Step]
	if p == nil {
		p = new(past)
		if h.steps == nil {
			h.steps = make(map[string]*past)
		}
		h.steps[ev.Step] = p
		h.order = append(h.order, ev.Step)
		if h.finally == 0 && kindOf(ev.Step) == kindFinally {
			h.finally = ev.Seq
		}
	}
	return p
}

// current returns the step whose program runs, the main one before its
// sidecars, or nothing.
func (h *history) current() string {
	name := ""
	for _, s := range h.order {
		if h.steps[s].running() && (name == "" || kindOf(name) == kindSidecar) {
			name = s
		}
	}
	return name
}

// folder returns the name of the folder of a step's sandbox in that of the
// newest attempt.
func (h *history) folder(task, name string) string {
	if p := h.steps[name]; p != nil {
		return folderOf(p.sandbox, task, h.attempt, name)
	}
	return name
}

// folderOf returns the name of the folder of a sandbox: its id without what
// all of the attempt's have in common.
func folderOf(sandbox, task string, attempt int, step string) string {
	folder, ok := strings.CutPrefix(sandbox, caisson.SandboxID(task, attempt, ""))
	if !ok || folder == "" {
		return step
	}
	return folder
}

// A try of Create that was killed in the middle may still be falling apart. The
// next one of the step gets another sandbox id and another folder, so that they
// do not meet.
const tryMark = "-r"

// tryFolder is the folder of the sandbox that is made at a try, counted from 1.
func tryFolder(step string, try int) string {
	if try == 1 {
		return step
	}
	return step + tryMark + strconv.Itoa(try)
}

// stepOf is the step that the folder is of.
func stepOf(folder string) string {
	step, _, _ := strings.Cut(folder, tryMark)
	return step
}
