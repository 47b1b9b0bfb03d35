package kept

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/cleanup"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/keeper"
)

// A Plan is how an engine makes one sandbox.
type Plan struct {
	Spec *engine.Spec
	// Record is what the handle will say. Create fills in Installation, Run,
	// Cgroup and Sockets.
	Record Record
	// OwnIDs gives the sandbox a slot of host ids of its own.
	OwnIDs bool
	// Keeper returns what the keeper is told. It is called with slot 0 before
	// anything is made, so that what is wrong with the spec shows, and with the
	// sandbox's own slot once that and what Prepare makes are there.
	Keeper func(slot int) (*keeper.Spec, error)
	// Prepare makes what the engine needs besides what is here, such as
	// networks, once the handle is durable. How to undo it goes to undo, and
	// Options.Remove does the same later. Nil: there is nothing.
	Prepare func(ctx context.Context, slot int, undo *cleanup.List) error
	// Shell is what an exec without a command runs.
	Shell string
	// UID and GID are the ids on the host of programs that have no map of ids.
	UID, GID int
}

// Create makes the sandbox, and leaves nothing if it can't. See engine.Engine.
func (b *Sandboxes) Create(ctx context.Context, p *Plan) (_ engine.Sandbox, err error) {
	var undo cleanup.List
	defer undo.OnError(ctx, &err)
	spec, rec := p.Spec, &p.Record
	fail := func(err error) (engine.Sandbox, error) { return nil, said(caisson.OpCreate, spec.ID, err) }

	// The shape of the sandbox does not depend on its ids, so what is wrong
	// with the spec shows before anything is made.
	kept, err := p.Keeper(0)
	if err != nil {
		return nil, err
	}
	run := b.Dir(spec.ID)
	if _, err := os.Lstat(run); err == nil {
		return nil, exists(spec.ID)
	}

	// The handle names all that follows.
	rec.Installation, rec.Run = b.opts.Installation, run
	rec.UID, rec.GID = spec.WorkOwner.UID, spec.WorkOwner.GID
	rec.Changes, rec.Kept = kept.Box.Changes, spec.Keep > 0
	if len(spec.Displays) > 0 {
		rec.Displays = spec.Displays
	}
	if rec.Shape, err = spec.Shape(); err != nil {
		return fail(err)
	}
	if spec.Gateway != nil {
		rec.Sockets = spec.Gateway.Sockets
	}
	if kept.Box.Cgroup != nil {
		rec.Cgroup = kept.Box.Cgroup.Name
	}
	if err := b.writeHandle(spec, rec); err != nil {
		return fail(err)
	}
	undo.Add(func() error { return removeHandle(spec.Dir) })
	undo.AddContext(rec.removeWork)
	if err := makeRun(run, spec.ID, spec.Dir); err != nil {
		return fail(err)
	}
	undo.Add(func() error { return removeRun(run, spec.Dir) })

	// Ids of its own, what the engine adds, and the files of folders that can't
	// be shown with other ids.
	slot := 0
	if p.OwnIDs {
		if slot, err = b.takeSlot(ctx, spec.ID); err != nil {
			return fail(err)
		}
		undo.Add(func() error { return b.freeSlot(b.opts.Installation, spec.ID) })
	}
	if p.Prepare != nil {
		if err := p.Prepare(ctx, slot, &undo); err != nil {
			return fail(err)
		}
	}
	if p.OwnIDs || p.Prepare != nil {
		if kept, err = p.Keeper(slot); err != nil {
			return nil, err
		}
	}
	if p.OwnIDs {
		undo.AddContext(func(ctx context.Context) error { return rec.giveBack(ctx, b.opts.IDs) })
		if err := rec.giveAway(ctx, b.opts.IDs, kept.Box); err != nil {
			return fail(err)
		}
	}

	if err := writeProgram(run, p.program(kept)); err != nil {
		return fail(err)
	}
	// A keeper that is ended while it makes the sandbox can't remove its group.
	undo.Add(func() error { return endGroup(rec.Cgroup) })
	client, err := b.launcher.Launch(ctx, kept)
	if err != nil {
		return fail(err)
	}
	undo.AddContext(client.Destroy)
	// Whoever makes a sandbox sees to what follows its end.
	if err := client.Own(ctx); err != nil {
		return fail(err)
	}
	undo.Release()
	return b.sandbox(spec.ID, spec.Dir, rec, client), nil
}

// program is what Exec will need.
func (p *Plan) program(k *keeper.Spec) *program {
	out := &program{Main: k.Program, Shell: p.Shell, UID: p.UID, GID: p.GID}
	if u := k.Box.User; u != nil && !k.Box.None {
		out.UID, out.GID = OnHost(k.Box.UIDs, u.UID), OnHost(k.Box.GIDs, u.GID)
	}
	return out
}

// OnHost returns the host's id of one of the inside.
func OnHost(maps []isolate.IDMap, inside int) int {
	for _, m := range maps {
		if inside >= m.Inside && inside < m.Inside+m.Size {
			return m.Host + inside - m.Inside
		}
	}
	return inside
}

func (b *Sandboxes) writeHandle(spec *engine.Spec, rec *Record) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	boot, err := engine.BootID()
	if err != nil {
		return err
	}
	return engine.WriteHandle(spec.Dir, &engine.Handle{Engine: b.opts.Engine, ID: spec.ID, BootID: boot, Data: data})
}

func removeHandle(dir string) error {
	err := os.Remove(filepath.Join(dir, engine.HandleFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// removeWork removes the kernel's own folder of an overlay. It can be called
// again.
func (r *Record) removeWork(ctx context.Context) error {
	if r.Changes == "" {
		return nil
	}
	root, err := safefs.Open(r.Changes, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	err = root.RemoveAll(ctx, isolate.OverlayWork)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// giveAway makes the files of the plain folders the sandbox's.
func (r *Record) giveAway(ctx context.Context, ids Range, box *isolate.Spec) error {
	owner := safefs.Owner{UID: OnHost(box.UIDs, box.User.UID), GID: OnHost(box.GIDs, box.User.GID)}
	for _, dir := range r.Chowned {
		if err := r.chown(ctx, ids, dir, owner); err != nil {
			return fmt.Errorf("give %s to the sandbox: %w", dir, err)
		}
	}
	return nil
}

// giveBack undoes giveAway, also one that was cut short. A folder that is gone
// needs nothing.
func (r *Record) giveBack(ctx context.Context, ids Range) error {
	var all []error
	for _, dir := range r.Chowned {
		err := r.chown(ctx, ids, dir, safefs.Owner{UID: r.UID, GID: r.GID})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			all = append(all, fmt.Errorf("take %s back: %w", dir, err))
		}
	}
	return errors.Join(all...)
}

// chown changes the owner of everything in a folder that is a task's.
func (r *Record) chown(ctx context.Context, ids Range, dir string, owner safefs.Owner) error {
	root, err := safefs.Open(dir, nil)
	if err != nil {
		return err
	}
	defer root.Close()
	first, last := int(ids.Base), int(ids.Base+ids.Count)
	return root.ChownAll(ctx, ".", owner, func(uid, gid int) bool {
		return uid == r.UID && gid == r.GID || uid >= first && uid < last && gid >= first && gid < last
	})
}
