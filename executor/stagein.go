//go:build unix

package executor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/crash"
	"github.com/caissonrun/caisson/internal/disk"
	"github.com/caissonrun/caisson/internal/lockfile"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/mount"
	"github.com/caissonrun/caisson/stage"
)

// stage makes the attempt's folders, brings the inputs in and makes the mounts
// ready. Whatever an earlier try has left is removed first. What goes wrong is
// logged and decides the attempt.
func (a *attendant) stage(ctx context.Context) error {
	err := a.interruptible(ctx, anyAsked, a.stageAll)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	crash.Point(crash.StagedBefore)
	ev := &caisson.Event{Type: caisson.EventStaged, State: caisson.StateStaging, Error: failure(err)}
	if err := a.append(ev, false); err != nil {
		return err
	}
	crash.Point(crash.StagedAfter)
	return nil
}

func (a *attendant) stageAll(ctx context.Context) error {
	if waits, err := a.takeSpare(); err != nil {
		return err
	} else if waits {
		return a.stageSpare(ctx)
	}
	if exists, err := exists(a.attempt().Dir); err != nil {
		return err
	} else if exists {
		if err := a.cleanAttempt(ctx); err != nil {
			return fmt.Errorf("what an earlier try left: %w", err)
		}
	}
	if a.record.composite() {
		return a.makeJob()
	}
	if err := a.makeFolders(ctx); err != nil {
		return err
	}
	if err := a.stageFork(ctx); err != nil {
		return err
	}
	pulled, err := a.pull(ctx)
	if err != nil {
		return err
	}
	prepared := a.prepare(ctx)
	err = a.fetch(ctx)
	if err == nil {
		err = a.mount(ctx)
	}
	if err == nil {
		err = a.bringModule(ctx)
	}
	if err == nil {
		err = a.bringMachine(ctx)
	}
	prepared(err == nil)
	err = firstOf(err, pulled(err == nil))
	a.mounted = err == nil
	return err
}

// makeFolders makes what the attempt needs before anything of it can be done.
func (a *attendant) makeFolders(ctx context.Context) error {
	att, owner := a.attempt(), a.record.Owner
	crash.Point(crash.WorkBefore)
	a.places = &places{Version: placesVersion}
	for _, dir := range []string{att.Dir, att.Disk()} {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return safefs.Sorted(caisson.OpStageIn, dir, err)
		}
	}
	if size := a.record.Task.Limits.Disk; size > 0 && a.record.Sharing.Work {
		save := func(p disk.Place) error { a.places.Disk = &p; return a.places.write(att) }
		if _, err := disk.Create(ctx, att.Disk(), size, save); err != nil {
			return fmt.Errorf("limits.disk: %w", err)
		}
	}
	if err := makeOwned(att.Work(), 0o700, owner); err != nil {
		return err
	}
	crash.Point(crash.WorkAfter)
	return nil
}

// makeOwned makes a folder that belongs to owner, where the executor may give
// files away.
func makeOwned(dir string, perm os.FileMode, owner engine.Owner) error {
	err := os.Mkdir(dir, 0o700)
	if err == nil && os.Geteuid() == 0 {
		err = os.Chown(dir, owner.UID, owner.GID)
	}
	if err == nil && perm != 0o700 {
		err = os.Chmod(dir, perm)
	}
	return safefs.Sorted(caisson.OpStageIn, dir, err)
}

// prepare has the engine get ready while inputs are fetched. What it returns
// waits for that, or ends it if it is not needed any more. That it fails does
// not matter: Create does the same.
func (a *attendant) prepare(ctx context.Context) (wait func(needed bool)) {
	p, ok := a.engine.engine.(engine.Preparer)
	if !ok {
		return func(bool) {}
	}
	spec, err := a.blueprint().spec(a.steps.main(), string(kindMain))
	if err != nil {
		return func(bool) {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		done <- a.x.guard(caisson.OpPrepare, func() error { return p.Prepare(ctx, spec) })
	}()
	stop := a.clock(string(caisson.OpPrepare))
	return func(needed bool) {
		defer cancel()
		if !needed {
			cancel()
		}
		if err := <-done; err != nil {
			a.log.Debug("prepare", "err", err)
		}
		stop()
	}
}

// fetch brings the inputs in, one after the other: a later one may lie over an
// earlier one.
func (a *attendant) fetch(ctx context.Context) error {
	inputs := a.record.Task.Inputs
	if len(inputs) == 0 {
		return nil
	}
	defer a.clock(string(caisson.OpStageIn))()
	work, err := os.OpenRoot(a.attempt().Work())
	if err != nil {
		return safefs.Sorted(caisson.OpStageIn, "work folder", err)
	}
	defer work.Close()
	if err := os.Mkdir(a.attempt().Temp(), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return safefs.Sorted(caisson.OpStageIn, "work folder", err)
	}
	for i := range inputs {
		if err := a.fetchOne(ctx, i, work); err != nil {
			return at(fmt.Sprintf("inputs[%d]", i), err)
		}
	}
	return safefs.Sorted(caisson.OpStageIn, "work folder", os.RemoveAll(a.attempt().Temp()))
}

func (a *attendant) fetchOne(ctx context.Context, i int, work *os.Root) error {
	in := a.record.Task.Inputs[i]
	f, err := a.x.fetcher(&in)
	if err != nil {
		return err
	}
	env := stageEnv(a.record, a.secrets)
	env.Temp = a.attempt().Temp()
	env.NoBind = !a.mayBind(in.To)
	if tell := a.x.opts.Progress; tell != nil {
		env.Progress = func(done, total int64) { tell(a.task.ID, i, done, total) }
	}
	var got *stage.Fetched
	err = a.x.guard(caisson.OpStageIn, func() (err error) {
		got, err = f.Fetch(ctx, &in, work, env)
		return err
	})
	if err != nil || got == nil || got.Bind == "" {
		return err
	}
	bind := inputBind{Source: got.Bind, Target: path.Join(caisson.WorkDir, in.To)}
	a.places.Binds = append(a.places.Binds, bind)
	return a.places.write(a.attempt())
}

// mayBind reports whether an input may be bound instead of copied: never where
// an output, or a later input, may lie over it.
func (a *attendant) mayBind(to string) bool {
	if !a.record.Sharing.Work || !a.record.Sharing.Binds || a.waiting {
		return false
	}
	overlaps := func(out caisson.Output) bool { return stage.Overlaps(out.Path, to) }
	return !slices.ContainsFunc(a.record.Task.Outputs, overlaps)
}

// mount makes the task's mounts ready. What a mounter needs for the release is
// durable before it makes anything.
func (a *attendant) mount(ctx context.Context) error {
	mounts := a.record.Task.Mounts
	if len(mounts) == 0 {
		return nil
	}
	defer a.clock(string(caisson.OpMount))()
	// Who looks for what nobody owns must not find a mount before its attempt.
	lock, err := lockfile.AcquireShared(ctx, a.x.folder.SweepLock())
	if err != nil {
		return safefs.Sorted(caisson.OpMount, a.x.folder.SweepLock(), err)
	}
	defer lock.Release()
	for i := range mounts {
		if err := a.mountOne(ctx, i); err != nil {
			return at(fmt.Sprintf("mounts[%d]", i), err)
		}
	}
	return nil
}

func (a *attendant) mountOne(ctx context.Context, i int) error {
	m := a.record.Task.Mounts[i]
	m.Target = inside(m.Target)
	mounter, err := a.x.mounters.of(m.Type, a.record.Engine)
	if err != nil {
		return err
	}
	dir := filepath.Join(a.attempt().Mounts(), strconv.Itoa(i))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return safefs.Sorted(caisson.OpMount, m.Target, err)
	}
	save := func(p *mount.Place) error {
		p.Type, p.Index = m.Type, i
		p.ID = mount.ID(a.task.ID, a.h.attempt, i)
		a.places.set(p)
		return a.places.write(a.attempt())
	}
	req := &mount.Request{
		Env: a.x.mountEnv(a.record), Mount: m, Task: a.task.ID, Attempt: a.h.attempt, Index: i, Dir: dir, Save: save,
	}
	var place *mount.Place
	err = a.x.guard(caisson.OpMount, func() (err error) {
		place, err = mounter.Mount(ctx, req)
		return err
	})
	if err != nil {
		return err
	}
	if place == nil {
		return errNoPlace
	}
	return save(place)
}

// ensurePlaces makes sure that the attempt's mounts are there for a step that
// is about to begin: after a reboot, or where staging failed half-way, they are
// made anew for the finally steps.
func (a *attendant) ensurePlaces(ctx context.Context) error {
	if a.mounted {
		return nil
	}
	if err := a.knowPlaces(); err != nil {
		return err
	}
	if a.h.boot == a.boot && a.h.staged != nil && a.h.staged.Error == nil {
		a.mounted = true
		return nil
	}
	bounded := a.places.Disk != nil
	if err := a.release(ctx); err != nil {
		return err
	}
	there, err := exists(a.attempt().Work())
	if err != nil {
		return err
	}
	if !there || bounded {
		// What bounded the disk, and what was on it, is gone.
		if err := a.removeAll(ctx, a.attempt().Disk()); err != nil {
			return err
		}
		if err := a.makeFolders(ctx); err != nil {
			return err
		}
	}
	pulled, err := a.pull(ctx)
	if err == nil {
		err = a.mount(ctx)
		err = firstOf(err, pulled(err == nil))
	}
	a.mounted = err == nil
	return err
}

// firstOf returns the first error: what followed it was cut short by it.
func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// knowPlaces reads what the attempt has on the host, unless this process knows.
func (a *attendant) knowPlaces() (err error) {
	if a.places == nil {
		a.places, err = readPlaces(a.attempt())
	}
	return err
}
