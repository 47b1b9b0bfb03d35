//go:build unix

package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/internal/state"
)

// discard reads until the end.
func discard(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

// A window is what commands look through at a task: its newest attempt.
type window struct {
	task   state.Task
	record *record
	h      *history
}

func (x *Executor) open(id string) (*window, error) {
	t, err := x.find(id)
	if err != nil {
		return nil, err
	}
	r, err := readRecord(t)
	if err != nil {
		return nil, err
	}
	events, _, err := state.ReadJournal(t.Journal(), 0)
	if err != nil {
		return nil, err
	}
	return &window{task: t, record: r, h: newHistory(events)}, nil
}

// sandbox finds the sandbox of a step of the newest attempt.
func (x *Executor) sandbox(ctx context.Context, t state.Task, h *history, name string) (sb engine.Sandbox, err error) {
	r, err := readRecord(t)
	if err != nil {
		return nil, err
	}
	p, err := x.engine(r.Engine)
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, x.limits.call)
	defer cancel()
	err = x.guard(caisson.OpRecover, func() (err error) {
		sb, err = p.engine.Recover(limited, t.Attempt(h.attempt).Step(h.folder(t.ID, name)))
		return err
	})
	return sb, overtime(ctx, err, caisson.OpRecover, x.limits.call)
}

// running finds the sandbox of the program that runs.
//
// Errors: ErrEnded if the task has ended; ErrUnavailable if no program of it
// runs right now.
func (x *Executor) running(ctx context.Context, id string) (engine.Sandbox, error) {
	w, err := x.open(id)
	if err != nil {
		return nil, err
	}
	if ended, err := state.Exists(w.task.Result()); ended || err != nil {
		return nil, errors.Join(err, taskEnded(w.task.ID))
	}
	if w.record.composite() {
		child, err := x.runningChild(w)
		if err != nil {
			return nil, err
		}
		return x.running(ctx, child.task.ID)
	}
	name := w.h.current()
	if name == "" {
		return nil, &caisson.Error{
			Item: "task " + w.task.ID, Kind: caisson.ErrUnavailable,
			Err: fmt.Errorf("no program of it runs right now: it is %s", w.h.state),
		}
	}
	sb, err := x.sandbox(ctx, w.task, w.h, name)
	if errors.Is(err, caisson.ErrNotFound) {
		return nil, &caisson.Error{Item: "task " + w.task.ID, Kind: caisson.ErrEnded, Err: errors.New("its program has ended")}
	}
	return sb, err
}

// runningChild opens the child of a composite task that was made last and has
// not ended.
//
// Errors: ErrUnavailable if none runs right now.
func (x *Executor) runningChild(w *window) (*window, error) {
	for i := len(w.h.children) - 1; i >= 0; i-- {
		child, err := x.open(w.h.children[i].id)
		if errors.Is(err, caisson.ErrNotFound) {
			continue // it is still being made
		}
		if err != nil {
			return nil, err
		}
		if ended, err := state.Exists(child.task.Result()); !ended || err != nil {
			return child, err
		}
	}
	return nil, &caisson.Error{
		Item: "task " + w.task.ID, Kind: caisson.ErrUnavailable, Err: errors.New("no program of it runs right now"),
	}
}

// openFiles opens a task whose files are wanted, or, for a composite one, the
// child that runs.
func (x *Executor) openFiles(id string) (*window, error) {
	w, err := x.open(id)
	if err != nil || !w.record.composite() {
		return w, err
	}
	if ended, err := state.Exists(w.task.Result()); ended || err != nil {
		return nil, errors.Join(err, taskEnded(w.task.ID))
	}
	return x.runningChild(w)
}

// Signal sends a signal to the program that runs. Errors: ErrEnded;
// ErrUnavailable if no program of the task runs right now; ErrInvalid.
func (x *Executor) Signal(ctx context.Context, id string, signal int) error {
	sb, err := x.running(ctx, id)
	if err != nil {
		return err
	}
	return x.guard(caisson.OpSignal, func() error {
		p, err := sb.Process(ctx)
		if err != nil {
			return err
		}
		return p.Signal(ctx, signal)
	})
}

// Exec starts a program in the task's running sandbox, or in the one that is
// kept of an ended task. If that is to be kept and its program does not run yet,
// Exec waits for it. Errors: as Signal; ErrUnsupported.
func (x *Executor) Exec(ctx context.Context, id string, spec *engine.ExecSpec) (session engine.Session, err error) {
	sb, err := x.entered(ctx, id)
	if err != nil {
		return nil, err
	}
	execer, ok := sb.(engine.Execer)
	if !ok {
		return nil, cannot(caisson.OpExec, "run another program in a sandbox")
	}
	err = x.guard(caisson.OpExec, func() (err error) {
		session, err = execer.Exec(ctx, spec)
		return err
	})
	return session, err
}

// Stats returns what the task's running sandbox uses, or the one that is kept.
// Errors: as Exec.
func (x *Executor) Stats(ctx context.Context, id string) (stats engine.Stats, err error) {
	sb, err := x.runningOrKept(ctx, id)
	if err != nil {
		return engine.Stats{}, err
	}
	reader, ok := sb.(engine.StatsReader)
	if !ok {
		return engine.Stats{}, cannot(caisson.OpStats, "tell what a sandbox uses")
	}
	err = x.guard(caisson.OpStats, func() (err error) {
		stats, err = reader.Stats(ctx)
		return err
	})
	return stats, err
}

func cannot(op caisson.Op, what string) error {
	return &caisson.Error{Op: op, Kind: caisson.ErrUnsupported, Err: fmt.Errorf("this engine can't %s", what)}
}

// CopyOut writes path of the task's files as a tar stream: from the sandbox if
// it lives, else from the work folder. Relative paths start at the work folder.
//
// Errors: ErrNotFound if there is no such file; ErrEnded if the task has ended
// and its files are gone.
func (x *Executor) CopyOut(ctx context.Context, id, path string, w io.Writer) error {
	at, err := x.openFiles(id)
	if err != nil {
		return err
	}
	filer, err := x.filer(ctx, at)
	if err != nil {
		return err
	}
	if filer != nil {
		return x.guard(caisson.OpFiles, func() error { return filer.Tar(ctx, insideName(path), w) })
	}
	return x.onWork(at, path, func(work *safefs.Root, rel string) error {
		return safefs.Sorted(caisson.OpFiles, path, work.Tar(ctx, rel, w))
	})
}

// CopyIn unpacks a tar stream below the folder path, as the program's user.
// Errors: as CopyOut; ErrInvalid if the stream would lead out of the folder.
func (x *Executor) CopyIn(ctx context.Context, id, path string, r io.Reader) error {
	at, err := x.openFiles(id)
	if err != nil {
		return err
	}
	filer, err := x.filer(ctx, at)
	if err != nil {
		return err
	}
	if filer != nil {
		return x.guard(caisson.OpFiles, func() error { return filer.Put(ctx, insideName(path), r) })
	}
	return x.onWork(at, path, func(work *safefs.Root, rel string) error {
		opts := &safefs.UntarOptions{Owner: safeOwner(at.record.Owner)}
		return safefs.Sorted(caisson.OpFiles, path, work.Untar(ctx, rel, r, opts))
	})
}

// insideName is a path in the sandbox as engine.Filer wants it.
func insideName(name string) string {
	rel := path.Clean(inside(name))[1:]
	if rel == "" {
		return "."
	}
	return rel
}

// filer returns the sandbox's files: those of the step that runs, or of the last
// one that is kept. It is nil where the work folder is all that can be had.
func (x *Executor) filer(ctx context.Context, w *window) (engine.Filer, error) {
	names := append([]string{}, w.h.order...)
	if current := w.h.current(); current != "" {
		names = append(names, current)
	}
	for i := len(names) - 1; i >= 0; i-- {
		if there, err := exists(w.task.Attempt(w.h.attempt).Step(w.h.folder(w.task.ID, names[i]))); !there || err != nil {
			continue
		}
		sb, err := x.sandbox(ctx, w.task, w.h, names[i])
		if errors.Is(err, caisson.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if filer, ok := sb.(engine.Filer); ok && x.readable(ctx, filer) {
			return filer, nil
		}
	}
	return nil, nil
}

// readable reports whether there still is a sandbox behind its files: its keeper
// may have been killed. An error other than that shows when they are read.
func (x *Executor) readable(ctx context.Context, filer engine.Filer) bool {
	err := x.guard(caisson.OpFiles, func() error {
		files, err := filer.FS(ctx)
		if err != nil {
			return err
		}
		return files.Close()
	})
	return !errors.Is(err, caisson.ErrAborted)
}

// onWork calls f with the work folder on the host and where in it the path is.
func (x *Executor) onWork(w *window, name string, f func(work *safefs.Root, rel string) error) error {
	rel, ok := insideWork(name)
	if !ok {
		return &caisson.Error{
			Op: caisson.OpFiles, Item: fmt.Sprintf("%q", name), Kind: caisson.ErrUnavailable,
			Err: errors.New("no sandbox of the task is there, and it is not in the work folder"),
		}
	}
	there, err := exists(w.task.Attempt(w.h.attempt).Work())
	if err != nil {
		return err
	}
	if !there {
		why, kind := "its work folder is not there yet", caisson.ErrUnavailable
		if w.h.ended != nil {
			why, kind = "it has ended, and its files are gone; set keep to keep them for a while", caisson.ErrEnded
		}
		return &caisson.Error{Op: caisson.OpFiles, Item: "task " + w.task.ID, Kind: kind, Err: errors.New(why)}
	}
	work, err := safefs.Open(w.task.Attempt(w.h.attempt).Work(), nil)
	if err != nil {
		return safefs.Sorted(caisson.OpFiles, name, err)
	}
	defer work.Close()
	return f(work, rel)
}
