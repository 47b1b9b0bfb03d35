package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/cleanup"
	"github.com/caissonrun/caisson/internal/lockfile"
)

// lockName is the lock's file in the folder of reservations.
const lockName = "lock"

// A port that a plugin publishes is a rule of the host's packet filter, and no
// socket: nothing keeps two sandboxes from asking for the same one. So each is
// reserved by a link that names its owner, made before the rule, and it is
// tried whether a program of the host listens there.

// reserve reserves the ports of all attachments and fills in those that may be
// any. If it fails none is reserved.
//
// Errors: ErrExists if a port is taken; ErrExhausted if none is free; ErrDenied.
func (r *Record) reserve(ctx context.Context) (err error) {
	var undo cleanup.List
	defer undo.OnError(ctx, &err)
	var lock *lockfile.Lock
	for i := range r.Attachments {
		ports := r.Attachments[i].Ports
		if len(ports) > 0 && lock == nil {
			if lock, err = r.lockPorts(ctx); err != nil {
				return err
			}
			defer lock.Release()
			undo.Add(r.release)
		}
		for j := range ports {
			if err := r.reserveOne(&ports[j]); err != nil {
				return err
			}
		}
	}
	undo.Release()
	return nil
}

// lockPorts locks the folder of reservations, which goes with the last one.
func (r *Record) lockPorts(ctx context.Context) (*lockfile.Lock, error) {
	for {
		if err := os.MkdirAll(r.portsDir(), 0o700); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		lock, err := lockfile.Acquire(ctx, filepath.Join(r.portsDir(), lockName))
		if !errors.Is(err, fs.ErrNotExist) {
			return lock, err
		}
	}
}

// reserveOne reserves p, or any port for it.
func (r *Record) reserveOne(p *caisson.Port) error {
	if p.HostPort != 0 {
		return r.take(p)
	}
	var err error
	for range portTries {
		try := *p
		if try.HostPort, err = listen(&try); err != nil {
			break
		}
		if err = r.take(&try); err == nil {
			*p = try
			return nil
		}
	}
	if errors.Is(err, caisson.ErrExists) {
		return failure(caisson.ErrExhausted, "ports", fmt.Errorf("no port of %s is free", p.HostIP))
	}
	return err
}

// take reserves a port that has a number.
func (r *Record) take(p *caisson.Port) error {
	if owner := r.overlapping(p); owner != "" {
		return failure(caisson.ErrExists, portName(p), fmt.Errorf("it is taken by sandbox %s; choose another host_port, or none to get a free one", filepath.Base(owner)))
	}
	if _, err := listen(p); err != nil {
		return err
	}
	err := os.Symlink(r.Owner, filepath.Join(r.portsDir(), reservation(p)))
	if errors.Is(err, fs.ErrExist) {
		return failure(caisson.ErrExists, portName(p), errors.New("it is taken by another sandbox"))
	}
	return err
}

// overlapping returns the owner of a reservation that stands in the way of p:
// one of the same address, or of all addresses.
func (r *Record) overlapping(p *caisson.Port) string {
	entries, _ := os.ReadDir(r.portsDir())
	for _, e := range entries {
		protocol, rest, _ := strings.Cut(e.Name(), "-")
		ip, number, ok := cutLast(rest)
		if !ok || protocol != p.Protocol || number != strconv.Itoa(p.HostPort) {
			continue
		}
		ip = strings.ReplaceAll(ip, "_", ":")
		if ip == p.HostIP || unspecified(ip) || unspecified(p.HostIP) {
			if owner, err := os.Readlink(filepath.Join(r.portsDir(), e.Name())); err == nil {
				return owner
			}
		}
	}
	return ""
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, '-')
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

func unspecified(ip string) bool {
	addr, err := netip.ParseAddr(ip)
	return err == nil && addr.IsUnspecified()
}

// listen tries whether a port is free, and returns its number. Zero tries any.
//
// Errors: ErrExists; ErrInvalid if the address is none of the host's; ErrDenied.
func listen(p *caisson.Port) (int, error) {
	address := net.JoinHostPort(p.HostIP, strconv.Itoa(p.HostPort))
	var at net.Addr
	var err error
	if p.Protocol == udp {
		var c net.PacketConn
		if c, err = net.ListenPacket(udp, address); err == nil {
			at = c.LocalAddr()
			c.Close()
		}
	} else {
		var l net.Listener
		if l, err = net.Listen(tcp, address); err == nil {
			at = l.Addr()
			l.Close()
		}
	}
	switch {
	case err == nil:
		number, err := netip.ParseAddrPort(at.String())
		return int(number.Port()), err
	case errors.Is(err, unix.EADDRINUSE) && p.HostPort == 0:
		return 0, failure(caisson.ErrExhausted, "ports", fmt.Errorf("no port of %s is free", p.HostIP))
	case errors.Is(err, unix.EADDRINUSE):
		return 0, failure(caisson.ErrExists, portName(p), errors.New("a program of this host listens there; choose another host_port, or none to get a free one"))
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return 0, failure(caisson.ErrInvalid, "ports", fmt.Errorf("host_ip %s is no address of this host", p.HostIP))
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return 0, failure(caisson.ErrDenied, portName(p), err)
	}
	return 0, failure(caisson.ErrUnavailable, portName(p), err)
}

// release gives back every port that is reserved for the record's owner.
func (r *Record) release() error {
	entries, err := os.ReadDir(r.portsDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		path := filepath.Join(r.portsDir(), e.Name())
		if owner, err := os.Readlink(path); err != nil || owner != r.Owner {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	r.tidyPorts()
	return errors.Join(errs...)
}

// tidyPorts removes the folder of reservations, and what it lies in, if there are
// none. Who holds the lock sees to it later.
func (r *Record) tidyPorts() {
	entries, err := os.ReadDir(r.portsDir())
	if err != nil || len(entries) > 1 {
		return
	}
	path := filepath.Join(r.portsDir(), lockName)
	lock, err := lockfile.Try(path)
	if err != nil {
		return
	}
	// Nobody reserves meanwhile; a reservation keeps the folder.
	_ = os.Remove(path)
	_ = os.Remove(r.portsDir())
	_ = lock.Release()
	if r.Ports == "" {
		_ = os.Remove(r.base())
	}
}
