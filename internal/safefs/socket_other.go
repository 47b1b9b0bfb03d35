//go:build unix && !linux

package safefs

import (
	"os"

	"golang.org/x/sys/unix"
)

// Socket reports that a socket can't be opened safely here.
func (r *Root) Socket(name string) (*os.File, error) {
	return nil, pathErr("open", name, unix.ENOTSUP)
}

// SocketPath is never called.
func SocketPath(*os.File) string { return "" }
