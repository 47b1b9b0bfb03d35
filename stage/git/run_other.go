//go:build unix && !linux

package git

import "syscall"

// ownGroup puts a process into a group of its own, to be killed with all that
// it starts.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
