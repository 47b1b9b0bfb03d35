package isolate

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The standard library's fork can't set limits, move into control groups or
// give up capabilities between fork and exec. Doing that on a thread of the
// parent instead would change the limits of the parent, and leave its memory
// shared with a half trusted child. So the fork is done here: the child is a
// copy, does only what its child struct says, by raw system calls, and ends in
// exec or exit. Nothing in it may grow the stack, allocate, or enter the Go
// scheduler. The runtime keeps these hooks stable for such users.

//go:linkname runtimeBeforeFork syscall.runtime_BeforeFork
func runtimeBeforeFork()

//go:linkname runtimeAfterFork syscall.runtime_AfterFork
func runtimeAfterFork()

// atCWD is AT_FDCWD, -100, as a number without sign.
const atCWD = ^uintptr(99)

// maxFD is the largest number of a descriptor that every kernel takes.
const maxFD = 1<<31 - 1

// The steps of a child, to say which of them failed.
const (
	stepSession = iota + 1
	stepCgroup
	stepFiles
	stepTerminal
	stepLimits
	stepOOM
	stepCapabilities
	stepGroups
	stepUser
	stepSeccomp
	stepDir
	stepExec
	stepInterpreter // the program is there, what its #! line names is not
	stepMaps
	stepProgram
	stepMounts
)

var stepNames = [...]string{
	"child", "session", "control group", "descriptors", "terminal", "limits", "oom score",
	"capabilities", "groups", "user", "seccomp filter", "working directory", "exec", "exec",
	"user namespace", "own program", "mounts",
}

// A child is all that happens between fork and exec. It is complete, and
// everything it points to is kept alive, before the fork.
type child struct {
	stdio    [3]int // become descriptors 0 to 2; each above 2
	extra    []int  // become descriptors 3 and up; each above all of them
	terminal bool   // descriptor 0 becomes the controlling terminal
	cgroups  []int  // "0" is written to each: the child moves itself in
	intoFD   int    // version 2 group to be born in, or -1
	parent   int    // die with the thread of this process; 0: don't
	mounts   int    // the mount namespace that is entered; 0: the parent's

	limits []limit
	oom    bool // take back the protection from the OOM killer that init has

	gain     bool // by set-id bits of programs, rights can be had
	drop     bool // give up all capabilities, now and for ever
	lastCap  int
	keep     uint64              // but for these, a bit each; they take User 0 to be of use
	kept     [2]unix.CapUserData // the same for capset
	setUser  bool
	uid, gid int
	groups   []uint32 // nil: can't be set, or are to stay
	filter   *syscall.SockFprog

	dir   *byte
	paths []*byte // tried in order
	argv  []*byte // ends with nil
	envv  []*byte // ends with nil

	report int // where a failure is written to
}

// A limit is one resource limit.
type limit struct {
	resource int
	value    unix.Rlimit
}

// A stepError says which step of a child failed.
type stepError struct {
	step  int
	errno syscall.Errno
}

// Error implements error.
func (e *stepError) Error() string {
	return fmt.Sprintf("%s: %v", stepNames[min(e.step, len(stepNames)-1)], e.errno)
}

// Unwrap returns the error number.
func (e *stepError) Unwrap() error { return e.errno }

var (
	zeroText   = []byte("0")
	emptyText  = []byte{0}
	oomPath    = []byte("/proc/self/oom_score_adj\x00")
	capsHeader = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	noAction   [4]uint64         // struct sigaction: the default, no flags, no mask
	ignored    = [4]uint64{0: 1} // struct sigaction: SIG_IGN
	noMask     uint64
)

// start forks and returns once the child runs its program. The pidfd belongs
// to the caller. A failure of the child is a *stepError; the child has then
// ended, and its parent still has to reap it by pid.
//
// started is called in between, as soon as the pid is known; it is 0 where
// there is no child.
func (c *child) start(started func(pid int)) (pid, pidfd int, err error) {
	var report [2]int
	if err := unix.Pipe2(report[:], unix.O_CLOEXEC); err != nil {
		started(0)
		return 0, -1, err
	}
	defer unix.Close(report[0])
	c.report, err = high(report[1])
	unix.Close(report[1])
	if err != nil {
		started(0)
		return 0, -1, err
	}
	pid, pidfd, errno := c.fork()
	runtime.KeepAlive(c)
	unix.Close(c.report)
	if errno != 0 {
		started(0)
		return 0, -1, fmt.Errorf("fork: %w", errno)
	}
	started(pid)
	if err := awaitReport(report[0], pid, pidfd); err != nil {
		awaitExit(pidfd)
		closeAll([]int{pidfd})
		return pid, -1, err
	}
	return pid, pidfd, nil
}

// awaitExit waits until a process has ended, so that nobody counts it among the
// living. A kernel without pidfds is not asked.
func awaitExit(pidfd int) {
	for pidfd >= 0 {
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, -1); err != unix.EINTR {
			return
		}
	}
}

// startPatience is how long a child may take to become its program: that takes
// no more than reading it from disk. But once it is of the program's user,
// others of that user can halt it for ever.
const startPatience = 20 * time.Second

// awaitReport is readReport with an end: it kills a child that does not come
// to run its program.
func awaitReport(fd, pid, pidfd int) error {
	deadline := time.Now().Add(startPatience)
	for {
		left := max(time.Until(deadline).Milliseconds(), 0)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left))
		switch {
		case err == unix.EINTR:
			continue
		case err == nil && n == 0:
			if pidfd < 0 || unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0) != nil {
				unix.Kill(pid, unix.SIGKILL)
			}
			return fmt.Errorf("the program did not begin to run within %v: %w", startPatience, unix.EAGAIN)
		}
		return readReport(fd)
	}
}

// readReport waits until the child has closed its end, by exec or exit.
func readReport(fd int) error {
	var buf [8]byte
	for {
		n, err := unix.Read(fd, buf[:])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n == 0:
			return nil
		case n != len(buf):
			return errors.New("child: a torn report")
		}
		return &stepError{step: int(buf[0]), errno: syscall.Errno(buf[4]) | syscall.Errno(buf[5])<<8}
	}
}

// fork returns in the parent only.
func (c *child) fork() (pid, pidfd int, errno syscall.Errno) {
	return clone(0, c.intoFD, c, nil)
}

// cloneArgs is the kernel's struct clone_args, as of version 2.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls uint64
	setTID, setTIDSize, cgroup                                           uint64
}

// clone makes a copy of this process, with only this thread, which lives as
// the one of c and i that is not nil. It returns in the parent only.
//
//go:norace
//go:nosplit
func clone(flags uintptr, cgroup int, c *child, i *infant) (pid, pidfd int, errno syscall.Errno) {
	var fd int32 = -1
	var args cloneArgs
	flags |= unix.CLONE_PIDFD
	// From here on the stack does not move, so addresses may become numbers.
	runtimeBeforeFork()
	var r uintptr
	if cgroup >= 0 {
		args.flags = uint64(flags) | unix.CLONE_INTO_CGROUP
		args.pidfd = uint64(uintptr(unsafe.Pointer(&fd)))
		args.exitSignal = uint64(unix.SIGCHLD)
		args.cgroup = uint64(cgroup)
		r, _, errno = syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0)
	} else {
		// Older seccomp filters, of an outer container, know no clone3.
		r, _, errno = syscall.RawSyscall6(unix.SYS_CLONE, flags|uintptr(unix.SIGCHLD), 0,
			uintptr(unsafe.Pointer(&fd)), 0, 0, 0)
	}
	if errno == 0 && r == 0 {
		if c != nil {
			c.run()
		}
		i.run()
	}
	runtimeAfterFork()
	return int(r), int(fd), errno
}

// run is the child's life. It does not return.
//
//go:norace
//go:nosplit
func (c *child) run() {
	step, errno := c.prepare()
	if errno == 0 {
		step, errno = c.identify()
	}
	if errno == 0 {
		step, errno = c.exec()
	}
	fail(c.report, step, errno)
}

// fail tells the parent what went wrong, and ends.
//
//go:norace
//go:nosplit
func fail(report, step int, errno syscall.Errno) {
	text := [8]byte{0: byte(step), 4: byte(errno), 5: byte(errno >> 8)}
	syscall.RawSyscall(unix.SYS_WRITE, uintptr(report), uintptr(unsafe.Pointer(&text)), 8)
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 127, 0, 0)
	}
}

// resetSignals has no signal blocked, ignored or handled.
//
//go:norace
//go:nosplit
func resetSignals() {
	for sig := uintptr(1); sig <= 64; sig++ {
		// SIGKILL and SIGSTOP refuse, and need nothing.
		syscall.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&noAction)), 0, 8, 0, 0)
	}
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&noMask)), 0, 8, 0, 0)
}

// prepare gives the child a session, descriptors, and limits of its own.
//
//go:norace
//go:nosplit
func (c *child) prepare() (step int, errno syscall.Errno) {
	resetSignals()
	if _, _, errno = syscall.RawSyscall(unix.SYS_SETSID, 0, 0, 0); errno != 0 {
		return stepSession, errno
	}
	for i := range c.cgroups {
		if _, _, errno = syscall.RawSyscall(unix.SYS_WRITE, uintptr(c.cgroups[i]), uintptr(unsafe.Pointer(&zeroText[0])), 1); errno != 0 {
			return stepCgroup, errno
		}
	}
	for i := range c.stdio {
		if _, _, errno = syscall.RawSyscall(unix.SYS_DUP3, uintptr(c.stdio[i]), uintptr(i), 0); errno != 0 {
			return stepFiles, errno
		}
	}
	if c.terminal {
		if _, _, errno = syscall.RawSyscall(unix.SYS_IOCTL, 0, unix.TIOCSCTTY, 0); errno != 0 {
			return stepTerminal, errno
		}
	}
	if c.mounts > 0 {
		if _, _, errno = syscall.RawSyscall(unix.SYS_SETNS, uintptr(c.mounts), unix.CLONE_NEWNS, 0); errno != 0 {
			return stepMounts, errno
		}
	}
	// Whatever else is open, inherited or not, is closed: it must not reach the
	// program, and not serve as a way to a working directory (CVE-2024-21626).
	last := uintptr(len(c.stdio))
	for i := range c.extra {
		if _, _, errno = syscall.RawSyscall(unix.SYS_DUP3, uintptr(c.extra[i]), last, 0); errno != 0 {
			return stepFiles, errno
		}
		last++
	}
	if _, _, errno = syscall.RawSyscall(unix.SYS_DUP3, uintptr(c.report), last, unix.O_CLOEXEC); errno != 0 {
		return stepFiles, errno
	}
	c.report = int(last)
	if _, _, errno = syscall.RawSyscall(unix.SYS_CLOSE_RANGE, last+1, maxFD, 0); errno != 0 {
		return stepFiles, errno
	}
	if c.oom {
		fd, _, errno := syscall.RawSyscall6(unix.SYS_OPENAT, atCWD, uintptr(unsafe.Pointer(&oomPath[0])), unix.O_WRONLY|unix.O_CLOEXEC, 0, 0, 0)
		if errno != 0 {
			return stepOOM, errno
		}
		if _, _, errno = syscall.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&zeroText[0])), 1); errno != 0 {
			return stepOOM, errno
		}
	}
	for i := range c.limits {
		if _, _, errno = syscall.RawSyscall6(unix.SYS_PRLIMIT64, 0, uintptr(c.limits[i].resource), uintptr(unsafe.Pointer(&c.limits[i].value)), 0, 0, 0); errno != 0 {
			return stepLimits, errno
		}
	}
	return 0, 0
}

// identify gives up what the program must not have. Groups go before the user,
// because without the user's rights they could not be changed any more.
//
//go:norace
//go:nosplit
func (c *child) identify() (step int, errno syscall.Errno) {
	syscall.RawSyscall(unix.SYS_UMASK, 0o022, 0, 0)
	if !c.gain {
		if _, _, errno = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
			return stepCapabilities, errno
		}
	}
	if c.drop {
		for i := 0; i <= c.lastCap; i++ {
			if c.keep&(1<<uint(i&63)) != 0 {
				continue
			}
			if _, _, errno = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(i), 0, 0, 0, 0); errno != 0 {
				return stepCapabilities, errno
			}
		}
		// gVisor's kernel has no ambient ones.
		if _, _, errno = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, 0); errno != 0 && errno != syscall.EINVAL {
			return stepCapabilities, errno
		}
	}
	if c.groups != nil {
		var first uintptr
		if len(c.groups) > 0 {
			first = uintptr(unsafe.Pointer(&c.groups[0]))
		}
		if _, _, errno = syscall.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(c.groups)), first, 0); errno != 0 {
			return stepGroups, errno
		}
	}
	if c.setUser {
		if _, _, errno = syscall.RawSyscall(unix.SYS_SETRESGID, uintptr(c.gid), uintptr(c.gid), uintptr(c.gid)); errno != 0 {
			return stepGroups, errno
		}
		if _, _, errno = syscall.RawSyscall(unix.SYS_SETRESUID, uintptr(c.uid), uintptr(c.uid), uintptr(c.uid)); errno != 0 {
			return stepUser, errno
		}
	}
	if c.drop {
		// User 0 of the inside keeps its capabilities until here.
		if _, _, errno = syscall.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&capsHeader)), uintptr(unsafe.Pointer(&c.kept)), 0); errno != 0 {
			return stepCapabilities, errno
		}
	}
	if c.parent != 0 {
		// A change of user clears this, so it comes after.
		if _, _, errno = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0, 0); errno != 0 {
			return stepSession, errno
		}
		if ppid, _, _ := syscall.RawSyscall(unix.SYS_GETPPID, 0, 0, 0); ppid != uintptr(c.parent) {
			return stepSession, syscall.ESRCH
		}
	}
	return 0, 0
}

// exec becomes the program, with the program's own rights: they decide whether
// a folder or file can be used at all. The file system was prepared by others,
// so the seccomp filter comes last.
//
//go:norace
//go:nosplit
func (c *child) exec() (step int, errno syscall.Errno) {
	if _, _, errno = syscall.RawSyscall(unix.SYS_CHDIR, uintptr(unsafe.Pointer(c.dir)), 0, 0); errno != 0 {
		return stepDir, errno
	}
	if c.filter != nil {
		if _, _, errno = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(c.filter)), 0, 0, 0); errno != 0 {
			return stepSeccomp, errno
		}
	}
	denied := syscall.ENOENT
	for i := range c.paths {
		_, _, errno = syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(c.paths[i])),
			uintptr(unsafe.Pointer(&c.argv[0])), uintptr(unsafe.Pointer(&c.envv[0])))
		switch errno {
		case syscall.ENOENT:
			_, _, missing := syscall.RawSyscall(unix.SYS_FACCESSAT, atCWD, uintptr(unsafe.Pointer(c.paths[i])), 0)
			if missing == 0 {
				return stepInterpreter, errno
			}
		case syscall.EACCES:
			denied = errno
		case syscall.ENOTDIR:
		default:
			return stepExec, errno
		}
	}
	return stepExec, denied
}
