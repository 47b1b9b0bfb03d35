package isolate

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/thread"
)

// Serve opens sockets in the guest's network, as Spec.Sockets and
// Spec.Everything say; from then on they are Box.Sockets. Pid 1 keeps them, too:
// they stay open, whoever holds the guest, until it ends. It needs rights over
// the network, which root of the host has, also over that of a container.
//
// Errors: ErrUnsupported where the guest has no network of its own, or this
// process no rights over it.
func (g *Guest) Serve(list []Socket, everything bool) error {
	var fds []int
	err := g.enter(func() (err error) {
		fds, err = OpenSockets(list, everything, false)
		return err
	})
	if err != nil {
		return err
	}
	for part := range slices.Chunk(fds, maxFDs) {
		if _, err := g.held.ask(frameHold, nil, part); err != nil {
			closeAll(fds)
			return err
		}
	}
	g.held.mu.Lock()
	g.held.sandbox.held = fds
	g.held.mu.Unlock()
	return nil
}

// Spare leaves a network of IPv4 where it is, at a device, although Serve has
// made everything the guest's own: its neighbours. What is in but is not spared.
// A program can still send packets elsewhere by that device, but the kernel drops
// answers from addresses that are the guest's own. It does not do so with IPv6,
// which is switched off there.
func (g *Guest) Spare(device string, network [4]byte, bits int, but [][4]byte) error {
	return g.enter(func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		lo, err := loopbackIndex()
		if err != nil {
			return err
		}
		err = writeKernel("/proc/sys/net/ipv6/conf/"+device+"/disable_ipv6", "1")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		// Before there is a way to them.
		for _, ip := range but {
			if err := addRoute(fd, &route{family: unix.AF_INET, to: ip[:], bits: 32, device: lo}); err != nil {
				return fmt.Errorf("route: %w", err)
			}
		}
		beside, err := deviceIndex(device)
		if err != nil {
			return fmt.Errorf("device %s: %w", device, err)
		}
		return addRoute(fd, &route{family: unix.AF_INET, to: network[:], bits: bits, near: true, device: beside})
	})
}

// enter calls f on a thread in the guest's network.
func (g *Guest) enter(f func() error) error {
	answer, err := g.held.ask(frameNetwork, nil, nil)
	if err != nil {
		return err
	}
	defer closeAll(answer.fds)
	if len(answer.fds) != 1 {
		return errors.New("caisson: bug: the guest did not hand over its network")
	}
	same, err := ownNetwork(answer.fds[0])
	if err == nil && same {
		return unsupported("gateway", "it needs a network of its own")
	}
	if err != nil {
		return err
	}
	return thread.Spend(func() error {
		if err := unix.Setns(answer.fds[0], unix.CLONE_NEWNET); err != nil {
			return &caisson.Error{
				Item: "gateway", Kind: caisson.ErrUnsupported,
				Err: fmt.Errorf("enter the container's network: %w; Caisson needs to be root of the host", err),
			}
		}
		return f()
	})
}

// ownNetwork reports whether a network namespace is that of this process.
func ownNetwork(network int) (bool, error) {
	var theirs, ours unix.Stat_t
	if err := unix.Fstat(network, &theirs); err != nil {
		return false, err
	}
	if err := unix.Stat("/proc/self/ns/net", &ours); err != nil {
		return false, err
	}
	return theirs.Dev == ours.Dev && theirs.Ino == ours.Ino, nil
}

// Served finds what an earlier process has opened by Serve, which becomes
// Box.Sockets again, and returns how many there are.
func (g *Guest) Served() (int, error) {
	var fds []int
	for {
		var e encoder
		e.int(int64(len(fds)))
		answer, err := g.held.ask(frameHolding, e.buf, nil)
		if err != nil {
			closeAll(fds)
			return 0, err
		}
		fds = append(fds, answer.fds...)
		d := decoder{answer.body}
		all := int(d.int())
		if len(fds) >= all {
			break
		}
		if len(answer.fds) == 0 {
			closeAll(fds)
			return 0, errors.New("caisson: bug: the guest did not hand over what it holds")
		}
	}
	g.held.mu.Lock()
	g.held.sandbox.held = fds
	g.held.mu.Unlock()
	return len(fds), nil
}

// PID returns the process id here of the guest's pid 1, or 0 where this process
// can't see it.
func (g *Guest) PID() int {
	pid := 0
	_ = g.held.conn.write(func(fd int) error {
		// Pid 1 listens: this is who it was then.
		if cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(max(cred.Pid, 0))
		}
		return nil
	})
	return pid
}

// A holding is what pid 1 of a guest keeps open for its holder.
type holding struct {
	mu  sync.Mutex
	fds []int
}

// take keeps what came with a request.
func (h *holding) take(f *frame) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fds = append(h.fds, f.fds...)
}

// show hands out duplicates from an index on, as many as one message takes, and
// tells how many there are.
func (h *holding) show(f, answer *frame) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := decoder{f.body}
	from := min(int(d.int()), len(h.fds))
	for _, fd := range h.fds[from:min(from+maxFDs, len(h.fds))] {
		double, err := high(fd)
		if err != nil {
			closeAll(answer.fds)
			answer.fds = nil
			return err
		}
		answer.fds = append(answer.fds, double)
	}
	var e encoder
	e.int(int64(len(h.fds)))
	answer.body = e.buf
	return nil
}

// showNetwork hands out the network namespace of this process.
func showNetwork(answer *frame) error {
	fd, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	answer.fds = []int{fd}
	return nil
}
