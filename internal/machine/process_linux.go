package machine

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// dieWithUs has a child end with the thread that started it. Go's threads live
// as long as the process, unless a goroutine ends while it has one for itself.
func dieWithUs() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

// end kills a child of dieWithUs's with all that it has started: an operator's
// QEMU may be a script. The caller knows that nobody has waited for it yet.
func end(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGKILL) }

// awaitEnd returns when the child has ended, and leaves it to be waited for.
func awaitEnd(p *os.Process) {
	for unix.Waitid(unix.P_PID, p.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
}
