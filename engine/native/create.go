package native

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/keeper"
)

// Create implements engine.Engine.
func (e *Engine) Create(ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
	if err := e.boxes.Open(ctx, caisson.OpCreate); err != nil {
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
		return kept.Unsupported("isolation", f.broken)
	}
	host := spec.Network.Mode == caisson.NetworkHost
	if host && !features.Networks.Host && !o.AllowHostNetwork {
		return kept.Denied("network: host", errors.New("the operator does not permit it (engine."+o.Name+".allow_host_network)"))
	}
	if err := features.Check(spec); err != nil {
		return err
	}
	if spec.Limits.Disk != 0 && spec.Work != "" && !spec.WorkLimited {
		return kept.Unsupported("limits.disk", errors.New("this engine can't bound a work folder that is there already"))
	}
	for _, p := range o.Paths {
		for _, secret := range []string{spec.Dir, spec.Log, o.Runtime} {
			if kept.Below(secret, p) {
				return kept.Invalid("engine."+o.Name+".paths", fmt.Errorf("%s holds Caisson's own files", p))
			}
		}
	}
	return nil
}

// create makes the sandbox, and leaves nothing if it can't.
func (e *Engine) create(ctx context.Context, spec *engine.Spec, isolation string, f *found) (engine.Sandbox, error) {
	set := &setting{
		opts: &e.opts, isolation: isolation, host: f.host, run: e.boxes.Dir(spec.ID), group: e.boxes.Group(spec.ID),
		cgroup: f.support.Cgroup.Usable, landlock: f.support.Landlock > 0,
	}
	owned := isolation == Full && f.host.root
	if owned {
		set.plain = e.idmaps.Without(spec)
	}
	return e.boxes.Create(ctx, &kept.Plan{
		Spec: spec, OwnIDs: owned, Record: kept.Record{Isolation: isolation, Chowned: set.plain, Inside: owned && spec.Network.Mode != caisson.NetworkHost},
		Keeper: func(slot int) (*keeper.Spec, error) {
			set.slot = slot
			k, err := plan(spec, set)
			if err != nil {
				return nil, err
			}
			if u := k.Box.User; k.Box.None && u != nil {
				if err := reachable(spec.Work, u.UID, u.GID); err != nil {
					return nil, kept.Denied("user", err)
				}
			}
			return k, nil
		},
		Shell: set.shell()[0], UID: f.host.uid, GID: f.host.gid,
	})
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
