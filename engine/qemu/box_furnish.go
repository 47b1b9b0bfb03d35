//go:build unix

package qemu

import (
	"context"

	"github.com/caissonrun/caisson/internal/guest"
)

// furnish does in the guest what the spec asks for, in its order. Nothing of the
// task runs there yet.
func (b *box) furnish() error {
	g := &b.spec.Guest
	if g.Hostname != "" {
		if err := b.step("hostname", func(ctx context.Context) error { return b.agent.SetHostname(ctx, g.Hostname) }); err != nil {
			return err
		}
	}
	if err := b.mountAll(g.Mounts); err != nil {
		return err
	}
	if g.Root != "" {
		if err := b.step("root", func(ctx context.Context) error { return b.agent.SetRoot(ctx, g.Root) }); err != nil {
			return err
		}
	}
	if err := b.mountAll(g.Places); err != nil {
		return err
	}
	if g.MachineID != "" {
		id := &guest.Identity{MachineID: g.MachineID, UUID: g.UUID, HostKeys: g.NewKeys}
		if err := b.step("identity", func(ctx context.Context) error { return b.agent.SetIdentity(ctx, id) }); err != nil {
			return err
		}
	}
	if b.spec.Attach != nil {
		// The program runs, as it was set up.
		return b.connect()
	}
	if err := b.lookUp(); err != nil {
		return err
	}
	for i := range g.Files {
		f := &g.Files[i]
		if err := b.step(f.Path, func(ctx context.Context) error { return b.agent.WriteFile(ctx, b.fileOf(f)) }); err != nil {
			return err
		}
	}
	if err := b.step("user", func(ctx context.Context) error { return b.agent.Setup(ctx, &g.Setup) }); err != nil {
		return err
	}
	return b.connect()
}

// connect gives the guest its networks, and its ways out.
func (b *box) connect() error {
	g := &b.spec.Guest
	if len(g.Interfaces) > 0 {
		if err := b.step("network", func(ctx context.Context) error { return b.agent.SetNetwork(ctx, g.Interfaces) }); err != nil {
			return err
		}
	}
	return b.openGateway()
}

// step does one thing in the guest, within the time that one may take.
func (b *box) step(what string, do func(ctx context.Context) error) error {
	ctx, cancel := within(b.callTime)
	defer cancel()
	if err := do(ctx); err != nil {
		return b.said(what, err)
	}
	return nil
}

func (b *box) mountAll(list []guest.Mount) error {
	for i := range list {
		err := b.step("mount "+list[i].Target, func(ctx context.Context) error { return b.agent.Mount(ctx, &list[i]) })
		if err != nil {
			return err
		}
	}
	return nil
}

// lookUp finds out who programs run as, where the spec has names, or nobody.
func (b *box) lookUp() error {
	g := &b.spec.Guest
	if g.Setup.User != nil {
		return nil
	}
	return b.step("user "+g.User, func(ctx context.Context) error {
		who, err := b.agent.Lookup(ctx, &guest.Who{User: g.User, Group: g.Group, Standard: g.Standard})
		if err != nil {
			return err
		}
		g.Setup.User, b.person = &who.User, *who
		return nil
	})
}

// fileOf is a file of the spec as the agent is told of it.
func (b *box) fileOf(f *guestFile) *guest.File {
	out := &guest.File{Path: []byte(f.Path), Mode: f.Mode, Data: f.Data, Link: []byte(f.Link), Dir: f.Dir, Once: f.Once}
	if f.Own {
		out.Owner = &guest.Owner{UID: b.spec.Guest.Setup.User.UID, GID: b.spec.Guest.Setup.User.GID}
	}
	return out
}
