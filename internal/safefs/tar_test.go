//go:build linux

package safefs_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caissonrun/caisson/internal/safefs"
)

func archive(t testing.TB, headers ...tar.Header) *bytes.Buffer {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range headers {
		data := h.Linkname
		if h.Typeflag == tar.TypeReg {
			h.Size, h.Linkname = int64(len(data)), ""
		} else {
			data = ""
		}
		if h.Mode == 0 && h.Typeflag != tar.TypeXGlobalHeader {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &buf
}

// file, link, hard and dir are entries; a file's data is in Linkname.
func file(name, data string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Linkname: data}
}

func link(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}
}

func hard(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}
}

func dir(name string) tar.Header {
	return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}
}

func TestUntarRefuses(t *testing.T) {
	cases := map[string][]tar.Header{
		"Up":               {file("../secret", "x")},
		"UpInside":         {file("a/../../secret", "x")},
		"Absolute":         {file("/etc/x", "x")},
		"Empty":            {file("", "x")},
		"DotDot":           {dir("..")},
		"RootAsFile":       {file(".", "x")},
		"LinkUp":           {link("l", "../secret")},
		"LinkAbsolute":     {link("l", "/etc/passwd")},
		"LinkEmpty":        {link("l", "")},
		"LinkUpAfterDown":  {dir("d"), link("d/l", ".."), link("q", "d/l/..")},
		"LinkThenFile":     {link("l", "."), file("l/x", "x")},
		"LinkThenDir":      {link("l", "."), dir("l/x")},
		"LinkThenLink":     {link("l", "."), link("l/x", "y")},
		"LinkThenHard":     {file("f", "x"), link("l", "."), hard("l/x", "f")},
		"HardUp":           {hard("h", "../secret")},
		"HardAbsolute":     {hard("h", "/etc/passwd")},
		"HardThroughLink":  {link("l", "."), file("f", ""), hard("h", "l/f")},
		"HardToLink":       {dir("d"), link("d/l", "../f"), hard("h", "d/l")},
		"HardToDir":        {dir("d"), hard("h", "d")},
		"Device":           {{Typeflag: tar.TypeChar, Name: "dev", Devmajor: 1, Devminor: 5}},
		"Block":            {{Typeflag: tar.TypeBlock, Name: "dev"}},
		"FIFO":             {{Typeflag: tar.TypeFifo, Name: "fifo"}},
		"FileOverFolder":   {file("d/x", ""), file("d", "")},
		"Unclean":          {file("a//b", "x")},
		"DotInside":        {file("a/./b", "x")},
		"ComponentTooLong": {file(strings.Repeat("n", 256), "x")},
		"NameTooLong":      {file(strings.Repeat("n/", 2100)+"n", "x")},
		"Whiteout":         {file(".wh..", "x"), file("a/..", "x")},
	}
	for name, headers := range cases {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, opts *safefs.Options) {
				top := t.TempDir()
				secret := filepath.Join(top, "secret")
				write(t, secret, "SECRET")
				work := filepath.Join(top, "work")
				must(t, os.Mkdir(work, 0o755))
				r := open(t, work, opts)
				err := r.Untar(t.Context(), ".", archive(t, headers...), nil)
				if safefs.Kind(err) == 0 {
					t.Fatalf("Untar = %v, want it refused and sorted", err)
				}
				if data, err := os.ReadFile(secret); string(data) != "SECRET" {
					t.Errorf("secret = %q, %v", data, err)
				}
				if got := names(t, top); len(got) != 2 {
					t.Errorf("beside the folder: %q", got)
				}
			})
		})
	}
}

func TestUntar(t *testing.T) {
	both(t, func(t *testing.T, opts *safefs.Options) {
		work := t.TempDir()
		r := open(t, work, opts)
		when := time.Unix(1_000_000_000, 0)
		closed := dir("closed/")
		closed.Mode, closed.ModTime = 0o500, when
		suid := file("closed/suid", "data")
		suid.Mode, suid.ModTime = 0o4755, when
		in := archive(t, dir("./"), closed, suid, file("./new/deep/f", "one"), file("new/deep/f", "two"),
			link("new/l", "../closed/suid"), hard("h", "closed/suid"), file("\xff", "odd"),
			link("swap", "new"), dir("swap"), file("swap/x", "x"),
			tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}})
		must(t, r.Untar(t.Context(), ".", in, nil))
		for name, want := range map[string]string{
			"closed/suid": "data", "new/deep/f": "two", "new/l": "data", "h": "data", "\xff": "odd", "swap/x": "x",
		} {
			if data, err := os.ReadFile(filepath.Join(work, name)); err != nil || string(data) != want {
				t.Errorf("%q = %q, %v, want %q", name, data, err, want)
			}
		}
		for name, want := range map[string]fs.FileMode{"closed": fs.ModeDir | 0o500, "closed/suid": 0o755, "swap": fs.ModeDir | 0o755} {
			info, err := r.Stat(name)
			if err != nil || info.Mode != want {
				t.Errorf("%s has mode %v, %v, want %v", name, info.Mode, err, want)
			}
			if name != "swap" && !info.ModTime.Equal(when) {
				t.Errorf("%s has time %v, want %v", name, info.ModTime, when)
			}
		}
		must(t, r.Chmod("closed", 0o700))
	})
}

// AnyLink takes links wherever they lead, and writes through none.
func TestUntarAnyLink(t *testing.T) {
	both(t, func(t *testing.T, opts *safefs.Options) {
		top := t.TempDir()
		work := filepath.Join(top, "work")
		must(t, os.Mkdir(work, 0o755))
		r := open(t, work, opts)
		links := &safefs.UntarOptions{AnyLink: true}
		must(t, r.Untar(t.Context(), ".", archive(t, link("up", ".."), link("abs", "/etc/passwd"), link("d/l", "../../..")), links))
		for name, want := range map[string]string{"up": "..", "abs": "/etc/passwd", "d/l": "../../.."} {
			if target, err := os.Readlink(filepath.Join(work, name)); err != nil || target != want {
				t.Errorf("%s leads to %q, %v, want %q", name, target, err, want)
			}
		}
		for _, entry := range []tar.Header{file("up/x", "x"), dir("up/d"), link("up/l", "x"), hard("h", "up/work"), hard("h", "abs")} {
			if err := r.Untar(t.Context(), ".", archive(t, entry), links); safefs.Kind(err) == 0 {
				t.Errorf("Untar of %s = %v, want it refused", entry.Name, err)
			}
		}
		must(t, r.Untar(t.Context(), ".", archive(t, file("abs", "mine")), links))
		if data, err := os.ReadFile(filepath.Join(work, "abs")); string(data) != "mine" {
			t.Errorf("a file in place of a link has %q, %v", data, err)
		}
		if got := names(t, top); len(got) != 1 {
			t.Errorf("beside the folder: %q", got)
		}
	})
}

// Untar never writes through what a task has left in the folder.
func TestUntarIntoHostile(t *testing.T) {
	both(t, func(t *testing.T, opts *safefs.Options) {
		work, secret := hostile(t)
		must(t, os.Link(secret, filepath.Join(work, "hard")))
		r := open(t, work, opts)
		for _, entry := range []tar.Header{file("updir/secret", "x"), file("absdir/out/secret", "x"), dir("updir/new")} {
			if err := r.Untar(t.Context(), ".", archive(t, entry), nil); !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("Untar of %s = %v, want ErrInvalid", entry.Name, err)
			}
		}
		must(t, r.Untar(t.Context(), ".", archive(t, file("abs", "x"), file("hard", "x"), file("fifo", "x"), file("dangling", "x")), nil))
		if err := r.Untar(t.Context(), "updir", archive(t, file("x", "x")), nil); !errors.Is(err, safefs.ErrLink) {
			t.Errorf("Untar below a link = %v, want ErrLink", err)
		}
		if data, _ := os.ReadFile(secret); string(data) != "SECRET" {
			t.Errorf("the secret is now %q", data)
		}
		if got := names(t, filepath.Dir(work)); len(got) != 3 {
			t.Errorf("beside the folder: %q", got)
		}
	})
}

func TestUntarLimits(t *testing.T) {
	r := open(t, t.TempDir(), nil)
	in := func() io.Reader { return archive(t, file("a", "12345"), file("b", "12345")) }
	if err := r.Untar(t.Context(), ".", in(), &safefs.UntarOptions{MaxBytes: 9}); !errors.Is(err, safefs.ErrTooMany) {
		t.Errorf("over MaxBytes: %v, want ErrTooMany", err)
	}
	if err := r.Untar(t.Context(), ".", in(), &safefs.UntarOptions{MaxEntries: 1}); !errors.Is(err, safefs.ErrTooMany) {
		t.Errorf("over MaxEntries: %v, want ErrTooMany", err)
	}
	if err := r.Untar(t.Context(), ".", in(), &safefs.UntarOptions{MaxBytes: 10, MaxEntries: 2}); err != nil {
		t.Errorf("at the limits: %v", err)
	}
}

func TestUntarDamaged(t *testing.T) {
	whole := archive(t, file("a", strings.Repeat("x", 2000)), file("b", "y")).Bytes()
	// Between entries, and before anything, too.
	for _, cut := range []int{0, 100, 600, 1000, 2560, 2600, 3584} {
		r := open(t, t.TempDir(), nil)
		if err := r.Untar(t.Context(), ".", bytes.NewReader(whole[:cut]), nil); !errors.Is(err, fs.ErrInvalid) || !strings.Contains(err.Error(), "is ") {
			t.Errorf("cut off at %d: %v, want ErrInvalid", cut, err)
		}
	}
	r := open(t, t.TempDir(), nil)
	if err := r.Untar(t.Context(), ".", strings.NewReader(strings.Repeat("garbage!", 200)), nil); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("garbage: %v, want ErrInvalid", err)
	}
	failing := io.MultiReader(bytes.NewReader(whole[:1000]), errReader{})
	if err := r.Untar(t.Context(), ".", failing, nil); !errors.Is(err, errRead) {
		t.Errorf("a failing reader: %v, want its error", err)
	}
}

var errRead = errors.New("reader failed")

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errRead }

func TestUntarOwner(t *testing.T) {
	needRoot(t)
	r := open(t, t.TempDir(), nil)
	entry := file("d/f", "x")
	entry.Uid, entry.Gid = 0, 0
	must(t, r.Untar(t.Context(), ".", archive(t, entry, link("d/l", "f"), dir("e")), &safefs.UntarOptions{
		Owner: &safefs.Owner{UID: 1000, GID: 1001},
	}))
	for _, name := range []string{"d", "d/f", "d/l", "e"} {
		if info, err := r.Stat(name); err != nil || info.UID != 1000 || info.GID != 1001 {
			t.Errorf("%s belongs to %d:%d, %v", name, info.UID, info.GID, err)
		}
	}
}

// A bomb of zeros takes no space on disk.
func TestUntarSparse(t *testing.T) {
	work := t.TempDir()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	const size = 64 << 20
	must(t, w.WriteHeader(&tar.Header{Name: "z", Typeflag: tar.TypeReg, Size: size, Mode: 0o644}))
	_, err := io.CopyN(w, zeroReader{}, size)
	must(t, err)
	must(t, w.Close())
	r := open(t, work, nil)
	must(t, r.Untar(t.Context(), ".", &buf, nil))
	info, err := r.Stat("z")
	if err != nil || info.Size != size || info.Blocks > 1<<20 {
		t.Errorf("size %d, on disk %d, %v", info.Size, info.Blocks, err)
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestTarRoundTrip(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	write(t, filepath.Join(from, "d", "f"), strings.Repeat("0123456789", 10_000))
	write(t, filepath.Join(from, "d", "empty"), "")
	write(t, filepath.Join(from, strings.Repeat("n", 200), strings.Repeat("m", 200)), "long")
	write(t, filepath.Join(from, "\xff \n"), "odd")
	must(t, os.Mkdir(filepath.Join(from, "none"), 0o750))
	must(t, os.Symlink("d/f", filepath.Join(from, "l")))
	must(t, os.Chmod(filepath.Join(from, "d", "f"), 0o751))
	must(t, os.WriteFile(filepath.Join(from, "sparse"), nil, 0o644))
	must(t, os.Truncate(filepath.Join(from, "sparse"), 3<<20))
	a, b := open(t, from, nil), open(t, to, nil)
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(a.Tar(t.Context(), ".", pw)) }()
	must(t, b.Untar(t.Context(), ".", pr, nil))
	if got, want := listing(t, b), listing(t, a); got != want {
		t.Errorf("after the round trip:\n%s\nwant:\n%s", got, want)
	}
}

// listing tells everything that a tar stream keeps of a tree.
func listing(t *testing.T, r *safefs.Root) string {
	t.Helper()
	var b strings.Builder
	must(t, r.Walk(t.Context(), ".", nil, func(e *safefs.Entry) error {
		if e.Path == "." {
			return nil
		}
		fmt.Fprintf(&b, "%q %v %v", e.Path, e.Mode, e.ModTime)
		if e.Mode.IsRegular() {
			data, err := r.ReadFile(e.Path, 1<<30)
			must(t, err)
			fmt.Fprintf(&b, " %d %q", len(data), data[:min(len(data), 20)])
		}
		if e.Mode&fs.ModeSymlink != 0 {
			target, err := e.ReadLink()
			must(t, err)
			fmt.Fprintf(&b, " -> %s", target)
		}
		b.WriteByte('\n')
		return nil
	}))
	return b.String()
}

func TestTarOfHostile(t *testing.T) {
	both(t, func(t *testing.T, opts *safefs.Options) {
		work, _ := hostile(t)
		r := open(t, work, opts)
		var buf bytes.Buffer
		must(t, r.Tar(t.Context(), ".", &buf))
		if bytes.Contains(buf.Bytes(), []byte("SECRET")) {
			t.Error("the secret is in the archive")
		}
		got := map[string]byte{}
		tr := tar.NewReader(&buf)
		for {
			h, err := tr.Next()
			if err == io.EOF {
				break
			}
			must(t, err)
			got[h.Name] = h.Typeflag
		}
		for name, want := range map[string]byte{"ok": tar.TypeReg, "d/": tar.TypeDir, "d/ok": tar.TypeReg, "abs": tar.TypeSymlink, "fifo": 0, "sock": 0, "device": 0} {
			if got[name] != want {
				t.Errorf("%s has type %q, want %q", name, got[name], want)
			}
		}
		buf.Reset()
		must(t, r.Tar(t.Context(), "d", &buf))
		if h, err := tar.NewReader(&buf).Next(); err != nil || h.Name != "d/" {
			t.Errorf("Tar of a folder begins with %v, %v, want d/", h, err)
		}
		buf.Reset()
		must(t, r.Tar(t.Context(), "d/ok", &buf))
		if h, err := tar.NewReader(&buf).Next(); err != nil || h.Name != "ok" {
			t.Errorf("Tar of a file begins with %v, %v, want ok", h, err)
		}
		if err := r.Tar(t.Context(), "updir/secret", io.Discard); !errors.Is(err, safefs.ErrLink) {
			t.Errorf("Tar through a link = %v, want ErrLink", err)
		}
		if err := r.Tar(t.Context(), "absent", io.Discard); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Tar of nothing = %v, want ErrNotExist", err)
		}
	})
}

func TestLinkInside(t *testing.T) {
	for _, c := range []struct {
		name, target string
		want         bool
	}{
		{"l", "f", true},
		{"l", "./f", true},
		{"l", ".", true},
		{"l", "..", false},
		{"d/l", "..", true},
		{"d/l", "../f", true},
		{"d/l", "../../f", false},
		{"d/e/l", "../../f", true},
		{"l", "/f", false},
		{"l", "", false},
		{"d/l", "x/../..", false},
		{"l", "d/..", false},
		{"d/l", ".././../f", false},
		{"d/l", "..//f", true},
		{"l", "a\x00b", false},
		{"l", "...", true},
	} {
		if got := safefs.LinkInside(c.name, c.target); got != c.want {
			t.Errorf("LinkInside(%q, %q) = %v, want %v", c.name, c.target, got, c.want)
		}
	}
}

// FuzzUntar: whatever the stream, nothing appears outside of the folder, and
// no link in it leads out.
func FuzzUntar(f *testing.F) {
	f.Add(archive(f, file("a", "x"), link("l", "a"), hard("h", "a"), dir("d")).Bytes())
	f.Add(archive(f, link("l", ".."), file("l/x", "x")).Bytes())
	f.Add(archive(f, file("../x", "x")).Bytes())
	f.Add(archive(f, dir("d"), link("d/l", ".."), link("q", "d/l/..")).Bytes())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		top := t.TempDir()
		work := filepath.Join(top, "work")
		must(t, os.Mkdir(work, 0o755))
		r := open(t, work, nil)
		_ = r.Untar(t.Context(), ".", bytes.NewReader(data), &safefs.UntarOptions{MaxBytes: 1 << 20, MaxEntries: 100})
		if got := names(t, top); len(got) != 1 {
			t.Errorf("beside the folder: %q", got)
		}
		must(t, r.Walk(t.Context(), ".", nil, func(e *safefs.Entry) error {
			if !e.Mode.IsRegular() && !e.Mode.IsDir() && e.Mode.Type() != fs.ModeSymlink {
				t.Errorf("%q is %v", e.Path, e.Mode)
			}
			if e.Mode&fs.ModeSymlink == 0 {
				return nil
			}
			real, err := filepath.EvalSymlinks(filepath.Join(work, e.Path))
			if err == nil && real != work && !strings.HasPrefix(real, work+"/") {
				t.Errorf("%q leads to %s", e.Path, real)
			}
			return nil
		}))
		must(t, r.RemoveAll(t.Context(), "."))
	})
}
