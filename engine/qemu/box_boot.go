//go:build unix

package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/guest"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/internal/machine"
	"github.com/caissonrun/caisson/internal/machine/qmp"
	"github.com/caissonrun/caisson/internal/network"
	"github.com/caissonrun/caisson/internal/usernet"
)

// defaultPatience is the spec's where that is zero.
const defaultPatience = 2 * time.Minute

// boot starts the machine and makes the guest ready. On error the caller closes
// the box.
func (b *box) boot() (err error) {
	ctx, cancel := within(b.patience())
	defer cancel()
	if err := b.fillDisks(); err != nil {
		return boot(caisson.ErrUnavailable, "saved state: %w", err)
	}
	port, err := b.start(ctx)
	if err != nil {
		return b.whyNot(ctx, err)
	}
	go func() {
		// What QEMU has started may live on, with its connections.
		select {
		case <-b.proc.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	if b.spec.State != "" {
		if err := b.load(ctx); err != nil {
			port.Close()
			return b.whyNot(ctx, err)
		}
	}
	if b.agent, err = guest.Dial(ctx, port, nil); err != nil {
		return b.whyNot(ctx, err)
	}
	go b.watch()
	s := steps{box: b}
	if err = b.early(ctx, &s); err == nil {
		err = b.furnish(&s)
	}
	if err != nil && b.agent.Err() != nil {
		return b.whyNot(ctx, err)
	}
	return err
}

// early does what is the same for all machines of this shape. One that goes on from a
// saved state has it behind it, but for its disks where that is of a guest without.
func (b *box) early(ctx context.Context, s *steps) error {
	if b.spec.State != "" && !b.spec.Diskless {
		return nil
	}
	if to := b.spec.SaveDiskless; to != nil {
		if err := b.keepState(ctx, to, nil); err != nil {
			return b.whyNot(ctx, err)
		}
	}
	if err := s.mountAll(b.spec.Guest.Early); err != nil || b.spec.Save == nil {
		return err
	}
	if err := s.run(); err != nil {
		return err
	}
	if err := b.keepState(ctx, b.spec.Save, b.spec.Disks); err != nil {
		return b.whyNot(ctx, err)
	}
	return nil
}

func (b *box) patience() time.Duration {
	if limit := b.spec.Patience.Std(); limit > 0 {
		return limit
	}
	return defaultPatience
}

// start starts QEMU with its three connections, and returns the one to the agent.
func (b *box) start(ctx context.Context) (port net.Conn, err error) {
	var inside [3]*os.File
	defer func() {
		// QEMU's ends must be closed here for its end to be seen.
		for _, f := range inside {
			if f != nil {
				f.Close()
			}
		}
	}()
	control, theirs, err := machine.Pair()
	if err != nil {
		return nil, err
	}
	inside[0] = theirs
	defer func() {
		if b.qmp == nil {
			control.Close()
		}
	}()
	if port, inside[1], err = machine.Pair(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			port.Close()
			port = nil
		}
	}()
	if b.console, inside[2], err = b.openConsole(); err != nil {
		return port, err
	}
	if b.qemu, err = isolate.Start(&b.spec.Box); err != nil {
		return port, err
	}
	taps, err := b.openCards()
	defer closeFiles(taps)
	if err != nil {
		return port, err
	}
	if b.proc, err = b.qemu.SpawnWith(&b.spec.QEMU, inside[0], inside[1], inside[2], taps); err != nil {
		return port, err
	}
	for i, f := range inside {
		f.Close()
		inside[i] = nil
	}
	b.qmp, err = qmp.New(ctx, control, &qmp.Options{Event: b.note})
	return port, err
}

// openCards returns the descriptors that frames of QEMU's cards go through.
func (b *box) openCards() ([]*os.File, error) {
	u := b.spec.User
	if u == nil {
		list, err := openTaps(b.spec)
		return list, errors.Join(err, b.answerDHCP())
	}
	ours, theirs, err := machine.Pair()
	if err != nil {
		return nil, err
	}
	b.net, err = usernet.New(ours, &usernet.Options{Servers: u.Servers, DNS: u.DNS, Ports: u.Ports})
	return []*os.File{theirs}, err
}

// answerDHCP answers a system of its own that asks for its addresses.
func (b *box) answerDHCP() error {
	for tap, lease := range b.spec.Leases {
		f, err := network.OpenDHCP(b.spec.Box.NetNS, tap)
		if err != nil {
			return fmt.Errorf("dhcp: %w", err)
		}
		b.asked = append(b.asked, f)
		b.answers.Go(func() { network.AnswerDHCP(f, lease) })
	}
	return nil
}

// openTaps opens the TAP devices of the namespace that QEMU runs in, which has no
// right to do so itself.
func openTaps(spec *boxSpec) (list []*os.File, err error) {
	for _, name := range spec.Taps {
		f, err := network.OpenTap(spec.Box.NetNS, name)
		if err != nil {
			return list, err
		}
		list = append(list, f)
	}
	return list, nil
}

// openConsole makes the pipe that the guest's console and QEMU's own messages go
// to. QEMU opens it by its name, so that it belongs to the sandbox's user.
func (b *box) openConsole() (*console, *os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	if user := b.spec.Box.User; user != nil && os.Geteuid() == 0 {
		err = w.Chown(kept.OnHost(b.spec.Box.UIDs, user.UID), kept.OnHost(b.spec.Box.GIDs, user.GID))
	}
	if err != nil {
		r.Close()
		w.Close()
		return nil, nil, fmt.Errorf("console: %w", err)
	}
	return readConsole(r, filepath.Base(b.spec.QEMU.Args[0])), w, nil
}
