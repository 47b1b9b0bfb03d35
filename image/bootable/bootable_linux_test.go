package bootable_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/image"
	"github.com/caissonrun/caisson/image/bootable"
	"github.com/caissonrun/caisson/image/imagetest"
	imagemachine "github.com/caissonrun/caisson/image/machine"
	"github.com/caissonrun/caisson/internal/guest"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/internal/machine"
	"github.com/caissonrun/caisson/internal/machine/machinetest"
	"github.com/caissonrun/caisson/internal/qcow2"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/internal/testimage"
)

// busybox is a small image in a store.
func busybox(t *testing.T, entries ...imagetest.Entry) *bootable.Options {
	t.Helper()
	file := filepath.Join(t.TempDir(), "image.tar")
	imagetest.DockerArchive(t, file, map[string]v1.Image{"test:1": imagetest.Busybox(t, entries...)})
	return archived(t, file)
}

// archived is what is made of an image in an archive.
func archived(t *testing.T, file string) *bootable.Options {
	t.Helper()
	store, err := image.Open(&image.Options{Dir: filepath.Join(t.TempDir(), "images")})
	if err != nil {
		t.Fatal(err)
	}
	img, err := store.Get(t.Context(), &image.Request{Ref: "docker-archive:" + file, Trusted: true})
	if err != nil {
		t.Fatal(err)
	}
	return &bootable.Options{
		Store: store, Image: img, Size: 512 * caisson.MiB, Output: filepath.Join(t.TempDir(), "disk"), Agent: machinetest.Agent(t),
	}
}

// build builds a disk with the kernel for tests.
func build(t *testing.T, o *bootable.Options) *bootable.Result {
	t.Helper()
	k := machinetest.Kernel(t, machinetest.Cloud)
	o.Kernel = filepath.Dir(filepath.Dir(k.Image))
	made, err := bootable.Build(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if made.Kernel != k.Version {
		t.Errorf("the kernel is %s, want %s", made.Kernel, k.Version)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(o.Output), ".*")); len(left) > 0 {
		t.Errorf("left %q", left)
	}
	return made
}

// boot boots a disk, with a layer over it.
func boot(t *testing.T, base *machine.Disk, size, memory caisson.Bytes) *machinetest.Guest {
	t.Helper()
	layer, err := os.Create(filepath.Join(t.TempDir(), "layer"))
	if err != nil {
		t.Fatal(err)
	}
	defer layer.Close()
	if err := qcow2.Create(layer, &qcow2.Options{Size: size}); err != nil {
		t.Fatal(err)
	}
	return machinetest.Boot(t, &machinetest.Options{
		Boot: true, Memory: (memory + caisson.MiB - 1) / caisson.MiB * caisson.MiB,
		Disks: []machine.Disk{{Name: "disk", Path: layer.Name(), Format: "qcow2", Base: base, Ephemeral: true}},
	})
}

// say runs a program in a guest and returns what it prints.
func say(t *testing.T, g *machinetest.Guest, args ...string) string {
	t.Helper()
	p, err := g.Client.Spawn(t.Context(), &guest.Program{Program: isolate.Program{
		Args: args, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, Dir: "/",
	}})
	if err != nil {
		t.Fatalf("%q: %v; the console's last words:\n%s", args, err, g.Console())
	}
	defer p.Close()
	p.Stdin.Close()
	out, err := io.ReadAll(p.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	if code, signal, err := p.Wait(t.Context()); code != 0 || signal != 0 || err != nil {
		t.Errorf("%q = %d, %d, %v", args, code, signal, err)
	}
	return strings.TrimSpace(string(out))
}

// TestBuild holds that the disk of an image without a system boots, with the
// agent as its first process, and that the disk has room.
func TestBuild(t *testing.T) {
	machinetest.Kernel(t, machinetest.Cloud) // without one nothing else is to be made
	o := busybox(t, imagetest.File("etc/own", "yes\n"))
	made := build(t, o)
	if made.Init != "" || made.Size < o.Size {
		t.Errorf("Build() = %+v", made)
	}
	before, err := os.ReadFile(o.Output)
	if err != nil {
		t.Fatal(err)
	}
	g := boot(t, &machine.Disk{Path: o.Output, Format: "raw", ReadOnly: true}, made.Size, made.Memory)
	const script = "cat /etc/own; cat /proc/1/comm; test -w / && dd if=/dev/zero of=/big bs=1M count=40 2>/dev/null && uname -r"
	if got := strings.Fields(say(t, g, "sh", "-c", script)); len(got) != 3 || got[0] != "yes" || got[1] != "init" || got[2] != made.Kernel {
		t.Errorf("the guest says %q", got)
	}
	if after, err := os.ReadFile(o.Output); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the base has changed, or %v", err)
	}
	if _, err := bootable.Build(t.Context(), o); !errors.Is(err, caisson.ErrExists) {
		t.Errorf("Build() again = %v, want that the file exists", err)
	}
}

// TestBuildService holds that an image with systemd begins with that, and that
// the agent is a service of it. What is in its place here starts the one unit.
func TestBuildService(t *testing.T) {
	const system = "#!/bin/sh\nset -e\nreadlink /etc/systemd/system/multi-user.target.wants/caisson-guest.service >/run/wanted\n" +
		"run=$(sed -n 's/^ExecStart=//p' /etc/systemd/system/caisson-guest.service)\n$run &\nwhile :; do sleep 1000; done\n"
	machinetest.Kernel(t, machinetest.Cloud)
	o := busybox(t, imagetest.File("usr/lib/systemd/systemd", system))
	made := build(t, o)
	if made.Init != "/usr/lib/systemd/systemd" {
		t.Errorf("Build() = %+v", made)
	}
	g := boot(t, &machine.Disk{Path: o.Output, Format: "raw", ReadOnly: true}, made.Size, made.Memory)
	if got := say(t, g, "sh", "-c", "cat /run/wanted; cat /proc/1/cmdline | tr '\\0' ' '"); !strings.Contains(got, "/etc/systemd/system/caisson-guest.service") ||
		!strings.Contains(got, "/usr/lib/systemd/systemd") {
		t.Errorf("the guest says %q", got)
	}
	if info, err := g.Client.Info(t.Context()); err != nil || info.PID == 1 {
		t.Errorf("Info() = %+v, %v, want an agent that is not the first process", info, err)
	}
}

// TestBuildDebian builds a machine of a Debian and an archive of it, and runs
// that.
func TestBuildDebian(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("scripts/debian needs root")
	}
	if testing.Short() {
		t.Skip("it takes a minute")
	}
	dir := t.TempDir()
	tree, file := filepath.Join(dir, "debian.tar"), filepath.Join(dir, "image.tar")
	if out, err := exec.Command("sh", "../../scripts/debian", tree).CombinedOutput(); err != nil {
		t.Fatalf("scripts/debian: %v\n%s", err, out)
	}
	img, err := testimage.FromTar(tree, v1.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := testimage.WriteArchive(img, file, "debian:test"); err != nil {
		t.Fatal(err)
	}
	o := archived(t, file)
	o.Archive, o.Size = true, 0
	made := build(t, o)
	out, err := safefs.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	packed, err := os.Open(o.Output)
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	got, err := imagemachine.Unpack(t.Context(), packed, out, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.Size != made.Size || got.Machine == nil || caisson.Bytes(got.Machine.Memory)*caisson.MiB < made.Memory {
		t.Errorf("the archive has %+v with %+v, want %+v", got, got.Machine, made)
	}
	g := boot(t, &machine.Disk{Path: filepath.Join(dir, got.Files[0]), Format: "raw", ReadOnly: true}, got.Size, caisson.Bytes(got.Machine.Memory)*caisson.MiB)
	if got := say(t, g, "python3", "-c", "import platform; print(platform.release())"); got != made.Kernel {
		t.Errorf("Python says %q, want %s", got, made.Kernel)
	}
}

// system are the packages that scripts/conformance-v2 has in its system too, so that
// there is one to be made.
const system = "systemd-sysv kmod iproute2 iptables nftables procps e2fsprogs busybox-static crun runc containernetworking-plugins"

// TestBuildSystem builds a machine of a Debian with systemd, and boots it: the agent is
// a service of it.
func TestBuildSystem(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("scripts/debian needs root")
	}
	if testing.Short() {
		t.Skip("it takes a minute")
	}
	dir := t.TempDir()
	tree, file := filepath.Join(dir, "debian.tar"), filepath.Join(dir, "image.tar")
	if out, err := exec.Command("sh", append([]string{"../../scripts/debian", tree}, strings.Fields(system)...)...).CombinedOutput(); err != nil {
		t.Fatalf("scripts/debian: %v\n%s", err, out)
	}
	img, err := testimage.FromTar(tree, v1.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := testimage.WriteArchive(img, file, "debian:test"); err != nil {
		t.Fatal(err)
	}
	o := archived(t, file)
	o.Size = 0
	made := build(t, o)
	if !strings.HasSuffix(made.Init, "/systemd") {
		t.Errorf("Build() = %+v", made)
	}
	const memory = 512 * caisson.MiB
	g := boot(t, &machine.Disk{Path: o.Output, Format: "raw", ReadOnly: true}, made.Size, max(made.Memory, memory))
	if info, err := g.Client.Info(t.Context()); err != nil || info.PID == 1 {
		t.Errorf("Info() = %+v, %v, want an agent that is not the first process", info, err)
	}
	const script = "cat /proc/1/comm; systemctl is-active caisson-guest.service; systemctl show -p MainPID --value caisson-guest.service; uname -r"
	got := strings.Fields(say(t, g, "sh", "-c", script))
	if len(got) != 4 || got[0] != "systemd" || got[1] != "active" || got[2] == "0" || got[3] != made.Kernel {
		t.Errorf("the guest says %q", got)
	}
	// The system comes to the end of its boot. What of Debian's own has no use for such a
	// machine may have failed.
	if got := say(t, g, "sh", "-c", "systemctl is-system-running --wait || :"); got != "running" && got != "degraded" {
		t.Errorf("the system is %q", got)
	}
}

// TestBuildWrong holds that what can't be built is one clear line, and leaves
// nothing.
func TestBuildWrong(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text.deb")
	if err := os.WriteFile(text, []byte("no package"), 0o600); err != nil {
		t.Fatal(err)
	}
	right := busybox(t)
	for name, test := range map[string]struct {
		change func(*bootable.Options)
		want   caisson.Kind
	}{
		"NoKernel":  {func(*bootable.Options) {}, caisson.ErrInvalid},
		"Both":      {func(o *bootable.Options) { o.Kernel, o.Packages = dir, []string{text} }, caisson.ErrInvalid},
		"Empty":     {func(o *bootable.Options) { o.Kernel = t.TempDir() }, caisson.ErrNotFound},
		"Absent":    {func(o *bootable.Options) { o.Packages = []string{filepath.Join(dir, "absent.deb")} }, caisson.ErrNotFound},
		"NoPackage": {func(o *bootable.Options) { o.Packages = []string{text} }, caisson.ErrInvalid},
		"NoFolder":  {func(o *bootable.Options) { o.Kernel, o.Output = dir, filepath.Join(dir, "absent", "disk") }, caisson.ErrNotFound},
	} {
		o := *right
		o.Output = filepath.Join(t.TempDir(), "disk")
		test.change(&o)
		_, err := bootable.Build(t.Context(), &o)
		if caisson.KindOf(err) != test.want || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
		if left, _ := filepath.Glob(filepath.Join(filepath.Dir(o.Output), "*")); len(left) > 0 {
			t.Errorf("%s: left %q", name, left)
		}
	}
}

// TestPackage holds that a package of Debian's gives the kernel, and nothing else.
func TestPackage(t *testing.T) {
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		machinetest.Need(t, "dpkg-deb", err)
	}
	k := machinetest.Kernel(t, machinetest.Cloud)
	tree := t.TempDir()
	data, err := os.ReadFile(k.Image)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"DEBIAN/control":                 []byte("Package: test\nVersion: 1\nArchitecture: amd64\nMaintainer: nobody <nobody@example.com>\nDescription: test\n"),
		"boot/" + filepath.Base(k.Image): data,
		"etc/other":                      []byte("no"),
	} {
		file := filepath.Join(tree, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, content, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "kernel.deb")
	if out, err := exec.Command("dpkg-deb", "-Zgzip", "-z1", "--root-owner-group", "--build", tree, file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	o := busybox(t)
	o.Packages = []string{file}
	// Its kernel is found; that it has no modules is the next thing to be told.
	if _, err := bootable.Build(t.Context(), o); !errors.Is(err, caisson.ErrUnsupported) || !strings.Contains(err.Error(), k.Version) {
		t.Errorf("Build() = %v, want that kernel %s has no drivers", err, k.Version)
	}
}
