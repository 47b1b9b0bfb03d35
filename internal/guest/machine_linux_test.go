package guest_test

import (
	"errors"
	"fmt"
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
	user  int    // who its files belong to
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
	i := &image{share: t.TempDir(), user: os.Geteuid()}
	if i.user == 0 {
		// As in its sandbox, QEMU has the rights of the program's user.
		i.user = 1234
	}
	o := &machinetest.Options{
		Kernel: machinetest.Kernel(t, kernel),
		User:   i.user,
		Disks:  []machine.Disk{machinetest.Image(t, dir), machinetest.Layer(t, 64<<20)},
	}
	if kernel == machinetest.Whole {
		for _, name := range []string{"work", "tmp", "0"} {
			if err := os.Mkdir(filepath.Join(i.share, name), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(filepath.Join(i.share, name), i.user, i.user); err != nil {
				t.Fatal(err)
			}
		}
		write(t, i.share, map[string]string{"work/in.txt": "from the host\n", "0/data": "x"})
		if err := os.Chown(filepath.Join(i.share, "work/in.txt"), i.user, i.user); err != nil {
			t.Fatal(err)
		}
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
		{Path: guest.Name("/run/secrets/plain"), Data: []byte("for the user"), Mode: 0o400, Owner: &guest.Owner{UID: i.user, GID: 2345}},
		{Path: guest.Name("/etc/secrets/once"), Data: []byte("for the first"), Once: true, Owner: &guest.Owner{UID: i.user, GID: 2345}},
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
	// On the host there may be another user than the image's.
	user := who.User
	user.UID = i.user
	s := &guest.Setup{
		User: &user, Files: 64, Limits: []isolate.Limit{{Resource: unix.RLIMIT_FSIZE, Soft: 1 << 24, Hard: 1 << 24}},
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
	for _, want := range []string{fmt.Sprintf("%d\n2345 3456\nsandbox\n64\n", i.user), "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"} {
		contains(t, out, want)
	}
	for _, bad := range []string{"vport", "vda", "init"} {
		if strings.Contains(i.sh(t, "ls / /dev"), bad) {
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
		"cat /proc/1/root/init 2>&1":                                    "No such file",
		"(echo x >/proc/sysrq-trigger) 2>&1":                            "Read-only file system",
		"(echo x >/sys/fs/cgroup/cgroup.procs) 2>&1":                    "Read-only file system",
		"cat /proc/timer_list 2>&1":                                     "Permission denied",
		"cat /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/memory.max": "33554432\n",
		"stat -c %U:%G:%a /":                                            "root:root:755\n",
		"tty; test -c /dev/tty; ls /dev/pts":                            "not a tty\nptmx\n",
		"cat /proc/sys/net/ipv4/ip_unprivileged_port_start":             "0\n",
		"df /dev/shm | tail -n 1":                                       "65536",
	} {
		contains(t, i.sh(t, script), want)
	}
}

// shares looks at the shared folder from both sides.
func (i *image) shares(t *testing.T) {
	contains(t, i.sh(t, "cat /work/in.txt; stat -c %u /work/in.txt"), "from the host\n")
	for script, want := range map[string]string{
		"cd /work; echo 'from the guest' >out.txt; mv out.txt renamed; ln -s renamed l; cat l": "from the guest\n",
		"cd /work; mkdir -p a/b && echo deep >a/b/c && mv a d && cat d/b/c && rm -r d && ls":   "deep\nin.txt\n",
		"cd /work; exec 3>open; rm open; echo still >&3 && echo written":                       "written\n",
		"cd /work; dd if=/dev/zero of=big bs=64k count=32 2>/dev/null; stat -c %s big; rm big": "2097152\n",
		"cd /work; chmod 700 in.txt && stat -c %a in.txt; chmod 644 in.txt":                    "700\n",
		"cd /work; ln in.txt hard && stat -c %h hard; rm hard":                                 "2\n",
		// QEMU can't make what is no file.
		"cd /work; mkfifo f 2>&1": "No such device",
		"stat -c %a:%u /tmp":      fmt.Sprintf("755:%d\n", i.user),
	} {
		contains(t, i.sh(t, script), want)
	}
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
	contains(t, i.sh(t, "stat -c '%a %u' /run/secrets/plain; cat /run/secrets/plain"), fmt.Sprintf("400 %d\nfor the user", i.user))
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
	out, errText, _, _ := run(t, i.c, shell("n=0; while [ $n -lt 30 ]; do sleep 1000 >/dev/null 2>&1 & n=$((n+1)); done; echo $n"), "")
	contains(t, out+errText, "fork")
	if err := i.c.Kill(ctx); err != nil {
		t.Fatal(err)
	}
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

// TestMachineRoot has programs that are root: with the capabilities of a container, and
// with all of them where the sandbox is privileged, in a kernel without 9p.
func TestMachineRoot(t *testing.T) {
	if testing.Short() {
		t.Skip("it boots two guests")
	}
	for name, test := range map[string]struct {
		setup *guest.Setup
		wants map[string]string
	}{
		machinetest.Whole: {
			&guest.Setup{User: &isolate.User{}, Caps: guest.DefaultCaps(), Group: &isolate.Cgroup{Name: "task", PIDs: 100}},
			map[string]string{
				"grep -E 'Cap(Eff|Bnd)|NoNew' /proc/self/status":                                               "CapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nNoNewPrivs:\t1\n",
				"echo x >/etc/made && chown 5:6 /etc/made && stat -c %u:%g /etc/made":                          "5:6\n",
				"ls /proc/1/root/ 2>&1; ls -l /proc/1/fd 2>&1":                                                 "Permission denied",
				"mount -t tmpfs x /var 2>&1":                                                                   "ermi",
				"mount -o remount,rw /sys/fs/cgroup 2>&1":                                                      "ermi",
				"(echo 0 >/proc/sys/kernel/panic) 2>&1; (echo max >/sys/fs/cgroup/caisson/task/pids.max) 2>&1": "Read-only file system",
				"kill -9 1; kill -TERM 1; echo alive":                                                          "alive",
				"ulimit -n; ulimit -Hn; ulimit -u":                                                             "1024\n1048576\nunlimited\n",
				"cat /sys/fs/cgroup/caisson/task/pids.max":                                                     "100\n",
			},
		},
		machinetest.Cloud: {
			&guest.Setup{User: &isolate.User{}, Privileged: true},
			map[string]string{
				"grep -E 'CapEff|NoNew' /proc/self/status":                                               "CapEff:\t000001ffffffffff\nNoNewPrivs:\t0\n",
				"mount -t tmpfs x /var && touch /var/y && ls /var":                                       "y\n",
				"ls -d /dev/vda /dev/null; echo 5 >/proc/sys/kernel/panic && cat /proc/sys/kernel/panic": "/dev/null\n/dev/vda\n5\n",
				"cat /proc/interrupts | head -n 1":                                                       "CPU0",
				"grep -c 9p /proc/filesystems":                                                           "0\n",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			i := bootImage(t, name, test.setup)
			for script, want := range test.wants {
				contains(t, i.sh(t, script), want)
			}
			if name == machinetest.Cloud {
				if err := i.c.Halt(testContext(t)); !errors.Is(err, caisson.ErrUnsupported) {
					t.Errorf("Halt without a group = %v", err)
				}
			}
			i.lostSession(t)
		})
	}
}

// lostSession has another session find what an earlier one has left, and the end of
// the machine be the end of the session.
func (i *image) lostSession(t *testing.T) {
	ctx := testContext(t)
	p := shell("sleep 1; echo output; exit 7")
	p.Keep = true
	proc, err := i.c.Spawn(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	lose(t, i.g.Conn, i.c)
	again := i.g.Dial(t)
	if again.Boot() != i.c.Boot() {
		t.Error("it is another agent")
	}
	proc, err = again.Attach(ctx, proc.ID(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(proc.Stdout)
	if string(out) != "output\n" || err != nil {
		t.Errorf("its output is %q, %v", out, err)
	}
	if code, _, err := proc.Wait(ctx); code != 7 || err != nil {
		t.Errorf("it has ended with %d, %v", code, err)
	}
	proc.Close()
	if err := again.Forget(ctx, proc.ID()); err != nil {
		t.Error(err)
	}
	if err := i.g.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := again.Ping(ctx); !errors.Is(err, caisson.ErrUnavailable) {
		t.Errorf("a call to a machine that is gone = %v", err)
	}
}

// systemInit is a system that starts the agent as one of its services, again and
// again.
const systemInit = `#!/bin/sh
export PATH=/bin
(while :; do ` + guest.ServicePath + ` service; sleep 1; done) &
while :; do
	sleep 1
	[ -e /tmp/replace ] && rm /tmp/replace && killall -9 caisson-guest
done
`

// TestService has the agent be a service of a machine with a system of its own.
func TestService(t *testing.T) {
	if testing.Short() {
		t.Skip("it boots a guest")
	}
	k := machinetest.Kernel(t, machinetest.Cloud)
	dir, agent := machinetest.Busybox(t), machinetest.Agent(t)
	program, err := os.ReadFile(agent)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string]string{
		guest.ServicePath: string(program), "sbin/init": systemInit, "etc/ssh/ssh_host_old_key": "old\n",
		"usr/bin/ssh-keygen": "#!/bin/sh\n[ \"$1\" = -A ] && cat /proc/sys/kernel/random/uuid >/etc/ssh/ssh_host_new_key\n",
	})
	for _, name := range []string{guest.ServicePath, "sbin/init", "usr/bin/ssh-keygen"} {
		if err := os.Chmod(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	g := machinetest.Boot(t, &machinetest.Options{
		Kernel: k, Initrd: machinetest.Initrd(t, k, agent), Disks: []machine.Disk{machinetest.System(t, dir, 64<<20)},
		Cmdline: []string{"caisson.root=/dev/vda", "caisson.init=/sbin/init"},
	})
	i := &image{g: g, c: g.Client}
	ctx := testContext(t)
	if info, err := i.c.Info(ctx); err != nil || info.PID == 1 {
		t.Errorf("Info = %+v, %v", info, err)
	}
	if err := i.c.SetRoot(ctx, "/tmp"); !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("SetRoot = %v", err)
	}
	if err := i.c.SetIdentity(ctx, &guest.Identity{MachineID: strings.Repeat("cd", 16), HostKeys: true}); err != nil {
		t.Error(err)
	}
	if err := i.c.Mount(ctx, &guest.Mount{Type: "tmpfs", Source: "tmpfs", Target: "/work"}); err != nil {
		t.Error(err)
	}
	if err := i.c.WriteFile(ctx, &guest.File{Path: guest.Name("/work/in"), Data: []byte("x")}); err != nil {
		t.Error(err)
	}
	s := &guest.Setup{User: &isolate.User{UID: 1234, GID: 2345}, Group: &isolate.Cgroup{Name: "task", Memory: 32 << 20}}
	if err := i.c.Setup(ctx, s); err != nil {
		t.Fatal(err)
	}
	contains(t, i.sh(t, "id -u; cat /work/in; cat /etc/machine-id; ls /sbin; cat /proc/1/cmdline"), "1234\nx"+strings.Repeat("cd", 16)+"\ninit\n/bin/sh")
	// A copy of one whose programs run gets keys of its own, too.
	first := i.sh(t, "cat /etc/ssh/ssh_host*")
	if err := i.c.SetIdentity(ctx, &guest.Identity{HostKeys: true}); err != nil {
		t.Error(err)
	}
	if second := i.sh(t, "cat /etc/ssh/ssh_host*"); len(first) != 37 || len(second) != 37 || first == second {
		t.Errorf("keys of a host: %q, and of a copy: %q", first, second)
	}
	_, _, code, signal := run(t, i.c, shell("exec dd if=/dev/zero of=/dev/null bs=60M count=1"), "")
	if st, err := i.c.Stats(ctx); err != nil || st.OOMKills != 1 {
		t.Errorf("beyond the limit: %d, %d; Stats = %+v, %v", code, signal, st, err)
	}
	replaced(t, i)
	if err := i.c.PowerOff(testContext(t), false); err != nil {
		t.Fatal(err)
	}
	select {
	case <-g.Ended:
	case <-time.After(limit):
		t.Errorf("QEMU lives on:\n%s", g.Console())
	}
}

// replaced has the agent end in the middle of a session, and another one take its
// place: what is under way ends at once, and nobody takes the other for the first.
func replaced(t *testing.T, i *image) {
	ctx := testContext(t)
	p := shell("sleep 1000")
	p.Keep = true
	proc, err := i.c.Spawn(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close()
	if err := i.c.WriteFile(ctx, &guest.File{Path: guest.Name("/tmp/replace")}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := proc.Wait(ctx); !errors.Is(err, caisson.ErrUnavailable) {
		t.Errorf("a program whose agent is replaced = %v", err)
	}
	again := i.g.Dial(t)
	if again.Boot() == i.c.Boot() {
		t.Error("another agent says that it is the same")
	}
	if list, err := again.Programs(ctx); len(list) != 0 || err != nil {
		t.Errorf("another agent knows of %+v, %v", list, err)
	}
	if _, err := again.Attach(ctx, proc.ID(), 0, 0); !errors.Is(err, caisson.ErrEnded) {
		t.Errorf("Attach = %v", err)
	}
	i.c = again
	contains(t, i.sh(t, "ps | grep -c '[s]leep 1000'"), "0")
}
