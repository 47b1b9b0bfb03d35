package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/internal/machine/qmp"
)

func TestMain(m *testing.M) {
	if isolate.IsInit() {
		isolate.Main()
	}
	os.Exit(m.Run())
}

// firstID is the first of the host ids that the sandbox gets here.
const firstID = 1879048192

// emptyBox is a sandbox for the caller's kind of user.
func emptyBox() *isolate.Spec {
	maps := func(own int) []isolate.IDMap {
		if os.Geteuid() != 0 {
			return []isolate.IDMap{{Inside: 1000, Host: own, Size: 1}}
		}
		return []isolate.IDMap{{Inside: 0, Host: firstID, Size: 1}, {Inside: 1000, Host: firstID + 1, Size: 1}}
	}
	return &isolate.Spec{ID: "machine", UIDs: maps(os.Getuid()), GIDs: maps(os.Getgid()), User: &isolate.User{UID: 1000, GID: 1000}}
}

// TestInBox boots a guest whose QEMU is confined as the engine's is: no user of
// the host's, no capabilities, two filters, and nothing of the host but what the
// machine needs. Its state goes through a descriptor into another such QEMU, where
// the guest goes on without noticing.
func TestInBox(t *testing.T) {
	if testing.Short() {
		t.Skip("it boots a guest")
	}
	k, q := testKernel(t), testQEMU(t)
	s := boxed(t, k)
	state, err := os.Create(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()

	began := time.Now()
	p := confine(t, q, s)
	release, err := readHello(p.agent)
	if err != nil || release != k.Version {
		t.Fatalf("the guest says %q, %v, want %s; QEMU says %q", release, err, k.Version, p.stderr.last())
	}
	boot := time.Since(began)
	confined(t, p.proc.PID)
	viewer(t, p.qmp)
	if err := p.qmp.Pause(within(t)); err != nil {
		t.Fatal(err)
	}
	move(t, p.qmp, state, p.qmp.Migrate)
	if err := p.box.Close(); err != nil {
		t.Errorf("Close() = %v", err)
	}

	if _, err := state.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	s.Incoming = true
	p = confine(t, q, s)
	move(t, p.qmp, state, p.qmp.Incoming)
	if err := p.qmp.Continue(within(t)); err != nil {
		t.Fatal(err)
	}
	t.Logf("booted within %s, loaded within %s", boot, time.Since(began))
	if _, err := io.WriteString(p.agent, "x"); err != nil {
		t.Fatal(err)
	}
	if code, signal, err := p.proc.Wait(); code != 0 || signal != 0 || err != nil {
		t.Errorf("QEMU's end = %d, %d, %v, want that the guest has switched itself off", code, signal, err)
	}
	<-p.drained
	if !bytes.Contains(p.stderr.data, []byte("the host has answered")) {
		t.Errorf("the console's last words = %q, want the guest's", p.stderr.last())
	}
}

// move has QEMU write its machine's state to a file, or read it.
func move(t *testing.T, c *qmp.Client, state *os.File, begin func(context.Context, string) error) {
	t.Helper()
	if err := c.SendFile(within(t), "state", state); err != nil {
		t.Fatal(err)
	}
	if err := begin(within(t), "fd:state"); err != nil {
		t.Fatal(err)
	}
	if err := c.AwaitMigration(within(t)); err != nil {
		t.Fatal(err)
	}
}

// boxed is a machine with files of all kinds.
func boxed(t *testing.T, k *Kernel) *Spec {
	t.Helper()
	m, err := OpenModules(k)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := m.Resolve("virtio_pci", "virtio_mmio", "virtio_console", "virtio_blk")
	if err != nil {
		t.Fatal(err)
	}
	initrd := put(t, filepath.Join(t.TempDir(), "initrd"), nil)
	f, err := os.OpenFile(initrd, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := (&Initramfs{Init: hello(t), Modules: plan.Load, Raw: true}).WriteTo(f); err != nil {
		t.Fatal(err)
	}
	disk := layer(t, 1<<30)
	if os.Geteuid() == 0 {
		if err := os.Chown(disk, firstID+1, firstID+1); err != nil {
			t.Fatal(err)
		}
	}
	return &Spec{
		Type: Q35, Accel: TCG, Memory: 256 << 20, Kernel: k.Image, Initrd: initrd, Cmdline: []string{"quiet"},
		QMP: Descriptor(qmpFD), Agent: Descriptor(agentFD), Console: Output("/dev/stderr"), Screen: true,
		Disks: []Disk{
			{Name: "layer", Path: disk, Format: "qcow2", Base: &Disk{Path: put(t, filepath.Join(t.TempDir(), "base"), make([]byte, 1<<20)), Format: "raw"}},
		},
	}
}

// A spawned is a QEMU in a box.
type spawned struct {
	box     *isolate.Box
	proc    *isolate.Proc
	qmp     *qmp.Client
	agent   net.Conn
	stderr  tail
	drained chan struct{}
}

// confine starts a confined QEMU with its two connections, and reads what it and
// the guest's console say.
func confine(t *testing.T, q *QEMU, s *Spec) *spawned {
	t.Helper()
	spec := emptyBox()
	in, err := q.Confine(spec, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	args, err := q.Args(in)
	if err != nil {
		t.Fatal(err)
	}
	control, theirControl, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	agent, theirAgent, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	// The console opens it by its name.
	if os.Geteuid() == 0 {
		if err := w.Chown(firstID+1, firstID+1); err != nil {
			t.Fatal(err)
		}
	}
	p := &spawned{agent: agent, drained: make(chan struct{})}
	if p.box, err = isolate.Start(spec); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.box.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
	})
	go func() {
		defer close(p.drained)
		_, _ = io.Copy(&p.stderr, r)
		r.Close()
	}()
	p.proc, err = p.box.Spawn(&isolate.Program{Args: append([]string{q.Path}, args...)}, theirControl, theirAgent, w)
	for _, f := range []*os.File{theirControl, theirAgent, w} {
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if p.qmp, err = qmp.New(within(t), control, nil); err != nil {
		t.Fatalf("%v; QEMU says %q", err, p.stderr.last())
	}
	if err := agent.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.qmp.Close(); agent.Close() })
	return p
}

// confined looks at what a process may do.
func confined(t *testing.T, pid int) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	wants := []string{`CapEff:\t0+\n`, `CapBnd:\t0+\n`, `NoNewPrivs:\t1\n`, `Seccomp:\t2\n`}
	if os.Geteuid() == 0 {
		wants = append(wants, fmt.Sprintf(`Uid:\t%d\t`, firstID+1))
	}
	for _, want := range wants {
		if !regexp.MustCompile(want).Match(status) {
			t.Errorf("QEMU's status lacks %q:\n%s", want, status)
		}
	}
}

func TestConfine(t *testing.T) {
	dir := t.TempDir()
	program := put(t, filepath.Join(dir, "qemu/bin/qemu"), nil)
	s := small()
	s.Accel, s.Kernel, s.Initrd = KVM, put(t, filepath.Join(dir, "vmlinuz"), nil), put(t, filepath.Join(dir, "initrd"), nil)
	s.Disks = []Disk{{Name: "a", Path: put(t, filepath.Join(dir, "layer"), nil), Format: "qcow2", Base: &Disk{Path: put(t, filepath.Join(dir, "base"), nil), Format: "raw"}}}
	s.Shares = []Share{{Tag: "work", Path: dir}, {Tag: "ro", Path: dir, ReadOnly: true}}
	q, box, owner := whole(), &isolate.Spec{}, &isolate.User{UID: 1000, GID: 1000}
	q.Path = program
	in, err := q.Confine(box, s, owner)
	if err != nil {
		t.Fatal(err)
	}
	if in.Kernel != "/machine/kernel" || in.Disks[0].Path != "/machine/disk-a" || in.Disks[0].Base.Path != "/machine/base-a" || in.Shares[1].Path != "/machine/share-ro" {
		t.Errorf("Confine() = %+v, want all files below /machine", in)
	}
	if s.Disks[0].Base.Path != filepath.Join(dir, "base") || s.Shares[0].Path != dir {
		t.Errorf("Confine() has changed its argument: %+v", s)
	}
	var writable []string
	for _, m := range box.Mounts {
		if !m.ReadOnly {
			writable = append(writable, m.Target)
			if m.Owner != owner {
				t.Errorf("%s belongs to %+v, want the owner", m.Target, m.Owner)
			}
		}
	}
	if diff := cmp.Diff([]string{"/machine/disk-a", "/machine/share-work"}, writable); diff != "" {
		t.Errorf("writable, -want +got:\n%s", diff)
	}
	if !box.Seccomp || len(box.Devices) != 1 || box.HostNetwork {
		t.Errorf("box = %+v, want a filter, /dev/kvm and no network", box)
	}

	absent := *s
	absent.Initrd += "absent"
	if _, err := q.Confine(&isolate.Spec{}, &absent, nil); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("Confine() without an initrd = %v, want ErrNotFound", err)
	}
	listening := *s
	listening.QMP = Listener("/run/qmp")
	if _, err := q.Confine(&isolate.Spec{}, &listening, nil); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("Confine() with a socket = %v, want ErrInvalid", err)
	}
}
