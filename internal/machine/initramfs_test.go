package machine

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"

	"github.com/caissonrun/caisson"
)

// sample is a small initramfs.
func sample(t *testing.T) *Initramfs {
	t.Helper()
	dir := t.TempDir()
	i := &Initramfs{Init: put(t, filepath.Join(dir, "agent"), []byte("#!program")), Config: []byte(`{"a":1}`)}
	for _, name := range []string{"virtio_ring", "virtio", "virtio_blk"} {
		i.Modules = append(i.Modules, Module{name, put(t, filepath.Join(dir, name+".ko"), ko("depends="))})
	}
	return i
}

func TestInitramfs(t *testing.T) {
	i := sample(t)
	var packed, again, raw bytes.Buffer
	n, err := i.WriteTo(&packed)
	if err != nil || n != int64(packed.Len()) {
		t.Fatalf("WriteTo() = %d, %v, want %d", n, err, packed.Len())
	}
	if _, err := i.WriteTo(&again); err != nil || !bytes.Equal(packed.Bytes(), again.Bytes()) {
		t.Errorf("WriteTo() again = %v, want the same bytes", err)
	}
	i.Raw = true
	if _, err := i.WriteTo(&raw); err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(&packed)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(z); err != nil || !bytes.Equal(data, raw.Bytes()) {
		t.Errorf("unpacked: %d bytes, %v, want the %d raw ones", len(data), err, raw.Len())
	}

	list := cpio(t, raw.Bytes(), "--list", "--verbose", "--numeric-uid-gid")
	var got []string
	for _, line := range strings.Split(strings.TrimSpace(list), "\n") {
		// Neither the time nor the size.
		f := strings.Fields(line)
		got = append(got, f[0]+" "+f[2]+":"+f[3]+" "+f[len(f)-1])
	}
	want := []string{
		"drwxr-xr-x 0:0 dev", "drwxr-xr-x 0:0 proc", "drwxr-xr-x 0:0 sys", "drwxr-xr-x 0:0 run", "crw------- 0:0 dev/console",
		"-rwxr-xr-x 0:0 init", "-rw------- 0:0 caisson.json", "drwxr-xr-x 0:0 modules",
		"-rw------- 0:0 modules/0000-virtio_ring.ko", "-rw------- 0:0 modules/0001-virtio.ko",
		"drwxr-xr-x 0:0 modules/disks", "-rw------- 0:0 modules/disks/0002-virtio_blk.ko",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("members, -want +got:\n%s", diff)
	}
	if got := cpio(t, raw.Bytes(), "--extract", "--to-stdout", "init", "caisson.json"); got != "#!program{\"a\":1}" {
		t.Errorf("contents = %q, want the init's and the configuration's", got)
	}
}

// cpio has the usual program read an archive.
func cpio(t *testing.T, data []byte, args ...string) string {
	t.Helper()
	program, err := exec.LookPath("cpio")
	if err != nil {
		need(t, "cpio", err)
	}
	cmd := exec.Command(program, append(args, "--quiet")...)
	cmd.Stdin = bytes.NewReader(data)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("cpio %v: %v", args, err)
	}
	return string(out)
}

func TestInitramfsErrors(t *testing.T) {
	t.Run("NoInit", func(t *testing.T) {
		i := sample(t)
		i.Init += "absent"
		if _, err := i.WriteTo(io.Discard); !errors.Is(err, caisson.ErrNotFound) {
			t.Errorf("WriteTo() = %v, want ErrNotFound", err)
		}
	})
	t.Run("NoModule", func(t *testing.T) {
		i := sample(t)
		i.Modules[1].Path += "absent"
		if _, err := i.WriteTo(io.Discard); !errors.Is(err, caisson.ErrNotFound) || !matches(err, "virtio.ko") {
			t.Errorf("WriteTo() = %v, want ErrNotFound that names the module", err)
		}
	})
	t.Run("LargeConfig", func(t *testing.T) {
		i := sample(t)
		i.Config = make([]byte, maxConfig+1)
		if _, err := i.WriteTo(io.Discard); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("WriteTo() = %v, want ErrInvalid", err)
		}
	})
	t.Run("FullDisk", func(t *testing.T) {
		i := sample(t)
		i.Raw = true
		for limit := range 1500 {
			if _, err := i.WriteTo(&full{limit}); !errors.Is(err, io.ErrShortWrite) {
				t.Fatalf("WriteTo() with room for %d = %v, want ErrShortWrite", limit, err)
			}
		}
	})
}

// full takes n bytes and then none.
type full struct{ n int }

func (f *full) Write(p []byte) (int, error) {
	if f.n -= len(p); f.n < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

func TestArchiveErrors(t *testing.T) {
	tests := []struct {
		name string
		add  func(a *archive)
		err  string
	}{
		{"Nothing", func(*archive) {}, "nothing in it"},
		{"TwoOfAName", func(a *archive) { a.dir("a", 0o755); a.bytes("a", 0o644, nil) }, "two of it"},
		{"Absolute", func(a *archive) { a.dir("/x", 0o755) }, "can't be a name"},
		{"Outside", func(a *archive) { a.dir("../x", 0o755) }, "can't be a name"},
		{"Unclean", func(a *archive) { a.dir("a/../b", 0o755) }, "can't be a name"},
		{"Null", func(a *archive) { a.dir("a\x00b", 0o755) }, "can't be a name"},
		{"Trailer", func(a *archive) { a.bytes(trailer, 0o644, nil) }, "can't be a name"},
		{"BelowFile", func(a *archive) { a.bytes("a", 0o644, nil); a.bytes("a/b/c", 0o644, nil) }, "a is not a folder"},
		{"Shorter", func(a *archive) { a.file("a", 0o644, 5, strings.NewReader("1234")) }, "size has changed"},
		{"Longer", func(a *archive) { a.file("a", 0o644, 3, strings.NewReader("1234")) }, "size has changed"},
		{"Huge", func(a *archive) { a.file("a", 0o644, 1<<32, nil) }, "more than the format"},
		{"Unreadable", func(a *archive) { a.file("a", 0o644, 3, iotest.ErrReader(errors.New("no disk"))) }, "a: no disk"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := newArchive(io.Discard)
			tt.add(a)
			if err := a.close(); !matches(err, tt.err) {
				t.Errorf("close() = %v, want %q", err, tt.err)
			}
		})
	}
}
