//go:build unix

package executor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/crash"
	"github.com/caissonrun/caisson/internal/disk"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/internal/state"
)

func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, safefs.Sorted(caisson.OpState, path, err)
}

// cleanAttempt removes everything of the attempt at hand but its logs: first
// the sandboxes, then what they used. It goes on after an error, can be called
// again, and returns by name what it had to leave.
func (a *attendant) cleanAttempt(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	crash.Point(crash.CleanBefore)
	if a.record.composite() {
		if err := a.cleanJob(ctx); err != nil {
			return err
		}
	}
	names, err := a.sandboxes()
	errs := []error{err}
	for _, name := range names {
		if name == state.NetworkDir && errors.Join(errs...) != nil {
			continue // somebody may be on it
		}
		errs = append(errs, a.dispose(ctx, name))
	}
	if err := errors.Join(errs...); err != nil {
		return err // mounts may still be in use
	}
	if err := a.knowPlaces(); err != nil {
		return err
	}
	if err := a.release(ctx); err != nil {
		return err
	}
	att := a.attempt()
	if err := a.removeAll(ctx, att.Disk(), att.Files()); err != nil {
		return err
	}
	a.mounted = false
	err = a.places.remove(att)
	a.places = nil
	crash.Point(crash.CleanAfter)
	return safefs.Sorted(caisson.OpDestroy, att.Places(), err)
}

// sandboxes lists the steps that may have a sandbox, the last made first, and
// after all of them the network that they share.
func (a *attendant) sandboxes() ([]string, error) {
	names, err := a.attempt().Steps()
	age := func(folder string) int { return slices.Index(a.h.order, stepOf(folder)) }
	slices.SortFunc(names, func(x, y string) int { return age(y) - age(x) })
	return names, err
}

// dispose destroys the sandbox that has the folder, if there is one, and removes
// the folder.
func (a *attendant) dispose(ctx context.Context, folder string) error {
	if err := a.destroy(ctx, folder); err != nil {
		return err
	}
	dir := a.attempt().Step(folder)
	return safefs.Sorted(caisson.OpDestroy, dir, os.RemoveAll(dir))
}

// destroy destroys the sandbox that has the folder, if there is one.
func (a *attendant) destroy(ctx context.Context, folder string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.x.limits.destroy)
	defer cancel()
	defer a.clock(string(caisson.OpDestroy))()
	dir := a.attempt().Step(folder)
	err := a.x.guard(caisson.OpDestroy, func() error {
		if folder == state.NetworkDir {
			return a.removeNetwork(ctx)
		}
		sb := a.live[folder]
		if sb == nil {
			var err error
			sb, err = a.engine.engine.Recover(ctx, dir)
			if errors.Is(err, caisson.ErrNotFound) {
				return nil // it was never made, or is destroyed already
			}
			if err != nil {
				return err
			}
		}
		return sb.Destroy(ctx)
	})
	if err != nil {
		// An engine that can't clean up gets no new task before it has shown
		// that it still works.
		a.engine.doubt(a.x)
		return fmt.Errorf("sandbox %s: %w", caisson.SandboxID(a.task.ID, a.h.attempt, folder), err)
	}
	delete(a.live, folder)
	return nil
}

// release gives back the attempt's mounts, the last made first, and then the
// disk that bounds them.
func (a *attendant) release(ctx context.Context) error {
	p := a.places
	for len(p.Mounts) > 0 {
		place := p.Mounts[len(p.Mounts)-1]
		mounter, err := a.x.mounters.of(place.Type, a.record.Engine)
		if err != nil {
			return at(place.Target, err)
		}
		limited, cancel := context.WithTimeout(ctx, a.x.limits.destroy)
		err = a.x.guard(caisson.OpMount, func() error { return mounter.Release(limited, place) })
		cancel()
		if err != nil {
			return fmt.Errorf("mount %s: %w", place.Target, err)
		}
		p.Mounts = p.Mounts[:len(p.Mounts)-1]
	}
	if err := a.releaseImages(ctx); err != nil {
		return err
	}
	if p.Disk != nil {
		if err := disk.Remove(ctx, p.Disk); err != nil {
			return fmt.Errorf("limits.disk: %w", err)
		}
		p.Disk = nil
	}
	return nil
}

// removeAll removes folders of the attempt whatever a task has made of them.
// What they lie in is nothing that a task reaches, and may be a mounted disk.
func (a *attendant) removeAll(ctx context.Context, dirs ...string) error {
	for _, dir := range dirs {
		parent, err := safefs.Open(filepath.Dir(dir), nil)
		if err == nil {
			err = parent.RemoveAll(ctx, filepath.Base(dir))
			parent.Close()
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return safefs.Sorted(caisson.OpDestroy, dir, err)
		}
	}
	return nil
}
