//go:build linux

package main

import "golang.org/x/sys/unix"

// iopl asks for the right to use all input and output ports.
func iopl() error { return raw(unix.SYS_IOPL, 3) }
