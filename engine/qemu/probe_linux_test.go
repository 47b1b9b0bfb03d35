package qemu

import (
	"os"
	"path/filepath"
	"testing"

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

func TestProbe(t *testing.T) {
	e := testEngine(t, machinetest.Whole, nil)
	f, err := e.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s %+v", f.Version, f.Missing)
}
