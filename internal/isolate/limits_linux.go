package isolate

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// usualFiles is how many files a process may open where nobody asked for
// anything else. It is every distribution's default, and what select(2) can
// deal with.
const usualFiles = 1024

// setLimits sets what one process may use: no core files, so many open ones,
// and what is asked for besides.
func (c *child) setLimits(files int64, more []Limit) error {
	value, err := filesLimit(files)
	if err != nil {
		return err
	}
	c.limits = []limit{
		{resource: unix.RLIMIT_CORE},
		{resource: unix.RLIMIT_NOFILE, value: value},
	}
	for _, l := range more {
		c.limits = append(c.limits, limit{resource: l.Resource, value: unix.Rlimit{Cur: l.Soft, Max: l.Hard}})
	}
	return nil
}

// filesLimit returns how many files a program may open: as many as asked for,
// or if that is zero the usual number, which the program may raise to what
// this process may open. More than that can't be had.
func filesLimit(files int64) (unix.Rlimit, error) {
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil {
		return own, fmt.Errorf("limit of open files: %w", err)
	}
	switch {
	case files < 0:
		return own, invalid("files", "the limit of open files is negative")
	case files == 0:
		return unix.Rlimit{Cur: min(usualFiles, own.Max), Max: own.Max}, nil
	case uint64(files) > own.Max:
		return own, unsupported("files", fmt.Sprintf("%d open files are more than the host's limit of %d", files, own.Max))
	}
	return unix.Rlimit{Cur: uint64(files), Max: uint64(files)}, nil
}
