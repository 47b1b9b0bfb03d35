//go:build linux

package qemu

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/enginetest"
	"github.com/caissonrun/caisson/internal/machine/machinetest"
	"github.com/caissonrun/caisson/internal/network/networktest"
	"github.com/caissonrun/caisson/keeper"
)

// TestConformance runs the suite in guests with a distribution's kernel on an
// emulated processor: what every host can do.
func TestConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("it boots guests")
	}
	k := machinetest.Kernel(t, machinetest.Whole)
	machinetest.QEMU(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	opts := Options{
		Kernel: k.Image, Modules: k.Modules, Accels: []string{"tcg"}, Types: []string{"q35"}, BootTime: testLimit, Agent: machinetest.Agent(t),
		Disk: 256 * caisson.MiB, Snapshot: true, Runtime: filepath.Join(dir, "run"), Cache: filepath.Join(dir, "cache"), Keeper: keeper.Command{self, keeper.Subcommand},
	}
	if os.Geteuid() == 0 {
		opts.CNIConfigDir, _ = networktest.Bridges(t)
	}
	engineOf := func(installation string) func(testing.TB) engine.Engine {
		return func(t testing.TB) engine.Engine {
			mine := opts
			mine.Installation = installation
			e, err := New(&mine)
			if err != nil {
				t.Fatal(err)
			}
			return e
		}
	}
	// Sweeping looks at the whole host: another run of these tests at the same
	// time must be another installation.
	one := fmt.Sprintf("test%d", os.Getpid())
	h := enginetest.Harness{
		New: engineOf(one), Other: engineOf(one + "x"),
		Restart: func(t testing.TB, _ engine.Engine) engine.Engine { return engineOf(one)(t) },
		Inside:  enginetest.BuildInside(t), RootFS: suiteRoot(t),
		Lose:    loseKeeper,
		Slow:    true,
		Folders: []string{opts.Runtime},
		Require: []string{
			"rootfs", "disk", "limits.cpus", "limits.memory", "limits.pids", "limits.disk", "limits.log", "limits.files",
			"networks.none", "mounts.bind", "mounts.tmpfs", "user", "secrets", "exec", "terminal", "files", "stats", "pause",
			"isolation:" + engine.SeparateKernel,
		},
	}
	h.Require = append(h.Require, "networks.default", "ports", "gateway", "networks.allow")
	if os.Geteuid() == 0 {
		h.Networks = []string{"lan", "store"}
		h.Require = append(h.Require, "networks.named")
	} else {
		h.Label = "qemu, ordinary user"
		// What is another without root: whose the files and the network are, and what
		// is found again and taken away. The rest is the guest's own.
		h.Groups = []string{"lifecycle", "files", "limits", "network", "recover"}
	}
	// After the programs are built: on a busy host it would reap those who build.
	enginetest.ReapOrphans(t)
	enginetest.Run(t, h)
}

// suiteRoot makes the root file system of a small image.
func suiteRoot(t *testing.T) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	for _, dir := range []string{"", "bin", "etc", "home", "root", "tmp", "var", "var/tmp"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	busybox, err := os.ReadFile("/usr/bin/busybox")
	if err != nil {
		machinetest.Need(t, "busybox", err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin", "busybox"), busybox, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "sleep", "cat", "echo"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	passwd := "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
	if err := os.WriteFile(filepath.Join(root, "etc", "passwd"), []byte(passwd), 0o644); err != nil {
		t.Fatal(err)
	}
	return root
}

// loseKeeper kills the keeper of a sandbox.
func loseKeeper(t testing.TB, spec *engine.Spec) {
	t.Helper()
	client, err := keeper.Dial(context.Background(), spec.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	status, err := client.Status(context.Background())
	if err == nil {
		err = unix.Kill(status.PID, unix.SIGKILL)
	}
	if err != nil {
		t.Fatal(err)
	}
}
