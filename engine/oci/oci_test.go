//go:build unix

package oci_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/oci"
	"github.com/caissonrun/caisson/keeper"
	"github.com/caissonrun/caisson/keeper/keepertest"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// keeperPath and insidePath name the variables with the paths of built
// programs, see TestOrdinaryUser.
const (
	keeperPath = "CAISSON_TEST_KEEPER"
	insidePath = "CAISSON_TEST_INSIDE"
)

// theKeeper is built once, by TestMain.
var theKeeper keeper.Command

func TestMain(m *testing.M) {
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	if path := os.Getenv(keeperPath); path != "" {
		theKeeper = keeper.Command{path}
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "oci-test-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = os.Chmod(dir, 0o755)
	}
	if err == nil {
		theKeeper, err = keepertest.Build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// newEngine returns an engine with a runtime folder of its own, unless opts
// has one.
func newEngine(t testing.TB, opts oci.Options) *oci.Engine {
	t.Helper()
	if opts.Runtime == "" {
		opts.Runtime = filepath.Join(t.TempDir(), "run")
	}
	if opts.Keeper == nil {
		opts.Keeper = theKeeper
	}
	setBuiltin(&opts)
	e, err := oci.New(&opts)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// setBuiltin chooses the runtime that is there everywhere, unless opts names
// one.
func setBuiltin(opts *oci.Options) {
	if opts.Use == "" {
		opts.Use = oci.Builtin
	}
}

// newRoot makes the root file system of a small image, unpacked as the store
// does it: with a shell, and users root, nobody and tester.
func newRoot(t testing.TB) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	for _, dir := range []string{"", "bin", "etc", "home", "usr", "usr/tester", "root", "tmp", "var"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatalf("busybox-static is missing; make setup installs it: %v", err)
	}
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	for name, contents := range map[string]string{
		"bin/busybox": string(data),
		"etc/passwd":  "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\ntester:x:1234:2345:tester:/usr/tester:/bin/sh\n",
		"etc/group":   "root:x:0:\nnogroup:x:65534:\ntesters:x:2345:\nextra:x:3456:other,tester\n",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(contents), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"sh", "id", "cat", "ls", "touch", "sleep", "echo", "readlink", "mkdir", "rm", "stat", "hostname", "env", "true", "chown", "ulimit"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(filepath.Join(root, "usr/tester"), 1234, 2345); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

var boxes atomic.Int64

// newSpec returns a spec for a shell script in an overlay on a root.
func newSpec(t testing.TB, root, script string) *engine.Spec {
	t.Helper()
	base := t.TempDir()
	s := &engine.Spec{
		ID:  fmt.Sprintf("ot%d-%d", os.Getpid(), boxes.Add(1)),
		Dir: filepath.Join(base, "dir"), Log: filepath.Join(base, "log"), Work: filepath.Join(base, "work"),
		Run: script, RootFS: &engine.RootFS{Path: root, Changes: filepath.Join(base, "changes")},
		WorkOwner: engine.Owner{UID: os.Getuid(), GID: os.Getgid()},
	}
	for _, dir := range []string{s.Dir, s.RootFS.Changes, s.Work} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() == 0 {
		s.WorkOwner = engine.Owner{UID: 1000, GID: 1000}
		if err := os.Chown(s.Work, 1000, 1000); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// create makes a sandbox that is destroyed after the test.
func create(t testing.TB, e engine.Engine, s *engine.Spec) engine.Sandbox {
	t.Helper()
	box, err := e.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := box.Destroy(context.Background()); err != nil {
			t.Errorf("Destroy = %v", err)
		}
	})
	return box
}

// run runs a spec to its end and returns what it printed.
func run(t testing.TB, e engine.Engine, s *engine.Spec) (caisson.Exit, string) {
	t.Helper()
	p, err := create(t, e, s).Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	exit, err := p.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return exit, output(t, s)
}

// output returns what a program has printed up to now.
func output(t testing.TB, s *engine.Spec) string {
	t.Helper()
	var out bytes.Buffer
	err := tasklog.Follow(t.Context(), s.Log, 0, func() bool { return true }, func(r tasklog.Record) error {
		out.Write(r.Data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// lose kills the keeper of a sandbox.
func lose(t testing.TB, spec *engine.Spec) {
	t.Helper()
	client, err := keeper.Dial(context.Background(), spec.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	status, err := client.Status(context.Background())
	if err == nil {
		err = unix.Kill(status.PID, unix.SIGKILL)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestProbe(t *testing.T) {
	runtime := filepath.Join(t.TempDir(), "run")
	e := newEngine(t, oci.Options{Runtime: runtime})
	f, err := e.Probe(t.Context())
	if err != nil || !f.Usable || !f.Overlay {
		t.Fatalf("Probe = usable %v, overlay %v, %+v, %v", f.Usable, f.Overlay, f.Missing, err)
	}
	if !f.RootFS || !f.Terminal || !f.ImageOnly || f.Devices || f.Networks.Host || f.Privileged {
		t.Errorf("Probe = %+v", f)
	}
	if entries, err := os.ReadDir(runtime); err != nil || len(entries) > 0 {
		t.Errorf("Probe has left %v, %v", entries, err)
	}
	// Where programs may be root they have capabilities, and that is no flaw.
	if f, err := newEngine(t, oci.Options{Root: true}).Probe(t.Context()); err != nil || !f.Usable {
		t.Errorf("with root Probe = usable %v, %+v, %v", f.Usable, f.Missing, err)
	}
}

func TestUsers(t *testing.T) {
	root, e := newRoot(t), newEngine(t, oci.Options{})
	lifted := newEngine(t, oci.Options{Root: true})
	type test struct {
		name        string
		e           *oci.Engine
		user, group string
		want        string
		home        string
	}
	tests := []test{
		{"None", e, "", "", "1000 1000", "/tmp"},
		{"Root", e, "root", "", "1000 1000", "/tmp"},
		{"Zeros", e, "00", "", "1000 1000", "/tmp"},
		{"ZeroGroup", e, "0:0", "", "1000 1000", "/tmp"},
		{"RootLifted", lifted, "", "", "0 0", "/root"},
		{"OwnUser", e, "1234:0", "", "1234 0", "/usr/tester"},
		{"Unknown", e, "777", "", "777 0", "/tmp"},
	}
	if os.Geteuid() == 0 {
		tests = append(
			tests,
			test{"Name", e, "tester", "", "1234 2345 3456", "/usr/tester"},
			test{"NameLifted", lifted, "tester", "", "1234 2345 3456", "/usr/tester"},
			test{"NameGroup", e, "tester:nogroup", "", "1234 65534", "/usr/tester"},
			test{"Group", e, "tester", "nogroup", "1234 2345 3456 65534", "/usr/tester"},
		)
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newSpec(t, root, `echo $(id -u) $(id -g) $(id -G) $HOME; touch /work/mine && stat -c %u:%g /work/mine`)
			s.User, s.Group = test.user, test.group
			exit, out := run(t, test.e, s)
			ids := strings.Fields(test.want)
			want := fmt.Sprintf("%s %s %s %s\n%s:%s\n", ids[0], ids[1], strings.Join(ids[1:], " "), test.home, ids[0], ids[1])
			if exit.Status() != 0 || out != want {
				t.Errorf("%s, %q, want %q", exit.Message, out, want)
			}
			var st unix.Stat_t
			if err := unix.Stat(filepath.Join(s.Work, "mine"), &st); err != nil || int(st.Uid) != s.WorkOwner.UID || int(st.Gid) != s.WorkOwner.GID {
				t.Errorf("on disk its file belongs to %d:%d, %v", st.Uid, st.Gid, err)
			}
		})
	}
	for _, user := range []string{"-1", "+1", "65536", "4294967296", "18446744073709551616", "nosuch", "tester:nosuch", "1:", ":1", "0x0"} {
		t.Run("Err"+user, func(t *testing.T) {
			s := newSpec(t, root, "true")
			s.User = user
			if box, err := e.Create(t.Context(), s); !errors.Is(err, caisson.ErrInvalid) {
				t.Errorf("Create = %v, %v, want ErrInvalid", box, err)
			}
		})
	}
}

func TestOverlay(t *testing.T) {
	root, e := newRoot(t), newEngine(t, oci.Options{Root: true})
	const script = `echo changed >/etc/new; rm -r /usr; mkdir /usr; echo x >>/etc/passwd; echo >/root/file
[ ! -e /usr/tester ] && cat /etc/new && ls -A /usr`
	for range 2 {
		s := newSpec(t, root, script)
		if exit, out := run(t, e, s); exit.Status() != 0 || out != "changed\n" {
			t.Errorf("%s %q", exit.Message, out)
		}
	}
	data, err := os.ReadFile(filepath.Join(root, "etc/passwd"))
	if err != nil || strings.Contains(string(data), "x\n\n") || strings.HasSuffix(string(data), "sh\nx\n") {
		t.Errorf("the shared root was changed: %q, %v", data, err)
	}
	for _, name := range []string{"etc/new", "root/file", "proc", "dev", "work"} {
		if _, err := os.Lstat(filepath.Join(root, name)); !os.IsNotExist(err) {
			t.Errorf("the shared root has %s", name)
		}
	}
}

// withOptions sets a task's options.
func withOptions(s *engine.Spec, options string) *engine.Spec {
	s.Options = []byte(options)
	return s
}

func TestOptions(t *testing.T) {
	root := newRoot(t)
	e, lifted := newEngine(t, oci.Options{}), newEngine(t, oci.Options{Root: true})
	tests := []struct {
		name            string
		e               *oci.Engine
		options, script string
		want            string
	}{
		{"ReadOnly", lifted, `{"readonly": true}`, `touch /x 2>/dev/null || echo no; touch /work/x && echo yes`, "no\nyes\n"},
		{"Ulimits", e, `{"ulimits": {"nproc": 77, "nofile": {"soft": 50, "hard": 60}}}`, `ulimit -Sn; ulimit -Hn; ulimit -u 2>/dev/null || ulimit -p`, "50\n60\n77\n"},
		{"Sysctls", e, `{"sysctls": {"kernel.msgmax": "4096", "net.ipv4.ip_default_ttl": "33"}}`, `cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_default_ttl`, "4096\n33\n"},
		{"NoCapabilities", e, `{}`, `while read -r k v; do case $k in Cap*) echo $v;; esac; done </proc/self/status`, strings.Repeat("0000000000000000\n", 5)},
		{
			"Capabilities", lifted, `{"cap_drop": ["MKNOD"]}`, `while read -r k v; do case $k in Cap*) echo $v;; esac; done </proc/self/status`,
			"0000000000000000\n00000000a00425fb\n00000000a00425fb\n00000000a00425fb\n0000000000000000\n",
		},
		{"Masked", e, `{"masked_paths": ["/proc/version"], "readonly_paths": ["/proc/uptime"]}`, `cat /proc/version /proc/interrupts | wc -c`, "0\n"},
		{"Command", e, `{"command": "/bin/echo", "args": ["a", "b"]}`, "", "a b\n"},
		{
			"NameServer", e, `{"dns_servers": ["192.0.2.53"], "dns_search_domains": ["example.org", "example.net"]}`, `cat /etc/resolv.conf`,
			"nameserver 192.0.2.53\nsearch example.org example.net\n",
		},
		{"NoNameServer", e, `{"dns_servers": ["none"]}`, `ls /etc/resolv.conf 2>/dev/null || echo none`, "none\n"},
		{"LowPorts", e, `{}`, `cat /proc/sys/net/ipv4/ip_unprivileged_port_start`, "0\n"},
		{"Volume", e, `{"volumes": ["in:/data:ro"]}`, `mkdir -p /work/in; touch /data/x 2>/dev/null || echo no`, "no\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := withOptions(newSpec(t, root, test.script), test.options)
			if err := os.Mkdir(filepath.Join(s.Work, "in"), 0o777); err != nil {
				t.Fatal(err)
			}
			if test.name == "Sysctls" && os.Geteuid() != 0 {
				// Those files are the inside's root's, and there is no such user here.
				if box, err := test.e.Create(t.Context(), s); !errors.Is(err, caisson.ErrUnsupported) {
					t.Errorf("Create = %v, %v, want ErrUnsupported", box, err)
				}
				return
			}
			if exit, out := run(t, test.e, s); exit.Status() != 0 || out != test.want {
				t.Errorf("status %d %s: %q, want %q", exit.Status(), exit.Message, out, test.want)
			}
		})
	}
	refusals := []struct {
		name, options string
		kind          caisson.Kind
	}{
		{"Sysctl", `{"sysctls": {"kernel.hostname": "x"}}`, caisson.ErrDenied},
		{"Seccomp", `{"insecure_options": ["seccomp"]}`, caisson.ErrDenied},
		{"AbsoluteVolume", `{"volumes": ["/etc:/data"]}`, caisson.ErrDenied},
		{"Network", `{"net": ["host"]}`, caisson.ErrDenied},
		{"Address", `{"dns_servers": ["not-an-address"]}`, caisson.ErrInvalid},
		{"SearchLine", `{"dns_servers": ["192.0.2.1"], "dns_search_domains": ["a\nnameserver 192.0.2.66"]}`, caisson.ErrInvalid},
		{"Ulimit", `{"ulimits": {"nosuch": 1}}`, caisson.ErrInvalid},
		{"MaskedLink", `{"masked_paths": ["/proc/self/status"]}`, caisson.ErrInvalid},
	}
	for _, test := range refusals {
		t.Run("Err"+test.name, func(t *testing.T) {
			s := withOptions(newSpec(t, root, "true"), test.options)
			if box, err := e.Create(t.Context(), s); !errors.Is(err, test.kind) {
				t.Errorf("Create = %v, %v, want %v", box, err, test.kind)
			}
			if _, err := os.Lstat(filepath.Join(s.Dir, engine.HandleFile)); !os.IsNotExist(err) {
				t.Errorf("the handle is left: %v", err)
			}
		})
	}
}

// TestCopy runs on a root of its own, as an image that was copied.
func TestCopy(t *testing.T) {
	root, e := newRoot(t), newEngine(t, oci.Options{Root: true})
	s := newSpec(t, root, "echo new >/etc/new && cat /etc/new && stat -c %u /etc/new")
	s.RootFS.Changes = ""
	if exit, out := run(t, e, s); exit.Status() != 0 || out != "new\n0\n" {
		t.Errorf("%s %q", exit.Message, out)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(root, "etc/new"), &st); err != nil || int(st.Uid) != os.Geteuid() {
		t.Errorf("on disk it belongs to %d, %v", st.Uid, err)
	}
}

// TestHostileRoot runs images whose folders are links to other places.
func TestHostileRoot(t *testing.T) {
	e := newEngine(t, oci.Options{})
	outside := t.TempDir()
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Run("Links", func(t *testing.T) {
		for _, name := range []string{"proc", "dev", "sys"} {
			t.Run(name, func(t *testing.T) {
				root := newRoot(t)
				if err := os.Symlink("/tmp", filepath.Join(root, name)); err != nil {
					t.Fatal(err)
				}
				if box, err := e.Create(t.Context(), newSpec(t, root, "true")); !errors.Is(err, caisson.ErrInvalid) {
					t.Errorf("Create = %v, %v, want ErrInvalid", box, err)
				}
			})
		}
	})
	t.Run("Targets", func(t *testing.T) {
		root := newRoot(t)
		for name, target := range map[string]string{
			"work": outside, "data": "../../../../.." + outside, "etc/hosts": secret, "etc/resolv.conf": "/proc/self/cwd/../secret",
			"etc/hostname": "../../../.." + secret,
		} {
			if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
				t.Fatal(err)
			}
		}
		s := newSpec(t, root, "cat /etc/hosts; touch /work/mine; ls "+outside+" /data 2>/dev/null; cat "+secret+" 2>/dev/null; true")
		s.Mounts = []engine.Mount{{Type: engine.MountTmpfs, Target: "/data"}}
		box, err := e.Create(t.Context(), s)
		if err == nil {
			t.Cleanup(func() { _ = box.Destroy(context.Background()) })
			p, err := box.Start(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			if out := output(t, s); strings.Contains(out, "host\n") && !strings.Contains(out, "localhost\n") {
				t.Errorf("it sees the host's file: %q", out)
			}
		}
		data, err := os.ReadFile(secret)
		if err != nil || string(data) != "host\n" {
			t.Errorf("the host's file is now %q, %v", data, err)
		}
		if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
			t.Errorf("the host's folder has %v, %v", entries, err)
		}
	})
}
