//go:build unix

package executor

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// The log of a composite task is spliced when it is read: its own records, and
// where a child was made, by the offset in the journal, the child's. Nothing is
// copied, so nothing can be lost or doubled when somebody is killed.

// hasPart reports whether a step of that name may have a log in the newest
// attempt: the composite's own, or a child's.
func (w *window) hasPart(name string) bool {
	return name == string(kindMain) || slices.ContainsFunc(w.h.children, func(p part) bool { return p.key == name })
}

// own reports whether the composite's own records are wanted.
func (l *logs) own() bool { return l.opts.Step == "" || l.opts.Step == string(kindMain) }

// splice calls f for the records of a composite task's attempt, in order.
func (l *logs) splice(ctx context.Context, s source) error {
	r := &splicer{l: l, source: s, pos: max(l.pos[s], int64(len(tasklog.Header)))}
	defer r.close()
	for {
		news := l.x.hub.wait(l.task.ID)
		over := l.isOver(ctx, s)
		for {
			rec, err := r.next(ctx)
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
			if err := l.giveOwn(s, rec); err != nil {
				return err
			}
		}
		if over {
			return nil
		}
		if err := pauseFor(ctx, news, pollEvery/2); err != nil {
			return err
		}
	}
}

func (l *logs) giveOwn(s source, rec tasklog.Record) error {
	if !l.own() || !l.matches(&rec) {
		return nil
	}
	l.out.Lock()
	defer l.out.Unlock()
	return l.f(LogRecord{Record: rec, Attempt: s.attempt, Step: string(kindMain)})
}

// spliceInto adds what there is of a composite task's attempt to end.
func (l *logs) spliceInto(ctx context.Context, s source, end *lastLines) error {
	r := &splicer{l: l, source: s, pos: int64(len(tasklog.Header)), into: end}
	defer r.close()
	for {
		rec, err := r.next(ctx)
		if err == io.EOF {
			l.pos[s] = r.pos
			return nil
		}
		if err != nil {
			return err
		}
		if l.own() && l.matches(&rec) {
			end.add(LogRecord{Record: rec, Attempt: s.attempt, Step: string(kindMain)})
		}
	}
}

// A splicer reads a composite task's own log, and has the logs of children given
// at their places.
type splicer struct {
	l      *logs
	source source
	into   *lastLines // nil: records are given to the caller of Logs
	log    *tasklog.Reader
	pos    int64 // of the next record
	given  int   // children before it
}

func (r *splicer) close() {
	if r.log != nil {
		_ = r.log.Close()
	}
}

// next returns the next own record, after what the children before it have
// printed, or io.EOF where there is none yet.
func (r *splicer) next(ctx context.Context) (tasklog.Record, error) {
	rec, err := r.read()
	if err != nil && err != io.EOF {
		return rec, err
	}
	// The journal is read after the record: it tells of every child before it.
	if _, err := r.l.refresh(ctx); err != nil {
		return rec, err
	}
	for _, p := range r.due(err == io.EOF) {
		if err := r.child(ctx, p); err != nil {
			return rec, err
		}
		r.given++
	}
	if err == nil {
		r.pos = rec.Pos
	}
	return rec, err
}

// due lists the children that come before the next record; at the end, those
// that there are.
func (r *splicer) due(end bool) []part {
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	list := r.l.children[r.source.attempt][r.given:]
	n := slices.IndexFunc(list, func(p part) bool { return !end && p.offset > r.pos })
	if n < 0 {
		n = len(list)
	}
	return slices.Clone(list[:n])
}

// read returns the next record of the own log.
func (r *splicer) read() (tasklog.Record, error) {
	if r.log == nil {
		log, err := tasklog.Open(r.l.task.Attempt(r.source.attempt).Log(r.source.folder), r.pos)
		if errors.Is(err, caisson.ErrNotFound) {
			return tasklog.Record{}, io.EOF
		}
		if err != nil {
			return tasklog.Record{}, err
		}
		r.log = log
	}
	return r.log.Next()
}

// child gives the log of a child, to its end if the caller follows.
func (r *splicer) child(ctx context.Context, p part) error {
	l := r.l
	if l.opts.Step != "" && l.opts.Step != p.key {
		return nil
	}
	part, err := l.partLogs(ctx, p, r.source)
	if part == nil || err != nil {
		return err
	}
	if r.into != nil {
		if _, err := part.refresh(ctx); err != nil {
			return err
		}
		return part.collect(ctx, r.into)
	}
	return part.run(ctx)
}

// partLogs returns the logs of a child, the same whenever it is asked for: they
// remember what tail has read. A follower waits for one that is still being
// made; nil: it is not there.
func (l *logs) partLogs(ctx context.Context, p part, s source) (*logs, error) {
	if l.parts[p.id] != nil {
		return l.parts[p.id], nil
	}
	w, err := l.x.open(p.id)
	for errors.Is(err, caisson.ErrNotFound) && l.opts.Follow && !l.isOver(ctx, s) {
		if err := pauseFor(ctx, nil, pollEvery/2); err != nil {
			return nil, err
		}
		w, err = l.x.open(p.id)
	}
	if errors.Is(err, caisson.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	opts := LogOptions{Follow: l.opts.Follow, Stream: l.opts.Stream, Since: l.opts.Since}
	part, err := l.x.logsOf(w, opts, func(rec LogRecord) error {
		l.out.Lock()
		defer l.out.Unlock()
		return l.f(rec)
	})
	if err != nil {
		return nil, err
	}
	part.key, part.of = p.key, s.attempt
	l.parts[p.id] = part
	return part, nil
}

// label makes a record of a part one of the whole.
func (l *logs) label(rec LogRecord) LogRecord {
	if l.key == "" {
		return rec
	}
	if rec.Step != string(kindMain) {
		rec.Step = l.key + "/" + rec.Step
	} else {
		rec.Step = l.key
	}
	rec.Task, rec.Attempt = l.task.ID, l.of
	return rec
}
