package qemu

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/image"
	"github.com/caissonrun/caisson/image/bootable"
	"github.com/caissonrun/caisson/image/imagetest"
	"github.com/caissonrun/caisson/internal/cleanup"
	"github.com/caissonrun/caisson/internal/machine"
	"github.com/caissonrun/caisson/internal/machine/machinetest"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// diskOf builds a disk with a system of its own, of a small image.
func diskOf(t *testing.T, entries ...imagetest.Entry) (file string, size caisson.Bytes) {
	t.Helper()
	dir := t.TempDir()
	archive := filepath.Join(dir, "image.tar")
	imagetest.DockerArchive(t, archive, map[string]v1.Image{"test:1": imagetest.Busybox(t, entries...)})
	store, err := image.Open(&image.Options{Dir: filepath.Join(dir, "images")})
	if err != nil {
		t.Fatal(err)
	}
	img, err := store.Get(t.Context(), &image.Request{Ref: "docker-archive:" + archive, Trusted: true})
	if err != nil {
		t.Fatal(err)
	}
	k := machinetest.Kernel(t, machinetest.Cloud)
	file = filepath.Join(dir, "disk.img")
	made, err := bootable.Build(t.Context(), &bootable.Options{
		Store: store, Image: img, Kernel: filepath.Dir(filepath.Dir(k.Image)), Size: 256 * caisson.MiB, Output: file, Agent: machinetest.Agent(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	return file, made.Size
}

// ownSpec is a task that is a machine.
func ownSpec(t *testing.T, disk string, size caisson.Bytes, run string) *engine.Spec {
	t.Helper()
	dir := t.TempDir()
	s := &engine.Spec{
		ID: "own" + strings.ToLower(strings.ReplaceAll(t.Name()[4:min(len(t.Name()), 40)], "/", "-")), Dir: filepath.Join(dir, "sandbox"), Log: filepath.Join(dir, "log"),
		Task: "task", Attempt: 1, Step: "main", Run: run, Timeout: caisson.Duration(2 * time.Minute),
		Machine:      &caisson.Machine{Image: "test"},
		MachineImage: &engine.MachineImage{Disk: disk, Format: "raw", Size: size, Changes: filepath.Join(dir, "changes")},
	}
	for _, name := range []string{s.Dir, s.MachineImage.Changes} {
		if err := os.Mkdir(name, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// runOwn runs a machine and returns how its program has ended, and what it said.
// Look is called before it is destroyed.
func runOwn(t *testing.T, e *Engine, s *engine.Spec, look func(engine.Sandbox)) (caisson.Exit, string) {
	t.Helper()
	sb, err := e.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := sb.Destroy(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	if s.Gateway != nil {
		defer serveGateway(t, sb)()
	}
	p, err := sb.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	exit, err := p.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if look != nil {
		look(sb)
	}
	var out bytes.Buffer
	err = tasklog.Follow(t.Context(), s.Log, 0, func() bool { return true }, func(r tasklog.Record) error {
		out.Write(r.Data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return exit, out.String()
}

// serveGateway serves a sandbox's sockets: each request is answered with what was
// asked for.
func serveGateway(t *testing.T, sb engine.Sandbox) (end func()) {
	t.Helper()
	sockets, err := sb.(engine.Gatekeeper).Sockets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "served %s%s\n", r.Host, r.URL.Path)
	})}
	var runs sync.WaitGroup
	for _, s := range sockets {
		runs.Go(func() { _ = srv.Serve(s.Listener) })
	}
	return func() {
		srv.Close()
		runs.Wait()
	}
}

// TestOwn holds that a disk boots by its own boot loader, and that what is written
// goes to a layer that only this sandbox has.
func TestOwn(t *testing.T) {
	e := testEngine(t, machinetest.Whole, nil)
	disk, size := diskOf(t, imagetest.File("etc/own", "it is there\n"))
	before, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	const script = "cat /etc/own; uname -r; id -u; pwd; free -m | sed -n 's/^Mem: *\\([0-9]*\\).*/\\1/p'; echo $TOKEN >kept; exit 7"
	s := ownSpec(t, disk, size, script)
	s.MachineImage.Machine = json.RawMessage(`{"version":1,"chipset":"pc-i440fx-2.8","memory":320,"network":"e1000","storage":"virtio-blk-pci"}`)
	s.Env = map[string]string{"TOKEN": "in the layer"}
	exit, said := runOwn(t, e, s, nil)
	words := strings.Split(said, "\n")
	want := machinetest.Kernel(t, machinetest.Cloud).Version
	if exit.Reason != caisson.ReasonExited || exit.Code != 7 || len(words) < 5 || words[0] != "it is there" || words[1] != want || words[2] != "1000" || words[3] != caisson.WorkDir {
		t.Errorf("exit %+v, it said %q", exit, said)
	}
	if memory := words[4]; len(memory) != 3 || memory < "200" || memory > "320" {
		t.Errorf("the machine has %s MiB, want the 320 of its image", memory)
	}
	if after, err := os.ReadFile(disk); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the disk is another one, or %v", err)
	}
	left, err := os.ReadDir(e.opts.Runtime)
	for _, entry := range left {
		if strings.Contains(entry.Name(), s.ID) {
			t.Errorf("left %s, %v", entry.Name(), err)
		}
	}
}

// TestOwnKernel holds that an operator's kernel boots a disk that has none that
// could, and that files go in and out.
func TestOwnKernel(t *testing.T) {
	whole := machinetest.Kernel(t, machinetest.Whole)
	e := testEngine(t, machinetest.Whole, func(o *Options) { o.Kernels = map[string]Kernel{"whole": {Image: whole.Image, Modules: whole.Modules}} })
	disk, size := diskOf(t)
	f, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, 512), 0); err != nil {
		t.Fatal(err)
	}
	f.Close()
	s := ownSpec(t, disk, size, "uname -r >made; cat /proc/cmdline >>made; cat /host/data >>made")
	shared := t.TempDir()
	if err := os.WriteFile(filepath.Join(shared, "data"), []byte("of the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(shared, 0o755); err != nil {
		t.Fatal(err)
	}
	s.Machine.Kernel, s.Machine.Cmdline = "whole", "caisson.test=1"
	s.Mounts = []engine.Mount{{Type: engine.MountBind, Source: shared, Target: "/host", ReadOnly: true}}
	s.Keep = caisson.Duration(time.Minute)
	var made []byte
	exit, said := runOwn(t, e, s, func(sb engine.Sandbox) {
		files, err := sb.(engine.Filer).FS(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer files.Close()
		if made, err = fs.ReadFile(files, "work/made"); err != nil {
			t.Error(err)
		}
	})
	if exit.Reason != caisson.ReasonExited || exit.Code != 0 || !strings.HasPrefix(string(made), whole.Version+"\n") ||
		!strings.Contains(string(made), "caisson.test=1") || !strings.HasSuffix(string(made), "of the host\n") {
		t.Errorf("exit %+v, it said %q and made %q", exit, said, made)
	}
}

// TestOwnRefused holds that what can't be had is refused by name, before anything
// runs.
func TestOwnRefused(t *testing.T) {
	blank := filepath.Join(t.TempDir(), "blank")
	if err := os.WriteFile(blank, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	many, err := json.Marshal(map[string]int{"sockets": runtime.NumCPU() + 1})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(*engine.Spec)
		kind   caisson.Kind
		item   string
	}{
		"NotFetched": {func(s *engine.Spec) { s.MachineImage = nil }, caisson.ErrInvalid, "machine.image"},
		"Blank":      {func(s *engine.Spec) {}, caisson.ErrInvalid, "boot sector"},
		"UEFI":       {func(s *engine.Spec) { s.Machine.Firmware = "uefi" }, caisson.ErrUnsupported, "machine.firmware"},
		"Firmware":   {func(s *engine.Spec) { s.Machine.Firmware, s.Machine.Kernel = "bios", "x" }, caisson.ErrInvalid, "machine.firmware"},
		"Cmdline":    {func(s *engine.Spec) { s.Machine.Cmdline = "quiet" }, caisson.ErrUnsupported, "machine.cmdline"},
		"MicroVM":    {func(s *engine.Spec) { s.Machine.Type = "microvm" }, caisson.ErrUnsupported, "machine.type"},
		"Disk":       {func(s *engine.Spec) { s.Limits.Disk = 4096 }, caisson.ErrInvalid, "limits.disk"},
		"Sound":      {func(s *engine.Spec) { s.MachineImage.Machine = json.RawMessage(`{"sound":"AC97"}`) }, caisson.ErrUnsupported, "sound AC97"},
		"Video":      {func(s *engine.Spec) { s.MachineImage.Machine = json.RawMessage(`{"vgaMemory":64}`) }, caisson.ErrUnsupported, "vgaMemory"},
		"CPUs":       {func(s *engine.Spec) { s.MachineImage.Machine = many }, caisson.ErrUnsupported, "processors"},
		"Memory":     {func(s *engine.Spec) { s.MachineImage.Machine = json.RawMessage(`{"memory":16777216}`) }, caisson.ErrUnsupported, "set limits.memory"},
	} {
		s := ownSpec(t, blank, 1<<20, "true")
		test.change(s)
		_, err := readOwn(s, &choice{})
		if caisson.KindOf(err) != test.kind || !strings.Contains(err.Error(), test.item) {
			t.Errorf("%s: %v, want %v of %s", name, err, test.kind, test.item)
		}
	}
}

// TestOwnMerged holds whose word counts: the task's, then the image's, then the
// operator's.
func TestOwnMerged(t *testing.T) {
	s := ownSpec(t, "/disk", 1<<30, "true")
	s.MachineImage.Format = "qcow2"
	s.MachineImage.Machine = json.RawMessage(`{"chipset":"pc","memory":512,"cores":1,"threads":1,"sockets":1,"usb":"nec-usb-xhci",
		"keyboard":"usb-kbd","keyboardLayout":"de","mouse":"PS/2","tablet":"usb-tablet","graphics":"vmware-svga","sound":"none",
		"uuid":"5b1f6e8c-0a2d-4c3e-9f10-112233445566"}`)
	o, err := readOwn(s, &choice{})
	if err != nil {
		t.Fatal(err)
	}
	set := &setting{opts: &Options{Memory: 100 * caisson.MiB, CPUs: 1}, own: o, base: &base{QEMU: machinetest.QEMU(t)}, kind: machine.PC, accel: machine.TCG}
	m := set.ownMachine(s)
	if m.Memory != 512*caisson.MiB || m.Topology != (machine.Topology{Sockets: 1, Cores: 1, Threads: 1}) || m.USB != "nec-usb-xhci" ||
		strings.Join(m.Inputs, " ") != "usb-kbd usb-tablet" || m.Keyboard != "de" || m.Graphics != "vmware-svga" || !m.Screen || m.UUID != o.UUID ||
		strings.Join(o.types(s), " ") != "pc" {
		t.Errorf("of the image: %+v, %v", m, o.types(s))
	}
	s.Limits = caisson.Limits{Memory: 64 * caisson.MiB, CPUs: 1000}
	s.Machine.Type = machine.Q35
	if m := set.ownMachine(s); m.Memory != memory(64*caisson.MiB) || m.Topology != (machine.Topology{}) || m.CPUs != 1 || strings.Join(o.types(s), " ") != "q35" {
		t.Errorf("of the task: %+v", m)
	}
	s.Limits, s.Machine.Type, set.own = caisson.Limits{}, "", &own{image: s.MachineImage}
	if m := set.ownMachine(s); m.Memory != memory(100*caisson.MiB) || m.USB != "" || strings.Join(set.own.types(s), " ") != "q35 pc" {
		t.Errorf("of the operator: %+v", m)
	}
}

// TestOwnLayer holds that each sandbox has a copy of the image's layer.
func TestOwnLayer(t *testing.T) {
	s := ownSpec(t, "/disk", 1<<30, "true")
	s.MachineImage.Layer = filepath.Join(t.TempDir(), "layer")
	if err := os.WriteFile(s.MachineImage.Layer, []byte("layer of the image"), 0o400); err != nil {
		t.Fatal(err)
	}
	set := &setting{opts: &Options{}, own: &own{image: s.MachineImage}}
	var undo cleanup.List
	if err := set.makeLayer(s, &undo); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(ownLayerFile(s))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if data, err := io.ReadAll(f); err != nil || string(data) != "layer of the image" {
		t.Errorf("the layer has %q, %v", data, err)
	}
}

// curlSystem is a system without an agent: it asks for its task, runs it and says how
// it has ended.
const curlSystem = `#!/bin/sh
busybox ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
busybox route add default gw 10.0.2.2
url=http://169.254.169.254/engine/v1
until busybox wget -q -O /run/task $url/execute; do sleep 1; done
script=$(sed 's/.*"command":\["\/bin\/sh","-c","\([^"]*\)"\].*/\1/' /run/task)
verdict=success
sh -c "$script" >/run/out 2>&1 || verdict=failed
busybox wget -q -O - http://169.254.169.254/git/a/b >>/run/out 2>&1
busybox wget -q -T 5 -O - http://10.0.2.2:80/engine/v1/ping >>/run/out 2>&1 || echo "the host is out of reach" >>/run/out
busybox wget -q -O - --post-file=/run/out $url/log
printf 'PUT /engine/v1/%s HTTP/1.0\r\nContent-Length: 0\r\n\r\n' $verdict | busybox nc 169.254.169.254 80
while :; do sleep 1000; done
`

// TestOwnMetadata holds that a system without an agent runs a task by asking for it,
// and that nothing but that and the task's proxies can be reached.
func TestOwnMetadata(t *testing.T) {
	e := testEngine(t, machinetest.Whole, nil)
	disk, size := diskOf(t, imagetest.File("usr/lib/systemd/systemd", curlSystem))
	s := ownSpec(t, disk, size, "uname -r; cat /proc/1/comm; exit 3")
	s.Options = json.RawMessage(`{"metadata": true}`)
	s.Gateway = &engine.Gateway{
		For: []string{"proxies.git"}, Names: map[string]string{"git": "127.64.0.1"}, Sockets: []engine.Socket{{Network: "tcp", Address: "127.64.0.1:80"}},
	}
	exit, said := runOwn(t, e, s, func(sb engine.Sandbox) {
		if _, ok := sb.(engine.Filer); ok {
			t.Error("the sandbox offers files that nobody sees")
		}
	})
	if exit.Reason != caisson.ReasonExited || exit.Code != 1 || !strings.HasPrefix(said, machinetest.Kernel(t, machinetest.Cloud).Version+"\nsystemd\n") ||
		!strings.Contains(said, "\nserved git/a/b\n") || !strings.Contains(said, "the host is out of reach") {
		t.Errorf("exit %+v, it said %q", exit, said)
	}
}

// TestOwnMetadataRefused holds that what such a machine can't have is refused by name.
func TestOwnMetadataRefused(t *testing.T) {
	for name, change := range map[string]func(*engine.Spec){
		"mounts":           func(s *engine.Spec) { s.Mounts = []engine.Mount{{Type: engine.MountTmpfs, Target: "/x"}} },
		"user":             func(s *engine.Spec) { s.User = "1" },
		"network":          func(s *engine.Spec) { s.Network.Mode = caisson.NetworkDefault },
		"keep":             func(s *engine.Spec) { s.Keep = 1 },
		"limits.pids":      func(s *engine.Spec) { s.Limits.PIDs = 1 },
		"limits.files":     func(s *engine.Spec) { s.Limits.Files = 1 },
		"secrets":          func(s *engine.Spec) { s.Secrets = []engine.Secret{{Name: "A", As: caisson.SecretFile}} },
		"network.allow":    func(s *engine.Spec) { s.Gateway = &engine.Gateway{Everything: true} },
		"secrets.A.broker": func(s *engine.Spec) { s.Gateway = &engine.Gateway{For: []string{"proxies.git", "secrets.A.broker"}} },
		"proxies.engine":   func(s *engine.Spec) { s.Gateway = &engine.Gateway{For: []string{"proxies.engine"}} },
	} {
		s := ownSpec(t, "/disk", 1<<20, "true")
		s.MachineImage.Format = "qcow2"
		change(s)
		if _, err := readOwn(s, &choice{Metadata: true}); caisson.KindOf(err) != caisson.ErrUnsupported || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := ownSpec(t, "/disk", 1<<20, "true")
	s.Machine.Image, s.MachineImage = "", nil
	if _, err := readOwn(s, &choice{Metadata: true}); caisson.KindOf(err) != caisson.ErrInvalid {
		t.Errorf("of an image: %v", err)
	}
}
