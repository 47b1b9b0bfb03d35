package seccomp

import "syscall"

// allowed are the system calls that any program may make whatever their
// arguments. A name that an architecture does not have is left out there.
var allowed = []string{
	// Files, by path and by descriptor. Permissions and the root view decide.
	"access", "cachestat", "chdir", "chmod", "chown", "close", "close_range", "copy_file_range",
	"creat", "dup", "dup2", "dup3", "faccessat", "faccessat2", "fadvise64", "fallocate", "fchdir",
	"fchmod", "fchmodat", "fchmodat2", "fchown", "fchownat", "fcntl", "fdatasync", "fgetxattr",
	"file_getattr", "file_setattr", "flistxattr", "flock", "fremovexattr", "fsetxattr", "fstat",
	"fstatfs", "fsync", "ftruncate", "futimesat", "getcwd", "getdents", "getdents64", "getxattr",
	"getxattrat", "lchown", "lgetxattr", "link", "linkat", "listxattr", "listxattrat", "llistxattr",
	"lremovexattr", "lseek", "lsetxattr", "lstat", "mkdir", "mkdirat", "name_to_handle_at",
	"newfstatat", "open", "openat", "openat2", "pread64", "preadv", "preadv2", "pwrite64", "pwritev",
	"pwritev2", "read", "readahead", "readlink", "readlinkat", "readv", "removexattr",
	"removexattrat", "rename", "renameat", "renameat2", "rmdir", "sendfile", "setxattr",
	"setxattrat", "splice", "stat", "statfs", "statx", "symlink", "symlinkat", "sync",
	"sync_file_range", "syncfs", "tee", "truncate", "umask", "unlink", "unlinkat", "utime",
	"utimensat", "utimes", "vmsplice", "write", "writev",
	// FIFOs are made with these, too; the kernel refuses devices.
	"mknod", "mknodat",
	// Pipes, events and waiting.
	"epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2",
	"epoll_wait", "epoll_wait_old", "eventfd", "eventfd2", "inotify_add_watch", "inotify_init",
	"inotify_init1", "inotify_rm_watch", "io_cancel", "io_destroy", "io_getevents", "io_pgetevents",
	"io_setup", "io_submit", "pipe", "pipe2", "poll", "ppoll", "pselect6", "select", "signalfd",
	"signalfd4",
	// Sockets; which kinds, see conditions.
	"accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen",
	"recvfrom", "recvmmsg", "recvmsg", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown",
	"socketpair",
	// Memory.
	"brk", "madvise", "map_shadow_stack", "membarrier", "memfd_create", "memfd_secret", "mincore",
	"mlock", "mlock2", "mlockall", "mmap", "mprotect", "mremap", "mseal", "msync", "munlock",
	"munlockall", "munmap", "pkey_alloc", "pkey_free", "pkey_mprotect", "remap_file_pages",
	// Processes and threads.
	"arch_prctl", "execve", "execveat", "exit", "exit_group", "fork", "get_robust_list",
	"get_thread_area", "modify_ldt", "pause", "pidfd_open", "pidfd_send_signal", "prctl",
	"process_mrelease", "process_vm_readv", "process_vm_writev", "ptrace", "restart_syscall", "rseq",
	"rseq_slice_yield", "set_robust_list", "set_thread_area", "set_tid_address", "uprobe",
	"uretprobe", "vfork", "wait4", "waitid",
	"futex", "futex_requeue", "futex_wait", "futex_waitv", "futex_wake",
	"getpgid", "getpgrp", "getpid", "getppid", "getsid", "gettid", "setpgid", "setsid",
	// Who it is. Without capabilities these change nothing that matters.
	"capget", "capset", "getegid", "geteuid", "getgid", "getgroups", "getresgid", "getresuid",
	"getuid", "setfsgid", "setfsuid", "setgid", "setgroups", "setregid", "setresgid", "setresuid",
	"setreuid", "setuid",
	// Restricting itself further.
	"landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "seccomp",
	"lsm_get_self_attr", "lsm_list_modules", "lsm_set_self_attr",
	// Signals.
	"kill", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn",
	"rt_sigsuspend", "rt_sigtimedwait", "rt_tgsigqueueinfo", "sigaltstack", "tgkill", "tkill",
	// Time. The clock itself is set with others.
	"adjtimex", "alarm", "clock_getres", "clock_gettime", "clock_nanosleep", "getitimer",
	"gettimeofday", "nanosleep", "setitimer", "time", "timer_create", "timer_delete",
	"timer_getoverrun", "timer_gettime", "timer_settime", "timerfd_create", "timerfd_gettime",
	"timerfd_settime", "times",
	// Scheduling and limits, of its own processes.
	"getcpu", "getpriority", "getrlimit", "getrusage", "ioprio_get", "ioprio_set", "prlimit64",
	"sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getattr",
	"sched_getparam", "sched_getscheduler", "sched_rr_get_interval", "sched_setaffinity",
	"sched_setattr", "sched_setparam", "sched_setscheduler", "sched_yield", "setpriority",
	"setrlimit",
	// System V and POSIX queues, semaphores and shared memory, of its own
	// namespace.
	"mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedsend", "mq_unlink",
	"msgctl", "msgget", "msgrcv", "msgsnd", "semctl", "semget", "semop", "semtimedop", "shmat",
	"shmctl", "shmdt", "shmget",
	// What the host is, as far as its namespaces show it.
	"getrandom", "listmount", "statmount", "sysinfo", "uname",
}

// absent are known and yet answered as if the kernel did not have them. The
// flags of clone3 lie in memory, where no filter can look; C libraries fall
// back to clone.
var absent = []string{"clone3"}

// newNamespaces are the flags of clone that make a namespace. A new user
// namespace would give all capabilities in it, and with them most of the
// kernel's attack surface.
const newNamespaces = syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC |
	syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | 0x02000000 // CLONE_NEWCGROUP

// Input for somebody else's terminal is the same as their typing.
const (
	tiocsti   = 0x5412
	tioclinux = 0x541c
)

// A condition allows a system call depending on one argument, of which the
// kernel looks at the lower 32 bits only.
type condition struct {
	name string
	arg  int
	// mask, if not 0, refuses arguments that have one of its bits.
	mask uint32
	// only, if not nil, lists the arguments that are allowed.
	only []uint32
	// never lists arguments that are refused.
	never []uint32
	// errno is the answer where it is refused.
	errno syscall.Errno
}

var conditions = []condition{
	{name: "clone", arg: 0, mask: newNamespaces, errno: syscall.EPERM},
	{name: "ioctl", arg: 1, never: []uint32{tiocsti, tioclinux}, errno: syscall.EPERM},
	// Linux and its 32-bit and old-version variants, and the query.
	{name: "personality", arg: 0, only: []uint32{0, 0x8, 0x20000, 0x20008, 0xffffffff}, errno: syscall.EPERM},
	// Every other family has been a way into the kernel, or out of the network
	// namespace, as vsock is. The answer is that of a kernel without it.
	{
		name: "socket", arg: 0, errno: syscall.EAFNOSUPPORT,
		only: []uint32{syscall.AF_UNIX, syscall.AF_INET, syscall.AF_INET6, syscall.AF_NETLINK},
	},
}
