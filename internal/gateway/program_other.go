//go:build !linux

package gateway

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// newSocket makes a socket in a folder that only this user can look into. It
// stays until the socket is closed.
func newSocket() (*ownSocket, error) {
	dir, err := os.MkdirTemp("", "caisson-")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "s")
	listener, err := listenAt(path)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &ownSocket{listener: listener, address: path, close: func() error { return os.RemoveAll(dir) }}, nil
}

// ownGroup puts a process into a group of its own, to be killed with all that it
// starts.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// keepDescriptors does nothing: what is open here is closed on exec.
func keepDescriptors() {}
