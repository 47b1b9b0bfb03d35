package seccomp

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Filter returns the filter for this machine's architecture. Errors:
// ErrUnsupported on other architectures than amd64 and arm64.
func Filter() ([]unix.SockFilter, error) {
	a, err := archOf(runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	return compile(a), nil
}

// Install applies the filter to the calling OS thread, and to what it starts
// from then on, for good. The caller has locked the thread and set
// no_new_privs on it.
func Install() error {
	filter, err := Filter()
	if err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(filter)
	if errno != 0 {
		return fmt.Errorf("seccomp filter: %w", errno)
	}
	return nil
}

// Available reports whether this kernel has what Install needs.
func Available() bool {
	if _, err := archOf(runtime.GOARCH); err != nil {
		return false
	}
	action := uint32(unix.SECCOMP_RET_KILL_PROCESS)
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	return errno == 0
}
