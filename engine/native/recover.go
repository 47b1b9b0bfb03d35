package native

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/lockfile"
	"github.com/caissonrun/caisson/keeper"
)

// Recover implements engine.Engine.
func (e *Engine) Recover(ctx context.Context, dir string) (engine.Sandbox, error) {
	if err := e.open(ctx, caisson.OpRecover); err != nil {
		return nil, err
	}
	handle, err := engine.ReadHandle(dir, Name)
	if err != nil {
		return nil, err
	}
	rec := new(record)
	if err := json.Unmarshal(handle.Data, rec); err != nil {
		return nil, &caisson.Error{Op: caisson.OpRecover, Item: dir, Kind: caisson.ErrInvalid, Err: err}
	}
	client, err := keeper.Dial(ctx, dir)
	if err != nil && !errors.Is(err, caisson.ErrNotFound) {
		return nil, said(caisson.OpRecover, handle.ID, err)
	}
	if client == nil {
		if err := rec.killAll(handle.ID); err != nil {
			return nil, said(caisson.OpRecover, handle.ID, err)
		}
	}
	return e.sandbox(handle.ID, dir, rec, client), nil
}

// killAll kills what a keeper has left behind that was killed itself: with
// isolation that is nothing, because its init goes with it.
func (r *record) killAll(sandbox string) error {
	err := killGroup(r.Cgroup)
	if r.Isolation == None {
		err = errors.Join(err, killOrphans(mark(r.Installation, sandbox)))
	}
	return err
}

// Sweep implements engine.Engine. It finds sandboxes by their runtime folders,
// control groups and user ids, so that nothing is missed where one of them was
// removed already.
func (e *Engine) Sweep(ctx context.Context, live []string) (removed []string, err error) {
	if err := e.open(ctx, caisson.OpSweep); err != nil {
		return nil, err
	}
	found, err := e.traces()
	if err != nil {
		return nil, said(caisson.OpSweep, e.opts.Installation, err)
	}
	var all []error
	for _, id := range found {
		if slices.Contains(live, id) || e.probing(id) {
			continue
		}
		if err := e.sweepOne(ctx, id); err != nil {
			all = append(all, said(caisson.OpSweep, id, err))
			continue
		}
		removed = append(removed, id)
	}
	return removed, errors.Join(all...)
}

// traces returns the ids of all sandboxes of this installation of which there
// is something on the host.
func (e *Engine) traces() ([]string, error) {
	var ids []string
	entries, err := os.ReadDir(filepath.Join(e.opts.Runtime, e.opts.Installation))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, entry := range entries {
		ids = append(ids, entry.Name())
	}
	prefix := cgroupPrefix(e.opts.Installation)
	names, err := groups(prefix)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		ids = append(ids, strings.TrimPrefix(name, prefix))
	}
	entries, err = os.ReadDir(filepath.Join(e.opts.Runtime, idsDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, entry := range entries {
		owner, err := os.Readlink(filepath.Join(e.opts.Runtime, idsDir, entry.Name()))
		installation, id, ok := strings.Cut(owner, "/")
		if err == nil && ok && installation == e.opts.Installation {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// probing reports whether a sandbox is that of a probe which goes on, in this
// process or another one, or has ended since it was seen.
func (e *Engine) probing(id string) bool {
	if !strings.HasPrefix(id, probePrefix) {
		return false
	}
	// In this order: its sandbox was seen, so if nobody holds the lock now, and
	// the sandbox is there after that, it is nobody's.
	held, lockErr := lockfile.Held(filepath.Join(e.opts.Runtime, id, probeLock))
	_, err := os.Lstat(e.opts.runDir(id))
	return held || lockErr != nil || errors.Is(err, fs.ErrNotExist) && !e.abandoned(id)
}

// abandoned reports whether a probe has left something outside of its folders.
func (e *Engine) abandoned(id string) bool {
	names, err := groups(cgroupPrefix(e.opts.Installation) + id)
	return err == nil && len(names) > 0
}

// sweepOne destroys a sandbox that nobody owns.
func (e *Engine) sweepOne(ctx context.Context, id string) error {
	if strings.HasPrefix(id, probePrefix) {
		defer os.RemoveAll(filepath.Join(e.opts.Runtime, id))
	}
	run := e.opts.runDir(id)
	dir, err := os.Readlink(filepath.Join(run, dirName))
	if err == nil {
		sandbox, err := e.Recover(ctx, dir)
		if err == nil && sandbox.ID() == id {
			return sandbox.Destroy(ctx)
		}
		if err != nil && !errors.Is(err, caisson.ErrNotFound) {
			return err
		}
	}
	// Its folder is gone, or it was not finished.
	rec := &record{Installation: e.opts.Installation, Run: run, Cgroup: cgroupPrefix(e.opts.Installation) + id}
	if err := endGroup(rec.Cgroup); err != nil {
		return err
	}
	if err := errors.Join(e.opts.freeSlot(id), os.RemoveAll(run)); err != nil {
		return fmt.Errorf("remove %s: %w", run, err)
	}
	_ = os.Remove(filepath.Dir(run))
	return nil
}
