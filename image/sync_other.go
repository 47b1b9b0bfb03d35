//go:build unix && !linux

package image

import "golang.org/x/sys/unix"

// syncAll makes durable what was written.
func syncAll(string) error { return unix.Sync() }
