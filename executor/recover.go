//go:build unix

package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/crash"
	"github.com/caissonrun/caisson/internal/lockfile"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/internal/state"
	"github.com/caissonrun/caisson/mount"
	"golang.org/x/sync/errgroup"
)

// lookers is how many tasks are looked at at once.
const lookers = 16

// runningWait is how long Recover waits for the end of a program, to find out
// whether it has ended, where the engine can't tell at once.
const runningWait = 50 * time.Millisecond

// Recover looks after tasks that nobody attends to: it adopts those that run,
// starts attendants for those with work left, and removes what nobody owns.
// Several processes may do so at once.
//
// A task that can't be looked after, or an engine that can't sweep, keeps
// nobody from anything else: that is only logged. Errors: those of the state
// folder, and ctx's.
func (x *Executor) Recover(ctx context.Context) error {
	ids, err := x.folder.Tasks()
	if err != nil {
		return err
	}
	var group errgroup.Group
	group.SetLimit(lookers)
	for _, id := range ids {
		t := x.folder.Task(id)
		if settled(t) {
			continue
		}
		group.Go(func() error {
			if err := x.lookAfter(ctx, t); err != nil && ctx.Err() == nil {
				x.log.Warn("look after", "task", id, "err", err)
			}
			return nil
		})
	}
	_ = group.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := x.sweep(ctx); err != nil {
		return err
	}
	x.collect(ctx)
	return ctx.Err()
}

// collectEvery is how often images are looked through for old ones.
const collectEvery = time.Hour

// A collector is an Images that removes what the operator's settings say.
type collector interface {
	AutoGC(ctx context.Context, every time.Duration) error
}

// collect has old images removed. Nobody waits for a sandbox because of it.
func (x *Executor) collect(ctx context.Context) {
	images, ok := x.opts.Images.(collector)
	if !ok {
		return
	}
	err := x.guard(caisson.OpSweep, func() error { return images.AutoGC(ctx, collectEvery) })
	if err != nil {
		x.log.Warn("collect", "item", "images", "err", err)
	}
}

// settled reports whether nothing is left to be done for the task: the file of
// its lock went last.
func settled(t state.Task) bool {
	locked, err := state.Exists(t.Lock())
	if locked || err != nil {
		return false
	}
	ended, _ := state.Exists(t.Result())
	return ended
}

// lookAfter sees to it that somebody attends to the task, if need be.
func (x *Executor) lookAfter(ctx context.Context, t state.Task) error {
	if held, err := lockfile.Held(t.Lock()); held || err != nil {
		return err
	}
	if accepted, err := state.Exists(t.Document()); err != nil {
		return err
	} else if !accepted {
		if spare, err := x.lookAfterSpare(ctx, t); spare || err != nil {
			return err
		}
		return x.removeHalfMade(ctx, t)
	}
	ended, err := state.Exists(t.Result())
	if err != nil {
		return err
	}
	if !ended {
		events, _, err := state.ReadJournal(t.Journal(), 0)
		if err != nil {
			return err
		}
		if x.runs(ctx, t, newHistory(events)) {
			return nil
		}
		return x.spawn(t.ID)
	}
	kept, err := state.Exists(t.Keep())
	if err != nil {
		return err
	}
	if kept && len(x.opts.Attend) > 0 {
		return x.spawn(t.ID)
	}
	// Little is left to be done, so it is done here.
	err = x.Attend(ctx, t.ID, false)
	if errors.Is(err, caisson.ErrExists) {
		return nil // by somebody else, then
	}
	return err
}

// removeHalfMade removes a task's folder whose submitter died before the task
// was accepted.
func (x *Executor) removeHalfMade(ctx context.Context, t state.Task) error {
	lock, err := lockfile.Try(t.Lock())
	if errors.Is(err, caisson.ErrExists) || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Release()
	if accepted, err := state.Exists(t.Document()); accepted || err != nil {
		return err
	}
	return x.removeFolder(ctx, t)
}

// attended reports whether a process attends to the task right now.
func (x *Executor) attended(t state.Task) bool {
	held, err := lockfile.Held(t.Lock())
	return held && err == nil
}

// runs reports whether a program of the task runs that can do without an
// attendant until its end, which will be seen: its keeper lives, and starts one.
func (x *Executor) runs(ctx context.Context, t state.Task, h *history) bool {
	name := h.current()
	if name == "" || kindOf(name) == kindSidecar || !h.steps[name].started {
		return false
	}
	r, err := readRecord(t)
	if err != nil || r.gated() {
		return false
	}
	p, err := x.engine(r.Engine)
	if err != nil {
		return false
	}
	dir := t.Attempt(h.attempt).Step(h.folder(t.ID, name))
	if looker, ok := p.engine.(engine.Looker); ok {
		running, err := looker.Running(dir)
		return running && err == nil
	}
	return x.waitsFor(ctx, p.engine, dir)
}

// waitsFor finds out by waiting whether the program of the sandbox in dir runs.
func (x *Executor) waitsFor(ctx context.Context, e engine.Engine, dir string) bool {
	limited, cancel := context.WithTimeout(ctx, x.limits.call)
	defer cancel()
	running := false
	err := x.guard(caisson.OpRecover, func() error {
		sb, err := e.Recover(limited, dir)
		if err != nil {
			return err
		}
		p, err := sb.Process(limited)
		if err != nil {
			return err
		}
		short, cancel := context.WithTimeout(limited, runningWait)
		defer cancel()
		_, err = p.Wait(short)
		running = errors.Is(err, context.DeadlineExceeded)
		return nil
	})
	return running && err == nil
}

// sweep removes what nobody owns: sandboxes, mounts and secrets. While somebody
// makes a sandbox it is left to the next command.
func (x *Executor) sweep(ctx context.Context) error {
	lock, err := lockfile.Try(x.folder.SweepLock())
	if errors.Is(err, caisson.ErrExists) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Release()
	owned, err := x.owned()
	if err != nil {
		return err
	}
	for _, p := range x.engines {
		x.sweepEngine(ctx, p.engine, owned.sandboxes)
	}
	live := func(task string, attempt int) bool { return owned.attempts[attemptKey{task, attempt}] }
	for _, m := range x.opts.Mounters {
		sweeper, ok := m.(mount.Sweeper)
		if !ok {
			continue
		}
		err := x.guard(caisson.OpSweep, func() error { return sweeper.Sweep(ctx, live) })
		if err != nil {
			x.log.Warn("sweep", "mount", m.Type(), "err", err)
		}
	}
	if x.opts.Images != nil {
		err := x.guard(caisson.OpSweep, func() error { return x.opts.Images.Sweep(ctx, owned.leaseLives) })
		if err != nil {
			x.log.Warn("sweep", "item", "images", "err", err)
		}
	}
	if err := errors.Join(x.sweepSecrets(), x.sweepPrivates(ctx)); err != nil {
		x.log.Warn("sweep", "item", "secrets", "err", err)
	}
	return ctx.Err()
}

func (x *Executor) sweepEngine(ctx context.Context, e engine.Engine, live []string) {
	limited, cancel := context.WithTimeout(ctx, x.limits.destroy)
	defer cancel()
	var removed []string
	err := x.guard(caisson.OpSweep, func() (err error) {
		removed, err = e.Sweep(limited, live)
		return err
	})
	if err != nil {
		x.log.Warn("sweep", "engine", e.Name(), "err", err)
	}
	if len(removed) > 0 {
		x.log.Info("swept", "engine", e.Name(), "removed", removed)
	}
}

type attemptKey struct {
	task    string
	attempt int
}

// owned is what must not be swept.
type owned struct {
	sandboxes []string
	attempts  map[attemptKey]bool
}

// owned lists the sandboxes and attempts that have an owner: all that have a
// folder in a task's. Their attendants remove them.
func (x *Executor) owned() (*owned, error) {
	ids, err := x.folder.Tasks()
	if err != nil {
		return nil, err
	}
	o := &owned{attempts: make(map[attemptKey]bool)}
	for _, id := range ids {
		t := x.folder.Task(id)
		if settled(t) {
			continue
		}
		attempts, err := t.Attempts()
		if err != nil {
			return nil, err
		}
		for _, n := range attempts {
			o.attempts[attemptKey{id, n}] = true
			steps, err := t.Attempt(n).Steps()
			if err != nil {
				return nil, err
			}
			for _, name := range steps {
				o.sandboxes = append(o.sandboxes, caisson.SandboxID(id, n, name))
			}
		}
	}
	return o, nil
}

// sweepSecrets removes values of tasks that have ended, or were never accepted.
func (x *Executor) sweepSecrets() error {
	ids, err := x.secretsKept()
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range ids {
		t := x.folder.Task(id)
		if x.attended(t) {
			continue
		}
		accepted, err := state.Exists(t.Document())
		ended, endedErr := state.Exists(t.Result())
		if err = errors.Join(err, endedErr); err != nil {
			errs = append(errs, err)
			continue
		}
		if !accepted || ended {
			errs = append(errs, x.forgetSecrets(id))
		}
	}
	return errors.Join(errs...)
}

// sweepPrivates removes what composite tasks kept off the disk and no attempt
// has any more.
func (x *Executor) sweepPrivates(ctx context.Context) error {
	top := filepath.Join(x.runtime, privatesDir)
	entries, err := os.ReadDir(top)
	if err != nil || len(entries) == 0 {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	root, err := safefs.Open(top, nil)
	if err != nil {
		return err
	}
	defer root.Close()
	var errs []error
	for _, e := range entries {
		id, number, _ := strings.Cut(e.Name(), "-")
		n, err := strconv.Atoi(number)
		if err != nil || caisson.CheckTaskID(id) != nil || x.attended(x.folder.Task(id)) {
			continue
		}
		if there, err := state.Exists(x.folder.Task(id).Attempt(n).Disk()); there || err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, root.RemoveAll(ctx, e.Name()))
	}
	return errors.Join(errs...)
}

// Remove deletes an ended task with all it left; with force it aborts one that
// runs first. Errors: ErrExists if it runs and force is not set; ErrNotFound.
func (x *Executor) Remove(ctx context.Context, id string, force bool) error {
	t, err := x.find(id)
	if err != nil {
		return err
	}
	if err := x.removable(t); err != nil {
		return err
	}
	ended, err := state.Exists(t.Result())
	if err != nil {
		return safefs.Sorted(caisson.OpState, t.Dir, err)
	}
	if !ended {
		if !force {
			return &caisson.Error{Item: "task " + t.ID, Kind: caisson.ErrExists, Err: errors.New("it has not ended; stop it first, or force its removal")}
		}
		if err := x.abortAndWait(ctx, t); err != nil {
			return err
		}
	}
	return x.removeEnded(ctx, t)
}

// removable refuses the removal of a part of another task: that may still need
// its result, and shows its log.
func (x *Executor) removable(t state.Task) error {
	r, err := readRecord(t)
	if err != nil || r.Parent == nil {
		return err
	}
	if there, err := state.Exists(x.folder.Task(r.Parent.ID).Document()); !there || err != nil {
		return err
	}
	return &caisson.Error{
		Item: "task " + t.ID, Kind: caisson.ErrDenied,
		Err: fmt.Errorf("it is a part of task %s, and goes with that", r.Parent.ID),
	}
}

// removeChildren removes the parts of an ended task, before what tells of them.
func (x *Executor) removeChildren(ctx context.Context, events []caisson.Event) error {
	for i := range events {
		if events[i].Type != caisson.EventChild {
			continue
		}
		t := x.folder.Task(events[i].Child)
		accepted, err := state.Exists(t.Document())
		if err != nil {
			return safefs.Sorted(caisson.OpState, t.Dir, err)
		}
		if !accepted {
			if err := x.clearHalfMade(ctx, t); err != nil {
				return err
			}
			continue
		}
		ended, err := state.Exists(t.Result())
		if err == nil && !ended {
			err = x.abortAndWait(ctx, t)
		}
		if err == nil {
			err = x.removeEnded(ctx, t)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// abortAndWait ends the task. It is asked twice, because a finally step ends
// only if it is asked to while it runs.
func (x *Executor) abortAndWait(ctx context.Context, t state.Task) error {
	for {
		err := x.Stop(ctx, t.ID, engine.Stop{Reason: caisson.ReasonAborted})
		if errors.Is(err, caisson.ErrEnded) {
			return nil
		}
		if err != nil {
			return err
		}
		if len(x.opts.Attend) == 0 {
			if err := x.Attend(ctx, t.ID, false); err != nil && !errors.Is(err, caisson.ErrExists) {
				return err
			}
		}
		limited, cancel := context.WithTimeout(ctx, time.Second)
		_, err = x.Wait(limited, t.ID)
		cancel()
		if err == nil || ctx.Err() != nil {
			return errors.Join(ctx.Err())
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
}

// removeEnded removes an ended task. Who keeps its sandbox is asked to stop
// that.
func (x *Executor) removeEnded(ctx context.Context, t state.Task) error {
	events, _, err := state.ReadJournal(t.Journal(), 0)
	if err != nil {
		return err
	}
	if err := x.removeChildren(ctx, events); err != nil {
		return err
	}
	h := newHistory(events)
	kept, err := state.Exists(t.Keep())
	if err != nil {
		return safefs.Sorted(caisson.OpState, t.Dir, err)
	}
	if kept {
		// That there is no folder for it means that it is being put away already.
		err := x.ask(t, h, engine.Stop{Reason: caisson.ReasonAborted})
		if err != nil && !errors.Is(err, caisson.ErrNotFound) {
			return err
		}
		x.hub.wake(t.ID)
	}
	if kept || h.ended == nil {
		if err := x.putAway(ctx, t); err != nil {
			return err
		}
	}
	if kept, err := state.Exists(t.Keep()); kept || err != nil {
		return &caisson.Error{
			Item: "task " + t.ID, Kind: caisson.ErrUnavailable,
			Err: errors.Join(errors.New("something of it can't be removed; its folder stays, and every command tries again"), err),
		}
	}
	lock, err := lockfile.Acquire(ctx, t.Lock())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Release()
	return x.removeFolder(ctx, t)
}

// putAway sees to it that nothing is left to be done for an ended task, here or
// by whoever attends to it.
func (x *Executor) putAway(ctx context.Context, t state.Task) error {
	for {
		err := x.Attend(ctx, t.ID, false)
		if !errors.Is(err, caisson.ErrExists) {
			return err
		}
		if err := pauseFor(ctx, nil, pollEvery/2); err != nil {
			return err
		}
	}
}

// removeFolder removes a task's folder with the lock held. task.json goes
// first: what is left after a crash is taken for a half-made task.
func (x *Executor) removeFolder(ctx context.Context, t state.Task) error {
	crash.Point(crash.RemoveBefore)
	if err := os.Remove(t.Document()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return safefs.Sorted(caisson.OpState, t.Dir, err)
	}
	crash.Point(crash.RemoveMiddle)
	if err := x.forgetSecrets(t.ID); err != nil {
		return safefs.Sorted(caisson.OpState, t.Dir, err)
	}
	root, err := safefs.Open(x.folder.TasksDir(), nil)
	if err != nil {
		return safefs.Sorted(caisson.OpState, t.Dir, err)
	}
	defer root.Close()
	err = root.RemoveAll(ctx, t.ID)
	crash.Point(crash.RemoveAfter)
	return safefs.Sorted(caisson.OpState, t.Dir, err)
}
