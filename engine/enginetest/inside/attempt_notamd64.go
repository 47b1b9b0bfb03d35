//go:build linux && !amd64

package main

import "golang.org/x/sys/unix"

// iopl asks for the right to use all input and output ports, which only
// amd64 has.
func iopl() error { return unix.ENOSYS }
