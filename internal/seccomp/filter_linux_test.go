package seccomp

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// run interprets a filter for one system call and returns its answer.
func run(filter []unix.SockFilter, audit, number uint32, args [6]uint64) (uint32, error) {
	data := make([]byte, 64)
	binary.LittleEndian.PutUint32(data[offsetNumber:], number)
	binary.LittleEndian.PutUint32(data[offsetArch:], audit)
	for i, arg := range args {
		binary.LittleEndian.PutUint64(data[offsetArgs+8*i:], arg)
	}
	var acc uint32
	jump := func(pc int, in unix.SockFilter, taken bool) int {
		if taken {
			return pc + int(in.Jt)
		}
		return pc + int(in.Jf)
	}
	for pc := 0; pc < len(filter); pc++ {
		switch in := filter[pc]; in.Code {
		case opLoad:
			acc = binary.LittleEndian.Uint32(data[in.K:])
		case opEqual:
			pc = jump(pc, in, acc == in.K)
		case opAtLeast:
			pc = jump(pc, in, acc >= in.K)
		case opHasBit:
			pc = jump(pc, in, acc&in.K != 0)
		case opJump:
			pc += int(in.K)
		case opReturn:
			return in.K, nil
		default:
			return 0, fmt.Errorf("instruction %d: unknown code %#x", pc, in.Code)
		}
	}
	return 0, fmt.Errorf("the filter runs off its end")
}

const (
	retAllow = unix.SECCOMP_RET_ALLOW
	retKill  = unix.SECCOMP_RET_KILL_PROCESS
)

func errno(e syscall.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(e) }

var goarches = []string{"amd64", "arm64"}

// number returns a system call's number, and false where there is none.
func number(a arch, name string) (uint32, bool) {
	for _, c := range a.calls {
		if c.name == name {
			return c.number, true
		}
	}
	return 0, false
}

func TestFilterAnswersEveryCall(t *testing.T) {
	conditional := map[string]bool{}
	for _, c := range conditions {
		conditional[c.name] = true
	}
	want := map[string]uint32{}
	for _, name := range allowed {
		if _, twice := want[name]; twice || conditional[name] {
			t.Errorf("%s stands in the policy twice", name)
		}
		want[name] = retAllow
	}
	for _, name := range absent {
		want[name] = errno(syscall.ENOSYS)
	}
	for _, goarch := range goarches {
		t.Run(goarch, func(t *testing.T) {
			a, err := archOf(goarch)
			if err != nil {
				t.Fatal(err)
			}
			filter := compile(a)
			if len(filter) > 4096 {
				t.Errorf("%d instructions, the kernel takes 4096", len(filter))
			}
			for _, c := range a.calls {
				if conditional[c.name] {
					continue
				}
				answer, listed := want[c.name]
				if !listed {
					answer = errno(syscall.EPERM)
				}
				if got, err := run(filter, a.audit, c.number, [6]uint64{}); err != nil || got != answer {
					t.Errorf("%s: %#x, %v, want %#x", c.name, got, err, answer)
				}
			}
		})
	}
}

// TestPolicyNamesExist finds typing errors: a name that no architecture knows.
func TestPolicyNamesExist(t *testing.T) {
	names := append(append([]string{}, allowed...), absent...)
	for _, c := range conditions {
		names = append(names, c.name)
	}
	for _, name := range names {
		_, amd := number(arch{calls: callsAMD64}, name)
		_, arm := number(arch{calls: callsARM64}, name)
		if !amd && !arm {
			t.Errorf("%s: no such system call", name)
		}
	}
}

func TestFilterRefuses(t *testing.T) {
	dangerous := []string{
		"mount", "umount2", "pivot_root", "chroot", "unshare", "setns", "open_tree", "move_mount",
		"open_tree_attr", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr", "keyctl", "add_key",
		"request_key", "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter",
		"io_uring_register", "kexec_load", "kexec_file_load", "init_module", "finit_module",
		"delete_module", "open_by_handle_at", "reboot", "swapon", "swapoff", "quotactl", "quotactl_fd",
		"clock_settime", "clock_adjtime", "settimeofday", "acct", "syslog", "fanotify_init", "iopl",
		"ioperm", "sethostname", "setdomainname", "vhangup", "lookup_dcookie", "kcmp", "pidfd_getfd",
		"move_pages", "migrate_pages", "nfsservctl", "uselib",
	}
	for _, goarch := range goarches {
		a, _ := archOf(goarch)
		filter := compile(a)
		for _, name := range dangerous {
			n, ok := number(a, name)
			if !ok {
				continue
			}
			if got, err := run(filter, a.audit, n, [6]uint64{}); err != nil || got != errno(syscall.EPERM) {
				t.Errorf("%s: %s: %#x, %v, want EPERM", goarch, name, got, err)
			}
		}
	}
}

func TestFilterOfUnknownNumbers(t *testing.T) {
	for _, goarch := range goarches {
		a, _ := archOf(goarch)
		filter := compile(a)
		for _, n := range []uint32{400, 5000, 0x40000000, 0x40000001, 0x40000000 + 520, 0xffffffff} {
			if got, err := run(filter, a.audit, n, [6]uint64{}); err != nil || got != errno(syscall.ENOSYS) {
				t.Errorf("%s: number %#x: %#x, %v, want ENOSYS", goarch, n, got, err)
			}
		}
		for _, audit := range []uint32{0, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_ARM, a.audit ^ 1} {
			if got, err := run(filter, audit, 1, [6]uint64{}); err != nil || got != retKill {
				t.Errorf("%s: architecture %#x: %#x, %v, want kill", goarch, audit, got, err)
			}
		}
	}
}

func TestFilterByArgument(t *testing.T) {
	const high = 0xdeadbeef << 32 // the kernel does not look there
	tests := []struct {
		name string
		args [6]uint64
		want uint32
	}{
		{"clone", [6]uint64{syscall.CLONE_VM | syscall.CLONE_VFORK | uint64(syscall.SIGCHLD)}, retAllow},
		{"clone", [6]uint64{0x3d0f00}, retAllow}, // a thread
		{"clone", [6]uint64{syscall.CLONE_NEWUSER | uint64(syscall.SIGCHLD)}, errno(syscall.EPERM)},
		{"clone", [6]uint64{high | syscall.CLONE_NEWNS}, errno(syscall.EPERM)},
		{"clone", [6]uint64{syscall.CLONE_NEWNET}, errno(syscall.EPERM)},
		{"clone", [6]uint64{syscall.CLONE_NEWPID}, errno(syscall.EPERM)},
		{"clone", [6]uint64{syscall.CLONE_NEWIPC}, errno(syscall.EPERM)},
		{"clone", [6]uint64{syscall.CLONE_NEWUTS}, errno(syscall.EPERM)},
		{"clone", [6]uint64{0x02000000}, errno(syscall.EPERM)},
		{"ioctl", [6]uint64{0, syscall.TIOCGWINSZ}, retAllow},
		{"ioctl", [6]uint64{0, tiocsti}, errno(syscall.EPERM)},
		{"ioctl", [6]uint64{0, high | tiocsti}, errno(syscall.EPERM)},
		{"ioctl", [6]uint64{0, tioclinux}, errno(syscall.EPERM)},
		{"personality", [6]uint64{0}, retAllow},
		{"personality", [6]uint64{0xffffffff}, retAllow},
		{"personality", [6]uint64{0x0400000}, errno(syscall.EPERM)}, // READ_IMPLIES_EXEC
		{"socket", [6]uint64{syscall.AF_UNIX}, retAllow},
		{"socket", [6]uint64{syscall.AF_INET6}, retAllow},
		{"socket", [6]uint64{syscall.AF_NETLINK}, retAllow},
		{"socket", [6]uint64{high | unix.AF_VSOCK}, errno(syscall.EAFNOSUPPORT)},
		{"socket", [6]uint64{unix.AF_VSOCK}, errno(syscall.EAFNOSUPPORT)},
		{"socket", [6]uint64{unix.AF_ALG}, errno(syscall.EAFNOSUPPORT)},
		{"socket", [6]uint64{unix.AF_PACKET}, errno(syscall.EAFNOSUPPORT)},
		{"socket", [6]uint64{unix.AF_XDP}, errno(syscall.EAFNOSUPPORT)},
	}
	for _, goarch := range goarches {
		a, _ := archOf(goarch)
		filter := compile(a)
		for _, test := range tests {
			n, ok := number(a, test.name)
			if !ok {
				t.Fatalf("%s has no %s", goarch, test.name)
			}
			if got, err := run(filter, a.audit, n, test.args); err != nil || got != test.want {
				t.Errorf("%s: %s(%#x) = %#x, %v, want %#x", goarch, test.name, test.args, got, err, test.want)
			}
		}
	}
}

// TestTables compares the numbers with those of golang.org/x/sys/unix.
func TestTables(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for _, goarch := range goarches {
		a, _ := archOf(goarch)
		f, err := os.Open(filepath.Join(strings.TrimSpace(string(out)), "unix", "zsysnum_linux_"+goarch+".go"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		compared := 0
		for s := bufio.NewScanner(f); s.Scan(); {
			var name string
			var want uint32
			if n, _ := fmt.Sscanf(strings.TrimSpace(s.Text()), "SYS_%s = %d", &name, &want); n != 2 || name == "ARCH_SPECIFIC_SYSCALL" {
				continue
			}
			compared++
			if got, ok := number(a, strings.ToLower(name)); !ok || got != want {
				t.Errorf("%s: %s = %d, want %d", goarch, strings.ToLower(name), got, want)
			}
		}
		if compared < 300 || compared != len(a.calls) {
			t.Errorf("%s: %d names compared, the table has %d", goarch, compared, len(a.calls))
		}
	}
}

func TestOtherArchitecture(t *testing.T) {
	if _, err := archOf("mips"); err == nil {
		t.Error("there is a filter for mips")
	}
}

func BenchmarkFilter(b *testing.B) {
	for b.Loop() {
		if _, err := Filter(); err != nil {
			b.Fatal(err)
		}
	}
}
