package guest_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/guest"
	"github.com/caissonrun/caisson/internal/safefs"
)

// openFolder returns a folder that every user can use, and its name in the guest.
func openFolder(t *testing.T) (dir, name string) {
	t.Helper()
	// Not t.TempDir, whose parent only its owner can enter.
	dir, err := os.MkdirTemp("", "caisson-guest-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir, strings.TrimPrefix(dir, "/")
}

// write makes files.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFS(t *testing.T) {
	directAndShared(t, func(t *testing.T, c *guest.Client) {
		dir, name := openFolder(t)
		big := strings.Repeat("0123456789", 100_000)
		write(t, dir, map[string]string{"a": "first", "sub/b": big, "empty": "", "no\xffutf": "odd"})
		for link, target := range map[string]string{"link": "sub/b", "up": "../../../../etc", "loop": "loop"} {
			if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
				t.Fatal(err)
			}
		}
		files, err := c.FS(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		defer files.Close()
		for file, want := range map[string]string{"a": "first", "sub/b": big, "link": big, "empty": "", "no\xffutf": "odd"} {
			if got, err := fs.ReadFile(files, name+"/"+file); string(got) != want || err != nil {
				t.Errorf("%q: %d bytes, %v", file, len(got), err)
			}
		}
		list, err := files.ReadDir(name)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range list {
			names = append(names, fmt.Sprintf("%s %v", e.Name(), e.Type()))
		}
		want := "a ----------,empty ----------,link L---------,loop L---------,no\xffutf ----------,sub d---------,up L---------"
		if got := strings.Join(names, ","); got != want {
			t.Errorf("ReadDir = %q", got)
		}
		if info, err := files.Stat(name + "/link"); err != nil || info.Size() != int64(len(big)) || info.Name() != "link" {
			t.Errorf("Stat = %v, %v", info, err)
		}
		if info, err := files.Lstat(name + "/link"); err != nil || info.Mode()&fs.ModeSymlink == 0 {
			t.Errorf("Lstat = %v, %v", info, err)
		}
		if target, err := files.ReadLink(name + "/up"); target != "../../../../etc" || err != nil {
			t.Errorf("ReadLink = %q, %v", target, err)
		}
		if _, err := files.Open("proc/self/status"); err == nil {
			t.Error("a file of the kernel's own was opened")
		}
		_, err = files.Open(name + "/none")
		if !errors.Is(err, fs.ErrNotExist) || caisson.KindOf(err) != caisson.ErrNotFound {
			t.Errorf("Open(none) = %v", err)
		}
		if _, err = files.Open(name + "/loop"); err == nil {
			t.Error("a loop was opened")
		}
		for _, bad := range []string{"", "/etc", "../etc", "a/../b", "a//b", "a\x00", "a/"} {
			if _, err = files.Open(bad); !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("Open(%q) = %v", bad, err)
			}
		}
		if _, err = files.Open("dev/zero"); err == nil {
			t.Error("a device was opened")
		}
	})
}

// TestFSClose ends what is under way.
func TestFSClose(t *testing.T) {
	checkLeaks(t)
	c := dial(t, startAgent(t, nil))
	dir, name := openFolder(t)
	write(t, dir, map[string]string{"a": strings.Repeat("x", 1<<20)})
	files, err := c.FS(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	f, err := files.Open(name + "/a")
	if err != nil {
		t.Fatal(err)
	}
	files.Close()
	eventually(t, "reading fails", func() bool {
		_, err := f.Read(make([]byte, 4096))
		return errors.Is(err, fs.ErrClosed)
	})
	if _, err := files.Stat("."); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Stat after Close = %v", err)
	}
}

func TestTarAndPut(t *testing.T) {
	directAndShared(t, func(t *testing.T, c *guest.Client) {
		ctx := testContext(t)
		dir, name := openFolder(t)
		write(t, dir, map[string]string{"from/a": "first", "from/sub/b": strings.Repeat("x", 1<<20)})
		if err := os.Symlink("a", filepath.Join(dir, "from/link")); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(dir, "to"), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, "to"), 0o777); err != nil {
			t.Fatal(err)
		}
		var stream bytes.Buffer
		if err := c.Tar(ctx, "/"+name+"/from", &stream); err != nil {
			t.Fatal(err)
		}
		var owner *guest.Owner
		if os.Geteuid() == 0 && !strings.Contains(t.Name(), "ordinary") {
			owner = &guest.Owner{UID: 777, GID: 888}
		}
		if err := c.Put(ctx, name+"/to", bytes.NewReader(stream.Bytes()), owner); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(dir, "to/from/link"))
		if string(got) != "first" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		if owner != nil {
			info, err := os.Stat(dir + "/to/from/sub/b")
			if err != nil {
				t.Fatal(err)
			}
			if is := info.Sys().(*syscall.Stat_t); is.Uid != 777 || is.Gid != 888 {
				t.Errorf("the file is %d:%d's", is.Uid, is.Gid)
			}
		}
		if owner != nil {
			// Whose rights do not suffice is refused.
			if err := c.Put(ctx, name+"/from", bytes.NewReader(stream.Bytes()), owner); !errors.Is(err, caisson.ErrDenied) {
				t.Errorf("Put as another user = %v", err)
			}
		}
		// The same onto the host.
		root, err := safefs.Open(t.TempDir(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		if err := c.Fetch(ctx, name+"/from", root, ".", nil); err != nil {
			t.Fatal(err)
		}
		if info, err := root.Stat("from/sub/b"); err != nil || info.Size != 1<<20 {
			t.Errorf("%+v, %v", info, err)
		}
		err = c.Fetch(ctx, name+"/from", root, ".", &safefs.UntarOptions{MaxBytes: 1000})
		if !errors.Is(err, safefs.ErrTooMany) {
			t.Errorf("Fetch with a limit = %v", err)
		}
		if err := c.Tar(ctx, name+"/none", io.Discard); !errors.Is(err, caisson.ErrNotFound) {
			t.Errorf("Tar(none) = %v", err)
		}
		if err := c.Ping(ctx); err != nil {
			t.Error(err)
		}
	})
}

// TestPutBad refuses what leads out of the folder, also while much of it is still to
// come.
func TestPutBad(t *testing.T) {
	checkLeaks(t)
	c := dial(t, startAgent(t, nil))
	t.Run("direct", func(t *testing.T) { putBad(t, c) })
	t.Run("shared", func(t *testing.T) { putBad(t, share(t, c)) })
}

func putBad(t *testing.T, c *guest.Client) {
	ctx := testContext(t)
	dir, name := openFolder(t)
	for entry, kind := range map[string]byte{"../out": tar.TypeReg, "/abs": tar.TypeReg, "dev": tar.TypeChar} {
		var stream bytes.Buffer
		w := tar.NewWriter(&stream)
		size := int64(1 << 20)
		if kind != tar.TypeReg {
			size = 0
		}
		if err := w.WriteHeader(&tar.Header{Name: entry, Typeflag: kind, Size: size, Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write(make([]byte, size))
		w.Close()
		if err := c.Put(ctx, name, &stream, nil); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("Put(%s) = %v", entry, err)
		}
	}
	if list, _ := os.ReadDir(dir); len(list) != 0 {
		t.Errorf("left: %v", list)
	}
	bad := errors.New("the source is bad")
	if err := c.Put(ctx, name, io.MultiReader(strings.NewReader("x"), badReader{bad}), nil); !errors.Is(err, bad) {
		t.Errorf("Put = %v", err)
	}
	if err := c.Put(ctx, "no/such", strings.NewReader(""), nil); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("Put = %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := c.Tar(short, name, blockedWriter{short}); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Tar = %v", err)
	}
}

type badReader struct{ err error }

func (r badReader) Read([]byte) (int, error) { return 0, r.err }

// A blockedWriter takes nothing until its context ends.
type blockedWriter struct{ ctx context.Context }

func (w blockedWriter) Write(p []byte) (int, error) {
	<-w.ctx.Done()
	return 0, w.ctx.Err()
}
