//go:build unix

package ext4_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/ext4"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/internal/slowtest"
)

// tool returns a program of e2fsprogs. As root it must be there.
func tool(t *testing.T, name string) string {
	t.Helper()
	for _, path := range []string{name, "/usr/sbin/" + name, "/sbin/" + name} {
		if path, err := exec.LookPath(path); err == nil {
			return path
		}
	}
	if os.Geteuid() == 0 {
		t.Fatalf("%s is not installed (package e2fsprogs)", name)
	}
	t.Skipf("%s is not installed (package e2fsprogs)", name)
	return ""
}

// sound has e2fsck look at every structure of a disk.
func sound(t *testing.T, file string) {
	t.Helper()
	if out, err := exec.Command(tool(t, "e2fsck"), "-fn", file).CombinedOutput(); err != nil {
		t.Errorf("e2fsck = %v:\n%s", err, out)
	}
}

// newDisk makes an empty file for a disk.
func newDisk(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func openTree(t *testing.T, dir string) *safefs.Root {
	t.Helper()
	root, err := safefs.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// oddNames are names that nobody expects.
var oddNames = []string{
	"new\nline", "-rf", "quote\"'`$x", "\x01\x7f\xff\xfe", " ", "...", "ü", "lost+found ", strings.Repeat("n", 255), `back\slash`,
}

// makeTree makes a tree with one of everything.
func makeTree(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	at := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.MkdirAll(at("a/b/c"), 0o755), os.Mkdir(at("many"), 0o711), os.Mkdir(at("lost+found"), 0o700), os.Mkdir(at("odd"), 0o755))
	for _, name := range oddNames {
		must(t, os.WriteFile(at("odd/"+name), []byte(name), 0o640))
	}
	for i := range 700 {
		must(t, os.WriteFile(at(fmt.Sprintf("many/file with number %d", i)), nil, 0o600))
	}
	content := bytes.Repeat([]byte("0123456789abcdef"), 70_000)
	must(t, os.WriteFile(at("a/large"), content, 0o444), os.Link(at("a/large"), at("a/b/again")), os.Link(at("a/large"), at("a/c")))
	must(t, os.WriteFile(at("hole"), []byte("begin"), 0o600), os.Truncate(at("hole"), 9_000_001))
	unreadable := os.FileMode(0o000)
	if os.Geteuid() != 0 {
		unreadable = 0o400 // or nobody can
	}
	must(t, os.WriteFile(at("empty"), nil, unreadable))
	must(t, os.Symlink("/etc/passwd", at("short")), os.Symlink(strings.Repeat("../x/", 40), at("long")),
		os.Symlink(strings.Repeat("y", 59), at("59")), os.Symlink(strings.Repeat("z", 60), at("60")), os.Link(at("short"), at("short too")))
	must(t, syscall.Mkfifo(at("fifo"), 0o620))
	must(t, os.Chmod(at("a"), 0o777|os.ModeSticky), os.Chmod(at("many"), 0o711|os.ModeSetgid))
	for name, when := range map[string]time.Time{
		"empty": time.Unix(-86400, 0), "hole": time.Unix(1<<32+5, 999_999_999), "a/b": time.Unix(1_700_000_000, 123_456_789),
	} {
		must(t, os.Chtimes(at(name), when, when))
	}
	return dir
}

func TestWriteTree(t *testing.T) {
	dir := makeTree(t)
	f := newDisk(t)
	sum, err := ext4.WriteTree(t.Context(), f, openTree(t, dir), nil)
	if err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	must(t, err)
	if caisson.Bytes(info.Size()) != sum.Size || len(sum.Skipped) > 0 {
		t.Errorf("WriteTree = %+v, the disk has %d bytes", sum, info.Size())
	}
	if room := info.Sys().(*syscall.Stat_t).Blocks * 512; room > 4<<20 {
		t.Errorf("the disk takes %d bytes: holes were filled", room)
	}
	sound(t, f.Name())
	t.Run("Contents", func(t *testing.T) {
		for _, name := range []string{"/a/large", "/a/b/again", "/many/file with number 699"} {
			var errText strings.Builder
			cmd := exec.Command(tool(t, "debugfs"), "-R", fmt.Sprintf("cat %q", name), f.Name())
			cmd.Stderr = &errText
			out, err := cmd.Output()
			want, _ := os.ReadFile(filepath.Join(dir, name))
			if err != nil || !bytes.Equal(out, want) {
				t.Errorf("%s has %d bytes, %v, want %d; %s", name, len(out), err, len(want), errText.String())
			}
		}
	})
}

func sumOf(t *testing.T, f *os.File) string {
	t.Helper()
	h := sha256.New()
	_, err := f.Seek(0, io.SeekStart)
	must(t, err)
	_, err = io.Copy(h, f)
	must(t, err)
	return fmt.Sprintf("%x", h.Sum(nil))
}

// TestWriteTreeSame makes a disk of two trees that were filled in different
// orders.
func TestWriteTreeSame(t *testing.T) {
	when := time.Unix(1_700_000_000, 0)
	names := []string{"b", "a", "z", "m", "c"}
	var sums []string
	for turn := range 2 {
		dir := t.TempDir()
		must(t, os.Chmod(dir, 0o755))
		for i := range names {
			name := names[i]
			if turn == 1 {
				name = names[len(names)-1-i]
			}
			must(t, os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644), os.Chtimes(filepath.Join(dir, name), when, when))
		}
		must(t, os.Chtimes(dir, when, when))
		f := newDisk(t)
		_, err := ext4.WriteTree(t.Context(), f, openTree(t, dir), &ext4.TreeOptions{Options: ext4.Options{Name: "same"}})
		must(t, err)
		sums = append(sums, sumOf(t, f))
	}
	if sums[0] != sums[1] {
		t.Errorf("the disks differ: %v", sums)
	}
}

// TestWriteTreeChange gives files other owners and modes than the tree has.
func TestWriteTreeChange(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "su"), []byte("x"), 0o700), os.Mkdir(filepath.Join(dir, "lost+found"), 0o700))
	f := newDisk(t)
	opts := &ext4.TreeOptions{Change: func(path string, info *safefs.Info) error {
		info.UID, info.GID = 0, 0
		if path == "su" {
			info.UID, info.GID = 70_000, 123_456_789
			info.Mode = 0o755 | os.ModeSetuid
		}
		return nil
	}}
	_, err := ext4.WriteTree(t.Context(), f, openTree(t, dir), opts)
	must(t, err)
	sound(t, f.Name())
	out, err := exec.Command(tool(t, "debugfs"), "-R", "stat /su", f.Name()).Output()
	must(t, err)
	text := strings.Join(strings.Fields(string(out)), " ")
	for _, want := range []string{"Mode: 04755", "User: 70000 Group: 123456789"} {
		if !strings.Contains(text, want) {
			t.Errorf("debugfs says %s, want %s", text, want)
		}
	}
}

// TestWriteTreeLarge has a file with more extents than an inode has room for.
func TestWriteTreeLarge(t *testing.T) {
	slowtest.Skip(t)
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "lost+found"), 0o700))
	name := filepath.Join(dir, "large")
	f, err := os.Create(name)
	must(t, err)
	defer f.Close()
	const size = 700 << 20
	for _, at := range []int64{0, 128 << 20, 600<<20 + 5, size - 4} {
		_, err := f.WriteAt([]byte("here"), at)
		must(t, err)
	}
	disk := newDisk(t)
	_, err = ext4.WriteTree(t.Context(), disk, openTree(t, dir), nil)
	must(t, err)
	sound(t, disk.Name())
	cmd := exec.Command(tool(t, "debugfs"), "-R", "cat /large", disk.Name())
	out, err := cmd.StdoutPipe()
	must(t, err, cmd.Start())
	got, want := sha256.New(), sha256.New()
	_, err = io.Copy(got, out)
	must(t, err, cmd.Wait())
	_, err = io.Copy(want, io.NewSectionReader(f, 0, size))
	must(t, err)
	if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		t.Error("the large file has other contents on the disk")
	}
}

func TestWriteTreeErrors(t *testing.T) {
	dir := t.TempDir()
	for i := range 5 {
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), []byte("x"), 0o600))
	}
	root := openTree(t, dir)
	t.Run("Entries", func(t *testing.T) {
		_, err := ext4.WriteTree(t.Context(), newDisk(t), root, &ext4.TreeOptions{MaxEntries: 4})
		if !errors.Is(err, caisson.ErrInvalid) || !strings.Contains(err.Error(), "4 entries") {
			t.Errorf("WriteTree = %v, want ErrInvalid", err)
		}
	})
	t.Run("Bytes", func(t *testing.T) {
		f := newDisk(t)
		_, err := ext4.WriteTree(t.Context(), f, root, &ext4.TreeOptions{MaxBytes: 32 << 10})
		if info, _ := f.Stat(); !errors.Is(err, caisson.ErrInvalid) || info.Size() > 0 {
			t.Errorf("WriteTree = %v with %d bytes written, want ErrInvalid and none", err, info.Size())
		}
	})
	t.Run("Hole", func(t *testing.T) {
		// A file that is one hole would make a disk of terabytes.
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "hole"), nil, 0o600), os.Truncate(filepath.Join(dir, "hole"), 1<<40))
		if _, err := ext4.WriteTree(t.Context(), newDisk(t), openTree(t, dir), nil); caisson.KindOf(err) == caisson.ErrUnknown {
			t.Errorf("WriteTree = %v, want an error with a kind", err)
		}
	})
	t.Run("Cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := ext4.WriteTree(ctx, newDisk(t), root, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("WriteTree = %v, want canceled", err)
		}
	})
	t.Run("Change", func(t *testing.T) {
		no := errors.New("no")
		opts := &ext4.TreeOptions{Change: func(string, *safefs.Info) error { return no }}
		if _, err := ext4.WriteTree(t.Context(), newDisk(t), root, opts); !errors.Is(err, no) {
			t.Errorf("WriteTree = %v, want %v", err, no)
		}
	})
	t.Run("Changed", func(t *testing.T) {
		// Who changes the tree meanwhile gets an error, and no file with another
		// one's contents.
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "file"), []byte("12345"), 0o600))
		opts := &ext4.TreeOptions{Change: func(path string, _ *safefs.Info) error {
			if path == "file" {
				must(t, os.WriteFile(filepath.Join(dir, path), []byte("1"), 0o600))
			}
			return nil
		}}
		if _, err := ext4.WriteTree(t.Context(), newDisk(t), openTree(t, dir), opts); !errors.Is(err, safefs.ErrChanged) || !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("WriteTree = %v, want ErrChanged", err)
		}
	})
}

func TestWriteTreeSockets(t *testing.T) {
	dir := t.TempDir()
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	must(t, err)
	defer syscall.Close(fd)
	must(t, syscall.Bind(fd, &syscall.SockaddrUnix{Name: filepath.Join(dir, "s")}))
	must(t, os.Mkdir(filepath.Join(dir, "lost+found"), 0o700))
	f := newDisk(t)
	sum, err := ext4.WriteTree(t.Context(), f, openTree(t, dir), nil)
	if err != nil || len(sum.Skipped) != 1 || sum.Skipped[0] != "s" {
		t.Fatalf("WriteTree = %+v, %v, want s skipped", sum, err)
	}
	sound(t, f.Name())
}

func TestFormat(t *testing.T) {
	for _, size := range []caisson.Bytes{64 * caisson.KiB, caisson.MiB + 5, 100 * caisson.MiB, 128 * caisson.MiB, 128*caisson.MiB + 4096, 5 * caisson.GiB, 300 * caisson.GiB} {
		t.Run(size.String(), func(t *testing.T) {
			if size > 100*caisson.GiB {
				slowtest.Skip(t) // e2fsck reads all its groups
			}
			f := newDisk(t)
			must(t, ext4.Format(f, size, &ext4.Options{Name: "x", Label: "caisson"}))
			info, err := f.Stat()
			must(t, err)
			if got := caisson.Bytes(info.Size()); got != size/4096*4096 {
				t.Errorf("the disk has %d bytes, want %d", got, size)
			}
			if room := info.Sys().(*syscall.Stat_t).Blocks * 512; room > 64<<10+int64(size>>14) {
				t.Errorf("the disk takes %d bytes", room)
			}
			sound(t, f.Name())
		})
	}
}

func TestFormatErrors(t *testing.T) {
	for _, size := range []caisson.Bytes{-1, 0, 1, 4096, 20480, 9 << 40, 1<<63 - 1} {
		f := newDisk(t)
		err := ext4.Format(f, size, nil)
		if info, _ := f.Stat(); !errors.Is(err, caisson.ErrInvalid) || info.Size() > 0 {
			t.Errorf("Format(%d) = %v, %d bytes, want ErrInvalid", size, err, info.Size())
		}
	}
}

// FuzzFolder reads back what a folder with any names looks like.
func FuzzFolder(f *testing.F) {
	f.Add("a/b/c")
	f.Add(strings.Repeat("x/yy/zzz/", 1000) + strings.Repeat("n", 255))
	f.Fuzz(func(t *testing.T, text string) {
		var names []string
		for name := range strings.SplitSeq(text, "/") {
			if name != "" && len(name) < 256 {
				names = append(names, name)
			}
		}
		b := ext4.Folder(names)
		want := append([]string{".", ".."}, names...)
		for at := 0; at < len(b); {
			size, length := int(binary.LittleEndian.Uint16(b[at+4:])), int(b[at+6])
			if size < 8+length || size%4 != 0 || at/4096 != (at+size-1)/4096 {
				t.Fatalf("an entry at %d has %d bytes for a name of %d", at, size, length)
			}
			if len(want) == 0 || string(b[at+8:at+8+length]) != want[0] {
				t.Fatalf("an entry at %d is %q, want %q", at, b[at+8:at+8+length], want)
			}
			want, at = want[1:], at+size
		}
		if len(want) > 0 || len(b)%4096 != 0 {
			t.Fatalf("%d bytes, and these names are missing: %q", len(b), want)
		}
	})
}

// FuzzAttrs never crashes, and refuses what does not fit.
func FuzzAttrs(f *testing.F) {
	f.Add("user.a", []byte("x"), "security.capability", []byte("capabilities"))
	f.Add("user.", []byte(nil), "user."+strings.Repeat("n", 250), bytes.Repeat([]byte("v"), 4000))
	f.Fuzz(func(t *testing.T, a string, av []byte, b string, bv []byte) {
		block, err := ext4.EncodeAttrs(map[string][]byte{a: av, b: bv})
		if err != nil && caisson.KindOf(err) != caisson.ErrUnsupported || err == nil && block != nil && len(block) != 4096 {
			t.Errorf("EncodeAttrs = %d bytes, %v", len(block), err)
		}
	})
}

// TestWriteTreeRoom holds that a tree can become a file system with room, and with
// more files than the tree has.
func TestWriteTreeRoom(t *testing.T) {
	f := newDisk(t)
	opts := &ext4.TreeOptions{Size: 64 * caisson.MiB, Add: []ext4.Added{
		{Path: "new/folder/program", Mode: 0o755, Data: bytes.Repeat([]byte("program"), 10_000)},
		{Path: "new/link", Mode: fs.ModeSymlink | 0o777, Link: "folder/program"},
		{Path: "new/empty", Mode: fs.ModeDir | 0o700},
	}}
	sum, err := ext4.WriteTree(t.Context(), f, openTree(t, makeTree(t)), opts)
	must(t, err)
	if sum.Size != 64*caisson.MiB {
		t.Errorf("the disk has %s, want 64m", sum.Size)
	}
	sound(t, f.Name())
	for name, add := range map[string]ext4.Added{
		"Twice": {Path: "new/link", Mode: 0o644}, "Above": {Path: "../x", Mode: 0o644}, "Root": {Path: ".", Mode: fs.ModeDir | 0o755},
		"BelowFile": {Path: "new/folder/program/x", Mode: 0o644},
	} {
		bad := *opts
		bad.Add = append(slices.Clone(opts.Add), add)
		if _, err := ext4.WriteTree(t.Context(), newDisk(t), openTree(t, makeTree(t)), &bad); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("%s: %v, want invalid", name, err)
		}
	}
}
