package isolate

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
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
	type result struct {
		fd  int
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		if err := enterNetwork(p.spec.NetNS); err != nil {
			done <- result{-1, err}
			return
		}
		fd, err := newMount("sysfs", mountAttrs|unix.MOUNT_ATTR_NOEXEC|unix.MOUNT_ATTR_RDONLY)
		done <- result{fd, err}
	}()
	r := <-done
	if r.err != nil {
		return fmt.Errorf("/sys of %s: %w", strconv.Quote(p.spec.NetNS), r.err)
	}
	p.setup.sysTree = p.add(r.fd)
	return nil
}
