//go:build linux || freebsd || darwin

package machine

import "golang.org/x/sys/unix"

// seekData finds the next byte of a file that is in no hole.
const seekData = unix.SEEK_DATA
