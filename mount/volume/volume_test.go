//go:build unix

package volume_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/mount"
	"github.com/caissonrun/caisson/mount/mounttest"
	"github.com/caissonrun/caisson/mount/volume"
	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestNamed(t *testing.T) {
	dirs := map[string]string{}
	mounttest.Test(t, mounttest.Harness{
		New: func(t *testing.T) mount.Mounter {
			if dirs[t.Name()] == "" {
				dirs[t.Name()] = filepath.Join(t.TempDir(), "volumes")
				must(t, volume.NewStore(dirs[t.Name()]).Create(t.Context(), "data", nil))
			}
			return volume.New(volume.NewStore(dirs[t.Name()]))
		},
		Mount:      caisson.Mount{Source: "data"},
		Persistent: true,
		Exclusive:  true,
		Invalid: map[string]caisson.Mount{
			"path": {Source: "a/b"}, "up": {Source: ".."}, "hidden": {Source: ".data"},
			"mode": {Source: "data", Opts: map[string]string{"mode": "0700"}},
		},
	})
}

func TestOfAnAttempt(t *testing.T) {
	opts := func(name, value string) caisson.Mount { return caisson.Mount{Opts: map[string]string{name: value}} }
	mounttest.Test(t, mounttest.Harness{
		New:   func(t *testing.T) mount.Mounter { return volume.New(volume.NewStore(t.TempDir())) },
		Mount: caisson.Mount{Opts: map[string]string{"mode": "770", "nocopy": "true"}},
		Invalid: map[string]caisson.Mount{
			"mode": opts("mode", "rwx"), "set-id": opts("mode", "4755"), "sticky": opts("mode", "1777"), "no mode": opts("mode", "0"),
			"copy": opts("nocopy", "false"), "size": opts("size", "64m"),
		},
	})
}

func TestMode(t *testing.T) {
	for text, want := range map[string]os.FileMode{"": 0o755, "0700": 0o700, "777": 0o777} {
		m := volume.New(volume.NewStore(t.TempDir()))
		req := request(t, "")
		if text != "" {
			req.Mount.Opts = map[string]string{"mode": text}
		}
		place, err := m.Mount(t.Context(), req)
		must(t, err)
		info, err := os.Stat(place.Source)
		must(t, err)
		if got := info.Mode() &^ os.ModeDir; got != want {
			t.Errorf("mode %q: the volume has %v, want %v", text, got, want)
		}
	}
}

func request(t *testing.T, source string) *mount.Request {
	return &mount.Request{
		Mount: caisson.Mount{Type: "volume", Source: source, Target: "/v"}, Task: caisson.NewTaskID(time.Now()), Attempt: 1,
		Env: mount.Env{UID: os.Geteuid(), GID: os.Getegid()}, Dir: t.TempDir(), Save: func(*mount.Place) error { return nil },
	}
}

func TestErrAbsent(t *testing.T) {
	m := volume.New(volume.NewStore(filepath.Join(t.TempDir(), "absent")))
	req := request(t, "data")
	err := m.Check(req.Mount, req.Env)
	if !errors.Is(err, caisson.ErrNotFound) || !strings.Contains(err.Error(), "caisson volume create data") {
		t.Errorf("Check = %v, want ErrNotFound that says how to make it", err)
	}
	if _, err := m.Mount(t.Context(), req); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("Mount = %v, want ErrNotFound", err)
	}
}

func archive(t *testing.T, headers ...tar.Header) io.Reader {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range headers {
		h.Mode = 0o640
		h.Size = int64(len(h.Uname))
		data := h.Uname
		h.Uname = ""
		must(t, w.WriteHeader(&h))
		_, err := io.WriteString(w, data)
		must(t, err)
	}
	must(t, w.Close())
	return &buf
}

func TestStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "volumes")
	s := volume.NewStore(dir)
	if list, err := s.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("List of nothing = %v, %v", list, err)
	}
	must(t, s.Create(t.Context(), "b", &volume.CreateOptions{Tar: archive(t, tar.Header{Name: "d/f", Uname: "data"})}))
	must(t, s.Create(t.Context(), "a", nil))
	if err := s.Create(t.Context(), "a", nil); !errors.Is(err, caisson.ErrExists) {
		t.Errorf("Create again = %v, want ErrExists", err)
	}
	list, err := s.List(t.Context())
	if err != nil || len(list) != 2 || list[0].Name != "a" || list[1].Name != "b" || list[1].Size <= list[0].Size || list[0].InUse || list[0].CreatedAt.IsZero() || !list[0].UsedAt.IsZero() {
		t.Errorf("List = %+v, %v", list, err)
	}
	var buf bytes.Buffer
	must(t, s.Export(t.Context(), "b", &buf))
	must(t, s.Create(t.Context(), "c", &volume.CreateOptions{Tar: &buf}))
	if data, err := os.ReadFile(filepath.Join(dir, "c", "data", "d", "f")); err != nil || string(data) != "data" {
		t.Errorf("after export and create: %q, %v", data, err)
	}
	must(t, s.Remove(t.Context(), "b"))
	for op, err := range map[string]error{
		"Remove": s.Remove(t.Context(), "b"), "Export": s.Export(t.Context(), "b", io.Discard),
	} {
		if !errors.Is(err, caisson.ErrNotFound) {
			t.Errorf("%s of what is gone = %v, want ErrNotFound", op, err)
		}
	}
	for _, name := range []string{"", ".", "..", "../x", "a/b", "-a", "a\nb", strings.Repeat("a", 65)} {
		for op, err := range map[string]error{
			"Create": s.Create(t.Context(), name, nil), "Remove": s.Remove(t.Context(), name), "Export": s.Export(t.Context(), name, io.Discard),
		} {
			if !errors.Is(err, caisson.ErrInvalid) {
				t.Errorf("%s(%q) = %v, want ErrInvalid", op, name, err)
			}
		}
	}
}

func TestCreateFromFolder(t *testing.T) {
	src := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(src, "d"), 0o750))
	must(t, os.WriteFile(filepath.Join(src, "d", "f"), []byte("data"), 0o640))
	must(t, os.Symlink("/etc/passwd", filepath.Join(src, "l")))
	dir := t.TempDir()
	s := volume.NewStore(dir)
	must(t, s.Create(t.Context(), "v", &volume.CreateOptions{Dir: src}))
	data := filepath.Join(dir, "v", "data")
	if got, err := os.ReadFile(filepath.Join(data, "d", "f")); err != nil || string(got) != "data" {
		t.Errorf("%q, %v", got, err)
	}
	if target, err := os.Readlink(filepath.Join(data, "l")); err != nil || target != "/etc/passwd" {
		t.Errorf("link to %q, %v, want it as it was", target, err)
	}
	info, err := os.Lstat(filepath.Join(data, "l"))
	must(t, err)
	if st := info.Sys().(*syscall.Stat_t); os.Geteuid() == 0 && st.Uid != volume.DefaultOwner {
		t.Errorf("it belongs to %d", st.Uid)
	}
	must(t, unix.Mkfifo(filepath.Join(src, "fifo"), 0o644))
	if err := s.Create(t.Context(), "w", &volume.CreateOptions{Dir: src}); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("Create from a folder with a FIFO = %v, want ErrInvalid", err)
	}
	if err := s.Create(t.Context(), "w", &volume.CreateOptions{Dir: src + "/absent"}); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("Create from nothing = %v, want ErrNotFound", err)
	}
}

// A create that fails leaves nothing.
func TestCreateErrLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	s := volume.NewStore(dir)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, err := range map[string]error{
		"outside":   s.Create(t.Context(), "v", &volume.CreateOptions{Tar: archive(t, tar.Header{Name: "ok", Uname: "x"}, tar.Header{Name: "../x", Uname: "x"})}),
		"damaged":   s.Create(t.Context(), "v", &volume.CreateOptions{Tar: strings.NewReader(strings.Repeat("x", 2000))}),
		"cancelled": s.Create(ctx, "v", &volume.CreateOptions{Tar: archive(t, tar.Header{Name: "ok", Uname: "x"})}),
	} {
		if err == nil {
			t.Errorf("%s: Create succeeded", name)
		}
		if name != "cancelled" && !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("%s: Create = %v, want ErrInvalid", name, err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// What a killed create or remove leaves is removed by Sweep, and nobody sees it
// before; what is being made right now stays.
func TestSweepFinishes(t *testing.T) {
	dir := t.TempDir()
	s := volume.NewStore(dir)
	must(t, s.Create(t.Context(), "v", nil))
	must(t, os.Rename(filepath.Join(dir, "v"), filepath.Join(dir, atomicfile.TempName())))
	if list, err := s.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("List = %v, %v", list, err)
	}
	swept := make(chan error, 1)
	archive := bytes.NewReader(make([]byte, 1024)) // a tar's end
	must(t, s.Create(t.Context(), "w", &volume.CreateOptions{Tar: readerFunc(func(p []byte) (int, error) {
		if len(swept) == 0 {
			swept <- volume.New(s).Sweep(t.Context(), func(string, int) bool { return true })
		}
		return archive.Read(p)
	})}))
	must(t, <-swept)
	entries, err := os.ReadDir(dir)
	must(t, err)
	if len(entries) != 1 || entries[0].Name() != "w" {
		t.Errorf("the folder holds %v, want w alone", entries)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// The files of a volume become those of the user whose task has it, but not
// while another task uses it, and not those that are somebody else's.
func TestChangeOfOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	s := volume.NewStore(dir)
	must(t, s.Create(t.Context(), "v", &volume.CreateOptions{Tar: archive(t, tar.Header{Name: "f", Uname: "data"})}))
	m := volume.New(s)
	owner := func() uint32 {
		var st unix.Stat_t
		must(t, unix.Stat(filepath.Join(dir, "v", "data", "f"), &st))
		return st.Uid
	}
	if owner() != volume.DefaultOwner {
		t.Errorf("it belongs to %d at first", owner())
	}
	reader := request(t, "v")
	reader.UID, reader.GID, reader.Mount.ReadOnly = 2000, 2000, true
	place, err := m.Mount(t.Context(), reader)
	must(t, err)
	if owner() != 2000 || !place.Owned {
		t.Errorf("it belongs to %d, place %+v", owner(), place)
	}
	other := request(t, "v")
	other.UID, other.GID, other.Mount.ReadOnly = 3000, 3000, true
	if _, err := m.Mount(t.Context(), other); !errors.Is(err, caisson.ErrExists) {
		t.Errorf("for another user meanwhile: %v, want ErrExists", err)
	}
	must(t, m.Release(t.Context(), place))
	_, err = m.Mount(t.Context(), other)
	must(t, err)
	if owner() != 3000 {
		t.Errorf("it belongs to %d", owner())
	}
}

func TestErrNewer(t *testing.T) {
	dir := t.TempDir()
	s := volume.NewStore(dir)
	must(t, s.Create(t.Context(), "v", nil))
	must(t, os.WriteFile(filepath.Join(dir, "v", "meta.json"), []byte(`{"version": 2}`), 0o600))
	if _, err := volume.New(s).Mount(t.Context(), request(t, "v")); !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("Mount = %v, want ErrUnsupported", err)
	}
}
