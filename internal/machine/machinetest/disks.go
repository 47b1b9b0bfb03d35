//go:build linux

package machinetest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/ext4"
	"github.com/caissonrun/caisson/internal/machine"
	"github.com/caissonrun/caisson/internal/safefs"
)

// Busybox makes a folder with this host's static busybox under all its names, users
// root, nobody and tester (1234, group 2345, also in group 3456), and an empty
// folder for everything that a system has.
func Busybox(t testing.TB) string {
	t.Helper()
	const program = "/bin/busybox"
	data, err := os.ReadFile(program)
	if err != nil {
		Need(t, "busybox", err)
	}
	list, err := exec.Command(program, "--list").Output()
	if err != nil {
		Need(t, "busybox", err)
	}
	dir := t.TempDir()
	for _, name := range []string{"bin", "etc", "tmp", "var", "root", "home/tester"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	files := map[string]string{
		"bin/busybox": string(data),
		"etc/passwd":  "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\ntester:x:1234:2345::/home/tester:/bin/sh\n",
		"etc/group":   "root:x:0:\nnogroup:x:65534:\ntester:x:2345:\nmore:x:3456:tester\n",
		"etc/hosts":   "127.0.0.1\tlocalhost\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "bin/busybox"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name := range strings.FieldsSeq(string(list)) {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	return dir
}

// Image writes a folder as a disk that nobody writes to, as package image does.
func Image(t testing.TB, dir string) machine.Disk {
	t.Helper()
	root, err := safefs.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	f := create(t)
	defer f.Close()
	opts := &ext4.TreeOptions{Change: func(_ string, info *safefs.Info) error {
		if info.UID == os.Geteuid() {
			info.UID, info.GID = 0, 0
		}
		return nil
	}}
	if _, err := ext4.WriteTree(context.Background(), f, root, opts); err != nil {
		t.Fatal(err)
	}
	return machine.Disk{Name: "image", Path: f.Name(), Format: "raw", ReadOnly: true}
}

// System writes a folder as a disk that a machine with a system of its own runs from.
func System(t testing.TB, dir string, size caisson.Bytes) machine.Disk {
	t.Helper()
	program, err := exec.LookPath("mke2fs")
	if err != nil {
		// Where only root's PATH leads to it.
		program = "/usr/sbin/mke2fs"
	}
	f := create(t)
	defer f.Close()
	if err := f.Truncate(int64(size)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(program, "-q", "-F", "-t", "ext4", "-d", dir, f.Name()).CombinedOutput(); err != nil {
		Need(t, "mke2fs "+string(out), err)
	}
	return machine.Disk{Name: "system", Path: f.Name(), Format: "raw", Ephemeral: true}
}

// Layer makes an empty disk that a guest writes to.
func Layer(t testing.TB, size caisson.Bytes) machine.Disk {
	t.Helper()
	f := create(t)
	defer f.Close()
	if err := ext4.Format(f, size, nil); err != nil {
		t.Fatal(err)
	}
	return machine.Disk{Name: "layer", Path: f.Name(), Format: "raw", Ephemeral: true}
}

func create(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	return f
}
