//go:build linux

// Package machinetest boots guests for tests: a distribution's kernel with the
// agent of package guest as its first process, on an emulated processor. What it
// starts ends with the test.
package machinetest

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/guest"
	"github.com/caissonrun/caisson/internal/machine"
	"github.com/caissonrun/caisson/internal/machine/qmp"
)

// Debian's packages with a kernel.
const (
	// Whole has modules for everything, 9p among them.
	Whole = "linux-image-amd64"
	// Cloud has what clouds need: there is no 9p.
	Cloud = "linux-image-cloud-amd64"
)

// limit is more than any guest takes to boot, where other tests run beside it.
const limit = 5 * time.Minute

// Need skips a test for want of something that every host of CI has. As root,
// which is how CI runs, that is a failure: scripts/setup has installed it.
func Need(t testing.TB, what string, err error) {
	t.Helper()
	if os.Geteuid() == 0 {
		t.Fatalf("%s: %v", what, err)
	}
	t.Skipf("%s: %v", what, err)
}

// Kernel returns the kernel of a package, with its modules: the one in the folder
// that CAISSON_TEST_KERNEL names (or, for Whole, CAISSON_TEST_KERNEL_WHOLE), or what
// scripts/kernel fetches for root. Others fetch nothing: the test is skipped.
func Kernel(t testing.TB, name string) *machine.Kernel {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("the kernel for tests is for amd64")
	}
	variable := "CAISSON_TEST_KERNEL"
	if name == Whole {
		variable += "_WHOLE"
	}
	root := os.Getenv(variable)
	if root == "" && os.Geteuid() != 0 {
		t.Skip(variable + " is not set")
	}
	if root == "" {
		cmd := exec.Command("sh", filepath.Join(source(t), "scripts", "kernel"), name)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("scripts/kernel %s: %v", name, err)
		}
		root = strings.TrimSpace(string(out))
	}
	k, err := machine.FindKernel(&machine.KernelOptions{Roots: []string{root}})
	if err != nil {
		Need(t, root, err)
	}
	return k
}

// source returns the folder of the module's source.
func source(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == "/" {
			t.Skip("there is no source here")
		}
	}
}

// QEMU returns this host's.
func QEMU(t testing.TB) *machine.QEMU {
	t.Helper()
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		Need(t, "qemu", err)
	}
	q, err := machine.FindQEMU(context.Background(), "", "amd64")
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// Agent builds the agent and returns its file.
func Agent(t testing.TB) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "caisson-guest")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", file, "github.com/caissonrun/caisson/cmd/caisson-guest")
	cmd.Dir, cmd.Env = source(t), append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return file
}

// Initrd writes an initramfs with the agent and the modules of machine.Wanted that
// the kernel has, and returns its file.
func Initrd(t testing.TB, k *machine.Kernel, agent string) string {
	t.Helper()
	modules, err := machine.OpenModules(k)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := modules.Resolve(machine.Wanted...)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "initrd"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// An emulated processor has more to do with what is compressed.
	if _, err := (&machine.Initramfs{Init: agent, Modules: plan.Load, Raw: true}).WriteTo(f); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// Options say what to boot. The zero value of a field is a default.
type Options struct {
	Kernel *machine.Kernel // nil: that of Whole
	// Initrd is its initramfs. Empty: one with the agent. With a Boot disk there is
	// neither.
	Initrd string
	// Boot says that the machine boots from its first disk.
	Boot    bool
	Type    string        // empty: machine.Q35
	Memory  caisson.Bytes // 0: 256 MiB
	CPUs    int
	Cmdline []string
	Disks   []machine.Disk
	Shares  []machine.Share
	// User is who QEMU runs as, where root starts it: files of a share that are to be
	// written are that user's. 0: the caller.
	User int
	// Silent has nobody say hello: Guest.Client is nil.
	Silent bool
}

// A Guest is a machine that runs.
type Guest struct {
	Client *guest.Client
	// Conn is the agent's port; the Client closes it. A session on Lent() leaves it
	// open for another one.
	Conn    net.Conn
	QMP     *qmp.Client
	Process *os.Process
	// Ended is closed when QEMU has ended.
	Ended chan struct{}

	console tail
}

// Console returns the last of what the guest and QEMU have said.
func (g *Guest) Console() string { return g.console.String() }

// Lent returns the port as a connection that a session does not close.
func (g *Guest) Lent() net.Conn { return lent{g.Conn} }

// A lent connection is not closed by who has it, but what waits at it returns.
type lent struct{ net.Conn }

// Close implements net.Conn.
func (l lent) Close() error { return l.SetDeadline(time.Unix(1, 0)) }

// Dial begins a session on the lent port, which ends with the test.
func (g *Guest) Dial(t testing.TB) *guest.Client {
	t.Helper()
	if err := g.Conn.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	c, err := guest.Dial(ctx, g.Lent(), nil)
	if err != nil {
		t.Fatalf("the agent does not answer: %v; the console's last words:\n%s", err, g.Console())
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Boot boots a guest and begins a session with its agent. Both end with the test.
func Boot(t testing.TB, o *Options) *Guest {
	t.Helper()
	if o == nil {
		o = &Options{}
	}
	q := QEMU(t)
	args, err := q.Args(o.spec(t))
	if err != nil {
		t.Fatal(err)
	}
	control, theirControl, err := machine.Pair()
	if err != nil {
		t.Fatal(err)
	}
	conn, theirAgent, err := machine.Pair()
	if err != nil {
		t.Fatal(err)
	}
	g := &Guest{Conn: conn, Ended: make(chan struct{})}
	cmd := exec.Command(q.Path, args...)
	cmd.Env, cmd.Dir = []string{}, "/"
	said, console, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirControl, theirAgent, console
	// A test that is killed leaves nothing. It counts for the thread.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if o.User != 0 && os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(o.User), Gid: uint32(o.User)}
		o.give(t, cmd.SysProcAttr.Credential)
		// The console opens it by its name.
		if err := console.Chown(o.User, o.User); err != nil {
			t.Fatal(err)
		}
	}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		started <- cmd.Start()
		console.Close()
		_, _ = io.Copy(&g.console, said)
		said.Close()
		_ = cmd.Wait()
		close(g.Ended)
	}()
	err = <-started
	theirControl.Close()
	theirAgent.Close()
	if err != nil {
		t.Fatal(err)
	}
	g.Process = cmd.Process
	t.Cleanup(func() {
		if g.QMP != nil {
			g.QMP.Close()
		}
		_ = cmd.Process.Kill()
		<-g.Ended
		conn.Close()
	})
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if g.QMP, err = qmp.New(ctx, control, nil); err != nil {
		t.Fatalf("%v; QEMU says %q", err, g.Console())
	}
	if !o.Silent {
		g.Client = g.Dial(t)
	}
	return g
}

// give has QEMU's user reach the files, which lie in folders that are the test's.
func (o *Options) give(t testing.TB, who *syscall.Credential) {
	t.Helper()
	for _, d := range o.Disks {
		if err := os.Chown(d.Path, int(who.Uid), int(who.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	for dir := t.TempDir(); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// spec is the machine as package machine describes it.
func (o *Options) spec(t testing.TB) *machine.Spec {
	s := &machine.Spec{
		Type: o.Type, Accel: machine.TCG, CPUs: o.CPUs, Memory: o.Memory, Disks: o.Disks, Shares: o.Shares,
		QMP: machine.Descriptor(0), Agent: machine.Descriptor(1), Console: machine.Output("/dev/stderr"),
	}
	if s.Type == "" {
		s.Type = machine.Q35
	}
	if s.Memory == 0 {
		s.Memory = 256 << 20
	}
	if s.Type == machine.MicroVM {
		s.TSC = machine.TSCKHz()
	}
	if o.Boot {
		return s
	}
	k := o.Kernel
	if k == nil {
		k = Kernel(t, Whole)
	}
	s.Kernel, s.Initrd, s.Cmdline = k.Image, o.Initrd, slices.Concat([]string{"quiet"}, o.Cmdline)
	if s.Initrd == "" {
		s.Initrd = Initrd(t, k, Agent(t))
	}
	return s
}

// A tail keeps the last of what is said.
type tail struct {
	mu   sync.Mutex
	data []byte
}

const maxTail = 16 << 10

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p...)
	if over := len(t.data) - maxTail; over > 0 {
		t.data = bytes.Clone(t.data[over:])
	}
	return len(p), nil
}

// String returns it as text.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ToValidUTF8(string(t.data), "?")
}
