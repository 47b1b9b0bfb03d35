package guest_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/guest"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/internal/machine"
	"github.com/caissonrun/caisson/internal/machine/machinetest"
)

// An image is what a guest of these tests has, on the host.
type image struct {
	share string // the folder that is shared
	g     *machinetest.Guest
	c     *guest.Client
}

// bootImage boots a kernel with an image's disk, a disk that is written to and, with
// 9p, a shared folder. It mounts them as engine qemu does and makes them the root.
func bootImage(t *testing.T, kernel string, s *guest.Setup) *image {
	t.Helper()
	dir := machinetest.Busybox(t)
	// What an image can have to lead the agent astray.
	for name, target := range map[string]string{
		"etc/absolute": "/etc/below/absolute", "etc/relative": "../../../../../../etc/below/relative",
		"astray": "../../../modules", "etc/secrets": "/run/secrets",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	i := &image{share: t.TempDir()}
	o := &machinetest.Options{
		Kernel: machinetest.Kernel(t, kernel),
		Disks:  []machine.Disk{machinetest.Image(t, dir), machinetest.Layer(t, 64<<20)},
	}
	if kernel == machinetest.Whole {
		for _, name := range []string{"work", "tmp", "0"} {
			if err := os.Mkdir(filepath.Join(i.share, name), 0o777); err != nil {
				t.Fatal(err)
			}
		}
		write(t, i.share, map[string]string{"work/in.txt": "from the host\n", "0/data": "x"})
		o.Shares = []machine.Share{{Tag: "shares", Path: i.share}}
	}
	i.g = machinetest.Boot(t, o)
	i.c = i.g.Client
	ctx := testContext(t)
	mount := func(m *guest.Mount) {
		t.Helper()
		if err := i.c.Mount(ctx, m); err != nil {
			t.Fatalf("mount %+v: %v\n%s", m, err, i.g.Console())
		}
	}
	mount(&guest.Mount{Type: "ext4", Source: "serial:image", Target: "/image", Flags: []string{"ro"}, Wait: 5000})
	mount(&guest.Mount{Type: "ext4", Source: "serial:layer", Target: "/layer", Flags: []string{"noatime"}, Wait: 5000})
	mount(&guest.Mount{Type: "overlay", Source: "overlay", Target: "/root", Options: "lowerdir=/image,upperdir=/layer/upper,workdir=/layer/work"})
	if kernel == machinetest.Whole {
		mount(&guest.Mount{Type: "9p", Source: "shares", Target: "/shares", Options: "trans=virtio,version=9p2000.L,cache=mmap,msize=512000,access=any"})
	}
	if err := i.c.SetRoot(ctx, "/root"); err != nil {
		t.Fatal(err)
	}
	if kernel == machinetest.Whole {
		mount(&guest.Mount{Source: "/shares/work", Target: "/work", Flags: []string{"bind", "rec", "nosuid", "nodev"}})
		mount(&guest.Mount{Source: "/shares/tmp", Target: "/tmp", Flags: []string{"bind", "nosuid", "nodev"}})
		mount(&guest.Mount{Source: "/shares/0", Target: "/etc/absolute", Flags: []string{"bind", "ro", "nosuid", "nodev"}})
		mount(&guest.Mount{Source: "/shares/0/data", Target: "/var/one.file", Flags: []string{"bind", "ro"}})
	}
	mount(&guest.Mount{Type: "tmpfs", Source: "tmpfs", Target: "/run/secrets", Flags: []string{"nosuid", "nodev", "noexec"}, Options: "size=1m,mode=0755"})
	for _, f := range []*guest.File{
		{Path: guest.Name("/etc/relative"), Data: []byte("not followed")},
		{Path: guest.Name("/astray/0000-evil.ko"), Data: []byte("below the root")},
		{Path: guest.Name("/run/secrets/plain"), Data: []byte("for the user"), Mode: 0o400, Owner: &guest.Owner{UID: 1234, GID: 2345}},
		{Path: guest.Name("/etc/secrets/once"), Data: []byte("for the first"), Once: true, Owner: &guest.Owner{UID: 1234, GID: 2345}},
		{Path: guest.Name("/new/folder"), Dir: true, Mode: 0o1777},
		{Path: guest.Name("/new/link"), Link: guest.Name("folder")},
	} {
		if err := i.c.WriteFile(ctx, f); err != nil {
			t.Fatalf("%s: %v", f.Path, err)
		}
	}
	if err := i.c.SetHosts(ctx, []guest.Host{{IP: "169.254.169.254", Names: []string{"taskcluster", "metadata.internal"}}}); err != nil {
		t.Fatal(err)
	}
	if err := i.c.SetHostname(ctx, "sandbox"); err != nil {
		t.Fatal(err)
	}
	if s != nil {
		if err := i.c.Setup(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	return i
}

// sh runs a script and returns what it prints.
func (i *image) sh(t *testing.T, script string) string {
	t.Helper()
	out, errText, code, _ := run(t, i.c, shell(script), "")
	if code != 0 || errText != "" {
		t.Logf("%q: code %d, stderr %q", script, code, errText)
	}
	return out
}

// TestMachine does in a real machine what the engine does for an image.
func TestMachine(t *testing.T) {
	if testing.Short() {
		t.Skip("it boots a guest")
	}
	i := bootImage(t, machinetest.Whole, nil)
	ctx := testContext(t)
	who, err := i.c.Lookup(ctx, &guest.Who{User: "tester", Standard: &guest.Owner{UID: 1000, GID: 1000}})
	if err != nil || who.User.UID != 1234 || who.User.GID != 2345 || len(who.User.Groups) != 1 || who.User.Groups[0] != 3456 || who.Home != "/home/tester" {
		t.Fatalf("Lookup = %+v, %v", who, err)
	}
	if p, err := i.c.Lookup(ctx, &guest.Who{Standard: &guest.Owner{UID: 1000, GID: 1000}}); err != nil || p.User.UID != 1000 {
		t.Errorf("Lookup of nobody in particular = %+v, %v, want the standard", p, err)
	}
	if _, err := i.c.Lookup(ctx, &guest.Who{User: "stranger"}); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("Lookup of a stranger = %v", err)
	}
	s := &guest.Setup{
		User: &who.User, Files: 64, Limits: []isolate.Limit{{Resource: unix.RLIMIT_FSIZE, Soft: 1 << 24, Hard: 1 << 24}},
		Group: &isolate.Cgroup{Name: "task", Memory: 32 << 20, PIDs: 20, CPUs: 500},
	}
	if err := i.c.Setup(ctx, s); err != nil {
		t.Fatal(err)
	}
	t.Run("sees", i.sees)
	t.Run("shares", i.shares)
	t.Run("secrets", i.secrets)
	t.Run("limits", i.limits)
	t.Run("metadata", i.metadata)
	t.Run("clock", i.clock)
	t.Run("files", i.files)
	t.Run("halt", i.halt)
	t.Run("poweroff", i.powerOff)
}

// sees looks at what a program sees.
func (i *image) sees(t *testing.T) {
	out := i.sh(t, `id -u; id -G; hostname; ulimit -n; grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status
		cat /proc/self/mountinfo; ls -l /dev; ls /; echo "pwd $(pwd)"`)
	t.Log(out)
	for _, want := range []string{"1234\n2345 3456\nsandbox\n64\n", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"} {
		contains(t, out, want)
	}
	for _, bad := range []string{"/shares", "/image ", "/layer ", "vport", "vda", "devtmpfs", "modules"} {
		if bad != "/shares" && strings.Contains(out, bad) {
			t.Errorf("a program sees %q", bad)
		}
	}
	// Nothing that is mounted but below the new root.
	for line := range strings.Lines(i.sh(t, "cat /proc/self/mountinfo")) {
		if f := strings.Fields(line); f[4] == "/shares" || f[4] == "/image" || f[4] == "/layer" {
			t.Errorf("a program sees the mount %q", line)
		}
	}
	for script, want := range map[string]string{
		"cat /etc/hosts": "127.0.0.1\tlocalhost\n# names of Caisson's begin here\n169.254.169.254\ttaskcluster metadata.internal\n",
		"cat /modules/0000-evil.ko; cat /etc/relative":                  "below the rootnot followed",
		"readlink /new/link; stat -c %a /new/folder":                    "folder\n1777\n",
		"(echo x >/etc/made) 2>&1":                                      "Permission denied",
		"cat /proc/1/root/init 2>&1":                                    "Permission denied",
		"(echo x >/proc/sysrq-trigger) 2>&1":                            "Read-only file system",
		"(echo x >/sys/fs/cgroup/cgroup.procs) 2>&1":                    "Read-only file system",
		"cat /proc/timer_list 2>&1 | wc -c":                             "0\n",
		"cat /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/memory.max": "33554432\n",
		"stat -c %U:%G:%a /":                                            "root:root:755\n",
		"tty; test -c /dev/tty; ls /dev/pts":                            "not a tty\nptmx\n",
		"df /dev/shm | tail -n 1":                                       "65536",
	} {
		contains(t, i.sh(t, script), want)
	}
}

// shares looks at the shared folder from both sides.
func (i *image) shares(t *testing.T) {
	contains(t, i.sh(t, "cat /work/in.txt; stat -c %u /work/in.txt"), "from the host\n")
	t.Log(i.sh(t, `cd /work; id -u; stat -c '%u %a' . in.txt; echo 'from the guest' >out.txt; ls -ln; mkdir -p a/b && echo deep >a/b/c && cat a/b/c; mv out.txt renamed; ln -s renamed l; cat l
		(exec 3<>open; rm open; echo still >&3; echo unlinked ok) 2>&1; dd if=/dev/zero of=big bs=64k count=32 2>&1 | tail -n 1`))
	if data, err := os.ReadFile(filepath.Join(i.share, "work/renamed")); string(data) != "from the guest\n" {
		t.Errorf("the host sees %q, %v", data, err)
	}
	write(t, i.share, map[string]string{"work/live": "written later"})
	contains(t, i.sh(t, "cat /work/live"), "written later")
	write(t, i.share, map[string]string{"work/live": "and changed"})
	contains(t, i.sh(t, "cat /work/live"), "and changed")
	contains(t, i.sh(t, "cat /etc/absolute/data /etc/below/absolute/data /var/one.file; (echo y >/etc/absolute/data) 2>&1"), "xxx")
	contains(t, i.sh(t, "(echo y >/etc/absolute/new) 2>&1"), "Read-only file system")
}

// secrets are for their user, and some once.
func (i *image) secrets(t *testing.T) {
	contains(t, i.sh(t, "stat -c '%a %u' /run/secrets/plain; cat /run/secrets/plain"), "400 1234\nfor the user")
	contains(t, i.sh(t, "cat /run/secrets/once; sleep 0.5; ls /run/secrets"), "for the firstplain\n")
}

// limits has programs use more than there is.
func (i *image) limits(t *testing.T) {
	ctx := testContext(t)
	_, _, code, signal := run(t, i.c, shell("exec dd if=/dev/zero of=/dev/null bs=60M count=1"), "")
	if signal != int(unix.SIGKILL) && code != 137 {
		t.Errorf("a program beyond the limit has ended with %d, %d", code, signal)
	}
	s, err := i.c.Stats(ctx)
	if err != nil || s.OOMKills != 1 || s.Memory < 0 || s.CPU <= 0 || s.PeakMemory < 16<<20 || s.PIDs < 0 {
		t.Errorf("Stats = %+v, %v", s, err)
	}
	out, errText, _, _ := run(t, i.c, shell("n=0; while [ $n -lt 30 ]; do sleep 1 & n=$((n+1)); done; wait; echo $n"), "")
	contains(t, out+errText, "fork")
	if err := i.c.Ping(ctx); err != nil {
		t.Fatalf("%v\n%s", err, i.g.Console())
	}
}

// metadata is what the host serves inside, at an address that the guest gets for it.
func (i *image) metadata(t *testing.T) {
	ctx := testContext(t)
	gw, err := i.c.Listen(ctx, []isolate.Socket{{IP: []byte{169, 254, 169, 254}, Port: 80}}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer gw.Close()
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		_, _ = io.WriteString(w, "metadata for "+r.Host+" at "+local.String())
	})}
	go func() { _ = server.Serve(gw.Listener(0)) }()
	defer server.Close()
	contains(t, i.sh(t, "wget -q -O - http://taskcluster/engine/v1/x"), "metadata for taskcluster at 169.254.169.254:80")
	contains(t, i.sh(t, "wget -q -O - http://169.254.169.254/"), "metadata for 169.254.169.254")
}

// clock sets the time.
func (i *image) clock(t *testing.T) {
	ctx := testContext(t)
	if err := i.c.SetClock(ctx, time.Date(2040, 1, 2, 3, 4, 5, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	contains(t, i.sh(t, "date -u +%F"), "2040-01-02")
	if err := i.c.Reseed(ctx, []byte("random")); err != nil {
		t.Fatal(err)
	}
	if err := i.c.SetIdentity(ctx, &guest.Identity{MachineID: strings.Repeat("Ab", 16)}); err != nil {
		t.Fatal(err)
	}
	contains(t, i.sh(t, "cat /etc/machine-id"), strings.Repeat("ab", 16)+"\n")
	if err := i.c.SetIdentity(ctx, &guest.Identity{MachineID: "x"}); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("SetIdentity = %v", err)
	}
}

// files are those of the root, shares among them.
func (i *image) files(t *testing.T) {
	ctx := testContext(t)
	files, err := i.c.FS(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	for name, want := range map[string]string{"work/in.txt": "from the host\n", "etc/absolute/data": "x", "modules/0000-evil.ko": "below the root"} {
		f, err := files.Open(name)
		if err != nil {
			t.Error(err)
			continue
		}
		data, err := io.ReadAll(f)
		f.Close()
		if string(data) != want || err != nil {
			t.Errorf("%s = %q, %v", name, data, err)
		}
	}
	if _, err := files.Stat("init"); err == nil {
		t.Error("the agent's own root is seen")
	}
}

// halt has what runs stand still, and others run beside it.
func (i *image) halt(t *testing.T) {
	ctx := testContext(t)
	i.sh(t, "rm -f /work/count")
	proc, err := i.c.Spawn(ctx, shell("while :; do echo x >>/work/count; sleep 0.1; done"))
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close()
	count := func() int {
		data, _ := os.ReadFile(filepath.Join(i.share, "work/count"))
		return len(data)
	}
	eventually(t, "it runs", func() bool { return count() > 0 })
	for _, on := range []bool{true, false} {
		if err := i.c.Freeze(ctx, on); err != nil {
			t.Fatal(err)
		}
	}
	before := count()
	eventually(t, "it goes on", func() bool { return count() > before })
	if err := i.c.Halt(ctx); err != nil {
		t.Fatal(err)
	}
	contains(t, i.sh(t, "echo beside"), "beside")
	before = count()
	contains(t, i.sh(t, "sleep 2; echo later"), "later")
	if after := count(); after != before {
		t.Errorf("what is halted went on from %d to %d", before, after)
	}
	beside, err := i.c.Spawn(ctx, shell("sleep 1000"))
	if err != nil {
		t.Fatal(err)
	}
	defer beside.Close()
	if err := i.c.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*guest.Process{proc, beside} {
		if _, signal, err := p.Wait(ctx); signal != int(unix.SIGKILL) || err != nil {
			t.Errorf("it has ended with signal %d, %v", signal, err)
		}
	}
	contains(t, i.sh(t, "echo again"), "again")
}

// powerOff switches the machine off.
func (i *image) powerOff(t *testing.T) {
	if err := i.c.PowerOff(testContext(t), false); err != nil {
		t.Fatal(err)
	}
	select {
	case <-i.g.Ended:
	case <-time.After(limit):
		t.Errorf("QEMU lives on:\n%s", i.g.Console())
	}
}

var _ = context.Background
