package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Attempt implements act.World: each name is something that lets a task out of
// its sandbox, or at the kernel, where it is permitted. Where isolation fails
// they reach the host, so each is made harmless there.
func (w *world) Attempt(name string) error {
	try, ok := attempts()[name]
	if target, found := strings.CutPrefix(name, "remount:"); found {
		try, ok = func() error { return unix.Mount("none", target, "", unix.MS_REMOUNT|unix.MS_BIND, "") }, true
	}
	if !ok {
		return fmt.Errorf("no such attempt")
	}
	// Some change the thread; it ends with this goroutine.
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		result <- try()
	}()
	return <-result
}

func attempts() map[string]func() error {
	return map[string]func() error{
		"mount-tmpfs":    func() error { return mount("tmpfs", 0) },
		"mount-proc":     func() error { return mount("proc", 0) },
		"remount":        func() error { return mount("", unix.MS_REMOUNT|unix.MS_BIND) },
		"umount":         umount,
		"clone-user":     cloneUser,
		"unshare-mount":  func() error { return unix.Unshare(unix.CLONE_NEWNS) },
		"unshare-net":    func() error { return unix.Unshare(unix.CLONE_NEWNET) },
		"setns":          setns,
		"chroot":         func() error { return unix.Chroot("/") },
		"pivot-root":     func() error { return unix.PivotRoot("/tmp", "/tmp") },
		"mknod":          mknod,
		"setuid-0":       func() error { return setuid(0) },
		"sethostname":    setHostname,
		"settimeofday":   setTime,
		"reboot":         func() error { return unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF) },
		"swapon":         swapon,
		"init-module":    func() error { return unix.InitModule(nil, "") },
		"kexec":          func() error { return raw(unix.SYS_KEXEC_LOAD, 0, 0, 0, 0) },
		"iopl":           iopl,
		"keyctl":         func() error { _, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, true); return err },
		"add-key":        func() error { return addKey() },
		"bpf":            func() error { return raw(unix.SYS_BPF, 5, 0, 0) },
		"perf-event":     perfEvent,
		"userfaultfd":    func() error { return rawFD(unix.SYS_USERFAULTFD, unix.O_CLOEXEC) },
		"io-uring":       ioUring,
		"ptrace-1":       func() error { return raw(unix.SYS_PTRACE, unix.PTRACE_ATTACH, 1, 0, 0) },
		"read-memory-1":  readMemory,
		"signals-1":      signalAll,
		"kill-1":         func() error { return unix.Kill(1, unix.SIGKILL) },
		"quotactl":       func() error { return raw(unix.SYS_QUOTACTL, 0, 0, 0, 0) },
		"open-by-handle": openByHandle,
		"raw-socket":     func() error { return socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP) },
		"packet-socket":  func() error { return socket(unix.AF_PACKET, unix.SOCK_RAW, 0) },
		"vsock-socket":   func() error { return socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0) },
		"alg-socket":     func() error { return socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0) },
		"tty-inject":     ttyInject,
		"core-pattern":   writer("/proc/sys/kernel/core_pattern"),
		"sysrq":          writer("/proc/sysrq-trigger"),
		"uevent-helper":  writer("/sys/kernel/uevent_helper"),
		"oom-adjust":     func() error { return os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0) },
		"cgroup-write":   cgroupWrite,
		"open-kmsg":      opener("/dev/kmsg"),
		"open-mem":       opener("/dev/mem"),
		"open-kcore":     opener("/proc/kcore"),
		"open-kvm":       opener("/dev/kvm"),
		"open-fuse":      opener("/dev/fuse"),
		"write-own-exe":  writer("/proc/self/exe"),
		"write-exe-1":    writer("/proc/1/exe"),
		"fill-memfd":     fillMemfd,
		"fill-pipes":     fillPipes,
		"fill-sockets":   fillSockets,
		"fill-threads":   fillThreads,
	}
}

// raw makes a system call whose arguments are all numbers.
func raw(nr uintptr, args ...uintptr) error {
	args = append(args, 0, 0, 0, 0, 0, 0)
	_, _, errno := unix.Syscall6(nr, args[0], args[1], args[2], args[3], args[4], args[5])
	if errno != 0 {
		return errno
	}
	return nil
}

// rawFD is raw for calls that return a descriptor.
func rawFD(nr uintptr, args ...uintptr) error {
	args = append(args, 0, 0, 0, 0, 0, 0)
	fd, _, errno := unix.Syscall6(nr, args[0], args[1], args[2], args[3], args[4], args[5])
	if errno != 0 {
		return errno
	}
	return unix.Close(int(fd))
}

// scratch is a folder to try mounts on.
const scratch = "/tmp/caisson-attempt"

func mount(kind string, flags uintptr) error {
	if err := os.MkdirAll(scratch, 0o755); err != nil {
		return err
	}
	defer os.Remove(scratch)
	err := unix.Mount("none", scratch, kind, flags, "")
	if err == nil {
		return unix.Unmount(scratch, unix.MNT_DETACH)
	}
	return err
}

// umount fails even for those who may where nothing is mounted.
func umount() error {
	if err := os.MkdirAll(scratch, 0o755); err != nil {
		return err
	}
	defer os.Remove(scratch)
	return unix.Unmount(scratch, unix.MNT_DETACH)
}

// cloneUser starts a process in a user namespace of its own. Unshare would
// not do: it fails in every process with threads.
func cloneUser() error {
	cmd := exec.Command("/proc/self/exe", "exit", "0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
	return cmd.Run()
}

// mknod makes the first disk's device.
func mknod() error {
	const path = "/tmp/caisson-attempt-device"
	if err := unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(8, 0))); err != nil {
		return err
	}
	return os.Remove(path)
}

// setHostname sets the name that the host has.
func setHostname() error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	return unix.Sethostname([]byte(name))
}

// setTime sets the time that it is.
func setTime() error {
	var now unix.Timeval
	if err := unix.Gettimeofday(&now); err != nil {
		return err
	}
	return unix.Settimeofday(&now)
}

// setuid changes this thread only, where unix.Setuid would change all.
func setuid(uid int) error {
	if os.Getuid() == uid {
		return nil
	}
	return raw(unix.SYS_SETUID, uintptr(uid))
}

// setns enters the mount namespace of process 1, which is the host's where the
// sandbox has no processes of its own.
func setns() error {
	fd, err := unix.Open("/proc/1/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Setns(fd, unix.CLONE_NEWNS)
}

func swapon() error {
	path, err := unix.BytePtrFromString("/tmp/caisson-attempt-swap")
	if err != nil {
		return err
	}
	return raw(unix.SYS_SWAPON, uintptr(unsafe.Pointer(path)), 0)
}

func addKey() error {
	_, err := unix.AddKey("user", "caisson-attempt", []byte("x"), unix.KEY_SPEC_PROCESS_KEYRING)
	return err
}

func perfEvent() error {
	attr := &unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK}
	attr.Size = uint32(unsafe.Sizeof(*attr))
	fd, err := unix.PerfEventOpen(attr, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func ioUring() error {
	var params [120]byte // struct io_uring_params
	return rawFD(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&params)))
}

// readMemory reads one word of process 1, which is the host's init or the
// sandbox's supervisor.
func readMemory() error {
	f, err := os.Open("/proc/1/mem")
	if err != nil {
		return err
	}
	return f.Close()
}

// signalAll sends every signal to process 1. It is for sandboxes alone whose
// process 1 was seen not to be the host's.
func signalAll() error {
	const last = 64
	var failed error
	for n := 1; n <= last; n++ {
		if err := unix.Kill(1, syscall.Signal(n)); err != nil {
			failed = err
		}
	}
	return failed
}

// openByHandle is how a process with CAP_DAC_READ_SEARCH leaves its root.
func openByHandle() error {
	handle := unix.NewFileHandle(1, []byte{2, 0, 0, 0, 0, 0, 0, 0})
	fd, err := unix.OpenByHandleAt(unix.AT_FDCWD, handle, unix.O_RDONLY)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func socket(domain, kind, protocol int) error {
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// ttyInject puts a character into the terminal that stdin is, as if it had
// been typed there.
func ttyInject() error {
	c := byte('x')
	return raw(unix.SYS_IOCTL, 0, unix.TIOCSTI, uintptr(unsafe.Pointer(&c)))
}

// writer opens a file for writing without changing it.
func writer(path string) func() error {
	return func() error {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return f.Close()
	}
}

func opener(path string) func() error {
	return func() error {
		f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		return f.Close()
	}
}

// cgroupWrite looks for a group that lets this process be moved out.
func cgroupWrite() error {
	var last error = unix.ENOENT
	for _, path := range []string{
		"/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/cgroup.procs",
		"/sys/fs/cgroup/memory/release_agent", "/sys/fs/cgroup/unified/cgroup.procs",
	} {
		if last = writer(path)(); last == nil {
			return nil
		}
	}
	return last
}
