//go:build !unix

package act

import "syscall"

func errnoName(errno syscall.Errno) string { return errno.Error() }
