package isolate

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// usualFiles is how many files a process may open where nobody asked for
// anything else. It is every distribution's default, and what select(2) can
// deal with.
const usualFiles = 1024

// setLimits sets what one process may use: no core files, and so many open
// ones.
func (c *child) setLimits(files int64) error {
	c.limits[0] = limit{resource: unix.RLIMIT_CORE, set: true}
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &now); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	value := unix.Rlimit{Cur: min(usualFiles, now.Max), Max: now.Max}
	if files > 0 {
		if uint64(files) > now.Max {
			return unsupported("files", fmt.Sprintf("%d open files are more than the host's limit of %d", files, now.Max))
		}
		value = unix.Rlimit{Cur: uint64(files), Max: uint64(files)}
	}
	c.limits[1] = limit{resource: unix.RLIMIT_NOFILE, set: true, value: value}
	return nil
}
