//go:build unix

package executor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/state"
	"github.com/caissonrun/caisson/keeper/tasklog"
	"golang.org/x/sync/errgroup"
)

// LogOptions chooses what Logs returns.
type LogOptions struct {
	Follow  bool
	Attempt int            // 0: the newest; with Follow also those that come
	Step    string         // by its name or the document's for it; empty: all steps in order
	Stream  tasklog.Stream // 0: all
	Since   time.Time
	Tail    int // last lines only; 0: all
}

// LogRecord is one record of a task's log.
type LogRecord struct {
	tasklog.Record
	Attempt int
	Step    string // its name in the document, or "pre-0" and so on
	// Task is the part of the task that has printed it, and Step what the task
	// calls that. Empty: the task itself.
	Task string
}

// Logs calls f for each record of the log: the logs of an attempt's steps one
// after the other, in the order in which they began. With Follow it goes on
// until the task, or the attempt that was asked for, has ended; then a sidecar's
// records come while those of other steps do. f is never called twice at once.
//
// The log of a task that is made of others is its own, and at the place where
// one of these was made that one's: a step is then what the task calls a part.
//
// Errors: ErrNotFound, also if there is no such step or attempt; f's.
func (x *Executor) Logs(ctx context.Context, id string, opts LogOptions, f func(LogRecord) error) error {
	w, err := x.open(id)
	if err != nil {
		return err
	}
	l, err := x.logsOf(w, opts, f)
	if err != nil {
		return err
	}
	if opts.Tail > 0 {
		if err := l.tail(ctx); err != nil {
			return err
		}
	}
	return l.run(ctx)
}

// logsOf begins a call of Logs.
func (x *Executor) logsOf(w *window, opts LogOptions, f func(LogRecord) error) (*logs, error) {
	steps := stepsOf(w.record.Task)
	composite := w.record.composite()
	if opts.Step != "" && !composite {
		st := steps.find(opts.Step)
		if st == nil {
			return nil, &caisson.Error{Item: fmt.Sprintf("step %q", opts.Step), Kind: caisson.ErrNotFound, Err: errors.New("the task has no such step")}
		}
		opts.Step = st.name
	}
	if opts.Step != "" && composite && !opts.Follow && !w.hasPart(opts.Step) {
		return nil, &caisson.Error{Item: fmt.Sprintf("step %q", opts.Step), Kind: caisson.ErrNotFound, Err: errors.New("the task has no such part")}
	}
	if opts.Attempt > w.h.attempt && !opts.Follow || opts.Attempt < 0 {
		return nil, &caisson.Error{Item: fmt.Sprintf("attempt %d", opts.Attempt), Kind: caisson.ErrNotFound, Err: fmt.Errorf("the task has had %d", w.h.attempt)}
	}
	return &logs{
		x: x, task: w.task, steps: steps, opts: opts, f: f, first: w.h.attempt, composite: composite,
		over: make(map[source]bool), pos: make(map[source]int64), parts: make(map[string]*logs), looked: time.Now(),
	}, nil
}

// A source is the log of one step of one attempt.
type source struct {
	attempt int
	step    string
	folder  string // of its sandbox
}

// logs is one call of Logs.
type logs struct {
	x     *Executor
	task  state.Task
	steps script
	opts  LogOptions
	first int // the newest attempt when it was called

	composite bool
	parts     map[string]*logs // those of children, by their ids
	key       string           // of a child: what its parent calls it
	of        int              // the parent's attempt

	out sync.Mutex // held while f is called
	f   func(LogRecord) error

	mu      sync.Mutex
	read    int64 // of the journal
	sources []source
	over    map[source]bool
	attempt int
	ended   bool
	looked  time.Time
	pos     map[source]int64 // of each log, read by tail
	// children are those of each attempt, in the order in which they were made.
	children map[int][]part
}

// run gives every source that there is, or comes.
func (l *logs) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		for next := 0; ; {
			news := l.x.hub.wait(l.task.ID)
			ended, err := l.refresh(ctx)
			if err != nil {
				return err
			}
			for sources := l.known(); next < len(sources); next++ {
				s := sources[next]
				if !l.wanted(s) {
					continue
				}
				if l.opts.Follow && kindOf(s.step) == kindSidecar {
					group.Go(func() error { return l.give(ctx, s) })
				} else if err := l.give(ctx, s); err != nil {
					return err
				}
			}
			if ended || !l.opts.Follow {
				return nil
			}
			if err := pauseFor(ctx, news, pollEvery/2); err != nil {
				return err
			}
		}
	})
	return group.Wait()
}

// refresh reads what is new in the journal. It reports whether nothing that is
// wanted can come any more.
func (l *logs) refresh(ctx context.Context) (ended bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	events, next, err := state.ReadJournal(l.task.Journal(), l.read)
	if err != nil {
		return false, err
	}
	l.read = next
	for i := range events {
		l.add(&events[i])
	}
	if l.opts.Follow && !l.ended && time.Since(l.looked) > lookAgain {
		if err := l.x.lookAfter(ctx, l.task); err != nil {
			l.x.log.Warn("look after", "task", l.task.ID, "err", err)
		}
		l.looked = time.Now()
	}
	return l.ended, nil
}

func (l *logs) add(ev *caisson.Event) {
	switch ev.Type {
	case caisson.EventAttempt:
		l.attempt = ev.Attempt
	case caisson.EventCreated:
		folder := folderOf(ev.Sandbox, l.task.ID, ev.Attempt, ev.Step)
		l.sources = append(l.sources, source{ev.Attempt, ev.Step, folder})
	case caisson.EventChild:
		if l.children == nil {
			l.children = make(map[int][]part)
		}
		l.children[ev.Attempt] = append(l.children[ev.Attempt], part{key: ev.Step, id: ev.Child, offset: ev.Offset})
	case caisson.EventExited:
		for _, s := range l.sources {
			if s.attempt == ev.Attempt && s.step == ev.Step {
				l.over[s] = true
			}
		}
	case caisson.EventAttemptEnd:
		for _, s := range l.sources {
			l.over[s] = true
		}
		l.ended = l.ended || ev.Attempt == l.opts.Attempt
	case caisson.EventEnded:
		l.ended = true
	}
}

func (l *logs) known() []source {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sources
}

func (l *logs) wanted(s source) bool {
	if l.opts.Step != "" && s.step != l.opts.Step && !l.composite {
		return false
	}
	if l.opts.Attempt > 0 {
		return s.attempt == l.opts.Attempt
	}
	return s.attempt >= l.first
}

// isOver reports whether nothing more will be written to a source.
func (l *logs) isOver(ctx context.Context, s source) bool {
	if !l.opts.Follow {
		return true
	}
	over, err := l.refresh(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	return over || err != nil || l.over[s]
}

// give calls f for what a source holds from where tail has left off.
func (l *logs) give(ctx context.Context, s source) error {
	if l.composite {
		return l.splice(ctx, s)
	}
	ended := func() bool { return l.isOver(ctx, s) }
	path := l.task.Attempt(s.attempt).Log(s.folder)
	return tasklog.Follow(ctx, path, l.pos[s], ended, func(rec tasklog.Record) error {
		if !l.matches(&rec) {
			return nil
		}
		l.out.Lock()
		defer l.out.Unlock()
		return l.f(l.label(LogRecord{Record: rec, Attempt: s.attempt, Step: l.steps.label(s.step)}))
	})
}

func (l *logs) matches(rec *tasklog.Record) bool {
	return (l.opts.Stream == 0 || rec.Stream == l.opts.Stream) && !rec.Time.Before(l.opts.Since)
}

// tail gives the last lines of what is there.
func (l *logs) tail(ctx context.Context) error {
	if _, err := l.refresh(ctx); err != nil {
		return err
	}
	end := &lastLines{max: l.opts.Tail}
	if err := l.collect(ctx, end); err != nil {
		return err
	}
	for _, rec := range end.records() {
		if err := l.f(rec); err != nil {
			return err
		}
	}
	return nil
}

// collect adds what is there to end.
func (l *logs) collect(ctx context.Context, end *lastLines) error {
	for _, s := range l.sources {
		if !l.wanted(s) {
			continue
		}
		read := l.readInto
		if l.composite {
			read = func(s source, end *lastLines) error { return l.spliceInto(ctx, s, end) }
		}
		if err := read(s, end); err != nil {
			return err
		}
	}
	return nil
}

func (l *logs) readInto(s source, end *lastLines) error {
	r, err := tasklog.Open(l.task.Attempt(s.attempt).Log(s.folder), 0)
	if errors.Is(err, caisson.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		rec, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		l.pos[s] = rec.Pos
		if l.matches(&rec) {
			end.add(l.label(LogRecord{Record: rec, Attempt: s.attempt, Step: l.steps.label(s.step)}))
		}
	}
}

// lastLines keeps the records that hold the last lines of a stream of them.
type lastLines struct {
	max   int
	kept  []LogRecord
	lines int // line ends in kept
}

func (t *lastLines) add(rec LogRecord) {
	t.kept = append(t.kept, rec)
	t.lines += bytes.Count(rec.Data, []byte{'\n'})
	for len(t.kept) > 1 {
		n := bytes.Count(t.kept[0].Data, []byte{'\n'})
		// One more line end than lines, because the last one may be open.
		if t.lines-n <= t.max {
			return
		}
		t.kept, t.lines = t.kept[1:], t.lines-n
	}
}

// records returns the last lines, the first record cut to where they begin.
func (t *lastLines) records() []LogRecord {
	left := t.max
	for i := len(t.kept) - 1; i >= 0; i-- {
		rec := &t.kept[i]
		for at := len(rec.Data) - 1; at >= 0; at-- {
			last := i == len(t.kept)-1 && at == len(rec.Data)-1
			if rec.Data[at] != '\n' || last {
				continue
			}
			if left--; left == 0 && at+1 == len(rec.Data) {
				return t.kept[i+1:]
			}
			if left == 0 {
				rec.Offset += int64(at + 1)
				rec.Data = rec.Data[at+1:]
				return t.kept[i:]
			}
		}
	}
	return t.kept
}
