//go:build unix

package executor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/lockfile"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/internal/state"
	"golang.org/x/sync/errgroup"
)

// Info is what is known about a task.
type Info struct {
	ID      string        `json:"id"`
	Name    string        `json:"name,omitempty"`
	Engine  string        `json:"engine"`
	State   caisson.State `json:"state"`
	Attempt int           `json:"attempt"`
	Step    string        `json:"step,omitempty"` // that runs now
	PID     int           `json:"pid,omitempty"`  // of its program on the host; Inspect only, where the engine tells
	// Networks is what its sandbox is attached to; Inspect only, where the engine
	// tells.
	Networks   []engine.Network `json:"networks,omitempty"`
	AcceptedAt time.Time        `json:"accepted_at"`
	StartedAt  time.Time        `json:"started_at,omitzero"`
	Progress   float64          `json:"progress,omitempty"`
	Attended   bool             `json:"attended"`         // a process attends to it now
	Task       *caisson.Task    `json:"task,omitempty"`   // Inspect only; secrets never in it
	Result     *caisson.Result  `json:"result,omitempty"` // once it has ended
	Dir        string           `json:"dir,omitempty"`    // Inspect only: the task's folder
	// Blocked is what programs of the newest attempt might not reach, until there
	// is a result that tells it; Inspect only.
	Blocked []caisson.Blocked `json:"blocked,omitempty"`
	// KeptUntil is until when the sandbox of a task that has ended is kept, or its
	// files.
	KeptUntil time.Time `json:"kept_until,omitzero"`
	// Parent is the task that this one is a part of, and Part what that calls it.
	Parent string `json:"parent,omitempty"`
	Part   string `json:"part,omitempty"`
	// ForkOf is the task that this one is a copy of.
	ForkOf string `json:"fork_of,omitempty"`
	// Parts are the tasks that the newest attempt is made of; Inspect only.
	Parts []Part `json:"parts,omitempty"`
}

// A Part is a task that was made as a part of another one.
type Part struct {
	Key   string        `json:"key"` // what the other one calls it
	ID    string        `json:"id"`
	State caisson.State `json:"state,omitempty"` // empty: it is still being made
}

// List returns the tasks, oldest first; all includes those that have ended, and
// those that are parts of others.
func (x *Executor) List(ctx context.Context, all bool) ([]Info, error) {
	ids, err := x.folder.Tasks()
	if err != nil {
		return nil, err
	}
	found := make([]*Info, len(ids))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(lookers)
	for i, id := range ids {
		t := x.folder.Task(id)
		if !all {
			if ended, err := state.Exists(t.Result()); ended || err != nil {
				continue
			}
		}
		group.Go(func() (err error) {
			if err := ctx.Err(); err != nil {
				return err
			}
			found[i], _, err = x.info(t)
			if errors.Is(err, caisson.ErrNotFound) {
				return nil // half made, or removed meanwhile
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	list := make([]Info, 0, len(found))
	for _, info := range found {
		if info == nil || (!all && (info.Result != nil || info.Parent != "")) {
			continue
		}
		info.Task, info.Dir = nil, ""
		list = append(list, *info)
	}
	// Ids sort by time, too, but only to the millisecond.
	slices.SortStableFunc(list, func(a, b Info) int { return a.AcceptedAt.Compare(b.AcceptedAt) })
	return list, nil
}

// Inspect returns one task. id may be a unique beginning of one. Errors:
// ErrNotFound; ErrInvalid if several begin so.
func (x *Executor) Inspect(ctx context.Context, id string) (*Info, error) {
	t, err := x.find(id)
	if err != nil {
		return nil, err
	}
	info, h, err := x.info(t)
	if err != nil {
		return nil, err
	}
	if v, ok := x.liveProgress(t, info); ok {
		info.Progress = max(info.Progress, v)
	}
	info.Parts = x.parts(h)
	if info.Result == nil {
		info.Blocked = h.blocked
	}
	info.PID = x.pid(ctx, t, info, h)
	info.Networks = x.networks(ctx, t, info, h)
	return info, ctx.Err()
}

// parts lists the children of a composite task's newest attempt.
func (x *Executor) parts(h *history) []Part {
	list := make([]Part, 0, len(h.children))
	for _, p := range h.children {
		part := Part{Key: p.key, ID: p.id}
		if info, _, err := x.info(x.folder.Task(p.id)); err == nil {
			part.State = info.State
		}
		list = append(list, part)
	}
	return list
}

// pid asks the engine for the pid of the program that runs, and returns 0
// where there is none or it can't be told.
func (x *Executor) pid(ctx context.Context, t state.Task, info *Info, h *history) (pid int) {
	p, err := x.engine(info.Engine)
	name := h.current()
	if err != nil || name == "" || info.Result != nil {
		return 0
	}
	limited, cancel := context.WithTimeout(ctx, x.limits.call)
	defer cancel()
	err = x.guard(caisson.OpRecover, func() error {
		sb, err := p.engine.Recover(limited, t.Attempt(info.Attempt).Step(h.folder(t.ID, name)))
		if err != nil {
			return err
		}
		program, err := sb.Process(limited)
		if err != nil {
			return err
		}
		if locator, ok := program.(engine.Locator); ok {
			pid, err = locator.PID(limited)
		}
		return err
	})
	if err != nil {
		return 0
	}
	return pid
}

func (x *Executor) info(t state.Task) (*Info, *history, error) {
	r, err := readRecord(t)
	if err != nil {
		return nil, nil, err
	}
	events, _, err := state.ReadJournal(t.Journal(), 0)
	if err != nil {
		return nil, nil, err
	}
	h := newHistory(events)
	result, err := readResult(t)
	if err != nil {
		return nil, nil, err
	}
	info := &Info{
		ID: t.ID, Name: r.Task.Name, Engine: r.Engine, State: h.state, Attempt: h.attempt,
		Step: stepsOf(r.Task).label(h.current()), AcceptedAt: r.AcceptedAt, StartedAt: h.started, Progress: h.progress,
		Task: r.Task, Result: result, Dir: t.Dir,
	}
	if p := r.Parent; p != nil {
		info.Parent, info.Part = p.ID, p.Key
	}
	if r.Fork != nil {
		info.ForkOf = r.Fork.Task
	}
	if result != nil {
		info.State, info.Step, info.KeptUntil = caisson.StateEnded, "", x.keptUntil(t)
		return info, h, nil
	}
	info.Attended, err = lockfile.Held(t.Lock())
	return info, h, err
}

// liveProgress reads what the program has told since somebody last watched.
func (x *Executor) liveProgress(t state.Task, info *Info) (float64, bool) {
	if info.Result != nil || info.Attempt == 0 {
		return 0, false
	}
	work, err := safefs.Open(t.Attempt(info.Attempt).Work(), nil)
	if err != nil {
		return 0, false
	}
	defer work.Close()
	return readProgress(work)
}

// find returns where the task is kept whose id begins with id. Errors:
// ErrNotFound; ErrInvalid if several do.
func (x *Executor) find(id string) (state.Task, error) {
	if caisson.CheckTaskID(id) == nil {
		t := x.folder.Task(id)
		if there, err := state.Exists(t.Document()); there || err != nil {
			return t, err
		}
		return t, noTask(id)
	}
	if id == "" {
		return state.Task{}, noTask(id)
	}
	ids, err := x.folder.Tasks()
	if err != nil {
		return state.Task{}, err
	}
	var found []string
	for _, other := range ids {
		if strings.HasPrefix(other, id) {
			if there, _ := state.Exists(x.folder.Task(other).Document()); there {
				found = append(found, other)
			}
		}
	}
	switch len(found) {
	case 0:
		return state.Task{}, noTask(id)
	case 1:
		return x.folder.Task(found[0]), nil
	}
	return state.Task{}, &caisson.Error{
		Item: fmt.Sprintf("%q", id), Kind: caisson.ErrInvalid,
		Err: fmt.Errorf("%d tasks begin so, such as %s and %s; give more of the id", len(found), found[0], found[1]),
	}
}

// lookAgain is how often Wait looks whether anybody still attends to the task.
const lookAgain = 2 * time.Second

// Wait waits for a task's result, and sees to it meanwhile that somebody
// attends to the task. Errors: ErrNotFound, also if the task is removed.
func (x *Executor) Wait(ctx context.Context, id string) (*caisson.Result, error) {
	t, err := x.find(id)
	if err != nil {
		return nil, err
	}
	looked := time.Now()
	step := time.Millisecond
	for {
		news := x.hub.wait(t.ID)
		if result, err := readResult(t); result != nil || err != nil {
			return result, err
		}
		if time.Since(looked) > lookAgain {
			if _, err := x.find(t.ID); err != nil {
				return nil, err
			}
			if err := x.lookAfter(ctx, t); err != nil {
				x.log.Warn("look after", "task", t.ID, "err", err)
			}
			looked = time.Now()
		}
		if err := pauseFor(ctx, news, step); err != nil {
			return nil, err
		}
		step = min(2*step, pollEvery)
	}
}

// Events calls f for the events of a task (of all tasks if id is empty), in
// order, and with follow for those that come, until the task has ended. Events
// of several tasks come in the order of their times as far as they are there.
func (x *Executor) Events(ctx context.Context, id string, follow bool, f func(caisson.Event) error) error {
	if id == "" {
		return x.allEvents(ctx, follow, f)
	}
	t, err := x.find(id)
	if err != nil {
		return err
	}
	pos := int64(0)
	for {
		news := x.hub.wait(t.ID)
		events, next, err := state.ReadJournal(t.Journal(), pos)
		if err != nil {
			return err
		}
		pos = next
		for _, ev := range events {
			if err := f(ev); err != nil {
				return err
			}
			if ev.Type == caisson.EventEnded {
				return nil
			}
		}
		if !follow {
			return nil
		}
		if err := pauseFor(ctx, news, pollEvery); err != nil {
			return err
		}
	}
}

// allEvents follows every task, those that come too, until ctx ends.
func (x *Executor) allEvents(ctx context.Context, follow bool, f func(caisson.Event) error) error {
	pos := make(map[string]int64)
	for {
		news := x.hub.wait("")
		events, err := x.newEvents(pos)
		if err != nil {
			return err
		}
		for _, ev := range events {
			if err := f(ev); err != nil {
				return err
			}
		}
		if !follow {
			return nil
		}
		if err := pauseFor(ctx, news, pollEvery); err != nil {
			return err
		}
	}
}

// newEvents returns what the journals hold beyond pos, in order of time, and
// moves pos on. A task that has ended is not looked at again.
func (x *Executor) newEvents(pos map[string]int64) ([]caisson.Event, error) {
	const over = -1
	ids, err := x.folder.Tasks()
	if err != nil {
		return nil, err
	}
	var list []caisson.Event
	for _, id := range ids {
		if pos[id] == over {
			continue
		}
		events, next, err := state.ReadJournal(x.folder.Task(id).Journal(), pos[id])
		if errors.Is(err, caisson.ErrNotFound) {
			continue // half made, or removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		list = append(list, events...)
		pos[id] = next
		if n := len(events); n > 0 && events[n-1].Type == caisson.EventEnded {
			pos[id] = over
		}
	}
	slices.SortStableFunc(list, func(a, b caisson.Event) int { return a.Time.Compare(b.Time) })
	return list, nil
}
