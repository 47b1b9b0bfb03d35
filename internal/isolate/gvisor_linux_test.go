package isolate_test

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
)

// gvisor is a sandbox on gVisor's kernel.
func gvisor(t *testing.T) *isolate.Spec {
	t.Helper()
	needRoot(t)
	spec := baseSpec(t)
	spec.Runtime = runtimeOf(isolate.Runsc)
	return spec
}

func TestGvisorKernel(t *testing.T) {
	box := begin(t, gvisor(t))
	var host unix.Utsname
	if err := unix.Uname(&host); err != nil {
		t.Fatal(err)
	}
	release := unix.ByteSliceToString(host.Release[:])
	if out := spawn(t, box, "cat", "/proc/version").output(t); strings.Contains(out, release) {
		t.Errorf("the kernel inside is the host's %s: %s", release, out)
	}
	r := reportOf(t, box)
	if r.UID != 1000 || r.GID != 1000 || r.Status["CapBnd"] != "0000000000000000" || r.Status["Seccomp"] != "2" {
		t.Errorf("the program is %d:%d, %v", r.UID, r.GID, r.Status)
	}
	if len(r.FDs) != 3 || len(r.Interfaces) != 1 {
		t.Errorf("descriptors %v, network devices %v", r.FDs, r.Interfaces)
	}
	if box.PID() != 0 {
		t.Errorf("PID = %d, want 0: the sandbox's init is no process of the host", box.PID())
	}
}

// TestGvisorFiles has files of a sandbox seen, and made, from both sides.
func TestGvisorFiles(t *testing.T) {
	spec, work, fixed := gvisor(t), t.TempDir(), t.TempDir()
	if err := os.Chown(work, 1000, 1000); err != nil {
		t.Fatal(err)
	}
	spec.Mounts = append(
		spec.Mounts,
		isolate.Mount{Type: isolate.Bind, Source: work, Target: "/work"},
		isolate.Mount{Type: isolate.Bind, Source: fixed, Target: "/fixed", ReadOnly: true},
		isolate.Mount{Type: isolate.Tmpfs, Target: "/tmp"},
	)
	box := begin(t, spec)
	spawn(t, box, "write", "/work/inside").output(t)
	var st unix.Stat_t
	if err := unix.Stat(work+"/inside", &st); err != nil || st.Uid != 1000 {
		t.Errorf("what was written inside belongs to %d on the host, %v", st.Uid, err)
	}
	if err := os.WriteFile(work+"/outside", []byte("from outside"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := spawn(t, box, "cat", "/work/outside").output(t); !strings.Contains(out, "from outside") {
		t.Errorf("inside: %s", out)
	}
	for _, name := range []string{"/fixed/x", "/x", "/bin/helper"} {
		r := spawn(t, box, "write", name)
		if code, _, _ := r.Wait(); code == 0 {
			t.Errorf("%s was written", name)
		}
		<-r.read
	}
	spawn(t, box, "write", "/tmp/seen").output(t)
	root, err := box.Root()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	fd, err := unix.Openat(int(root.Fd()), "tmp/seen", unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Errorf("a file of the sandbox's, by its root: %v", err)
	}
	unix.Close(fd)
}

func TestGvisorRefuses(t *testing.T) {
	for name, change := range map[string]func(*isolate.Spec){
		"NetNS":   func(s *isolate.Spec) { s.NetNS = "/proc/self/ns/net" },
		"Gateway": func(s *isolate.Spec) { s.Sockets = []isolate.Socket{{Port: 80}} },
		"Devices": func(s *isolate.Spec) { s.Devices = []isolate.Device{{Source: "/dev/null", Target: "/dev/mine"}} },
		"Sysctls": func(s *isolate.Spec) { s.Sysctls = map[string]string{"kernel.msgmax": "1"} },
		"PIDs":    func(s *isolate.Spec) { s.Cgroup = &isolate.Cgroup{Name: "isolate-test-refused", PIDs: 5} },
	} {
		t.Run(name, func(t *testing.T) {
			spec := gvisor(t)
			watch(t)
			change(spec)
			box, err := isolate.Start(spec)
			if box != nil {
				box.Close()
			}
			if caisson.KindOf(err) != caisson.ErrUnsupported {
				t.Errorf("Start = %v, want ErrUnsupported", err)
			}
		})
	}
}
