package seccomp_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson/internal/seccomp"
)

// inside names the environment variable that makes this test binary the child
// which tries what its value says.
const inside = "CAISSON_TEST_SECCOMP"

func TestMain(m *testing.M) {
	if what := os.Getenv(inside); what != "" {
		os.Exit(child(what))
	}
	os.Exit(m.Run())
}

// child installs the filter, does the thing and prints its error.
func child(what string) int {
	runtime.LockOSThread()
	err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	if err := errors.Join(err, seccomp.Install()); err != nil {
		fmt.Println("install:", err)
		return 1
	}
	fmt.Println(deeds[what]())
	return 0
}

// deeds are what children try. A nil prints as "<nil>".
var deeds = map[string]func() error{
	"mount":   func() error { return unix.Mount("none", "/tmp", "tmpfs", 0, "") },
	"unshare": func() error { return unix.Unshare(unix.CLONE_NEWUSER) },
	"setns":   func() error { return unix.Setns(0, 0) },
	"keyctl":  func() error { _, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, true); return err },
	"bpf":     func() error { return raw(unix.SYS_BPF) },
	"perf":    func() error { return raw(unix.SYS_PERF_EVENT_OPEN) },
	"uffd":    func() error { return raw(unix.SYS_USERFAULTFD) },
	"uring":   func() error { return raw(unix.SYS_IO_URING_SETUP) },
	"clone3":  func() error { return raw(unix.SYS_CLONE3) },
	"handle":  func() error { _, err := unix.OpenByHandleAt(0, unix.FileHandle{}, 0); return err },
	"newest":  func() error { return raw(9999) },
	"tiocsti": func() error { return unix.IoctlSetPointerInt(0, 0x5412, 'x') },
	"winsize": func() error { _, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); return err },
	"vsock":   func() error { return sock(unix.AF_VSOCK, unix.SOCK_STREAM) },
	"alg":     func() error { return sock(unix.AF_ALG, unix.SOCK_SEQPACKET) },
	"packet":  func() error { return sock(unix.AF_PACKET, unix.SOCK_RAW) },
	"inet":    func() error { return sock(unix.AF_INET, unix.SOCK_DGRAM) },
	"unix":    func() error { return sock(unix.AF_UNIX, unix.SOCK_STREAM) },
	"exec": func() error {
		// The shell forks, and its child is under the filter, too.
		out, err := exec.Command("sh", "-c", "(unshare -r true) 2>&1; echo $((6 * 7)) | cat; grep ^Seccomp: /proc/self/status").CombinedOutput()
		fmt.Printf("%s", out)
		return err
	},
}

func raw(number uintptr) error {
	var room [128]byte
	_, _, errno := unix.Syscall6(number, 0, uintptr(unsafe.Pointer(&room)), 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func sock(family, kind int) error {
	fd, err := unix.Socket(family, kind, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func TestInstall(t *testing.T) {
	if !seccomp.Available() {
		t.Skip("this kernel has no seccomp filters")
	}
	const (
		denied   = "operation not permitted\n"
		missing  = "function not implemented\n"
		noFamily = "address family not supported by protocol\n"
	)
	want := map[string]string{
		"mount": denied, "unshare": denied, "setns": denied, "keyctl": denied, "bpf": denied,
		"perf": denied, "uffd": denied, "uring": denied, "clone3": missing, "handle": denied,
		"newest": missing, "tiocsti": denied, "winsize": "inappropriate ioctl for device\n",
		"vsock": noFamily, "alg": noFamily, "packet": noFamily, "inet": "<nil>\n", "unix": "<nil>\n",
	}
	for what, answer := range want {
		t.Run(what, func(t *testing.T) {
			if out := try(t, what); out != answer {
				t.Errorf("%s: %q, want %q", what, out, answer)
			}
		})
	}
	t.Run("exec", func(t *testing.T) {
		out := try(t, "exec")
		for _, part := range []string{"Operation not permitted\n", "\n42\n", "Seccomp:\t2\n<nil>\n"} {
			if !strings.Contains(out, part) {
				t.Errorf("output %q, want it to have %q", out, part)
			}
		}
	})
}

// try runs this test binary as a child.
func try(t *testing.T, what string) string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), inside+"="+what)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", what, err, out)
	}
	return string(out)
}
