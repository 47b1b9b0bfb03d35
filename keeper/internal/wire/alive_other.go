//go:build unix && !linux

package wire

import (
	"os"

	"golang.org/x/sys/unix"
)

// Self returns the record of this process.
func Self() (*Record, error) { return &Record{Version: Version, PID: os.Getpid()}, nil }

// Lives reports whether a process with the pid of r is there. It may be
// another one here; then connecting to the socket tells.
func Lives(r *Record) bool { return unix.Kill(r.PID, 0) != unix.ESRCH }
