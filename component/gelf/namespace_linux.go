package gelf

import (
	"errors"
	"fmt"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/thread"
	"golang.org/x/sys/unix"
)

// ListenIn listens in the network namespace at path, such as /proc/PID/ns/net:
// on its loopback device a component reaches it whatever its network is, and
// nobody else does. It needs root.
//
// Errors: as Listen; ErrNotFound and ErrDenied about the namespace.
func ListenIn(path, address string, opts Options) (*Listener, error) {
	ns, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, namespaceError(path, err)
	}
	defer unix.Close(ns)
	var l *Listener
	err = thread.Spend(func() error {
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			return namespaceError(path, err)
		}
		stream, packets, err := open(address, opts.Type)
		if err == nil {
			l = Serve(stream, packets, opts)
		}
		return err
	})
	return l, err
}

func namespaceError(path string, err error) error {
	kind := caisson.ErrUnavailable
	switch {
	case errors.Is(err, unix.ENOENT):
		kind = caisson.ErrNotFound
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		kind = caisson.ErrDenied
	}
	return &caisson.Error{Op: caisson.OpStart, Item: "gelf", Kind: kind, Err: fmt.Errorf("network namespace %s: %w", path, err)}
}
