// Package seccomp refuses system calls that a sandboxed program has no need
// for, with a filter of Caisson's own making in the spirit of the default
// profile that container engines share: an allow list, for amd64 and arm64.
package seccomp

import "golang.org/x/sys/unix"

// Filter returns the filter for this machine's architecture. Errors:
// ErrUnsupported on other architectures.
func Filter() ([]unix.SockFilter, error) { panic("todo") }

// Install applies the filter to the calling OS thread, and to what it starts
// from then on, for good. The thread must have no_new_privs set.
func Install() error { panic("todo") }

// Available reports whether this kernel has what Install needs.
func Available() bool { panic("todo") }
