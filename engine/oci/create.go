package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/internal/network"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/keeper"
)

// Create implements engine.Engine.
func (e *Engine) Create(ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
	if err := e.boxes.Open(ctx, caisson.OpCreate); err != nil {
		return nil, err
	}
	c, err := readOptions(spec.Options)
	if err != nil {
		return nil, err
	}
	f, err := e.facts()
	if err != nil {
		return nil, err
	}
	features := e.opts.features(f)
	s, err := c.apply(spec)
	if err != nil {
		return nil, err
	}
	if err := permit(&e.opts, f, &features, s); err != nil {
		return nil, err
	}
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if s.Mounts, err = e.opts.volumes(c, s); err != nil {
		return nil, err
	}
	return e.create(ctx, s, c, f)
}

// permit refuses what this host can't do or the operator does not permit.
func permit(o *Options, f *found, features *engine.Features, s *engine.Spec) error {
	if !features.Usable {
		return kept.Unsupported("runtime", f.broken)
	}
	if s.Network.Mode == caisson.NetworkHost && !features.Networks.Host && !o.AllowHostNetwork {
		return kept.Denied("network: host", errors.New("the operator does not permit it (engine.oci.allow_host_network)"))
	}
	if err := features.Check(s); err != nil {
		return err
	}
	if len(s.Args) == 0 && s.Run == "" {
		return kept.Invalid("cmd", errors.New("neither the task nor the image says what to run"))
	}
	if s.Limits.Disk != 0 && s.Work != "" && !s.WorkLimited {
		return kept.Unsupported("limits.disk", errors.New("this engine can't bound a work folder that is there already"))
	}
	return network.CheckDNS(s.DNS)
}

// create makes the sandbox, and leaves nothing if it can't.
func (e *Engine) create(ctx context.Context, spec *engine.Spec, c *choice, f *found) (engine.Sandbox, error) {
	known, err := kept.ReadAccounts(spec.RootFS.Path)
	if err != nil {
		return nil, at("image", err)
	}
	set := &setting{
		opts: &e.opts, choice: c, root: f.root, uid: os.Geteuid(), gid: os.Getegid(), run: e.boxes.Dir(spec.ID),
		group: e.boxes.Group(spec.ID), cgroup: f.support.Cgroup.Usable, landlock: f.support.Landlock > 0, resolv: f.resolv,
	}
	if set.user, err = e.opts.who(known, spec); err != nil {
		return nil, err
	}
	maker, err := e.choose(f, c.Runtime)
	if err != nil {
		return nil, err
	}
	set.runtime = maker.forTask(c, spec.Dir)
	if err := c.checkGuest(spec, set.runtime); err != nil {
		return nil, err
	}
	owned := f.root && !guest(set.runtime)
	if owned {
		set.plain = e.idmaps.Without(spec)
	}
	p := &kept.Plan{
		Spec: spec, OwnIDs: owned, Record: kept.Record{
			Isolation: isolation(set.runtime), Chowned: set.plain, Inside: owned && spec.Network.Mode != caisson.NetworkHost,
		},
		Keeper: func(slot int) (*keeper.Spec, error) {
			set.slot = slot
			return plan(spec, set)
		},
		Shell: shell, UID: set.uid, GID: set.gid,
	}
	if err := e.joins(ctx, spec, set, p); err != nil {
		return nil, err
	}
	box, err := e.boxes.Create(ctx, p)
	if err != nil && e.doubt(f, maker, c, err) {
		return e.create(ctx, spec, c, e.found.Load())
	}
	return box, err
}

// isolation is what the handle says that makes the sandbox.
func isolation(r *isolate.Runtime) string {
	if r == nil {
		return Builtin
	}
	return r.Path
}

// at gives an error that has none an item.
func at(item string, err error) error {
	var e *caisson.Error
	if errors.As(err, &e) {
		return err
	}
	return &caisson.Error{Op: caisson.OpCreate, Item: item, Kind: caisson.KindOf(err), Err: err}
}

// volumes adds the mounts of the option volumes, each SOURCE:TARGET[:OPTIONS]. A
// relative source lies in the task's work folder and always may be bound; an
// absolute one needs the operator's permission.
func (o *Options) volumes(c *choice, s *engine.Spec) ([]engine.Mount, error) {
	list := s.Mounts[:len(s.Mounts):len(s.Mounts)]
	for i, text := range c.Volumes {
		m, err := o.volume(text, s)
		if err != nil {
			return nil, at(fmt.Sprintf("options.volumes[%d]", i), err)
		}
		list = append(list, m)
	}
	checked := *s
	checked.Mounts = list
	return list, checked.Validate()
}

// volume reads one volume.
func (o *Options) volume(text string, s *engine.Spec) (m engine.Mount, err error) {
	parts := strings.Split(text, ":")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" || parts[1] == "" {
		return m, kept.Invalid("options.volumes", fmt.Errorf("%q: use SOURCE:TARGET or SOURCE:TARGET:OPTIONS", text))
	}
	m = engine.Mount{Type: engine.MountBind, Source: parts[0], Target: path.Clean(parts[1])}
	if len(parts) == 3 {
		for option := range strings.SplitSeq(parts[2], ",") {
			switch option {
			case "ro", "readOnly":
				m.ReadOnly = true
			case "rw", "rprivate", "private", "z", "Z":
			default:
				return m, kept.Invalid("options.volumes", fmt.Errorf("%q: there are ro, readOnly, rw, z, Z and rprivate, not %q", text, option))
			}
		}
	}
	if filepath.IsAbs(m.Source) {
		if !o.Volumes {
			return m, kept.Denied("options.volumes", fmt.Errorf("%q: the operator permits only relative sources, which lie in the work folder (engine.oci.volumes_enabled)", text))
		}
		source, err := filepath.EvalSymlinks(m.Source)
		if err != nil {
			return m, at(m.Source, err)
		}
		m.Source = source
		return m, nil
	}
	m.Owned = true
	m.Source, err = o.beneath(s.Work, m.Source)
	return m, err
}

// beneath returns where a relative source lies. No part of it may be a link.
func (o *Options) beneath(work, name string) (string, error) {
	if work == "" {
		return "", kept.Unsupported("options.volumes", errors.New("the work folder of this sandbox is not on the host"))
	}
	name = path.Clean(name)
	if !filepath.IsLocal(name) {
		return "", kept.Denied("options.volumes", fmt.Errorf("%q leads out of the work folder", name))
	}
	root, err := safefs.Open(work, nil)
	if err != nil {
		return "", err
	}
	defer root.Close()
	info, err := root.Stat(name)
	if err != nil {
		return "", safefs.Sorted(caisson.OpCreate, name, err)
	}
	if info.Mode&fs.ModeSymlink != 0 {
		return "", kept.Denied("options.volumes", fmt.Errorf("%q is a symbolic link", name))
	}
	return filepath.Join(work, name), nil
}
