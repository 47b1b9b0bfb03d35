//go:build linux

package safefs_test

import "syscall"

// userAttr has a command run as an ordinary user.
func userAttr(id uint32) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
}
