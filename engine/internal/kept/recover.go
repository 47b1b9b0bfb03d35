package kept

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

// Recover is for engine.Engine.
func (b *Sandboxes) Recover(ctx context.Context, dir string) (engine.Sandbox, error) {
	if err := b.Open(ctx, caisson.OpRecover); err != nil {
		return nil, err
	}
	handle, err := engine.ReadHandle(dir, b.opts.Engine)
	if err != nil {
		return nil, err
	}
	rec := new(Record)
	if err := json.Unmarshal(handle.Data, rec); err != nil {
		return nil, &caisson.Error{Op: caisson.OpRecover, Item: dir, Kind: caisson.ErrInvalid, Err: err}
	}
	client, err := keeper.Dial(ctx, dir)
	if err != nil && !errors.Is(err, caisson.ErrNotFound) {
		return nil, said(caisson.OpRecover, handle.ID, err)
	}
	if client == nil && sinceBoot(handle) {
		if client, err = b.revive(ctx, handle.ID, dir, rec); err != nil {
			return nil, said(caisson.OpRecover, handle.ID, err)
		}
	}
	if client == nil {
		if err := b.ended(handle.ID, rec); err != nil {
			return nil, said(caisson.OpRecover, handle.ID, err)
		}
	}
	return b.sandbox(handle.ID, dir, rec, client), nil
}

// Sweep is for engine.Engine. It finds sandboxes by their runtime folders,
// control groups and user ids, so that nothing is missed where one of them was
// removed already.
func (b *Sandboxes) Sweep(ctx context.Context, live []string) (removed []string, err error) {
	if err := b.Open(ctx, caisson.OpSweep); err != nil {
		return nil, err
	}
	found, err := b.traces()
	if err != nil {
		return nil, said(caisson.OpSweep, b.opts.Installation, err)
	}
	var all []error
	for _, id := range found {
		if slices.Contains(live, id) || b.probing(id) {
			continue
		}
		if err := b.sweepOne(ctx, id); err != nil {
			all = append(all, said(caisson.OpSweep, id, err))
			continue
		}
		removed = append(removed, id)
	}
	return removed, errors.Join(all...)
}

// traces returns the ids of all sandboxes of this installation of which there
// is something on the host.
func (b *Sandboxes) traces() ([]string, error) {
	var ids []string
	entries, err := os.ReadDir(filepath.Join(b.opts.Runtime, b.opts.Installation))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, entry := range entries {
		ids = append(ids, entry.Name())
	}
	prefix := b.groupPrefix()
	names, err := groups(prefix)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		ids = append(ids, strings.TrimPrefix(name, prefix))
	}
	entries, err = os.ReadDir(filepath.Join(b.opts.Runtime, idsDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, entry := range entries {
		owner, err := os.Readlink(filepath.Join(b.opts.Runtime, idsDir, entry.Name()))
		installation, id, ok := strings.Cut(owner, "/")
		if err == nil && ok && installation == b.opts.Installation {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// Probing reports whether a sandbox of that id is one of a probe that goes on.
func (b *Sandboxes) Probing(id string) bool {
	if !strings.HasPrefix(id, probePrefix) {
		return false
	}
	held, err := lockfile.Held(filepath.Join(b.opts.Runtime, id, probeLock))
	return held || err != nil
}

// probing reports whether a sandbox is that of a probe which goes on, in this
// process or another one, or has ended since it was seen.
func (b *Sandboxes) probing(id string) bool {
	if !strings.HasPrefix(id, probePrefix) {
		return false
	}
	// In this order: its sandbox was seen, so if nobody holds the lock now, and
	// the sandbox is there after that, it is nobody's.
	held, lockErr := lockfile.Held(filepath.Join(b.opts.Runtime, id, probeLock))
	_, err := os.Lstat(b.Dir(id))
	return held || lockErr != nil || errors.Is(err, fs.ErrNotExist) && !b.abandoned(id)
}

// abandoned reports whether a probe has left something outside of its folders.
func (b *Sandboxes) abandoned(id string) bool {
	names, err := groups(b.groupPrefix() + id)
	return err == nil && len(names) > 0
}

// sweepOne destroys a sandbox that nobody owns.
func (b *Sandboxes) sweepOne(ctx context.Context, id string) error {
	if strings.HasPrefix(id, probePrefix) {
		defer os.RemoveAll(filepath.Join(b.opts.Runtime, id))
	}
	run := b.Dir(id)
	dir, err := os.Readlink(filepath.Join(run, dirName))
	if err == nil {
		sandbox, err := b.Recover(ctx, dir)
		if err == nil && sandbox.ID() == id {
			return sandbox.Destroy(ctx)
		}
		if err != nil && !errors.Is(err, caisson.ErrNotFound) {
			return err
		}
	}
	// Its folder is gone, or it was not finished.
	rec := &Record{Installation: b.opts.Installation, Run: run, Cgroup: b.Group(id)}
	if err := endGroup(rec.Cgroup); err != nil {
		return err
	}
	if err := errors.Join(b.remove(ctx, id, rec), b.freeSlot(rec.Installation, id)); err != nil {
		return err
	}
	if err := os.RemoveAll(run); err != nil {
		return fmt.Errorf("remove %s: %w", run, err)
	}
	_ = os.Remove(filepath.Dir(run))
	return nil
}
