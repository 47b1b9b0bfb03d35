package native

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/cleanup"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/keeper"
)

// Create implements engine.Engine.
func (e *Engine) Create(ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
	if err := e.open(ctx, caisson.OpCreate); err != nil {
		return nil, err
	}
	isolation, err := e.opts.isolation(spec.Options)
	if err != nil {
		return nil, err
	}
	f, err := e.facts()
	if err != nil {
		return nil, err
	}
	features := e.opts.features(f, isolation)
	if err := permit(&e.opts, f, &features, spec); err != nil {
		return nil, err
	}
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	return e.create(ctx, spec, isolation, f)
}

// permit refuses what this host can't do or the operator does not permit.
func permit(o *Options, f *found, features *engine.Features, spec *engine.Spec) error {
	if !features.Usable {
		return unsupported("isolation", f.broken)
	}
	host := spec.Network.Mode == caisson.NetworkHost
	if host && !features.Networks.Host && !o.AllowHostNetwork {
		return denied("network: host", errors.New("the operator does not permit it (engine.native.allow_host_network)"))
	}
	if err := features.Check(spec); err != nil {
		return err
	}
	if spec.Limits.Disk != 0 && spec.Work != "" && !spec.WorkLimited {
		return unsupported("limits.disk", errors.New("this engine can't bound a work folder that is there already"))
	}
	for _, p := range o.Paths {
		for _, secret := range []string{spec.Dir, spec.Log, o.Runtime} {
			if below(secret, p) {
				return invalid("engine.native.paths", fmt.Errorf("%s holds Caisson's own files", p))
			}
		}
	}
	return nil
}

// create makes the sandbox, and leaves nothing if it can't.
func (e *Engine) create(ctx context.Context, spec *engine.Spec, isolation string, f *found) (_ engine.Sandbox, err error) {
	var undo cleanup.List
	defer undo.OnError(ctx, &err)
	set := &setting{
		opts: &e.opts, isolation: isolation, host: f.host, run: e.opts.runDir(spec.ID),
		cgroup: f.support.cgroup.Usable, landlock: f.support.landlock > 0,
	}
	owned := isolation == Full && f.host.root
	if owned {
		set.plain = e.idmaps.without(spec)
	}
	// The shape of the sandbox does not depend on its ids, so what is wrong
	// with the spec shows before anything is made.
	kept, err := plan(spec, set)
	if err != nil {
		return nil, err
	}
	if u := kept.Box.User; kept.Box.None && u != nil {
		if err := reachable(spec.Work, u.UID, u.GID); err != nil {
			return nil, denied("user", err)
		}
	}
	if _, err := os.Lstat(set.run); err == nil {
		return nil, &caisson.Error{Op: caisson.OpCreate, Item: spec.ID, Kind: caisson.ErrExists, Err: errors.New("the sandbox exists")}
	}

	// The handle names all that follows.
	rec := &record{
		Isolation: isolation, Installation: e.opts.Installation, Run: set.run,
		Chowned: set.plain, UID: spec.WorkOwner.UID, GID: spec.WorkOwner.GID,
	}
	if kept.Box.Cgroup != nil {
		rec.Cgroup = kept.Box.Cgroup.Name
	}
	if err := writeHandle(spec, rec); err != nil {
		return nil, said(caisson.OpCreate, spec.ID, err)
	}
	undo.Add(func() error { return removeHandle(spec.Dir) })

	if err := makeRun(set.run, spec.ID, spec.Dir); err != nil {
		return nil, said(caisson.OpCreate, spec.ID, err)
	}
	undo.Add(func() error { return removeRun(set.run, spec.Dir) })

	// Ids of its own, and the files of folders that can't be shown with others.
	if owned {
		if set.slot, err = e.opts.takeSlot(ctx, spec.ID); err != nil {
			return nil, said(caisson.OpCreate, spec.ID, err)
		}
		undo.Add(func() error { return e.opts.freeSlot(spec.ID) })
		if kept, err = plan(spec, set); err != nil {
			return nil, err
		}
		undo.AddContext(func(ctx context.Context) error { return rec.giveBack(ctx, &e.opts) })
		if err := rec.giveAway(ctx, &e.opts, kept.Box); err != nil {
			return nil, said(caisson.OpCreate, spec.ID, err)
		}
	}

	if err := writeProgram(set.run, set.program(kept)); err != nil {
		return nil, said(caisson.OpCreate, spec.ID, err)
	}
	client, err := e.launcher.Launch(ctx, kept)
	if err != nil {
		return nil, said(caisson.OpCreate, spec.ID, err)
	}
	undo.AddContext(client.Destroy)
	// Whoever makes a sandbox sees to what follows its end.
	if err := client.Own(ctx); err != nil {
		return nil, said(caisson.OpCreate, spec.ID, err)
	}
	undo.Release()
	return e.sandbox(spec.ID, spec.Dir, rec, client), nil
}

// reachable returns an error unless a user of the host can enter a folder, as
// far as modes tell.
func reachable(dir string, uid, gid int) error {
	for at := dir; dir != "" && uid != 0; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		if err != nil {
			return err
		}
		if !mayEnter(info, uid, gid) {
			return fmt.Errorf("user %d can't enter %s, where the work folder is; use isolation full, or a state folder that everybody can enter", uid, at)
		}
		if at == filepath.Dir(at) {
			break
		}
	}
	return nil
}

// mayEnter reads a folder's mode for one user.
func mayEnter(info fs.FileInfo, uid, gid int) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case ok && int(st.Uid) == uid:
		return info.Mode()&0o100 != 0
	case ok && int(st.Gid) == gid:
		return info.Mode()&0o010 != 0
	}
	return info.Mode()&0o001 != 0
}

// program is what Exec will need.
func (set *setting) program(k *keeper.Spec) *program {
	p := &program{Main: k.Program, Shell: set.shell()[0], UID: set.host.uid, GID: set.host.gid}
	if u := k.Box.User; u != nil && !k.Box.None {
		p.UID, p.GID = onHost(k.Box.UIDs, u.UID), onHost(k.Box.GIDs, u.GID)
	}
	return p
}

// onHost returns the host's id of one of the inside.
func onHost(maps []isolate.IDMap, inside int) int {
	for _, m := range maps {
		if inside >= m.Inside && inside < m.Inside+m.Size {
			return m.Host + inside - m.Inside
		}
	}
	return inside
}

func writeHandle(spec *engine.Spec, rec *record) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	boot, err := engine.BootID()
	if err != nil {
		return err
	}
	return engine.WriteHandle(spec.Dir, &engine.Handle{Engine: Name, ID: spec.ID, BootID: boot, Data: data})
}

func removeHandle(dir string) error {
	err := os.Remove(filepath.Join(dir, engine.HandleFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// giveAway makes the files of the plain folders the sandbox's.
func (r *record) giveAway(ctx context.Context, o *Options, box *isolate.Spec) error {
	owner := safefs.Owner{UID: onHost(box.UIDs, box.User.UID), GID: onHost(box.GIDs, box.User.GID)}
	for _, dir := range r.Chowned {
		if err := r.chown(ctx, o, dir, owner); err != nil {
			return fmt.Errorf("give %s to the sandbox: %w", dir, err)
		}
	}
	return nil
}

// giveBack undoes giveAway, also one that was cut short. A folder that is gone
// needs nothing.
func (r *record) giveBack(ctx context.Context, o *Options) error {
	var all []error
	for _, dir := range r.Chowned {
		err := r.chown(ctx, o, dir, safefs.Owner{UID: r.UID, GID: r.GID})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			all = append(all, fmt.Errorf("take %s back: %w", dir, err))
		}
	}
	return errors.Join(all...)
}

// chown changes the owner of everything in a folder that is a task's.
func (r *record) chown(ctx context.Context, o *Options, dir string, owner safefs.Owner) error {
	root, err := safefs.Open(dir, nil)
	if err != nil {
		return err
	}
	defer root.Close()
	first, last := int(o.IDBase), int(o.IDBase+o.IDCount)
	return root.ChownAll(ctx, ".", owner, func(uid, gid int) bool {
		return uid == r.UID && gid == r.GID || uid >= first && uid < last && gid >= first && gid < last
	})
}
