//go:build !linux

package isolate

import "os"

// OpenTerminal is for Linux only.
func OpenTerminal(*Program) (master, slave *os.File, err error) {
	return nil, nil, refused("terminal", "this system has none that can stand for another")
}
