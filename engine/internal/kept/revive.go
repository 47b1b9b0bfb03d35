package kept

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/lockfile"
	"github.com/caissonrun/caisson/keeper"
)

// reviveLock is held, in a sandbox's runtime folder, by the process that starts
// a new keeper for it.
const reviveLock = "revive.lock"

// sinceBoot reports whether a handle was written since the host was started.
func sinceBoot(h *engine.Handle) bool {
	boot, err := engine.BootID()
	return err == nil && boot == h.BootID
}

// revive starts a new keeper for a sandbox whose keeper was killed, if its
// programs outlive that. It returns nil where there is nothing to take up.
func (b *Sandboxes) revive(ctx context.Context, id, dir string, rec *Record) (*keeper.Client, error) {
	if b.opts.Revive == nil {
		return nil, nil
	}
	if _, err := keeper.ReadExit(dir); !errors.Is(err, caisson.ErrNotFound) {
		return nil, err
	}
	lock, err := lockfile.Acquire(ctx, filepath.Join(rec.Run, reviveLock))
	if err != nil {
		// Without the folder there is nothing.
		return nil, ctx.Err()
	}
	defer lock.Release()
	// Somebody else may have been quicker.
	client, err := keeper.Dial(ctx, dir)
	if client != nil || !errors.Is(err, caisson.ErrNotFound) {
		return client, err
	}
	spec, err := b.opts.Revive(ctx, id, rec)
	if errors.Is(err, caisson.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return b.launcher.Launch(ctx, spec)
}

// revived gives the sandbox a new keeper in the place of one that was killed,
// and reports whether it could.
func (s *sandbox) revived(ctx context.Context) bool {
	if s.b.opts.Revive == nil || s.alive(caisson.OpRecover) != nil {
		return false
	}
	s.reviving.Lock()
	defer s.reviving.Unlock()
	old := s.keeper()
	if old != nil {
		if _, err := old.Status(ctx); err == nil {
			return true
		}
	}
	client, err := s.b.revive(ctx, s.id, s.dir, s.rec)
	if err != nil || client == nil {
		return false
	}
	s.client.Store(client)
	s.b.links.add(s)
	if old != nil {
		s.b.links.drop(old)
	}
	return true
}
