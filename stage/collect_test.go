package stage_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/stage"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// work makes a work folder: names that end in "/" are folders, "a -> b" links.
func work(t *testing.T, names ...string) *safefs.Root {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		link, target, isLink := strings.Cut(name, " -> ")
		path := filepath.Join(dir, link)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		switch {
		case isLink:
			must(t, os.Symlink(target, path))
		case strings.HasSuffix(name, "/"):
			must(t, os.MkdirAll(path, 0o755))
		default:
			must(t, os.WriteFile(path, []byte(name), 0o644))
		}
	}
	r, err := safefs.Open(dir, nil)
	must(t, err)
	t.Cleanup(func() { r.Close() })
	return r
}

// show tells of each file its path, where it goes, and what it is.
func show(out *caisson.Output, files []stage.File) []string {
	var got []string
	for i := range files {
		f := &files[i]
		text := fmt.Sprintf("%s=>%s", f.Path, stage.Destination(out, f))
		switch {
		case f.Mode.IsDir():
			text += "/"
		case f.Link != "":
			text += "@" + f.Link
		}
		got = append(got, text)
	}
	return got
}

func TestCollect(t *testing.T) {
	names := []string{"out/a.txt", "out/b.txt", "out/sub/c.txt", "out/empty/", "out/now -> a.txt", "top.txt", "x/y/z"}
	for _, c := range []struct {
		path, to string
		want     []string
	}{
		{"out/*.txt", "file:r/", []string{"out/a.txt=>file:r/a.txt", "out/b.txt=>file:r/b.txt"}},
		{"out/a.txt", "file:r/", []string{"out/a.txt=>file:r/a.txt"}},
		{"out/a.txt", "file:r", []string{"out/a.txt=>file:r"}},
		{"out/**/*.txt", "file:r/", []string{"out/a.txt=>file:r/a.txt", "out/b.txt=>file:r/b.txt", "out/sub/c.txt=>file:r/sub/c.txt"}},
		{"out/sub", "file:r", []string{"out/sub=>file:r/", "out/sub/c.txt=>file:r/c.txt"}},
		{"out/sub/", "file:r/", []string{"out/sub=>file:r/sub/", "out/sub/c.txt=>file:r/sub/c.txt"}},
		{"out", "file:r", []string{
			"out=>file:r/", "out/a.txt=>file:r/a.txt", "out/b.txt=>file:r/b.txt", "out/empty=>file:r/empty/",
			"out/now=>file:r/now@a.txt", "out/sub=>file:r/sub/", "out/sub/c.txt=>file:r/sub/c.txt",
		}},
		{"x/*", "file:r/", []string{"x/y=>file:r/y/", "x/y/z=>file:r/y/z"}},
		{"out/[an]*", "file:r/", []string{"out/a.txt=>file:r/a.txt", "out/now=>file:r/now@a.txt"}},
		{"*.txt", "file:r/", []string{"top.txt=>file:r/top.txt"}},
	} {
		out := &caisson.Output{Path: c.path, To: c.to}
		files, err := stage.Collect(t.Context(), work(t, names...), out)
		if got := show(out, files); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("Collect(%s to %s) = %q, %v, want %q", c.path, c.to, got, err, c.want)
		}
	}
}

func TestCollectOpens(t *testing.T) {
	files, err := stage.Collect(t.Context(), work(t, "out/a"), &caisson.Output{Path: "out/a", To: "file:r/"})
	must(t, err)
	f, err := files[0].Open()
	must(t, err)
	defer f.Close()
	data := make([]byte, 10)
	n, _ := f.Read(data)
	if string(data[:n]) != "out/a" || files[0].Size != 5 || files[0].Mode != 0o644 {
		t.Errorf("%q, size %d, mode %v", data[:n], files[0].Size, files[0].Mode)
	}
}

func TestCollectRefuses(t *testing.T) {
	hostile := []string{
		"out/ok", "out/abs -> /etc/passwd", "out/up -> ../../x", "out/loop -> loop", "out/side -> ../top",
		"out/sneak/l -> ..", "out/far -> sneak/l/..", "top", "link -> out", "etc -> /etc",
	}
	for _, c := range []struct {
		path, to string
		kind     caisson.Kind
		files    int // that can be had all the same
		names    []string
	}{
		{"out", "file:r", caisson.ErrDenied, 5, []string{"out/abs", "out/up", "out/side", "out/far"}},
		{"out/abs", "file:r", caisson.ErrDenied, 0, []string{"/etc/passwd"}},
		{"out/*", "file:r/", caisson.ErrDenied, 3, []string{"out/abs", "out/sneak/l"}},
		{"link/ok", "file:r", caisson.ErrDenied, 0, []string{"link"}},
		{"link/*", "file:r/", caisson.ErrDenied, 0, []string{"link"}},
		{"etc/passwd", "file:r", caisson.ErrDenied, 0, nil},
		{"etc/**", "file:r/", caisson.ErrDenied, 0, nil},
		{"link", "file:r", caisson.ErrDenied, 0, nil},
		{"absent", "file:r", caisson.ErrNotFound, 0, []string{"absent"}},
		{"*.absent", "file:r/", caisson.ErrNotFound, 0, nil},
		{"../x", "file:r", caisson.ErrInvalid, 0, nil},
		{"/etc/passwd", "file:r", caisson.ErrInvalid, 0, nil},
		{"", "file:r", caisson.ErrInvalid, 0, nil},
		{"[", "file:r", caisson.ErrInvalid, 0, nil},
	} {
		files, err := stage.Collect(t.Context(), work(t, hostile...), &caisson.Output{Path: c.path, To: c.to})
		if !errors.Is(err, c.kind) || len(files) != c.files {
			t.Errorf("Collect(%q) = %d files, %v, want %d and %v", c.path, len(files), err, c.files, c.kind)
		}
		for _, name := range c.names {
			if err != nil && !strings.Contains(err.Error(), name) {
				t.Errorf("Collect(%q) = %v, want it to name %s", c.path, err, name)
			}
		}
	}
}

func TestCollectOptional(t *testing.T) {
	files, err := stage.Collect(t.Context(), work(t), &caisson.Output{Path: "absent", To: "file:r", Optional: true})
	if len(files) != 0 || err != nil {
		t.Errorf("Collect = %v, %v, want nothing", files, err)
	}
}

func TestCollectMaxSize(t *testing.T) {
	out := &caisson.Output{Path: "*", To: "file:r/", MaxSize: 3}
	if _, err := stage.Collect(t.Context(), work(t, "a", "b", "c"), out); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if _, err := stage.Collect(t.Context(), work(t, "a", "b", "cd"), out); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("over the limit: %v, want ErrInvalid", err)
	}
}

func TestCollectSpecial(t *testing.T) {
	w := work(t, "out/ok")
	must(t, syscall.Mkfifo(filepath.Join(w.Name(), "out", "fifo"), 0o644))
	for _, path := range []string{"out", "out/*"} {
		files, err := stage.Collect(t.Context(), w, &caisson.Output{Path: path, To: "file:r/"})
		if err != nil || slices.ContainsFunc(files, func(f stage.File) bool { return f.Mode&fs.ModeNamedPipe != 0 }) {
			t.Errorf("Collect(%s) = %v, %v, want the FIFO left out", path, files, err)
		}
	}
	if _, err := stage.Collect(t.Context(), w, &caisson.Output{Path: "out/fifo", To: "file:r"}); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("Collect of the FIFO itself = %v, want ErrInvalid", err)
	}
}

func TestCheckDestinations(t *testing.T) {
	w := work(t, "a/x", "b/x", "c")
	collect := func(outs ...*caisson.Output) error {
		var all [][]stage.File
		for _, out := range outs {
			files, err := stage.Collect(t.Context(), w, out)
			must(t, err)
			all = append(all, files)
		}
		return stage.CheckDestinations(outs, all)
	}
	for name, err := range map[string]error{
		"two outputs":      collect(&caisson.Output{Path: "a/x", To: "file:r/"}, &caisson.Output{Path: "b/x", To: "file:r/"}),
		"file and file":    collect(&caisson.Output{Path: "a/x", To: "file:r/x"}, &caisson.Output{Path: "b/*", To: "file:r/"}),
		"several, no fold": collect(&caisson.Output{Path: "*/x", To: "file:r"}),
	} {
		if !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	for name, err := range map[string]error{
		"by name":    collect(&caisson.Output{Path: "*/x", To: "file:r/"}),
		"same twice": collect(&caisson.Output{Path: "c", To: "file:r/"}, &caisson.Output{Path: "c", To: "file:r/"}),
		"merged":     collect(&caisson.Output{Path: "a", To: "file:r"}, &caisson.Output{Path: "c", To: "file:r/"}),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOverlaps(t *testing.T) {
	for _, c := range []struct {
		pattern, to string
		want        bool
	}{
		{"out/*.txt", "in/a.txt", false},
		{"in/*.txt", "in/a.txt", true},
		{"in", "in/a.txt", true},
		{"in/", "in/a.txt", true},
		{"in/a.txt", "in/a.txt", true},
		{"in/b.txt", "in/a.txt", false},
		{"in/a", "in/a.txt", false},
		{"**", "in/a.txt", true},
		{"**/*.csv", "in/a.txt", true},
		{"*.txt", "in/a.txt", false},
		{"*", "in/a.txt", true},
		{"in/x/*.csv", "in", true},
		{"in/x", "in", true},
		{".", "in", true},
		{"out/**", "in", false},
		{"*/x.csv", "in", true},
		{"[", "in", true},
		{"{in,out}/a", "in/a", true},
	} {
		if got := stage.Overlaps(c.pattern, c.to); got != c.want {
			t.Errorf("Overlaps(%q, %q) = %v, want %v", c.pattern, c.to, got, c.want)
		}
	}
}

func TestSchemes(t *testing.T) {
	for from, want := range map[string]string{"": "text", "file:./a": "file", "HTTPS://h/x": "https", "git+ssh://h/x": "git+ssh", "a": ""} {
		if got := stage.InputScheme(&caisson.Input{From: from}); got != want {
			t.Errorf("InputScheme(%q) = %q, want %q", from, got, want)
		}
	}
	if got := stage.OutputScheme(&caisson.Output{To: "file:r/"}); got != "file" {
		t.Errorf("OutputScheme = %q", got)
	}
}
