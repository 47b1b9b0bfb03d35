package main

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// sigaction is the kernel's structure on amd64 and arm64; an empty one is the
// default action.
type sigaction struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

// defaultAction undoes the handler that the Go runtime has for a signal.
func defaultAction(n int) error {
	var act sigaction
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(n), uintptr(unsafe.Pointer(&act)), 0, 8, 0, 0)
	if errno != 0 {
		return errno
	}
	// The runtime may block the signal on this thread.
	var set unix.Sigset_t
	set.Val[(n-1)/64] |= 1 << ((n - 1) % 64)
	return unix.PthreadSigmask(unix.SIG_UNBLOCK, &set, nil)
}
