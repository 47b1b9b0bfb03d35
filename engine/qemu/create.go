//go:build unix

package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/cleanup"
	"github.com/caissonrun/caisson/internal/ext4"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/internal/machine"
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
	h, err := e.facts(ctx)
	if err != nil {
		return nil, err
	}
	features := e.opts.features(h)
	if err := e.opts.permit(h, &features, spec); err != nil {
		return nil, err
	}
	// What can't be had is refused before anything is tried.
	o, err := readOwn(spec, c)
	if err != nil {
		return nil, err
	}
	how, err := e.how(ctx, h, spec)
	if err != nil {
		return nil, err
	}
	if how.own = o; o != nil {
		if err := e.howOwn(ctx, how, spec); err != nil {
			return nil, err
		}
	}
	sb, err := e.create(ctx, spec, c, how)
	if errors.Is(err, caisson.ErrUnavailable) && ctx.Err() == nil && how.own == nil {
		e.doubt(how)
	}
	return sb, err
}

// doubt has the kind of machine tried again that a guest did not boot on.
func (e *Engine) doubt(how *making) {
	e.mu.Lock()
	defer e.mu.Unlock()
	how.base.forget(how.accel, how.kind)
	if err := e.opts.writeBase(how.base); err != nil {
		e.opts.Logger.Warn("what boots", "op", "create", "err", err)
	}
	e.host = nil
}

// permit refuses what this host can't do.
func (o *Options) permit(h *host, f *engine.Features, s *engine.Spec) error {
	if !f.Usable {
		return kept.Unsupported("engine", h.broken)
	}
	if err := f.Check(s); err != nil {
		return err
	}
	if err := s.Validate(); err != nil {
		return err
	}
	switch {
	case s.Limits.Disk != 0 && s.Work != "" && !s.WorkLimited:
		return kept.Unsupported("limits.disk", errors.New("this engine can't bound a work folder that is there already"))
	case s.MachineImage == nil && (s.RootFS == nil || s.RootFS.Disk == "" || s.RootFS.Changes == ""):
		return kept.Unsupported("image", errors.New("this engine runs images that were made disks; set one"))
	case len(s.Args) == 0 && s.Run == "":
		return kept.Invalid("cmd", errors.New("neither the task nor the image says what to run"))
	case s.Limits.Memory != 0 && s.Limits.Memory < leastMemory:
		return kept.Invalid("limits.memory", fmt.Errorf("%s: the least is %s", s.Limits.Memory, leastMemory))
	case s.Limits.Disk != 0 && s.Limits.Disk < leastDisk:
		return kept.Invalid("limits.disk", fmt.Errorf("%s: the least is %s", s.Limits.Disk, leastDisk))
	}
	const one = 1000
	if most := caisson.CPUs(runtime.NumCPU() * one); s.Limits.CPUs > most {
		return kept.Invalid("limits.cpus", fmt.Errorf("%s: this host has %d", s.Limits.CPUs, runtime.NumCPU()))
	}
	if err := kept.CheckSecrets(s); err != nil {
		return err
	}
	return network.CheckDNS(s.DNS)
}

// A making is what a sandbox is made on.
type making struct {
	host        *host
	base        *base
	accel, kind string
	own         *own // nil: it runs an image
}

// how decides what a sandbox is made on: the best kind of machine that works, or
// what the task asks for, which is tried if that was not done yet.
func (e *Engine) how(ctx context.Context, h *host, s *engine.Spec) (*making, error) {
	t := e.opts.chosen(h)
	if t == nil {
		return nil, kept.Unsupported("engine", errors.New("no guest boots here"))
	}
	out := &making{host: h, base: h.base, accel: t.Accel, kind: t.Type}
	if s.Machine == nil {
		return out, nil
	}
	if s.Machine.Type != "" && s.Machine.Type != t.Type {
		wanted, err := e.tried(ctx, h, t.Accel, s.Machine.Type)
		if err != nil {
			return nil, err
		}
		if wanted.Missing != "" {
			return nil, kept.Unsupported("machine.type", fmt.Errorf("%q: %s", s.Machine.Type, wanted.Missing))
		}
		out.kind = wanted.Type
	}
	if s.Machine.Kernel != "" {
		b, err := e.base(ctx, s.Machine.Kernel)
		if err != nil {
			return nil, err
		}
		out.base = b
	}
	return out, nil
}

// create makes the sandbox, and leaves nothing if it can't.
func (e *Engine) create(ctx context.Context, spec *engine.Spec, c *choice, how *making) (engine.Sandbox, error) {
	h := how.host
	known, err := accounts(spec)
	if err != nil {
		return nil, at("image", err)
	}
	if err := absent(spec); err != nil {
		return nil, err
	}
	set := &setting{
		opts: &e.opts, choice: c, own: how.own, base: how.base, accel: how.accel, kind: how.kind,
		root: h.root, uid: os.Geteuid(), gid: os.Getegid(), kvmGroup: -1, run: e.boxes.Dir(spec.ID),
		group: e.boxes.Group(spec.ID), cgroup: h.support.Cgroup.Usable, landlock: h.support.Landlock > 0, resolv: h.resolv,
	}
	standard := isolate.User{UID: e.opts.UID, GID: e.opts.GID}
	if how.own != nil {
		// Who programs run as is for the system there to say.
		set.user.User = standard
	} else if set.user, err = known.Who(spec.User, spec.Group, standard, e.opts.Root || spec.Root); err != nil {
		return nil, err
	}
	if set.accel == machine.KVM {
		if set.kvmGroup, err = kvmGroup(h.root); err != nil {
			return nil, kept.Unsupported("kvm", err)
		}
	}
	if err := set.checkScreen(spec); err != nil {
		return nil, err
	}
	if h.root {
		set.plain = e.idmaps.Without(spec)
	}
	sb, err := e.make(ctx, spec, set)
	// What goes wrong in a guest that has answered is the image's doing, or the task's.
	if set.state == "" || ctx.Err() != nil || caisson.KindOf(err) != caisson.ErrUnavailable {
		return sb, err
	}
	// It was of no use, and nothing is left of the try.
	e.opts.Logger.Warn("saved state", "op", "create", "err", err)
	if states, err := e.opts.openStates(); err == nil {
		_ = states.Remove(set.state)
	}
	set.state, set.boots, set.ready = "", true, false
	return e.make(ctx, spec, set)
}

// make has the keeper make the sandbox.
func (e *Engine) make(ctx context.Context, spec *engine.Spec, set *setting) (engine.Sandbox, error) {
	p := &kept.Plan{
		Spec: spec, OwnIDs: set.root, Record: kept.Record{Isolation: set.kind, Chowned: set.plain, Displays: set.displays(), Blind: set.own != nil && set.own.metadata},
		Keeper: func(slot int) (*keeper.Spec, error) {
			set.slot = slot
			return plan(spec, set)
		},
		Prepare: func(_ context.Context, slot int, undo *cleanup.List) error {
			set.slot = slot
			return set.makeLayer(spec, undo)
		},
		Shell: standardShell, UID: set.uid, GID: set.gid,
	}
	if err := e.joins(spec, set, p); err != nil {
		return nil, err
	}
	return e.boxes.Create(ctx, p)
}

// accounts are the users and groups that the image knows, as far as that can be seen
// from here.
func accounts(spec *engine.Spec) (*kept.Accounts, error) {
	if spec.RootFS == nil {
		return nil, nil
	}
	return kept.ReadAccounts(spec.RootFS.Path)
}

// absent reports what is not there.
func absent(spec *engine.Spec) error {
	disk := ""
	if spec.RootFS != nil {
		disk = spec.RootFS.Disk
	} else {
		disk = spec.MachineImage.Disk
	}
	if _, err := os.Lstat(disk); err != nil {
		return safefs.Sorted(caisson.OpCreate, "image: "+disk, err)
	}
	for i, m := range spec.Mounts {
		if m.Type != engine.MountBind {
			continue
		}
		if _, err := os.Lstat(m.Source); err != nil {
			return safefs.Sorted(caisson.OpCreate, fmt.Sprintf("mounts[%d]: %s", i, m.Source), err)
		}
	}
	return nil
}

// at gives an error that has none an item.
func at(item string, err error) error {
	var e *caisson.Error
	if errors.As(err, &e) {
		return err
	}
	return &caisson.Error{Op: caisson.OpCreate, Item: item, Kind: caisson.KindOf(err), Err: err}
}

// makeLayer makes the disk that the guest writes to, for QEMU's ids. It lies in a
// folder of the caller's and goes with that; undo removes it where there is no
// sandbox.
func (set *setting) makeLayer(s *engine.Spec, undo *cleanup.List) error {
	set.ready = true
	if set.own != nil {
		return set.makeOwnLayer(s, undo)
	}
	path := layer(s)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	undo.Add(func() error { return os.Remove(path) })
	if there, err := copied(s, f, layerDisk); there {
		return errors.Join(err, set.give(f))
	}
	if err := ext4.Format(f, set.layerSize(s), &ext4.Options{Name: s.ID, Label: "caisson-layer"}); err != nil {
		return err
	}
	return set.give(f)
}

// give gives a file to QEMU's user.
func (set *setting) give(f *os.File) error {
	if !set.root {
		return nil
	}
	var box isolate.Spec
	set.mapIDs(&box)
	return f.Chown(kept.OnHost(box.UIDs, box.User.UID), kept.OnHost(box.GIDs, box.User.GID))
}

// layerSize is how much can be written to the root: with a disk limit what is left
// of it besides folders in memory.
func (set *setting) layerSize(s *engine.Spec) caisson.Bytes {
	switch {
	case s.Limits.Disk == 0:
		return set.opts.Disk
	case s.Work == "":
		return s.Limits.Disk - kept.Share(s).Shm
	}
	return s.Limits.Disk
}
