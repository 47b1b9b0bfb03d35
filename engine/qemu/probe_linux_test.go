package qemu

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caissonrun/caisson/internal/machine"
	"github.com/caissonrun/caisson/internal/machine/machinetest"
	"github.com/caissonrun/caisson/keeper"
)

// testEngine is an engine whose guests have a distribution's kernel and an
// emulated processor.
func testEngine(t *testing.T, kernel string, change func(*Options)) *Engine {
	t.Helper()
	if testing.Short() {
		t.Skip("it boots guests")
	}
	k := machinetest.Kernel(t, kernel)
	machinetest.QEMU(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	opts := &Options{
		Kernel: k.Image, Modules: k.Modules, Accels: []string{"tcg"}, Types: []string{"q35"}, BootTime: testLimit, Agent: machinetest.Agent(t),
		Installation: "test", Runtime: filepath.Join(dir, "run"), Cache: filepath.Join(dir, "cache"),
		Keeper: keeper.Command{self, keeper.Subcommand},
	}
	if change != nil {
		change(opts)
	}
	e, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
	return e
}

// TestProbe holds that a probe boots a guest and finds out what works in it, and that
// another process believes that, as long as it is where it was found out.
func TestProbe(t *testing.T) {
	e := testEngine(t, machinetest.Whole, nil)
	f, err := e.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !f.Usable || !f.Disk || !f.ShareWork || !f.Terminal || !f.Stats || !f.Pause || !f.Keep || !f.Gateway {
		t.Errorf("Probe = %+v, want everything that a distribution's kernel gives", f)
	}
	found := e.opts.chosen(e.host)
	if found == nil || found.Accel != machine.TCG || found.Type != machine.Q35 {
		t.Fatalf("what was found is %+v", found)
	}
	again, err := New(&e.opts)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if f, err := again.Probe(t.Context()); err != nil || !f.Usable {
		t.Errorf("another Probe = %+v, %v", f, err)
	}
	if got := again.opts.chosen(again.host); got == nil || !got.At.Equal(found.At) {
		t.Errorf("another probe has tried it again: %+v, want %+v", got, found)
	}
	again.doubt(&making{base: again.host.base, accel: found.Accel, kind: found.Type})
	src := &sources{of: e.host.base.Of}
	if b, err := e.opts.readBase(src, e.host.base.Under); err != nil || b == nil || b.known(found.Accel, found.Type, time.Now()) != nil {
		t.Errorf("after a doubt %+v, %v is known", b, err)
	}
}

// TestProbeNotShared holds what there is with a kernel that can't mount folders of
// the host.
func TestProbeNotShared(t *testing.T) {
	e := testEngine(t, machinetest.Cloud, nil)
	f, err := e.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !f.Usable || f.ShareWork || f.Mounts.Bind || !f.Mounts.Tmpfs || !f.Files || !f.Exec {
		t.Errorf("Probe = %+v, want files that are copied, and no binds", f)
	}
}
