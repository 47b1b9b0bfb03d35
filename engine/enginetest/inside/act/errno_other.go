//go:build !unix && !wasip1

package act

import "syscall"

func errnoName(errno syscall.Errno) string { return errno.Error() }
