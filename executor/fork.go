//go:build unix

package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/filecopy"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/internal/state"
)

// maxForks bounds how many copies are made at once.
const maxForks = 1000

// forked says what a task is a copy of. What it goes on from lies in Task.Fork
// until it has ended, so that every attempt begins there.
type forked struct {
	Task   string `json:"task"`
	Memory bool   `json:"memory,omitempty"` // its main program goes on; otherwise it begins anew
}

// goesOn reports whether the step's program runs already in what the task goes on
// from.
func (f *forked) goesOn(st *step) bool { return f != nil && f.Memory && st.kind == kindMain }

// Fork makes n copies of a task whose main program runs, all of one point, and
// starts attendants for them. Each is a task of its own from there on: with its own
// id, sandbox, log, outputs and end, the same document and secrets, and the
// original's inputs and pre steps behind it. What of the sandbox is copied is
// engine.Features.Fork. It returns the ids of the copies, which it may also do with an
// error.
//
// Errors: ErrUnsupported, with the reason, if the task can't be copied; ErrEnded;
// ErrUnavailable if its main program does not run right now; ErrInvalid if n is not
// from 1 to 1000.
func (x *Executor) Fork(ctx context.Context, id string, n int) (ids []string, err error) {
	if n < 1 || n > maxForks {
		return nil, invalid("forks", fmt.Errorf("%d is not from 1 to %d", n, maxForks))
	}
	point, err := x.forkPoint(ctx, id)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, id := range ids {
			if spawnErr := x.spawn(id); spawnErr != nil {
				// It is accepted all the same: the next command starts one.
				x.log.Warn("attendant", "task", id, "err", spawnErr)
			}
		}
	}()
	for range n {
		id, err := point.make(ctx)
		if err != nil {
			return ids, fmt.Errorf("fork %d of %d: %w", len(ids)+1, n, err)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// A forkPoint is a task at one time.
type forkPoint struct {
	x       *Executor
	of      *window
	sandbox engine.Sandbox
	memory  bool
	secrets map[string][]byte
	// first is the folder of the first copy's beginning, which the others have, too.
	first string
}

// forkPoint looks whether and how a task can be copied.
func (x *Executor) forkPoint(ctx context.Context, id string) (*forkPoint, error) {
	w, err := x.open(id)
	if err != nil {
		return nil, err
	}
	if ended, err := state.Exists(w.task.Result()); ended || err != nil {
		return nil, errors.Join(err, taskEnded(w.task.ID))
	}
	if err := forkable(w.record); err != nil {
		return nil, err
	}
	p, err := x.engine(w.record.Engine)
	if err != nil {
		return nil, err
	}
	f, err := p.look(ctx, x, false)
	if err != nil {
		return nil, err
	}
	point := &forkPoint{x: x, of: w, memory: f.Fork == engine.ForkMemory}
	switch {
	case f.Fork == "":
		return nil, cannotFork("its engine can't copy a sandbox")
	case !point.memory && !w.record.Sharing.Work:
		return nil, cannotFork("its files are inside of its sandbox")
	case point.memory && w.record.Sharing.Work:
		return nil, cannotFork("folders of the host are mounted in its machine; run it with `forkable: true`, or --forkable")
	}
	if w.h.current() != string(kindMain) {
		return nil, &caisson.Error{
			Item: "task " + w.task.ID, Kind: caisson.ErrUnavailable, Err: fmt.Errorf("its main program does not run: it is %s", w.h.state),
		}
	}
	if point.sandbox, err = x.sandbox(ctx, w.task, w.h, string(kindMain)); err != nil {
		return nil, err
	}
	point.secrets, err = x.readSecrets(w.record)
	return point, err
}

// forkable says what of a task can't be had twice.
func forkable(r *record) error {
	task := r.Task
	for _, c := range []struct {
		has bool
		why string
	}{
		{r.composite(), "it is made of other tasks; fork one of those"},
		{r.Parent != nil, "it is a part of another task"},
		{len(task.Sidecars) > 0, "sidecars: they run in sandboxes of their own"},
		{len(task.Ports) > 0, "ports: one of the host's can be had once"},
		{r.gated(), "proxies, allow-lists and brokered secrets: what is open to them ends with the original"},
	} {
		if c.has {
			return cannotFork(c.why)
		}
	}
	return nil
}

func cannotFork(why string) error {
	return &caisson.Error{Op: caisson.OpValidate, Item: "fork", Kind: caisson.ErrUnsupported, Err: errors.New(why)}
}

// make makes one copy, durably.
func (p *forkPoint) make(ctx context.Context) (string, error) {
	task := *p.of.record.Task
	task.Inputs, task.Pre = nil, nil
	r := *p.of.record
	r.ID, r.Task = caisson.NewTaskID(p.x.now()), &task
	r.Fork = &forked{Task: p.of.task.ID, Memory: p.memory}
	r.fill = func(t state.Task) error { return p.fill(ctx, t) }
	lock, err := p.x.accept(ctx, &r, &Submission{Secrets: p.secrets}, nil)
	if err != nil {
		return "", err
	}
	p.x.log.Info("forked", "task", r.ID, "engine", r.Engine)
	return r.ID, lock.Release()
}

// fill makes the folder that a copy goes on from: the first from the sandbox, all
// others from the first.
func (p *forkPoint) fill(ctx context.Context, t state.Task) error {
	dir := t.Fork()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return safefs.Sorted(caisson.OpState, dir, err)
	}
	if p.memory {
		return p.fillMemory(ctx, dir)
	}
	from := p.of.task.Attempt(p.of.h.attempt).Disk()
	if p.first != "" {
		from = p.first
	}
	if err := copyWork(ctx, from, dir, p.of.record.Owner); err != nil {
		return err
	}
	p.first = dir
	return nil
}

// fillMemory has the sandbox write what it is, or takes what it has written.
func (p *forkPoint) fillMemory(ctx context.Context, dir string) error {
	if p.first != "" {
		return linkAll(p.first, dir)
	}
	s, ok := p.sandbox.(engine.Snapshotter)
	if !ok {
		return cannotFork("its sandbox can't be copied")
	}
	err := p.x.guard(caisson.OpCreate, func() error { return s.Snapshot(ctx, dir) })
	if err == nil {
		p.first = dir
	}
	return err
}

// linkAll has the files of a folder, which nobody writes to any more, in another one.
func linkAll(from, to string) error {
	entries, err := os.ReadDir(from)
	for _, e := range entries {
		if err == nil {
			err = os.Link(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()))
		}
	}
	return safefs.Sorted(caisson.OpState, to, err)
}

// copyWork copies the work folder in one folder to another one. What is no file,
// folder or link stays behind.
func copyWork(ctx context.Context, from, to string, owner engine.Owner) error {
	src, err := safefs.Open(from, nil)
	if err != nil {
		return safefs.Sorted(caisson.OpFiles, from, err)
	}
	defer src.Close()
	dst, err := safefs.Open(to, nil)
	if err != nil {
		return safefs.Sorted(caisson.OpFiles, to, err)
	}
	defer dst.Close()
	tree := &filecopy.Tree{Src: src, From: workName, Dst: dst, To: workName, Owner: safeOwner(owner), Skip: true}
	return safefs.Sorted(caisson.OpFiles, "work folder", tree.Copy(ctx))
}

// stageFork puts in the work folder of a copy what the original had there.
func (a *attendant) stageFork(ctx context.Context) error {
	if f := a.record.Fork; f == nil || f.Memory {
		return nil
	}
	return copyWork(ctx, a.task.Fork(), a.attempt().Disk(), a.record.Owner)
}

// forgetFork removes what a copy goes on from, once no attempt will.
func (a *attendant) forgetFork() error {
	if a.record.Fork == nil {
		return nil
	}
	return safefs.Sorted(caisson.OpState, a.task.Fork(), a.removeAll(context.Background(), a.task.Fork()))
}
