package isolate

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/thread"
)

// enterNetwork puts the calling thread into a network namespace. The thread
// must be locked to its goroutine, and never be used by another one.
func enterNetwork(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return &caisson.Error{Item: "network namespace", Kind: caisson.ErrNotFound, Err: fmt.Errorf("%s is gone", path)}
	}
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", path, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("network namespace %s: %w", path, err)
	}
	return nil
}

// gatherSys makes a sysfs that shows a given network namespace. Init can't: only
// who has rights over a network may mount one.
func (p *preparation) gatherSys() error {
	if p.spec.NetNS == "" || !p.spec.Sys {
		return nil
	}
	fd := -1
	err := thread.Spend(func() (err error) {
		if err = enterNetwork(p.spec.NetNS); err == nil {
			fd, err = newMount("sysfs", mountAttrs|unix.MOUNT_ATTR_NOEXEC|unix.MOUNT_ATTR_RDONLY)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("/sys of %s: %w", strconv.Quote(p.spec.NetNS), err)
	}
	p.setup.sysTree = p.add(fd)
	return nil
}
