package server

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson/internal/isolate"
)

// closeInherited closes descriptors that came from the launcher. This process
// opens its own with close-on-exec, so those without it are the launcher's.
func closeInherited() {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return
	}
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil || fd < 3 {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
}

// setName has lists of processes call this one name, whatever its file is
// called. At worst it is listed by its file's name.
func setName(name string) {
	_ = os.WriteFile("/proc/self/comm", []byte(name), 0)
}

// newPipe makes a pipe whose ends block and are not inherited.
func newPipe() (r, w int, err error) {
	var fds [2]int
	err = unix.Pipe2(fds[:], unix.O_CLOEXEC)
	return fds[0], fds[1], os.NewSyscallError("pipe", err)
}

// redirect makes the descriptor to be the same file as from.
func redirect(from, to int) { unix.Dup3(from, to, 0) }

// openRoot opens the host's root folder.
func openRoot() (*os.File, error) { return os.OpenFile("/", unix.O_PATH|unix.O_DIRECTORY, 0) }

// stopAdopting undoes that this process is the parent of orphans below it, as
// a box without isolation wants it.
func stopAdopting() { unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) }

// protectMemory keeps other processes of the same user, and core files, away
// from the secrets in this one's memory. It comes after the sandbox's start,
// because the files below /proc become root's.
func protectMemory() { unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }

// reserve has room on the disk for the first size bytes of file. Where the file
// system can't do that, writing may fail later.
func reserve(file *os.File, size int64) error {
	err := unix.Fallocate(int(file.Fd()), 0, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return os.NewSyscallError("fallocate", err)
}

// An oomGuard keeps the kernel from choosing the keeper when the host's memory
// runs out: the program would die with it. It needs root.
type oomGuard struct {
	mu     *sync.Mutex
	normal string // the score to be inherited; empty: nothing was changed
}

const (
	oomScore = "/proc/self/oom_score_adj"
	spared   = "-900"
)

func protect() oomGuard {
	g := oomGuard{mu: new(sync.Mutex)}
	score, err := os.ReadFile(oomScore)
	if err != nil {
		return g
	}
	if os.WriteFile(oomScore, []byte(spared), 0) == nil {
		g.normal = strings.TrimSpace(string(score))
	}
	return g
}

// lowered calls f, which forks, with the score that this process began with.
func (g oomGuard) lowered(f func() error) error {
	if g.normal == "" {
		return f()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	os.WriteFile(oomScore, []byte(g.normal), 0)
	defer os.WriteFile(oomScore, []byte(spared), 0)
	return f()
}

// A leader is the first process of a session, with which the rest of the
// session is found.
type leader struct {
	proc  *isolate.Proc
	pidfd int // -1 where there is none
}

// signalGroup has pidfd_send_signal reach the process's group, in Linux 6.9.
const signalGroup = 1 << 2

func newLeader(proc *isolate.Proc) leader {
	l := leader{proc: proc, pidfd: -1}
	if proc.PID <= 0 {
		return l
	}
	fd, err := unix.PidfdOpen(proc.PID, 0)
	if err != nil {
		return l
	}
	l.pidfd = fd
	select {
	case <-proc.Done():
		// The number may be another process's already.
		l.close()
	default:
	}
	return l
}

func (l *leader) close() {
	if l.pidfd >= 0 {
		unix.Close(l.pidfd)
		l.pidfd = -1
	}
}

// kill kills the program and what is left of its session. A process of another
// session is never reached, also where numbers are used again.
func (l *leader) kill() {
	members := l.members()
	l.proc.Signal(int(unix.SIGKILL))
	if l.pidfd >= 0 {
		unix.PidfdSendSignal(l.pidfd, unix.SIGKILL, nil, signalGroup)
	}
	for _, fd := range members {
		unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		unix.Close(fd)
	}
}

// members returns descriptors of the session's processes. It is sure of them
// only while the leader lives, whose number is the session's, and returns none
// otherwise.
func (l *leader) members() []int {
	if l.proc.PID <= 0 {
		return nil
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var fds []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || sessionOf(pid) != l.proc.PID {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		if sessionOf(pid) != l.proc.PID {
			unix.Close(fd)
			continue
		}
		fds = append(fds, fd)
	}
	select {
	case <-l.proc.Done():
		for _, fd := range fds {
			unix.Close(fd)
		}
		return nil
	default:
		return fds
	}
}

// sessionOf returns the session of a process, and 0 if there is none.
func sessionOf(pid int) int {
	sid, err := unix.Getsid(pid)
	if err != nil {
		return 0
	}
	return sid
}
