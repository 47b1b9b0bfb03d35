//go:build unix

package qemu

import (
	"context"

	"github.com/caissonrun/caisson/internal/guest"
)

// furnish does in the guest what the spec asks for, in its order, after what is to be
// done before. Nothing of the task runs there yet.
func (b *box) furnish(s *steps) error {
	g := &b.spec.Guest
	if err := s.place(g); err != nil {
		return err
	}
	// With Attach the program runs, as it was set up.
	if b.spec.Attach == nil {
		if err := s.setUp(g); err != nil {
			return err
		}
	}
	if len(g.Interfaces) > 0 {
		if err := s.add("network", func(b *guest.Batch) error { return b.SetNetwork(g.Interfaces) }); err != nil {
			return err
		}
	}
	if err := s.run(); err != nil {
		return err
	}
	return b.openGateway()
}

// place says which machine it is, and puts its root together.
func (s *steps) place(g *guestSpec) error {
	if s.box.spec.State != "" {
		if err := s.renew(); err != nil {
			return err
		}
	}
	if g.Hostname != "" {
		if err := s.add("hostname", func(b *guest.Batch) error { return b.SetHostname(g.Hostname) }); err != nil {
			return err
		}
	}
	if err := s.mountAll(g.Mounts); err != nil {
		return err
	}
	if g.Root != "" {
		if err := s.add("root", func(b *guest.Batch) error { return b.SetRoot(g.Root) }); err != nil {
			return err
		}
	}
	if err := s.mountAll(g.Places); err != nil || g.MachineID == "" {
		return err
	}
	id := &guest.Identity{MachineID: g.MachineID, UUID: g.UUID, HostKeys: g.NewKeys}
	return s.add("identity", func(b *guest.Batch) error { return b.SetIdentity(id) })
}

// setUp writes files, and says who programs run as.
func (s *steps) setUp(g *guestSpec) error {
	if g.Setup.User == nil {
		// Whose files they are is known by then.
		if err := s.run(); err != nil {
			return err
		}
		if err := s.box.lookUp(); err != nil {
			return err
		}
	}
	for i := range g.Files {
		f := &g.Files[i]
		if err := s.add(f.Path, func(b *guest.Batch) error { return b.WriteFile(s.box.fileOf(f)) }); err != nil {
			return err
		}
	}
	return s.add("user", func(b *guest.Batch) error { return b.Setup(&g.Setup) })
}

// steps are what is to be done in the guest, asked for many at once.
type steps struct {
	box   *box
	batch guest.Batch
	names []string // of what is in the batch
}

// add adds one.
func (s *steps) add(what string, call func(*guest.Batch) error) error {
	if s.batch.Full() {
		if err := s.run(); err != nil {
			return err
		}
	}
	if err := call(&s.batch); err != nil {
		return s.box.said(what, err)
	}
	s.names = append(s.names, what)
	return nil
}

func (s *steps) mountAll(list []guest.Mount) error {
	for i := range list {
		if err := s.add("mount "+list[i].Target, func(b *guest.Batch) error { return b.Mount(&list[i]) }); err != nil {
			return err
		}
	}
	return nil
}

// run has the guest do what was added.
func (s *steps) run() error {
	ctx, cancel := within(s.box.callTime)
	defer cancel()
	done, err := s.box.agent.Do(ctx, &s.batch)
	names := s.names
	s.batch, s.names = guest.Batch{}, nil
	if err != nil {
		return s.box.said(names[done], err)
	}
	return nil
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
