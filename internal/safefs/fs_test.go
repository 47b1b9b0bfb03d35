//go:build linux

package safefs_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/caissonrun/caisson/internal/safefs"
	"golang.org/x/sys/unix"
)

// view makes a folder that looks like a root file system, with a secret of the
// host beside it.
func view(t *testing.T, opts *safefs.Options) (*safefs.FS, string) {
	t.Helper()
	top := t.TempDir()
	root := filepath.Join(top, "root")
	write(t, filepath.Join(top, "secret"), "SECRET")
	write(t, filepath.Join(root, "etc", "passwd"), "inside")
	write(t, filepath.Join(root, "usr", "bin", "tool"), "tool")
	for name, target := range map[string]string{
		"bin": "usr/bin", "abs": "/etc/passwd", "up": "../../../etc/passwd", "leak": "../secret", "loop": "loop",
		"etc/self": "/etc/../etc/./passwd", "usr/bin/way": "../../abs", "host": top,
	} {
		must(t, os.Symlink(target, filepath.Join(root, name)))
	}
	must(t, unix.Mkfifo(filepath.Join(root, "fifo"), 0o644))
	return open(t, root, opts).FS(), root
}

func TestFSFollowsInside(t *testing.T) {
	both(t, func(t *testing.T, opts *safefs.Options) {
		f, _ := view(t, opts)
		for name, want := range map[string]string{
			"etc/passwd": "inside", "abs": "inside", "up": "inside", "etc/self": "inside", "bin/tool": "tool", "bin/way": "inside",
		} {
			if data, err := fs.ReadFile(f, name); err != nil || string(data) != want {
				t.Errorf("ReadFile(%q) = %q, %v, want %q", name, data, err, want)
			}
		}
		for _, name := range []string{"secret", "leak", "host/secret", "host", "nothing"} {
			if data, err := fs.ReadFile(f, name); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("ReadFile(%q) = %q, %v, want ErrNotExist", name, data, err)
			}
		}
		for name, want := range map[string]error{
			"loop": safefs.ErrLink, "fifo": safefs.ErrType, "../secret": fs.ErrInvalid, "/etc/passwd": fs.ErrInvalid, "etc/../etc": fs.ErrInvalid,
		} {
			if file, err := f.Open(name); !errors.Is(err, want) {
				t.Errorf("Open(%q) = %v, %v, want %v", name, file, err, want)
			}
		}
	})
}

func TestFSStat(t *testing.T) {
	both(t, func(t *testing.T, opts *safefs.Options) {
		f, _ := view(t, opts)
		if info, err := f.Stat("bin"); err != nil || !info.IsDir() || info.Name() != "bin" {
			t.Errorf("Stat(bin) = %v, %v, want a folder", info, err)
		}
		if info, err := f.Lstat("bin"); err != nil || info.Mode().Type() != fs.ModeSymlink {
			t.Errorf("Lstat(bin) = %v, %v, want a link", info, err)
		}
		if info, err := f.Lstat("bin/way"); err != nil || info.Mode().Type() != fs.ModeSymlink {
			t.Errorf("Lstat(bin/way) = %v, %v, want a link", info, err)
		}
		if target, err := f.ReadLink("bin/way"); err != nil || target != "../../abs" {
			t.Errorf("ReadLink = %q, %v", target, err)
		}
		entries, err := f.ReadDir(".")
		var got []string
		for _, e := range entries {
			got = append(got, e.Name())
		}
		want := []string{"abs", "bin", "etc", "fifo", "host", "leak", "loop", "up", "usr"}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("ReadDir = %q, %v, want %q", got, err, want)
		}
		if _, err := f.ReadDir("abs"); !errors.Is(err, unix.ENOTDIR) {
			t.Errorf("ReadDir of a file = %v, want ENOTDIR", err)
		}
		must(t, f.Close())
		must(t, f.Close())
		if _, err := f.Stat("bin"); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("Stat after Close = %v, want ErrClosed", err)
		}
	})
}

// The standard library's own checks of a file system.
func TestFSTest(t *testing.T) {
	both(t, func(t *testing.T, opts *safefs.Options) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "a", "b", "c"), "data")
		write(t, filepath.Join(dir, "d"), "")
		must(t, os.Symlink("a/b", filepath.Join(dir, "l")))
		must(t, fstest.TestFS(open(t, dir, opts).FS(), "a/b/c", "d"))
	})
}

func TestGlob(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"out/a.txt", "out/b.txt", "out/c.log", "out/d/e.txt", "out/d/f/g.txt", "top.txt", "out/.h.txt", "out/w.txt/x", "out/\xff.txt"} {
		write(t, filepath.Join(dir, name), "")
	}
	must(t, os.Symlink("out", filepath.Join(dir, "link")))
	r := open(t, dir, nil)
	for pattern, want := range map[string][]string{
		"out/*.txt":       {"out/.h.txt", "out/a.txt", "out/b.txt", "out/w.txt", "out/\xff.txt"},
		"out/[ab].txt":    {"out/a.txt", "out/b.txt"},
		"out/{a,c}.*":     {"out/a.txt", "out/c.log"},
		"{out/a,top}.txt": {"out/a.txt", "top.txt"},
		"**/g.txt":        {"out/d/f/g.txt"},
		"out/**/*.txt":    {"out/.h.txt", "out/a.txt", "out/b.txt", "out/d/e.txt", "out/d/f/g.txt", "out/w.txt", "out/\xff.txt"},
		"out/d":           {"out/d"},
		"out/d/":          {"out/d"},
		"./out/d":         {"out/d"},
		"out":             {"out"},
		".":               {"."},
		"*":               {"link", "out", "top.txt"},
		"out/d/**":        {"out/d/e.txt", "out/d/f"},
		"out/absent":      nil,
		"absent/*":        nil,
		"top.txt/x":       nil,
		"top.txt/*":       nil,
		"out/*/*":         {"out/d/e.txt", "out/d/f", "out/w.txt/x"},
		"link":            {"link"},
	} {
		p, err := safefs.ParsePattern(pattern)
		must(t, err)
		var got []string
		err = r.Glob(t.Context(), p, nil, func(e *safefs.Entry) error { got = append(got, e.Path); return nil })
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("Glob(%q) = %q, %v, want %q", pattern, got, err, want)
		}
	}
	p, err := safefs.ParsePattern("link/*.txt")
	must(t, err)
	if err := r.Glob(t.Context(), p, nil, nil); !errors.Is(err, safefs.ErrLink) {
		t.Errorf("Glob through a link = %v, want ErrLink", err)
	}
}

func TestParsePattern(t *testing.T) {
	for _, text := range []string{"", "/", "/etc/*", "../x", "a/../../x", "a//b", "[", "{a", "a\x00", "//"} {
		if _, err := safefs.ParsePattern(text); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("ParsePattern(%q) = %v, want ErrInvalid", text, err)
		}
	}
	for text, base := range map[string]string{"out/*.txt": "out", "*.txt": ".", "out/d": "out", "out": ".", "a/b/**/c": "a/b", ".": "."} {
		p, err := safefs.ParsePattern(text)
		if err != nil || p.Base() != base {
			t.Errorf("ParsePattern(%q).Base = %v, %v, want %q", text, p, err, base)
		}
		if p.Literal() != !strings.Contains(text, "*") {
			t.Errorf("ParsePattern(%q).Literal = %v", text, p.Literal())
		}
	}
}

func TestResolve(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a/b", "c"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"abs": "/a/b", "rel": "a/../c", "out": "../../../a", "a/up": "..", "loop": "loop", "two": "rel"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := safefs.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	files := root.FS()
	defer files.Close()
	for name, want := range map[string]string{
		".": ".", "a/b": "a/b", "abs": "a/b", "rel": "c", "out/b": "a/b", "a/up/c": "c", "two": "c", "a/up": ".",
	} {
		if got, err := files.Resolve(name); got != want || err != nil {
			t.Errorf("Resolve(%q) = %q, %v, want %q", name, got, err, want)
		}
	}
	for _, name := range []string{"none", "a/none", "loop"} {
		if got, err := files.Resolve(name); name != "loop" && !errors.Is(err, fs.ErrNotExist) || err == nil {
			t.Errorf("Resolve(%q) = %q, %v", name, got, err)
		}
	}
}
