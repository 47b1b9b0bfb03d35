package machine

import "syscall"

// dieWithUs has a child end with the thread that started it. Go's threads live
// as long as the process, unless a goroutine ends while it has one for itself.
func dieWithUs() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
