package isolate

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
)

// initName is init's argv[0] and the name by which ps shows it.
const initName = "sandbox-init"

// initSocket is the descriptor by which init talks to its parent.
const initSocket = 3

// An infant is a child in new namespaces between fork and exec: what becomes
// init, or only holds a user namespace open. The rules for child hold here.
type infant struct {
	flags    uintptr // CLONE_NEW*
	intoFD   int     // version 2 group to be born in, or -1
	sync     [2]int  // it waits for the end of this pipe
	report   int
	hold     bool // end after that
	root     bool // become 0:0; otherwise keep the id and make the capabilities survive exec
	lastCap  int
	null     int // becomes descriptors 0 to 2
	socket   int // becomes initSocket
	program  int // a read-only mount of this program's file, or -1
	path     *byte
	argv     []*byte
	envv     []*byte
	allCaps  [2]unix.CapUserData
	readOnly unix.MountAttr
}

// fork starts the infant and gives its user namespace the maps. It returns
// before the infant has become init: see report.
func (i *infant) fork(uids, gids []IDMap) (pid, pidfd int, err error) {
	if err := unix.Pipe2(i.sync[:], unix.O_CLOEXEC); err != nil {
		return 0, -1, err
	}
	pid, pidfd, errno := clone(i.flags, i.intoFD, nil, i)
	runtime.KeepAlive(i)
	unix.Close(i.sync[0])
	if errno != 0 {
		unix.Close(i.sync[1])
		return 0, -1, cloneError(errno)
	}
	if i.flags&unix.CLONE_NEWUSER != 0 {
		if err := writeMaps(pid, uids, gids); err != nil {
			unix.Close(i.sync[1])
			reap(pid, pidfd)
			return 0, -1, err
		}
	}
	if i.hold {
		return pid, pidfd, nil
	}
	_, err = unix.Write(i.sync[1], zeroText)
	unix.Close(i.sync[1])
	if err != nil {
		reap(pid, pidfd)
		return 0, -1, fmt.Errorf("init ended at once: %w", err)
	}
	return pid, pidfd, nil
}

// cloneError says what an operator can do where namespaces can't be made.
func cloneError(errno syscall.Errno) error {
	hint := ""
	switch errno {
	case unix.EPERM, unix.EACCES:
		hint = ": user namespaces must be allowed here (sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0, or the outer container's settings)"
	case unix.ENOSPC, unix.EUSERS:
		return &caisson.Error{Item: "namespaces", Kind: caisson.ErrExhausted, Err: fmt.Errorf("%w: raise user.max_*_namespaces", errno)}
	case unix.EAGAIN, unix.ENOMEM:
		return &caisson.Error{Item: "namespaces", Kind: caisson.ErrExhausted, Err: errno}
	}
	return &caisson.Error{Item: "namespaces", Kind: caisson.ErrUnsupported, Err: fmt.Errorf("%w%s", errno, hint)}
}

// writeMaps gives the user namespace of a process its ids.
func writeMaps(pid int, uids, gids []IDMap) error {
	dir := "/proc/" + strconv.Itoa(pid) + "/"
	if os.Geteuid() != 0 {
		// Otherwise a user could escape rules that deny something to a group.
		if err := writeKernel(dir+"setgroups", "deny"); err != nil {
			return mapError(err)
		}
	}
	if err := writeKernel(dir+"uid_map", mapText(uids)); err != nil {
		return mapError(err)
	}
	return mapError(writeKernel(dir+"gid_map", mapText(gids)))
}

func mapError(err error) error {
	if err == nil {
		return nil
	}
	return &caisson.Error{Item: "user namespace", Kind: caisson.ErrUnsupported, Err: fmt.Errorf("map ids: %w", err)}
}

// mapText is the kernel's form of a map.
func mapText(list []IDMap) string {
	var b strings.Builder
	for _, m := range list {
		for _, n := range []int{m.Inside, m.Host, m.Size} {
			b.WriteString(strconv.Itoa(n))
			b.WriteByte(' ')
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// writeKernel writes a value to a kernel file in a single call.
func writeKernel(path, value string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(value))
	return err
}

// reap kills a child, waits until it is gone, and closes its pidfd.
func reap(pid, pidfd int) {
	unix.Kill(pid, unix.SIGKILL)
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			break
		}
	}
	unix.Close(pidfd)
}

// run is the infant's life. It does not return.
//
//go:norace
//go:nosplit
func (i *infant) run() {
	var buf [1]byte
	resetSignals()
	syscall.RawSyscall(unix.SYS_CLOSE, uintptr(i.sync[1]), 0, 0)
	n, _, errno := syscall.RawSyscall(unix.SYS_READ, uintptr(i.sync[0]), uintptr(unsafe.Pointer(&buf)), 1)
	if i.hold || errno != 0 || n != 1 {
		fail(i.report, stepMaps, errno)
	}
	step, errno := i.identify()
	if errno == 0 {
		step, errno = i.exec()
	}
	fail(i.report, step, errno)
}

// identify makes the infant all powerful in its own user namespace, also after
// exec.
//
//go:norace
//go:nosplit
func (i *infant) identify() (step int, errno syscall.Errno) {
	if i.root {
		if _, _, errno = syscall.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); errno != 0 {
			return stepGroups, errno
		}
		if _, _, errno = syscall.RawSyscall(unix.SYS_SETRESGID, 0, 0, 0); errno != 0 {
			return stepGroups, errno
		}
		if _, _, errno = syscall.RawSyscall(unix.SYS_SETRESUID, 0, 0, 0); errno != 0 {
			return stepUser, errno
		}
		return 0, 0
	}
	if _, _, errno = syscall.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&capsHeader)), uintptr(unsafe.Pointer(&i.allCaps)), 0); errno != 0 {
		return stepCapabilities, errno
	}
	for n := 0; n <= i.lastCap; n++ {
		if _, _, errno = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(n), 0, 0, 0); errno != 0 {
			return stepCapabilities, errno
		}
	}
	return 0, 0
}

// exec runs this program again, from a read-only mount of its file: whoever
// gets hold of /proc/PID/exe from inside can't change the file on the host,
// not even where it belongs to the same user (CVE-2019-5736).
//
//go:norace
//go:nosplit
func (i *infant) exec() (step int, errno syscall.Errno) {
	if _, _, errno = syscall.RawSyscall(unix.SYS_SETSID, 0, 0, 0); errno != 0 {
		return stepSession, errno
	}
	for n := uintptr(0); n < 3; n++ {
		if _, _, errno = syscall.RawSyscall(unix.SYS_DUP3, uintptr(i.null), n, 0); errno != 0 {
			return stepFiles, errno
		}
	}
	if _, _, errno = syscall.RawSyscall(unix.SYS_DUP3, uintptr(i.socket), initSocket, 0); errno != 0 {
		return stepFiles, errno
	}
	// Only now are all low descriptors taken, so that the program gets none that
	// is about to be replaced.
	program := uintptr(i.program)
	if i.program < 0 {
		program, _, errno = syscall.RawSyscall(unix.SYS_OPEN_TREE, atCWD, uintptr(unsafe.Pointer(i.path)), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if errno == 0 {
			_, _, errno = syscall.RawSyscall6(unix.SYS_MOUNT_SETATTR, program, uintptr(unsafe.Pointer(&emptyText[0])), unix.AT_EMPTY_PATH,
				uintptr(unsafe.Pointer(&i.readOnly)), unsafe.Sizeof(i.readOnly), 0)
		}
	}
	if errno != 0 {
		return stepProgram, errno
	}
	if _, _, errno = syscall.RawSyscall(unix.SYS_CLOSE_RANGE, initSocket+1, ^uintptr(0)>>32, unix.CLOSE_RANGE_CLOEXEC); errno != 0 {
		return stepFiles, errno
	}
	_, _, errno = syscall.RawSyscall6(unix.SYS_EXECVEAT, program, uintptr(unsafe.Pointer(&emptyText[0])),
		uintptr(unsafe.Pointer(&i.argv[0])), uintptr(unsafe.Pointer(&i.envv[0])), unix.AT_EMPTY_PATH, 0)
	return stepExec, errno
}
