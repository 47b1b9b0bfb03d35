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
}

// Logs calls f for each record of the log: the logs of an attempt's steps one
// after the other, in the order in which they began. With Follow it goes on
// until the task, or the attempt that was asked for, has ended; then a sidecar's
// records come while those of other steps do. f is never called twice at once.
//
// Errors: ErrNotFound, also if there is no such step or attempt; f's.
func (x *Executor) Logs(ctx context.Context, id string, opts LogOptions, f func(LogRecord) error) error {
	w, err := x.open(id)
	if err != nil {
		return err
	}
	steps := stepsOf(w.record.Task)
	if opts.Step != "" {
		st := steps.find(opts.Step)
		if st == nil {
			return &caisson.Error{Item: fmt.Sprintf("step %q", opts.Step), Kind: caisson.ErrNotFound, Err: errors.New("the task has no such step")}
		}
		opts.Step = st.name
	}
	if opts.Attempt > w.h.attempt && !opts.Follow || opts.Attempt < 0 {
		return &caisson.Error{Item: fmt.Sprintf("attempt %d", opts.Attempt), Kind: caisson.ErrNotFound, Err: fmt.Errorf("the task has had %d", w.h.attempt)}
	}
	l := &logs{x: x, task: w.task, steps: steps, opts: opts, f: f, first: w.h.attempt, over: make(map[source]bool), pos: make(map[source]int64), looked: time.Now()}
	if opts.Tail > 0 {
		if err := l.tail(ctx); err != nil {
			return err
		}
	}
	return l.run(ctx)
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
	if l.opts.Step != "" && s.step != l.opts.Step {
		return false
	}
	if l.opts.Attempt > 0 {
		return s.attempt == l.opts.Attempt
	}
	return s.attempt >= l.first
}

// give calls f for what a source holds from where tail has left off.
func (l *logs) give(ctx context.Context, s source) error {
	ended := func() bool {
		if !l.opts.Follow {
			return true
		}
		over, err := l.refresh(ctx)
		l.mu.Lock()
		defer l.mu.Unlock()
		return over || err != nil || l.over[s]
	}
	path := l.task.Attempt(s.attempt).Log(s.folder)
	return tasklog.Follow(ctx, path, l.pos[s], ended, func(rec tasklog.Record) error {
		if !l.matches(&rec) {
			return nil
		}
		l.out.Lock()
		defer l.out.Unlock()
		return l.f(LogRecord{Record: rec, Attempt: s.attempt, Step: l.steps.label(s.step)})
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
	for _, s := range l.sources {
		if !l.wanted(s) {
			continue
		}
		if err := l.readInto(s, end); err != nil {
			return err
		}
	}
	for _, rec := range end.records() {
		if err := l.f(rec); err != nil {
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
			end.add(LogRecord{Record: rec, Attempt: s.attempt, Step: l.steps.label(s.step)})
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
