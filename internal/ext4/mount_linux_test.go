package ext4_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/ext4"
	"github.com/caissonrun/caisson/internal/safefs"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// mount has the kernel read a disk. Only root can.
func mount(t *testing.T, file, opts string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "mounted")
	must(t, os.Mkdir(dir, 0o700))
	if out, err := exec.Command("mount", "-t", "ext4", "-o", opts, file, dir).CombinedOutput(); err != nil {
		t.Fatalf("mount = %v: %s", err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	return dir
}

// describe says everything of a tree, a line for each name.
func describe(t *testing.T, dir string) []string {
	t.Helper()
	root := openTree(t, dir)
	var lines []string
	first := map[uint64]string{}
	must(t, root.Walk(t.Context(), ".", nil, func(e *safefs.Entry) error {
		line := fmt.Sprintf("%q %v %d:%d %s", e.Path, e.Mode, e.UID, e.GID, e.ModTime.UTC())
		switch {
		case e.Mode.IsRegular():
			f, err := e.Open()
			if err != nil {
				return err
			}
			defer f.Close()
			attrs, err := root.Xattrs(e.Path, "user.")
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %s %q", sumOf(t, f), attrs)
		case e.Mode&os.ModeSymlink != 0:
			target, err := e.ReadLink()
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %q", target)
		}
		if !e.Mode.IsDir() {
			if first[e.Ino] == "" {
				first[e.Ino] = e.Path
			}
			line += fmt.Sprintf(" %d links, first %q", e.Links, first[e.Ino])
		} else {
			line += fmt.Sprintf(" %d links", e.Links)
		}
		lines = append(lines, line)
		return nil
	}))
	return lines
}

// TestMountTree compares a tree with what the kernel finds on the disk that was
// made of it.
func TestMountTree(t *testing.T) {
	needRoot(t)
	dir := makeTree(t)
	must(t, os.Lchown(filepath.Join(dir, "short"), 1000, 1001), os.Lchown(filepath.Join(dir, "a/large"), 65535, 70000))
	value := bytes.Repeat([]byte("v"), 1001)
	for _, set := range []struct {
		name, attr string
		value      []byte
	}{{"a", "user.folder", []byte("x")}, {"a/large", "user.second", value}, {"a/large", "user.b", []byte("1")}, {"a/large", "user.a", nil}} {
		must(t, unix.Setxattr(filepath.Join(dir, set.name), set.attr, set.value, 0))
	}
	f := newDisk(t)
	_, err := ext4.WriteTree(t.Context(), f, openTree(t, dir), nil)
	must(t, err)
	sound(t, f.Name())
	on := mount(t, f.Name(), "loop,ro")
	if diff := cmp.Diff(describe(t, dir), describe(t, on)); diff != "" {
		t.Errorf("the disk differs:\n%s", diff)
	}
	attrs, err := openTree(t, on).Xattrs("a", "")
	if err != nil || string(attrs["user.folder"]) != "x" {
		t.Errorf("attributes of the folder are %q, %v", attrs, err)
	}
	if err := unix.Mount("", on, "", unix.MS_REMOUNT, ""); err == nil {
		t.Error("a disk that is only to be read was mounted to be written to")
	}
}

// TestMountRandom compares random trees with their disks.
func TestMountRandom(t *testing.T) {
	needRoot(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	data := make([]byte, 4000)
	for i := range data {
		data[i] = byte(random.Uint32())
	}
	dir := t.TempDir()
	grow(t, dir, data)
	f := newDisk(t)
	_, err := ext4.WriteTree(t.Context(), f, openTree(t, dir), nil)
	must(t, err)
	if diff := cmp.Diff(describe(t, dir), describe(t, mount(t, f.Name(), "loop,ro"))); diff != "" {
		t.Errorf("the disk differs:\n%s", diff)
	}
}

// TestMountEmpty fills an empty disk up to its end.
func TestMountEmpty(t *testing.T) {
	needRoot(t)
	const size = 200 * caisson.MiB
	f := newDisk(t)
	must(t, ext4.Format(f, size, nil))
	t.Run("Fill", func(t *testing.T) {
		dir := mount(t, f.Name(), "loop")
		must(t, os.MkdirAll(filepath.Join(dir, "upper/deep"), 0o755))
		out, err := os.Create(filepath.Join(dir, "upper/file"))
		must(t, err)
		defer out.Close()
		chunk, written := bytes.Repeat([]byte("x"), 1<<20), caisson.Bytes(0)
		for {
			n, err := out.Write(chunk)
			written += caisson.Bytes(n)
			if err != nil {
				break
			}
		}
		if written > size || written < size*95/100 {
			t.Errorf("%s went in, want nearly %s", written, size)
		}
		for i := range 2000 {
			if err := os.WriteFile(filepath.Join(dir, "upper/deep", fmt.Sprint(i)), nil, 0o600); err != nil {
				break // no room for the folder's next block
			}
		}
	})
	sound(t, f.Name())
}

// TestMountMany has more files than one group has inodes.
func TestMountMany(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "lost+found"), 0o700))
	for d := range 9 {
		must(t, os.Mkdir(filepath.Join(dir, fmt.Sprint(d)), 0o755))
		for i := range 4000 {
			must(t, unix.Mkfifo(filepath.Join(dir, fmt.Sprintf("%d/%d", d, i)), 0o600))
		}
	}
	f := newDisk(t)
	sum, err := ext4.WriteTree(t.Context(), f, openTree(t, dir), nil)
	must(t, err)
	if sum.Entries != 9*4001+2 {
		t.Errorf("%d entries, want %d", sum.Entries, 9*4001+2)
	}
	sound(t, f.Name())
	on := mount(t, f.Name(), "loop,ro")
	if names, err := os.ReadDir(filepath.Join(on, "8")); err != nil || len(names) != 4000 {
		t.Errorf("the last folder has %d names, %v", len(names), err)
	}
}

// TestMountRoom holds that the kernel writes to a tree with room, and finds what
// was added to it.
func TestMountRoom(t *testing.T) {
	needRoot(t)
	f := newDisk(t)
	data := bytes.Repeat([]byte("program"), 10_000)
	_, err := ext4.WriteTree(t.Context(), f, openTree(t, makeTree(t)), &ext4.TreeOptions{
		Size: 64 * caisson.MiB, Add: []ext4.Added{{Path: "new/folder/program", Mode: 0o755, Data: data}},
	})
	must(t, err)
	dir := mount(t, f.Name(), "loop")
	if got, err := os.ReadFile(filepath.Join(dir, "new/folder/program")); err != nil || !bytes.Equal(got, data) {
		t.Errorf("what was added has %d bytes, %v", len(got), err)
	}
	must(t, os.WriteFile(filepath.Join(dir, "new/written"), make([]byte, 32<<20), 0o644))
}
