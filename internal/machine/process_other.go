//go:build !linux

package machine

import "syscall"

func dieWithUs() *syscall.SysProcAttr { return nil }
