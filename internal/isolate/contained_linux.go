package isolate

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// What follows is init's part where an OCI runtime has made the sandbox, and
// that of the stage.

// letGo gives up what a runtime has handed on besides the socket: its own
// standard descriptors.
//
// A runtime that hands nothing else on has the socket as standard input; letGo
// tells.
func letGo() (sentry bool) {
	if len(os.Args) == 2 {
		sentry = unix.Dup3(0, initSocket, unix.O_CLOEXEC) == nil
	}
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	for fd := range 3 {
		if err != nil || unix.Dup3(null, fd, 0) != nil {
			unix.Close(fd)
		}
	}
	if err == nil {
		unix.Close(null)
	}
	_ = unix.CloseRange(initSocket+1, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC)
	return sentry
}

// isContained reports whether this process is the init of a sandbox that an OCI
// runtime has made.
func isContained() bool {
	return os.Args[0] == containedPath && len(os.Args) == 1 ||
		os.Args[0] == sentryPath && len(os.Args) == 2 && os.Args[1] == sentryWord
}

// standing returns the root of a view that stands already, and this process.
func standing(s *setup, sentry bool) ([]int, error) {
	if sentry {
		return nil, nil
	}
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	// crun 1.8 forgets what the root's mount had before it made its own of it:
	// device nodes of an image were usable.
	attr := unix.MountAttr{Attr_set: mountAttrs}
	if s.rootReadOnly {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if err := unix.MountSetattr(root, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		unix.Close(root)
		return nil, fmt.Errorf("root: mount_setattr: %w", err)
	}
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		unix.Close(root)
		return nil, fmt.Errorf("pidfd: %w", err)
	}
	return []int{root, self}, nil
}

// one is a list of a single descriptor.
func one(fd int, err error) ([]int, error) {
	if err != nil {
		return nil, err
	}
	return []int{fd}, nil
}

// runtimeChild says what happens between fork and exec of a runtime: it keeps
// all the rights that it has on the stage.
func runtimeChild(program *Program, fds, groups []int) (*child, error) {
	c := &child{stdio: [3]int(fds[:3]), extra: fds[3:], intoFD: -1, lastCap: lastCap(), cgroups: groups}
	if err := c.setLimits(0, nil); err != nil {
		return nil, err
	}
	return c, c.setProgram(program)
}
