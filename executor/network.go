//go:build unix

package executor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/crash"
	"github.com/caissonrun/caisson/internal/lockfile"
	"github.com/caissonrun/caisson/internal/network"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/internal/state"
)

// The steps of an attempt with sidecars share a network, where the engine can
// make one: they reach each other by name, and probes reach the sidecars. It is
// made before the attempt's first sandbox and removed after its last. Its folder
// lies among those of the steps, so that whatever looks for sandboxes with an
// owner finds it too; mounts.json says once it is complete.

// sharesNetwork reports whether the steps of a task are to share a network.
func sharesNetwork(f *engine.Features, task *caisson.Task) bool {
	return f.Networks.Shared && len(task.Sidecars) > 0 && task.Network.Mode != caisson.NetworkHost
}

// hostName returns the name by which other steps reach a step on their network:
// the main program as "main", a sidecar by its name. It is empty for others.
func (st *step) hostName() string {
	switch st.kind {
	case kindMain:
		return string(kindMain)
	case kindSidecar:
		if name := network.HostName(st.title); name != "" {
			return name
		}
		return st.name
	}
	return ""
}

// hostNames returns the names of all steps that have one.
//
// Errors: ErrInvalid if two have the same.
func (s script) hostNames() ([]string, error) {
	var names []string
	taken := make(map[string]string)
	for _, st := range s.all() {
		name := st.hostName()
		if name == "" {
			continue
		}
		if other, twice := taken[name]; twice {
			return nil, invalid("step "+st.label(), fmt.Errorf("%q and %q are both reached as %q; give them other names", other, st.label(), name))
		}
		taken[name] = st.label()
		names = append(names, name)
	}
	return names, nil
}

// onNetwork puts a step's sandbox on the attempt's network.
func (b *blueprint) onNetwork(s *engine.Spec, st *step) {
	if !b.record.Sharing.Network {
		return
	}
	s.SharedNetwork = b.attempt.Network()
	if name := st.hostName(); name != "" {
		s.Names = []string{name}
	}
}

// network describes the attempt's network.
func (b *blueprint) network() (*engine.NetworkSpec, error) {
	task := b.record.Task
	names, err := stepsOf(task).hostNames()
	if err != nil {
		return nil, err
	}
	return &engine.NetworkSpec{
		ID:  caisson.SandboxID(b.record.ID, b.attempt.Number, state.NetworkDir),
		Dir: b.attempt.Network(), Task: b.record.ID, Attempt: b.attempt.Number,
		Network: task.Network, DNS: task.DNS, Ports: task.Ports, Names: names,
	}, nil
}

// networker returns the engine as one that makes networks.
func (a *attendant) networker() (engine.Networker, error) {
	n, ok := a.engine.engine.(engine.Networker)
	if !ok {
		return nil, &caisson.Error{Op: caisson.OpCreate, Item: "network", Kind: caisson.ErrInternal, Err: errors.New("the engine declares shared networks and makes none")}
	}
	return n, nil
}

// ensureNetwork makes the network that the attempt's sandboxes share, unless it
// is there: a reboot has ended one that was made before it, and one that was
// not finished is made anew.
func (a *attendant) ensureNetwork(ctx context.Context) error {
	if !a.record.Sharing.Network {
		return nil
	}
	if err := a.knowPlaces(); err != nil {
		return err
	}
	if a.places.Network == a.boot {
		return nil
	}
	defer a.clock("network")()
	if err := a.dispose(ctx, state.NetworkDir); err != nil {
		return err
	}
	crash.Point(crash.NetworkBefore)
	if err := a.makeNetwork(ctx); err != nil {
		return err
	}
	crash.Point(crash.NetworkAfter)
	a.places.Network = a.boot
	return a.places.write(a.attempt())
}

func (a *attendant) makeNetwork(ctx context.Context) error {
	n, err := a.networker()
	if err != nil {
		return err
	}
	spec, err := a.blueprint().network()
	if err != nil {
		return err
	}
	// Who looks for what nobody owns must not find it before its folder.
	lock, err := lockfile.AcquireShared(ctx, a.x.folder.SweepLock())
	if err != nil {
		return safefs.Sorted(caisson.OpCreate, a.x.folder.SweepLock(), err)
	}
	defer lock.Release()
	if err := os.Mkdir(spec.Dir, 0o700); err != nil {
		return safefs.Sorted(caisson.OpCreate, spec.Dir, err)
	}
	limited, cancel := context.WithTimeout(ctx, a.x.limits.create)
	defer cancel()
	err = a.x.guard(caisson.OpCreate, func() error { return n.MakeNetwork(limited, spec) })
	return overtime(ctx, err, caisson.OpCreate, a.x.limits.create)
}

// removeNetwork removes the attempt's network, if there is one.
func (a *attendant) removeNetwork(ctx context.Context) error {
	there, err := exists(a.attempt().Network())
	if !there || err != nil {
		return err
	}
	n, err := a.networker()
	if err != nil {
		return err
	}
	return n.RemoveNetwork(ctx, a.attempt().Network())
}

// dial connects to a port of a sidecar: on the network that it shares, or, with
// the host's network, on the host.
func (a *attendant) dial(ctx context.Context, st *step, port string) (net.Conn, error) {
	if !a.record.Sharing.Network {
		return new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", port))
	}
	n, err := a.networker()
	if err != nil {
		return nil, err
	}
	var conn net.Conn
	err = a.x.guard(caisson.OpExec, func() (err error) {
		conn, err = n.Dial(ctx, a.attempt().Step(a.folder(st)), st.probe.Port)
		return err
	})
	return conn, err
}

// networks asks the engine what the step that runs is attached to, and returns
// nothing where that can't be told.
func (x *Executor) networks(ctx context.Context, t state.Task, info *Info, h *history) (list []engine.Network) {
	p, err := x.engine(info.Engine)
	name := h.current()
	if err != nil || name == "" || info.Result != nil {
		return nil
	}
	lister, ok := p.engine.(engine.NetworkLister)
	if !ok {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, x.limits.call)
	defer cancel()
	err = x.guard(caisson.OpRecover, func() (err error) {
		list, err = lister.Networks(limited, t.Attempt(info.Attempt).Step(h.folder(t.ID, name)))
		return err
	})
	if err != nil {
		return nil
	}
	return list
}
