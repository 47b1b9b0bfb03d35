//go:build linux

package safefs_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/internal/slowtest"
	"golang.org/x/sys/unix"
)

// both runs f with each way of resolving names.
func both(t *testing.T, f func(t *testing.T, opts *safefs.Options)) {
	t.Run("kernel", func(t *testing.T) { f(t, &safefs.Options{}) })
	t.Run("by element", func(t *testing.T) { f(t, safefs.ByElement(safefs.Options{})) })
}

func open(t *testing.T, dir string, opts *safefs.Options) *safefs.Root {
	t.Helper()
	r, err := safefs.Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// needRoot skips what only root can set up.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, data string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(data), 0o644))
}

// hostile makes a folder with every trick that a task can leave, and beside it
// a secret that must never be seen.
func hostile(t *testing.T) (dir, secret string) {
	t.Helper()
	top := t.TempDir()
	dir, secret = filepath.Join(top, "work"), filepath.Join(top, "secret")
	write(t, secret, "SECRET")
	write(t, filepath.Join(top, "out", "secret"), "SECRET")
	write(t, filepath.Join(dir, "ok"), "fine")
	write(t, filepath.Join(dir, "d", "ok"), "fine")
	for name, target := range map[string]string{
		"abs": secret, "up": "../secret", "in": "ok", "loop": "loop", "dangling": "nowhere",
		"absdir": top, "updir": "..", "indir": "d", "proc": "/proc/self/root", "fd": "/proc/self/fd/0", "root": "/",
	} {
		must(t, os.Symlink(target, filepath.Join(dir, name)))
	}
	must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o644))
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(sock) })
	must(t, unix.Bind(sock, &unix.SockaddrUnix{Name: filepath.Join(dir, "sock")}))
	if os.Geteuid() == 0 {
		must(t, unix.Mknod(filepath.Join(dir, "device"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))))
	}
	return dir, secret
}

func TestOpen(t *testing.T) {
	both(t, func(t *testing.T, opts *safefs.Options) {
		dir, _ := hostile(t)
		r := open(t, dir, opts)
		for _, name := range []string{"ok", "d/ok"} {
			data, err := r.ReadFile(name, 100)
			if err != nil || string(data) != "fine" {
				t.Errorf("ReadFile(%q) = %q, %v", name, data, err)
			}
		}
		refused := map[string]error{
			"abs": safefs.ErrLink, "up": safefs.ErrLink, "in": safefs.ErrLink, "loop": safefs.ErrLink,
			"dangling": safefs.ErrLink, "absdir/secret": safefs.ErrLink, "updir/secret": safefs.ErrLink,
			"indir/ok": safefs.ErrLink, "proc/etc/passwd": safefs.ErrLink, "fd": safefs.ErrLink,
			"root/etc/passwd": safefs.ErrLink, "indir": safefs.ErrLink,
			"fifo": safefs.ErrType, "sock": safefs.ErrType, "d": unix.EISDIR, "absent": fs.ErrNotExist,
			"d/absent": fs.ErrNotExist, "ok/x": unix.ENOTDIR,
			"": fs.ErrInvalid, "..": fs.ErrInvalid, "../secret": fs.ErrInvalid, "/etc/passwd": fs.ErrInvalid,
			"d/../../secret": fs.ErrInvalid, "d//ok": fs.ErrInvalid, "./ok": fs.ErrInvalid, "d/": fs.ErrInvalid,
			"ok\x00": fs.ErrInvalid, "/": fs.ErrInvalid, ".": fs.ErrInvalid,
		}
		if os.Geteuid() == 0 {
			refused["device"] = safefs.ErrType
		}
		for name, want := range refused {
			f, err := r.Open(name)
			if !errors.Is(err, want) {
				t.Errorf("Open(%q) = %v, want %v", name, err, want)
			}
			if err == nil {
				f.Close()
			}
		}
	})
}

func TestStatAndReadLink(t *testing.T) {
	both(t, func(t *testing.T, opts *safefs.Options) {
		dir, secret := hostile(t)
		r := open(t, dir, opts)
		for name, want := range map[string]fs.FileMode{
			"ok": 0, "d": fs.ModeDir, "abs": fs.ModeSymlink, "fifo": fs.ModeNamedPipe, "sock": fs.ModeSocket, ".": fs.ModeDir,
		} {
			info, err := r.Stat(name)
			if err != nil || info.Mode.Type() != want {
				t.Errorf("Stat(%q) = %v, %v, want type %v", name, info.Mode, err, want)
			}
		}
		if target, err := r.ReadLink("abs"); err != nil || target != secret {
			t.Errorf("ReadLink = %q, %v, want %q", target, err, secret)
		}
		if _, err := r.ReadLink("ok"); !errors.Is(err, unix.EINVAL) {
			t.Errorf("ReadLink of a file = %v, want EINVAL", err)
		}
		if _, err := r.ReadLink("updir/secret"); !errors.Is(err, safefs.ErrLink) {
			t.Errorf("ReadLink through a link = %v, want ErrLink", err)
		}
		long := strings.Repeat("x/", 2000)
		must(t, os.Symlink(long, filepath.Join(dir, "long")))
		if target, err := r.ReadLink("long"); err != nil || target != long {
			t.Errorf("ReadLink of a long link = %d bytes, %v", len(target), err)
		}
	})
}

func TestReadFileLimit(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a"), "12345")
	r := open(t, dir, nil)
	if data, err := r.ReadFile("a", 5); err != nil || string(data) != "12345" {
		t.Errorf("ReadFile at the limit = %q, %v", data, err)
	}
	if _, err := r.ReadFile("a", 4); !errors.Is(err, safefs.ErrTooMany) {
		t.Errorf("ReadFile over the limit = %v, want ErrTooMany", err)
	}
}

// A process that swaps a file for a link, or a folder for a link to a folder,
// never gets anything foreign read.
func TestSwapRace(t *testing.T) {
	both(t, func(t *testing.T, opts *safefs.Options) {
		top := t.TempDir()
		dir := filepath.Join(top, "work")
		write(t, filepath.Join(top, "other", "f"), "SECRET")
		write(t, filepath.Join(dir, "a", "f"), "fine")
		must(t, os.Symlink(filepath.Join(top, "other"), filepath.Join(dir, "b")))
		write(t, filepath.Join(dir, "x"), "fine")
		must(t, os.Symlink(filepath.Join(top, "other", "f"), filepath.Join(dir, "y")))
		r := open(t, dir, opts)

		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			for ctx.Err() == nil {
				if err := errors.Join(exchange(dir, "a", "b"), exchange(dir, "x", "y")); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
		reads := 0
		for range 20000 {
			for _, name := range []string{"a/f", "x"} {
				data, err := r.ReadFile(name, 100)
				if err == nil && string(data) != "fine" {
					t.Fatalf("ReadFile(%q) = %q: a foreign file", name, data)
				}
				if err == nil {
					reads++
				}
			}
		}
		stop()
		must(t, <-done)
		if reads == 0 {
			t.Error("the race was never lost by the attacker: nothing was read")
		}
	})
}

// exchange swaps two names, as a task would.
func exchange(dir, a, b string) error {
	a, b = filepath.Join(dir, a), filepath.Join(dir, b)
	temp := filepath.Join(dir, "temp")
	return errors.Join(os.Rename(a, temp), os.Rename(b, a), os.Rename(temp, b))
}

func TestMountNotCrossed(t *testing.T) {
	needRoot(t)
	both(t, func(t *testing.T, opts *safefs.Options) {
		dir := t.TempDir()
		must(t, os.Mkdir(filepath.Join(dir, "m"), 0o755))
		must(t, unix.Mount("test", filepath.Join(dir, "m"), "tmpfs", 0, "size=64k"))
		t.Cleanup(func() { unix.Unmount(filepath.Join(dir, "m"), unix.MNT_DETACH) })
		write(t, filepath.Join(dir, "m", "f"), "inside of the mount")
		r := open(t, dir, opts)
		if _, err := r.Open("m/f"); !errors.Is(err, safefs.ErrMount) {
			t.Errorf("Open = %v, want ErrMount", err)
		}
		err := r.Walk(t.Context(), ".", nil, func(*safefs.Entry) error { return nil })
		if !errors.Is(err, safefs.ErrMount) {
			t.Errorf("Walk = %v, want ErrMount", err)
		}
		if got := walk(t, r, ".", &safefs.WalkOptions{SkipMounts: true}); !slices.Equal(got, []string{".", "m"}) {
			t.Errorf("Walk with SkipMounts = %q, want the mount point only", got)
		}
		err = r.RemoveAll(t.Context(), ".")
		if !errors.Is(err, safefs.ErrMount) || !strings.Contains(err.Error(), "m") {
			t.Errorf("RemoveAll = %v, want ErrMount that names it", err)
		}
		if err := r.ChownAll(t.Context(), ".", safefs.Owner{UID: 1, GID: 1}, nil); !errors.Is(err, safefs.ErrMount) {
			t.Errorf("ChownAll = %v, want ErrMount", err)
		}
		info, err := os.Stat(filepath.Join(dir, "m", "f"))
		if err != nil || info.Sys() == nil {
			t.Errorf("the mount's file: %v, want untouched", err)
		}
		crossing := open(t, dir, &safefs.Options{CrossMounts: true})
		if _, err := crossing.ReadFile("m/f", 100); err != nil {
			t.Errorf("with CrossMounts: %v", err)
		}
		if err := crossing.RemoveAll(t.Context(), "."); !errors.Is(err, safefs.ErrMount) {
			t.Errorf("RemoveAll with CrossMounts = %v, want ErrMount", err)
		}
		if _, err := os.Stat(filepath.Join(dir, "m", "f")); err != nil {
			t.Error(err)
		}
	})
}

// What /proc and /sys show is never read as if it were data.
func TestPseudoFiles(t *testing.T) {
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("no /proc here")
	}
	r := open(t, "/proc", &safefs.Options{CrossMounts: true})
	if _, err := r.Open("uptime"); !errors.Is(err, safefs.ErrType) {
		t.Errorf("Open of a file of /proc = %v, want ErrType", err)
	}
}

func walk(t *testing.T, r *safefs.Root, name string, opts *safefs.WalkOptions) []string {
	t.Helper()
	var got []string
	err := r.Walk(t.Context(), name, opts, func(e *safefs.Entry) error {
		got = append(got, e.Path)
		return nil
	})
	if err != nil {
		t.Errorf("Walk: %v", err)
	}
	return got
}

func TestWalk(t *testing.T) {
	both(t, func(t *testing.T, opts *safefs.Options) {
		dir := t.TempDir()
		odd := []string{"a\nb", "a\tb", ` \`, "c:d", "-rf", "~", "é", "\xff\xfe", strings.Repeat("n", 255), "..."}
		want := []string{"."}
		for _, name := range odd {
			write(t, filepath.Join(dir, "d", name), "x")
		}
		must(t, os.Mkdir(filepath.Join(dir, "empty"), 0o755))
		must(t, os.Symlink("/etc", filepath.Join(dir, "link")))
		slices.Sort(odd)
		want = append(want, "d")
		for _, name := range odd {
			want = append(want, "d/"+name)
		}
		want = append(want, "empty", "link")
		r := open(t, dir, opts)
		if got := walk(t, r, ".", nil); !slices.Equal(got, want) {
			t.Errorf("Walk = %q, want %q", got, want)
		}
		if got := walk(t, r, "d/é", nil); !slices.Equal(got, []string{"d/é"}) {
			t.Errorf("Walk of a file = %q", got)
		}
		if got := walk(t, r, ".", &safefs.WalkOptions{MaxDepth: 1}); !slices.Equal(got, []string{".", "d", "empty", "link"}) {
			t.Errorf("Walk of one level = %q", got)
		}
		none := func(*safefs.Entry) error { return nil }
		err := r.Walk(t.Context(), ".", &safefs.WalkOptions{MaxEntries: 5}, none)
		if !errors.Is(err, safefs.ErrTooMany) {
			t.Errorf("Walk of more than MaxEntries = %v, want ErrTooMany", err)
		}
		if err := r.Walk(t.Context(), "link/passwd", nil, none); !errors.Is(err, safefs.ErrLink) {
			t.Errorf("Walk through a link = %v, want ErrLink", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.Walk(ctx, ".", nil, none); !errors.Is(err, context.Canceled) {
			t.Errorf("Walk with a cancelled context = %v", err)
		}
	})
}

func TestWalkSkip(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a/1", "a/2", "b/1", "c"} {
		write(t, filepath.Join(dir, name), "")
	}
	r := open(t, dir, nil)
	for at, want := range map[string][]string{
		"a":   {".", "a", "b", "b/1", "c"},
		"a/1": {".", "a", "a/1", "b", "b/1", "c"},
		".":   {"."},
	} {
		var got []string
		err := r.Walk(t.Context(), ".", nil, func(e *safefs.Entry) error {
			got = append(got, e.Path)
			if e.Path == at {
				return fs.SkipDir
			}
			return nil
		})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("SkipDir at %s: %q, %v, want %q", at, got, err, want)
		}
	}
}

func TestEntryOpen(t *testing.T) {
	dir, _ := hostile(t)
	r := open(t, dir, nil)
	opened := 0
	err := r.Walk(t.Context(), ".", nil, func(e *safefs.Entry) error {
		f, err := e.Open()
		if (err == nil) != e.Mode.IsRegular() {
			t.Errorf("Open(%s %v) = %v", e.Path, e.Mode, err)
		}
		if err != nil {
			return nil
		}
		defer f.Close()
		opened++
		if data, _ := io.ReadAll(f); string(data) != "fine" {
			t.Errorf("%s holds %q", e.Path, data)
		}
		return nil
	})
	if err != nil || opened != 2 {
		t.Errorf("Walk opened %d files, %v, want 2", opened, err)
	}
}

// deep makes a tree of so many levels, from the inside as a task would.
func deep(t *testing.T, dir string, levels int) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	for range levels {
		must(t, unix.Mkdirat(fd, "deeper", 0o755))
		next, err := unix.Openat(fd, "deeper", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, err)
		unix.Close(fd)
		fd = next
	}
	file, err := unix.Openat(fd, "bottom", unix.O_CREAT|unix.O_WRONLY, 0o644)
	must(t, err)
	unix.Close(file)
	unix.Close(fd)
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/dev/fd")
	must(t, err)
	return len(entries)
}

func TestDeepTree(t *testing.T) {
	both(t, func(t *testing.T, opts *safefs.Options) {
		const levels = 4096
		dir := t.TempDir()
		deep(t, dir, levels)
		before := descriptors(t)
		r := open(t, dir, opts)
		entries, most, bottom := 0, 0, ""
		err := r.Walk(t.Context(), ".", nil, func(e *safefs.Entry) error {
			if entries++; entries%512 == 0 {
				most = max(most, descriptors(t)-before)
			}
			bottom = e.Path
			return nil
		})
		if err != nil || entries != levels+2 {
			t.Errorf("Walk = %d entries, %v, want %d", entries, err, levels+2)
		}
		if most > 100 {
			t.Errorf("Walk had %d descriptors open", most)
		}
		if f, err := r.Open(bottom); err != nil {
			t.Errorf("Open of a path of %d bytes: %v", len(bottom), err)
		} else {
			f.Close()
		}
		if err := r.RemoveAll(t.Context(), "."); err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("%d entries left", len(left))
		}
	})
}

func TestManyEntries(t *testing.T) {
	dir := t.TempDir()
	files := 100_000
	if !slowtest.Wanted() {
		files = 20_000
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	for i := range files {
		f, err := unix.Openat(fd, fmt.Sprintf("%06d", i), unix.O_CREAT|unix.O_WRONLY, 0o644)
		must(t, err)
		unix.Close(f)
	}
	unix.Close(fd)
	r := open(t, dir, nil)
	got := walk(t, r, ".", nil)
	if len(got) != files+1 || !slices.IsSorted(got) {
		t.Errorf("Walk = %d entries, sorted: %v", len(got), slices.IsSorted(got))
	}
	must(t, r.RemoveAll(t.Context(), "."))
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("%d entries left", len(left))
	}
}

func TestUsage(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a"), strings.Repeat("x", 100_000))
	f, err := os.Create(filepath.Join(dir, "sparse"))
	must(t, err)
	must(t, f.Truncate(1<<40))
	f.Close()
	bytes, files, err := open(t, dir, nil).Usage(t.Context(), ".")
	if err != nil || files != 3 || bytes < 100_000 || bytes > 1<<20 {
		t.Errorf("Usage = %d bytes, %d files, %v, want what is on disk", bytes, files, err)
	}
}

func TestKind(t *testing.T) {
	for err, want := range map[error]caisson.Kind{
		unix.ENOSPC: caisson.ErrExhausted, unix.EDQUOT: caisson.ErrExhausted, unix.ENOENT: caisson.ErrNotFound,
		unix.EACCES: caisson.ErrDenied, safefs.ErrLink: caisson.ErrDenied, safefs.ErrType: caisson.ErrInvalid,
		safefs.ErrTooMany: caisson.ErrInvalid, fs.ErrInvalid: caisson.ErrInvalid, io.EOF: caisson.ErrUnknown,
		caisson.ErrUnavailable: caisson.ErrUnavailable,
	} {
		if got := safefs.Kind(&fs.PathError{Op: "open", Path: "x", Err: err}); got != want {
			t.Errorf("Kind(%v) = %v, want %v", err, got, want)
		}
		sorted := safefs.Sorted(caisson.OpStageIn, "x", &fs.PathError{Op: "open", Path: "x", Err: err})
		if !errors.Is(sorted, want) || !errors.Is(sorted, err) {
			t.Errorf("Sorted(%v) = %v, want kind %v", err, sorted, want)
		}
	}
	if err := safefs.Sorted(caisson.OpStageIn, "x", context.Canceled); !errors.Is(err, context.Canceled) || errors.As(err, new(*caisson.Error)) {
		t.Errorf("Sorted(Canceled) = %#v, want it to stay unsorted", err)
	}
	if safefs.Sorted(caisson.OpStageIn, "x", nil) != nil {
		t.Error("Sorted(nil) is an error")
	}
}

func TestClosed(t *testing.T) {
	r, err := safefs.Open(t.TempDir(), nil)
	must(t, err)
	must(t, r.Close())
	if _, err := r.Open("a"); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Open after Close = %v, want ErrClosed", err)
	}
	if err := r.MkdirAll("a/b", 0o755, nil); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("MkdirAll after Close = %v, want ErrClosed", err)
	}
}

func TestFromFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "x")
	f, err := os.Open(path)
	must(t, err)
	if _, err := safefs.FromFile(f, nil); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("FromFile of a file = %v, want ENOTDIR", err)
	}
	if _, err := f.Stat(); !errors.Is(err, fs.ErrClosed) {
		t.Error("FromFile left the file open")
	}
	if _, err := safefs.Open(path, nil); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("Open of a file = %v, want ENOTDIR", err)
	}
}

func TestWrite(t *testing.T) {
	both(t, func(t *testing.T, opts *safefs.Options) {
		dir, secret := hostile(t)
		r := open(t, dir, opts)
		must(t, r.WriteFile("new/deep/f", []byte("data"), 0o640, nil))
		info, err := os.Stat(filepath.Join(dir, "new", "deep", "f"))
		if err != nil || info.Mode().Perm() != 0o640 || info.Size() != 4 {
			t.Errorf("written: %v, %v", info, err)
		}
		must(t, r.WriteFile("abs", []byte("mine"), 0o644, nil))
		if info, err := r.Stat("abs"); err != nil || !info.Mode.IsRegular() {
			t.Errorf("after WriteFile over a link: %v, %v, want a file", info.Mode, err)
		}
		for _, name := range []string{"updir/secret", "indir/x", "absdir/new"} {
			if err := r.WriteFile(name, []byte("x"), 0o644, nil); !errors.Is(err, safefs.ErrLink) {
				t.Errorf("WriteFile(%q) = %v, want ErrLink", name, err)
			}
			if err := r.MkdirAll(name, 0o755, nil); !errors.Is(err, safefs.ErrLink) {
				t.Errorf("MkdirAll(%q) = %v, want ErrLink", name, err)
			}
			if _, err := r.Create(name, 0o644, nil); !errors.Is(err, safefs.ErrLink) {
				t.Errorf("Create(%q) = %v, want ErrLink", name, err)
			}
			if err := r.Symlink("x", name, nil); !errors.Is(err, safefs.ErrLink) {
				t.Errorf("Symlink(%q) = %v, want ErrLink", name, err)
			}
			if err := r.Rename("ok", name); !errors.Is(err, safefs.ErrLink) {
				t.Errorf("Rename(%q) = %v, want ErrLink", name, err)
			}
		}
		if _, err := r.Create("dangling", 0o644, nil); !errors.Is(err, fs.ErrExist) {
			t.Errorf("Create at a dangling link = %v, want ErrExist", err)
		}
		if err := r.WriteFile("d", nil, 0o644, nil); err == nil {
			t.Error("WriteFile over a folder succeeded")
		}
		if err := r.Link("up", "hard"); !errors.Is(err, safefs.ErrLink) {
			t.Errorf("Link to a link = %v, want ErrLink", err)
		}
		if data, _ := os.ReadFile(secret); string(data) != "SECRET" {
			t.Errorf("the secret is now %q", data)
		}
		entries, err := os.ReadDir(dir)
		must(t, err)
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".caisson-") {
				t.Errorf("temporary file %s left", e.Name())
			}
		}
	})
}

func TestMkdirAllOwner(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	r := open(t, dir, nil)
	must(t, r.MkdirAll("a/b", 0o770, &safefs.Owner{UID: 1000, GID: 1001}))
	for _, name := range []string{"a", "a/b"} {
		info, err := r.Stat(name)
		if err != nil || info.UID != 1000 || info.GID != 1001 || info.Mode.Perm() != 0o770 {
			t.Errorf("Stat(%s) = %+v, %v, want 1000:1001 0770", name, info, err)
		}
	}
	if info, _ := r.Stat("."); info.UID != 0 {
		t.Error("the root folder changed its owner")
	}
}

func TestChtimesAndChmod(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "d", "f"), "x")
	r := open(t, dir, nil)
	when := time.Date(2001, 2, 3, 4, 5, 6, 7000, time.UTC)
	for _, name := range []string{"d/f", "d", "."} {
		must(t, r.Chmod(name, 0o711|fs.ModeSetuid))
		must(t, r.Chtimes(name, when))
		info, err := r.Stat(name)
		if err != nil || !info.ModTime.Equal(when) || info.Mode&^fs.ModeDir != 0o711 {
			t.Errorf("Stat(%s) = %v %v, %v", name, info.Mode, info.ModTime, err)
		}
	}
}
