//go:build unix

package state

import (
	"errors"
	"syscall"
)

// noRoom reports whether err says that the disk is full, or a quota.
func noRoom(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
