//go:build unix

package wasm

import (
	"os"

	"golang.org/x/sys/unix"
)

// setAppend has writes go to the end of a file, or not.
func setAppend(f *os.File, on bool) error {
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	flags &^= unix.O_APPEND
	if on {
		flags |= unix.O_APPEND
	}
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETFL, flags)
	return err
}
