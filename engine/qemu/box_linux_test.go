package qemu

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/ext4"
	"github.com/caissonrun/caisson/internal/guest"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/internal/machine"
	"github.com/caissonrun/caisson/internal/machine/machinetest"
	"github.com/caissonrun/caisson/internal/safefs"
)

// testLimit is more than anything here takes where other tests run beside it.
const testLimit = 8 * time.Minute

// testID is the first of the host ids that a test's sandbox has.
const testID = 1879060480

// parts are what all machines of the tests are made of. They are made once.
type parts struct {
	qemu   *machine.QEMU
	kernel *machine.Kernel
	initrd string
	image  string
	states string // a folder
}

// newParts makes them; they are gone with the test.
func newParts(t *testing.T) *parts {
	t.Helper()
	if testing.Short() {
		t.Skip("it boots guests")
	}
	k := machinetest.Kernel(t, machinetest.Whole)
	return &parts{
		qemu: machinetest.QEMU(t), kernel: k, initrd: machinetest.Initrd(t, k, machinetest.Agent(t)), image: testImage(t, nil),
		states: filepath.Join(t.TempDir(), "states"),
	}
}

// testImage writes a disk with busybox and little else, whose user 1000 is called
// task, and files.
func testImage(t *testing.T, more map[string]string) string {
	t.Helper()
	busybox, err := os.ReadFile("/usr/bin/busybox")
	if err != nil {
		machinetest.Need(t, "busybox", err)
	}
	dir := t.TempDir()
	files := map[string]string{
		"bin/busybox": string(busybox), "bin/garbage": "\x00\x01\x02",
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\ntask:x:1000:1000::/home/task:/bin/sh\n", "etc/group": "root:x:0:\ntask:x:1000:\n",
		"home/task/file": "of the image\n", "tmp/.keep": "",
	}
	maps.Copy(files, more)
	for name, data := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(data), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, applet := range []string{"sh", "cat", "echo", "id", "sleep", "stty", "poweroff", "reboot", "yes", "head", "kill", "dd", "env", "hostname", "ls", "mkdir", "tty"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", applet)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := safefs.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := ext4.WriteTree(t.Context(), f, root, &ext4.TreeOptions{Options: ext4.Options{Name: "test"}}); err != nil {
		t.Fatal(err)
	}
	if err := f.Chmod(0o644); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// machine is one with the image as its only disk; layered adds another one.
func (p *parts) machine() *machine.Spec {
	return &machine.Spec{
		Type: machine.Q35, Accel: machine.TCG, Memory: 256 << 20, Kernel: p.kernel.Image, Initrd: p.initrd, Cmdline: []string{"quiet"},
		Disks: []machine.Disk{{Name: "image", Path: p.image, Format: "raw", ReadOnly: true}},
		QMP:   machine.Descriptor(0), Agent: machine.Descriptor(1), Console: machine.Output("/dev/stderr"),
	}
}

// layered adds an empty disk of this test's that the machine writes to.
func layered(t *testing.T, m *machine.Spec) *machine.Spec {
	t.Helper()
	m.Disks = append(m.Disks, layerOf(t, 64<<20))
	return m
}

// layerOf is an empty disk of a size in bytes.
func layerOf(t *testing.T, size caisson.Bytes) machine.Disk {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), layerDisk))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := ext4.Format(f, size, &ext4.Options{Name: t.Name()}); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := f.Chown(testID+1, testID+1); err != nil {
			t.Fatal(err)
		}
	}
	return machine.Disk{Name: layerDisk, Path: f.Name(), Format: "raw", Ephemeral: true}
}

// written is where on this host the disk is that a machine writes to, if it has one.
func written(m *machine.Spec) map[string]string {
	disks := map[string]string{}
	for _, d := range m.Disks {
		if !d.ReadOnly {
			disks[d.Name] = d.Path
		}
	}
	return disks
}

// spec is that machine, layered, as a box whose programs are of an ordinary user. The
// first one boots, and leaves its state; later ones go on from that.
func (p *parts) spec(t *testing.T) *boxSpec {
	t.Helper()
	m := layered(t, p.machine())
	shape, err := p.qemu.Shape(m, func(path string) string { return path }, "test")
	if err != nil {
		t.Fatal(err)
	}
	states, err := machine.OpenStates(p.states, nil)
	if err != nil {
		t.Fatal(err)
	}
	state, err := states.Find("test", shape)
	if errors.Is(err, caisson.ErrNotFound) {
		s := p.specOf(t, m)
		s.Save = &saveSpec{Dir: p.states, Name: "test", Shape: shape}
		s.SaveDiskless = &saveSpec{Dir: p.states, Name: "any", Shape: shape.WithoutDisks()}
		return s
	}
	if err != nil {
		t.Fatal(err)
	}
	m.Incoming = true
	s := p.specOf(t, m)
	s.State = state.File
	return s
}

// specOf is a machine in its sandbox.
func (p *parts) specOf(t *testing.T, m *machine.Spec) *boxSpec {
	t.Helper()
	s := emptySpec()
	s.Disks = written(m)
	changes := guest.Mount{Type: "tmpfs", Source: "tmpfs", Target: "/changes"}
	if len(s.Disks) > 0 {
		changes = guest.Mount{Type: "ext4", Source: "serial:" + layerDisk, Target: "/changes", Wait: 10_000}
	}
	s.Guest = guestSpec{
		Hostname: "box",
		Early: []guest.Mount{
			{Type: "ext4", Source: "/dev/vda", Target: "/image", Flags: []string{"ro"}, Wait: 10_000},
			changes,
			{Type: "overlay", Source: "overlay", Target: "/root", Options: "lowerdir=/image,upperdir=/changes/upper,workdir=/changes/work"},
		},
		Root: "/root",
		User: "task",
		Files: []guestFile{
			{Path: "/run/secrets/word", Mode: 0o400, Data: []byte("open sesame"), Own: true},
			{Path: "/run/secrets/once", Data: []byte("once only"), Own: true, Once: true},
		},
		Setup: guest.Setup{Group: &isolate.Cgroup{Name: "task", Memory: groupMemory, PIDs: 64}},
	}
	inside, err := p.qemu.Confine(&s.Box, m, nil)
	if err != nil {
		t.Fatal(err)
	}
	args, err := p.qemu.Args(inside)
	if err != nil {
		t.Fatal(err)
	}
	s.QEMU = isolate.Program{Args: append([]string{p.qemu.Path}, args...)}
	return s
}

// groupMemory is what a guest's programs may use.
const groupMemory = 48 << 20

// emptySpec is a sandbox with nothing in it.
func emptySpec() *boxSpec {
	ids := func(own int) []isolate.IDMap {
		if os.Geteuid() != 0 {
			return []isolate.IDMap{{Inside: 1000, Host: own, Size: 1}}
		}
		return []isolate.IDMap{{Inside: 0, Host: testID, Size: 1}, {Inside: 1000, Host: testID + 1, Size: 1}}
	}
	return &boxSpec{
		Box:      isolate.Spec{ID: "test", UIDs: ids(os.Getuid()), GIDs: ids(os.Getgid()), User: &isolate.User{UID: 1000, GID: 1000}},
		Patience: caisson.Duration(testLimit),
	}
}

// open makes a box, which ends with the test and must then leave nothing.
func open(t *testing.T, s *boxSpec) *box {
	t.Helper()
	b, err := tryOpen(t, s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func tryOpen(t *testing.T, s *boxSpec) (*box, error) {
	t.Helper()
	before := runtime.NumGoroutine()
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := OpenBox(data, false)
	if err != nil {
		eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
		return nil, err
	}
	b := opened.(*box)
	t.Cleanup(func() {
		for range 2 {
			if err := b.Close(); err != nil {
				t.Errorf("Close() = %v", err)
			}
		}
		eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
		if t.Failed() {
			t.Logf("the console's last words: %s", b.console.words())
			buf := make([]byte, 1<<16)
			t.Logf("%s", buf[:runtime.Stack(buf, true)])
		}
	})
	return b, nil
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("not so: %s", what)
			return
		}
	}
}

// A running is a program in a box, with the ends of its streams.
type running struct {
	*isolate.Proc
	stdin  *os.File
	stdout *os.File
	stderr *os.File
}

// spawn starts a program with pipes.
func spawn(t *testing.T, b *box, args ...string) *running {
	t.Helper()
	r, err := trySpawn(t, b, &isolate.Program{Args: args, Env: []string{"PATH=/bin"}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func shell(t *testing.T, b *box, script string) *running {
	t.Helper()
	return spawn(t, b, "sh", "-c", script)
}

func trySpawn(t *testing.T, b *box, p *isolate.Program) (*running, error) {
	t.Helper()
	var inside, outside [3]*os.File
	for i := range inside {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			r, w = w, r
		}
		outside[i], inside[i] = r, w
	}
	proc, err := b.Spawn(p, inside[0], inside[1], inside[2])
	closeFiles(inside[:])
	if err != nil {
		closeFiles(outside[:])
		return nil, err
	}
	t.Cleanup(func() { closeFiles(outside[:]) })
	return &running{Proc: proc, stdin: outside[0], stdout: outside[1], stderr: outside[2]}, nil
}

// ends waits for the program's end.
func (r *running) ends(t *testing.T) (code, signal int) {
	t.Helper()
	select {
	case <-r.Done():
	case <-time.After(testLimit):
		t.Fatal("the program does not end")
	}
	code, signal, err := r.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return code, signal
}

// prints reads a stream to its end.
func prints(t *testing.T, f *os.File) string {
	t.Helper()
	if err := f.SetReadDeadline(time.Now().Add(testLimit)); err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(f)
	if err != nil {
		t.Errorf("reading output: %v", err)
	}
	return string(data)
}

// line reads one line.
func line(t *testing.T, f *os.File) string {
	t.Helper()
	if err := f.SetReadDeadline(time.Now().Add(testLimit)); err != nil {
		t.Fatal(err)
	}
	var text []byte
	for one := make([]byte, 1); ; {
		if _, err := f.Read(one); err != nil {
			t.Fatalf("reading a line: %v after %q", err, text)
		}
		if one[0] == '\n' {
			return string(text)
		}
		text = append(text, one[0])
	}
}

// output runs a script to its end.
func output(t *testing.T, b *box, script string) string {
	t.Helper()
	r := shell(t, b, script)
	r.stdin.Close()
	var errs string
	var reading sync.WaitGroup
	reading.Go(func() { errs = prints(t, r.stderr) })
	text := prints(t, r.stdout)
	reading.Wait()
	if code, signal := r.ends(t); code != 0 || signal != 0 {
		t.Errorf("%q = %d, %d: %s", script, code, signal, errs)
	}
	return text
}
