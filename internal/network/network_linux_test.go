package network_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/network"
	"github.com/caissonrun/caisson/internal/slowtest"
)

// A rig is a folder of configurations and one of the runtime.
type rig struct {
	t    *testing.T
	opts network.Options
	ipam string
	id   string
}

// newRig returns a rig with real plugins. They are in Debian's
// containernetworking-plugins, see scripts/setup.
func newRig(t *testing.T) *rig {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can make network namespaces for others")
	}
	r := &rig{t: t, ipam: t.TempDir(), id: fmt.Sprintf("t%d", os.Getpid())}
	r.opts = network.Options{Runtime: t.TempDir(), Installation: "test", ConfigDir: t.TempDir()}
	before := links(t)
	t.Cleanup(func() {
		for _, dir := range []string{"namespaces", "ports"} {
			filepath.WalkDir(filepath.Join(r.opts.Runtime, dir), func(path string, e os.DirEntry, err error) error {
				if err == nil && !e.IsDir() && e.Name() != "lock" {
					t.Errorf("left behind: %s", path)
				}
				return nil
			})
		}
		leases, _ := filepath.Glob(filepath.Join(r.ipam, "*", "10.*"))
		if len(leases) > 0 {
			t.Errorf("addresses left allocated: %v", leases)
		}
		if after := links(t); len(after) > len(before) {
			t.Errorf("devices before %v, after %v", before, after)
		}
	})
	return r
}

// needTaps ends a test of TAP devices where there are none. All hosts of CI have
// them, which asks for all tests.
func needTaps(t *testing.T) {
	t.Helper()
	err := network.TapsUsable()
	if err != nil && os.Getenv(slowtest.Variable) != "" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip(err)
	}
}

// links lists veth devices and this test's bridges.
func links(t *testing.T) []string {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range all {
		if strings.HasPrefix(i.Name, bridgeName()) {
			names = append(names, i.Name)
		}
	}
	return names
}

// bridgeName begins the names of the bridges of this process.
func bridgeName() string { return fmt.Sprintf("cst%d", os.Getpid()%100000) }

// subnet is a network that nobody else has at the same time.
func subnet(n int) string {
	return fmt.Sprintf("10.%d.%d", 180+os.Getpid()%50, n+8*(os.Getpid()/50%25))
}

// lan writes the configuration of a bridge, and returns the bridge's name.
func (r *rig) lan(name string, n int) (bridge string) {
	r.t.Helper()
	bridge = fmt.Sprintf("%s%d", bridgeName(), n)
	r.config(name+".conflist", fmt.Sprintf(`{"cniVersion": "1.0.0", "name": %q, "plugins": [
		{"type": "bridge", "bridge": %q, "isGateway": true, "capabilities": {"mac": true},
		 "ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "%s.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]},
		 "dns": {"nameservers": ["%s.1"]}},
		{"type": "portmap", "capabilities": {"portMappings": true}}]}`, name, bridge, r.ipam, subnet(n), subnet(n)))
	r.t.Cleanup(func() { exec.Command("ip", "link", "del", bridge).Run() })
	return bridge
}

func (r *rig) config(file, text string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.opts.ConfigDir, file), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// plugin writes a plugin that is a shell script.
func (r *rig) plugin(name, script string) {
	r.t.Helper()
	if len(r.opts.PluginDirs) == 0 {
		r.opts.PluginDirs = append([]string{r.t.TempDir()}, network.DefaultPluginDirs()...)
	}
	if err := os.WriteFile(filepath.Join(r.opts.PluginDirs[0], name), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) spec(names ...string) *network.Spec {
	s := &network.Spec{ID: r.id}
	for _, name := range names {
		s.Network.Attach = append(s.Network.Attach, caisson.NetworkAttach{Name: name})
	}
	return s
}

func (r *rig) plan(s *network.Spec) *network.Record {
	r.t.Helper()
	rec, err := r.opts.Plan(s)
	if err != nil {
		r.t.Fatalf("Plan = %v", err)
	}
	return rec
}

// create makes a namespace that is removed after the test.
func (r *rig) create(s *network.Spec) *network.Record {
	r.t.Helper()
	rec := r.plan(s)
	if err := rec.Create(r.t.Context()); err != nil {
		r.t.Fatalf("Create = %v", err)
	}
	r.t.Cleanup(func() {
		if err := rec.Remove(context.Background()); err != nil {
			r.t.Errorf("Remove = %v", err)
		}
	})
	return rec
}

// inside calls f on a thread in the namespace.
func inside(t *testing.T, path string, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			unix.Close(fd)
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// serve answers TCP connections in the namespace with a word.
func serve(t *testing.T, path, address, word string) {
	t.Helper()
	var l net.Listener
	inside(t, path, func() {
		var err error
		if l, err = net.Listen("tcp", address); err != nil {
			t.Error(err)
		}
	})
	if l == nil {
		t.FailNow()
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, word)
			c.Close()
		}
	}()
}

// read returns what an address of the host answers.
func read(t *testing.T, address string) string {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	text, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestNamespace(t *testing.T) {
	r := newRig(t)
	own, _ := os.Readlink("/proc/thread-self/ns/net")
	rec := r.create(r.spec())
	if err := rec.Check(t.Context()); err != nil {
		t.Errorf("Check = %v", err)
	}
	if now, _ := os.Readlink("/proc/thread-self/ns/net"); now != own {
		t.Errorf("the caller is in %s, before it was in %s", now, own)
	}
	const lowPorts = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
	before, err := os.ReadFile(lowPorts)
	if err != nil {
		t.Fatal(err)
	}
	inside(t, rec.Path(), func() {
		if text, err := os.ReadFile(lowPorts); string(text) != "0\n" {
			t.Errorf("the first port for every user is %q, %v, want 0", text, err)
		}
	})
	if after, err := os.ReadFile(lowPorts); string(after) != string(before) {
		t.Errorf("the host's first port for every user was %q and is %q, %v", before, after, err)
	}
	serve(t, rec.Path(), "127.0.0.1:7", "hello")
	c, err := network.Dial(t.Context(), rec.Path(), 7)
	if err != nil {
		t.Fatalf("Dial = %v", err)
	}
	text, err := io.ReadAll(c)
	c.Close()
	if string(text) != "hello" || err != nil {
		t.Errorf("the namespace answers %q, %v", text, err)
	}
	if _, err := network.Dial(t.Context(), rec.Path(), 8); !errors.Is(err, caisson.ErrUnavailable) {
		t.Errorf("Dial where nobody listens = %v, want ErrUnavailable", err)
	}

	// It is made once, and removed as often as anybody likes.
	if err := r.plan(r.spec()).Create(t.Context()); !errors.Is(err, caisson.ErrExists) {
		t.Errorf("Create again = %v, want ErrExists", err)
	}
	if err := rec.Check(t.Context()); err != nil {
		t.Errorf("Check after a Create that was refused = %v", err)
	}
	for range 2 {
		if err := rec.Remove(t.Context()); err != nil {
			t.Errorf("Remove = %v", err)
		}
	}
	if err := rec.Check(t.Context()); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("Check of a removed one = %v, want ErrNotFound", err)
	}
	if _, err := network.Dial(t.Context(), rec.Path(), 7); !errors.Is(err, caisson.ErrAborted) {
		t.Errorf("Dial into a removed one = %v, want ErrAborted", err)
	}
}

func TestAttach(t *testing.T) {
	r := newRig(t)
	r.lan("lan", 0)
	r.lan("store", 1)
	s := r.spec("lan", "store")
	s.Network.Attach[0].Args = map[string]string{"IP": subnet(0) + ".77", "MAC": "02:00:00:00:00:77", "NOBODY_KNOWS": "x"}
	s.Network.Attach[0].Aliases = []string{"web"}
	rec := r.create(s)
	if err := rec.Check(t.Context()); err != nil {
		t.Errorf("Check = %v", err)
	}
	kept, err := rec.Load()
	if err != nil {
		t.Fatalf("Load = %v", err)
	}
	first, second := kept.Attachments[0], kept.Attachments[1]
	if first.Interface != "eth0" || !slices.Equal(first.Addresses, []string{subnet(0) + ".77/24"}) || first.MAC != "02:00:00:00:00:77" {
		t.Errorf("the first network: %+v", first)
	}
	if second.Interface != "eth1" || len(second.Addresses) != 1 || !strings.HasPrefix(second.Addresses[0], subnet(1)+".") {
		t.Errorf("the second network: %+v", second)
	}
	if first.File != filepath.Join(r.opts.ConfigDir, "lan.conflist") || filepath.Base(first.Plugin) != "bridge" {
		t.Errorf("its configuration is %s and its plugin %s", first.File, first.Plugin)
	}
	if d := kept.FoundDNS(); d == nil || !slices.Equal(d.Servers, []string{subnet(0) + ".1"}) {
		t.Errorf("names are resolved by %+v", d)
	}
	if hosts := string(network.Hosts("box", kept)); !strings.Contains(hosts, subnet(0)+".77 web\n") {
		t.Errorf("hosts: %q", hosts)
	}
	serve(t, rec.Path(), "0.0.0.0:7", "hello")
	if got := read(t, subnet(0)+".77:7"); got != "hello" {
		t.Errorf("over the bridge it answers %q", got)
	}
}

func TestPorts(t *testing.T) {
	r := newRig(t)
	r.lan("lan", 2)
	s := r.spec("lan")
	s.Ports = []caisson.Port{{Port: 7}, {Port: 9, Protocol: "udp"}}
	rec := r.create(s)
	kept, err := rec.Load()
	if err != nil {
		t.Fatal(err)
	}
	ports := kept.Attachments[0].Ports
	if len(ports) != 2 || ports[0].HostPort == 0 || ports[1].HostPort == 0 || ports[0].HostIP != "127.0.0.1" {
		t.Fatalf("ports: %+v", ports)
	}
	serve(t, rec.Path(), "0.0.0.0:7", "hello")
	if got := read(t, fmt.Sprintf("127.0.0.1:%d", ports[0].HostPort)); got != "hello" {
		t.Errorf("the port answers %q", got)
	}

	// A second sandbox can't have it, on one address or on all.
	for _, ip := range []string{"127.0.0.1", "0.0.0.0"} {
		for i, protocol := range []string{"tcp", "udp"} {
			again := &network.Spec{ID: r.id + "-2", Network: s.Network}
			again.Ports = []caisson.Port{{Port: 7, HostPort: ports[i].HostPort, HostIP: ip, Protocol: protocol}}
			if err := r.plan(again).Create(t.Context()); !errors.Is(err, caisson.ErrExists) || !strings.Contains(err.Error(), fmt.Sprint(ports[i].HostPort)) {
				t.Errorf("Create with the port of another = %v, want ErrExists that names it", err)
			}
		}
	}
}

func TestPortTaken(t *testing.T) {
	r := newRig(t)
	r.lan("lan", 3)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	for protocol, port := range map[string]int{"tcp": l.Addr().(*net.TCPAddr).Port, "udp": u.LocalAddr().(*net.UDPAddr).Port} {
		s := r.spec("lan")
		s.Ports = []caisson.Port{{Port: 80, HostPort: port, Protocol: protocol}}
		err := r.plan(s).Create(t.Context())
		if !errors.Is(err, caisson.ErrExists) || !strings.Contains(err.Error(), fmt.Sprintf("127.0.0.1:%d/%s", port, protocol)) {
			t.Errorf("Create = %v, want ErrExists that names the port", err)
		}
	}
	s := r.spec("lan")
	s.Ports = []caisson.Port{{Port: 80, HostIP: "192.0.2.200"}}
	if err := r.plan(s).Create(t.Context()); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("Create with an address of nobody = %v, want ErrInvalid", err)
	}
}

func TestPlanRefused(t *testing.T) {
	r := newRig(t)
	r.lan("lan", 4)
	r.config("bare.conf", `{"cniVersion": "1.0.0", "name": "bare", "type": "loopback"}`)
	r.config("gone.conflist", `{"cniVersion": "1.0.0", "name": "gone", "plugins": [{"type": "no-such-plugin"}]}`)
	r.config("evil.conflist", `{"cniVersion": "1.0.0", "name": "evil", "plugins": [{"type": "../../../bin/sh"}]}`)
	r.config("broken.conflist", `{"name": `)
	for name, test := range map[string]struct {
		change func(s *network.Spec)
		kind   caisson.Kind
		says   string
	}{
		"Unknown":  {func(s *network.Spec) { s.Network.Mode = "wan" }, caisson.ErrNotFound, "there are: bare, evil, gone, lan"},
		"Broken":   {func(s *network.Spec) { s.Network.Mode = "wan" }, caisson.ErrNotFound, "broken.conflist"},
		"NoPlugin": {func(s *network.Spec) { s.Network.Mode = "gone" }, caisson.ErrUnsupported, `plugin "no-such-plugin" is not installed`},
		"PathName": {func(s *network.Spec) { s.Network.Mode = "evil" }, caisson.ErrUnsupported, "is no name of a plugin"},
		"Twice": {func(s *network.Spec) {
			s.Network.Attach = []caisson.NetworkAttach{{Name: "lan"}, {Name: "lan"}}
		}, caisson.ErrInvalid, "named twice"},
		"HostInList": {func(s *network.Spec) { s.Network.Attach = []caisson.NetworkAttach{{Name: "host"}} }, caisson.ErrInvalid, "write it alone"},
		"Args": {func(s *network.Spec) {
			s.Network.Attach = []caisson.NetworkAttach{{Name: "lan", Args: map[string]string{"IP": "1;K8S=x"}}}
		}, caisson.ErrInvalid, "args"},
		"Alias": {func(s *network.Spec) {
			s.Network.Attach = []caisson.NetworkAttach{{Name: "lan", Aliases: []string{"a\n192.0.2.1 b"}}}
		}, caisson.ErrInvalid, "aliases"},
		"NoPortmap":  {func(s *network.Spec) { s.Network.Mode, s.Ports = "bare", []caisson.Port{{Port: 80}} }, caisson.ErrUnsupported, "portMappings"},
		"NoNetwork":  {func(s *network.Spec) { s.Ports = []caisson.Port{{Port: 80}} }, caisson.ErrUnsupported, "ports"},
		"PortNumber": {func(s *network.Spec) { s.Network.Mode, s.Ports = "lan", []caisson.Port{{Port: 99999}} }, caisson.ErrInvalid, "99999"},
		"PortTwice": {func(s *network.Spec) {
			s.Network.Mode, s.Ports = "lan", []caisson.Port{{Port: 1, HostPort: 2000}, {Port: 2, HostPort: 2000}}
		}, caisson.ErrInvalid, "twice"},
		"DNS": {func(s *network.Spec) { s.DNS = &caisson.DNS{Servers: []string{"x"}} }, caisson.ErrInvalid, "dns"},
	} {
		t.Run(name, func(t *testing.T) {
			s := r.spec()
			test.change(s)
			_, err := r.opts.Plan(s)
			if !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("Plan = %v, want one line of kind %v with %q", err, test.kind, test.says)
			}
		})
	}
	names, broken := r.opts.Networks()
	slices.Sort(names)
	if !slices.Equal(names, []string{"bare", "lan"}) || len(broken) != 3 {
		t.Errorf("Networks = %v, %v", names, broken)
	}
}

func TestPluginFails(t *testing.T) {
	// The second network's plugin does something wrong; the first one is
	// detached again, and so is the second.
	for name, test := range map[string]struct {
		script string
		kind   caisson.Kind
		says   string
	}{
		"Says":      {`[ "$CNI_COMMAND" = DEL ] || { echo '{"code": 100, "msg": "the cable is cut"}'; exit 1; }`, caisson.ErrUnavailable, "the cable is cut"},
		"Stderr":    {`[ "$CNI_COMMAND" = DEL ] || { echo "panic: ouch" >&2; echo more >&2; exit 3; }`, caisson.ErrUnavailable, "panic: ouch"},
		"Nonsense":  {`[ "$CNI_COMMAND" = DEL ] || echo hello`, caisson.ErrUnavailable, "odd"},
		"Hangs":     {`[ "$CNI_COMMAND" = DEL ] || { sleep 1000 & sleep 1000; }`, caisson.ErrUnavailable, "did not end within"},
		"Exhausted": {`[ "$CNI_COMMAND" = DEL ] || { echo '{"code": 11, "msg": "no IP addresses available in range set: x"}'; exit 1; }`, caisson.ErrExhausted, "no IP addresses"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			calls := filepath.Join(t.TempDir(), "calls")
			r.plugin("odd-plugin", "echo $CNI_COMMAND $CNI_IFNAME $SECRET_OF_THE_HOST >>"+calls+"\n"+test.script+"\n")
			r.lan("lan", 5)
			r.config("odd.conflist", `{"cniVersion": "1.0.0", "name": "odd", "plugins": [{"type": "odd-plugin"}]}`)
			t.Setenv("SECRET_OF_THE_HOST", "hunter2")
			if name == "Hangs" {
				r.opts.Patience = 300 * time.Millisecond
			}
			s := r.spec("odd")
			s.Network.Attach = append([]caisson.NetworkAttach{{Name: "lan"}}, s.Network.Attach...)
			if name == "Hangs" {
				// Real plugins take longer than that.
				s.Network.Attach = s.Network.Attach[1:]
			}
			err := r.plan(s).Create(t.Context())
			if !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("Create = %v, want one line of kind %v with %q", err, test.kind, test.says)
			}
			got, _ := os.ReadFile(calls)
			want := "ADD eth1\nDEL eth1\n"
			if name == "Hangs" {
				want = "ADD eth0\nDEL eth0\n"
			}
			if string(got) != want {
				t.Errorf("the plugin was called with %q, want %q", got, want)
			}
		})
	}
}

func TestCreateCancelled(t *testing.T) {
	r := newRig(t)
	r.plugin("slow-plugin", `[ "$CNI_COMMAND" = DEL ] || sleep 1000`)
	r.config("slow.conflist", `{"cniVersion": "1.0.0", "name": "slow", "plugins": [{"type": "slow-plugin"}]}`)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := r.plan(r.spec("slow")).Create(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Create = %v, want the context's error", err)
	}
}

func TestSweep(t *testing.T) {
	r := newRig(t)
	r.lan("lan", 6)
	s := r.spec("lan")
	s.Ports = []caisson.Port{{Port: 7}}
	rec := r.create(s)
	if removed, err := r.opts.Sweep(t.Context(), []string{r.id}); len(removed) > 0 || err != nil {
		t.Errorf("Sweep of a live one = %v, %v", removed, err)
	}
	other := r.opts
	other.Installation = "other"
	if removed, err := other.Sweep(t.Context(), nil); len(removed) > 0 || err != nil {
		t.Errorf("Sweep of another installation = %v, %v", removed, err)
	}
	if err := rec.Check(t.Context()); err != nil {
		t.Fatalf("Check = %v", err)
	}
	if removed, err := r.opts.Sweep(t.Context(), nil); !slices.Equal(removed, []string{r.id}) || err != nil {
		t.Errorf("Sweep = %v, %v", removed, err)
	}
}

// TestHalfMade removes what a crash has left at each step of Create.
func TestHalfMade(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, rec *network.Record){
		"NoNamespace": func(t *testing.T, rec *network.Record) {
			if err := unix.Unmount(rec.Path(), unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
		},
		"NoCache": func(t *testing.T, rec *network.Record) {
			if err := os.RemoveAll(filepath.Join(rec.Folder, "cni")); err != nil {
				t.Fatal(err)
			}
		},
		"NoConfiguration": func(t *testing.T, rec *network.Record) {
			if err := os.Remove(rec.Attachments[0].File); err != nil {
				t.Fatal(err)
			}
		},
		"Rebooted": func(t *testing.T, rec *network.Record) {
			if err := unix.Unmount(rec.Path(), unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(rec.Folder); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.lan("lan", 7)
			rec := r.plan(r.spec("lan"))
			if err := rec.Create(t.Context()); err != nil {
				t.Fatalf("Create = %v", err)
			}
			spoil(t, rec)
			for range 2 {
				if err := rec.Remove(t.Context()); err != nil {
					t.Errorf("Remove = %v", err)
				}
			}
		})
	}
}
