//go:build linux

package file_test

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
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/stage"
	"github.com/caissonrun/caisson/stage/file"
	"github.com/caissonrun/caisson/stage/stagetest"
	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, data string) string {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(data), 0o644))
	return path
}

func newStager(t *testing.T, opts *file.Options) *file.Stager {
	t.Helper()
	s, err := file.New(opts)
	must(t, err)
	return s
}

func anyPath(t *testing.T) *file.Stager { return newStager(t, &file.Options{AnyPath: true}) }

func TestFetcher(t *testing.T) {
	stagetest.TestFetcher(t, stagetest.FetcherHarness{
		New: func(t *testing.T) stage.Fetcher { return anyPath(t) },
		Input: func(t *testing.T, data string) caisson.Input {
			return caisson.Input{From: "file:" + write(t, filepath.Join(t.TempDir(), "src"), data)}
		},
		Absent: func(t *testing.T) caisson.Input { return caisson.Input{From: "file:" + t.TempDir() + "/absent"} },
	})
}

func TestFetcherOfFolders(t *testing.T) {
	stagetest.TestFetcher(t, stagetest.FetcherHarness{
		New: func(t *testing.T) stage.Fetcher { return anyPath(t) },
		Input: func(t *testing.T, data string) caisson.Input {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "data"), data)
			return caisson.Input{From: "file:" + dir}
		},
		Tree: true,
	})
}

func TestStorer(t *testing.T) {
	stagetest.TestStorer(t, stagetest.StorerHarness{
		New: func(t *testing.T) stage.Storer { return anyPath(t) },
		To:  func(t *testing.T) string { return "file:" + t.TempDir() },
		Read: func(t *testing.T, url string) (string, bool) {
			data, err := os.ReadFile(strings.TrimPrefix(url, "file:"))
			return string(data), err == nil
		},
	})
}

// work opens an empty work folder.
func work(t *testing.T) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	must(t, err)
	t.Cleanup(func() { root.Close() })
	return root
}

func TestURLs(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a%20b", "data")
	s := anyPath(t)
	for _, from := range []string{"file:a%20b", "file:./a%20b", "FILE:a%20b", "file:" + dir + "/a%20b", "file://" + dir + "/a%20b", "file://localhost" + dir + "/a%20b", "file:x/../a%20b"} {
		in := &caisson.Input{From: from, To: "a"}
		if err := s.CheckInput(in, &stage.Env{BaseDir: dir}); err != nil {
			t.Errorf("CheckInput(%s) = %v", from, err)
		}
	}
	for _, from := range []string{"file:", "a", "file://host/x", "file://", "http:x", "file:a\x00"} {
		in := &caisson.Input{From: from, To: "a"}
		if err := s.CheckInput(in, &stage.Env{BaseDir: dir}); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("CheckInput(%q) = %v, want ErrInvalid", from, err)
		}
	}
	if err := s.CheckInput(&caisson.Input{From: "file:a", To: "a"}, &stage.Env{}); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("a relative path without a folder: %v, want ErrInvalid", err)
	}
}

func TestCheckInputOptional(t *testing.T) {
	s := anyPath(t)
	in := &caisson.Input{From: "file:" + t.TempDir() + "/absent", To: "a"}
	if err := s.CheckInput(in, &stage.Env{}); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("CheckInput = %v, want ErrNotFound", err)
	}
	in.Optional = true
	if err := s.CheckInput(in, &stage.Env{}); err != nil {
		t.Errorf("CheckInput of an optional one = %v", err)
	}
}

func TestPolicy(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/u1/f", "mine")
	write(t, dir+"/u10/f", "other")
	must(t, os.Symlink(dir+"/u10", dir+"/u1/link"))
	s := newStager(t, &file.Options{Allow: []string{dir + "/u1"}})
	for from, want := range map[string]caisson.Kind{
		"/u1/f": 0, "/u10/f": caisson.ErrDenied, "/u1/link/f": caisson.ErrDenied, "/u1/../u10/f": caisson.ErrDenied,
	} {
		in := &caisson.Input{From: "file:" + dir + from, To: "a"}
		env := &stage.Env{NoBind: true}
		if err := s.CheckInput(in, env); caisson.KindOf(err) != want {
			t.Errorf("CheckInput(%s) = %v, want %v", from, err, want)
		}
		if _, err := s.Fetch(t.Context(), in, work(t), env); caisson.KindOf(err) != want {
			t.Errorf("Fetch(%s) = %v, want %v", from, err, want)
		}
	}
	for to, want := range map[string]caisson.Kind{
		"/u1/new": 0, "/u1/a/b/": 0, "/u1/link": 0, "/u10/x": caisson.ErrDenied, "/u1/link/": caisson.ErrDenied,
		"/u1/link/x": caisson.ErrDenied, "/u1/../x": caisson.ErrDenied,
	} {
		out := &caisson.Output{Path: "a", To: "file:" + dir + to}
		if err := s.CheckOutput(out, &stage.Env{}); caisson.KindOf(err) != want {
			t.Errorf("CheckOutput(%s) = %v, want %v", to, err, want)
		}
		if _, err := s.Store(t.Context(), out, nil, &stage.Env{}); caisson.KindOf(err) != want {
			t.Errorf("Store(%s) = %v, want %v", to, err, want)
		}
	}
	if err := s.CheckInput(&caisson.Input{From: "file:" + dir + "/u10/f", To: "a"}, &stage.Env{Trusted: true}); err != nil {
		t.Errorf("for a trusted task: %v", err)
	}
	if _, err := file.New(&file.Options{Allow: []string{"relative"}}); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("New with a relative directory = %v, want ErrInvalid", err)
	}
}

// What is large is bound where it can't be cloned, and not read at all.
func TestFetchBind(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	src := dir + "/src"
	write(t, src, "")
	must(t, os.Truncate(src, 10<<30))
	must(t, os.Symlink("src", dir+"/link"))
	s, w := anyPath(t), work(t)
	started := time.Now()
	got, err := s.Fetch(t.Context(), &caisson.Input{From: "file:" + dir + "/link", To: "in/big"}, w, &stage.Env{})
	must(t, err)
	t.Logf("10 GiB staged in %v: %+v", time.Since(started), got)
	info, err := w.Stat("in/big")
	must(t, err)
	if got.Bytes != 10<<30 || got.Bind != src && info.Size() != 10<<30 {
		t.Errorf("Fetched = %+v, file of %d bytes; want a bind of %s or a clone", got, info.Size(), src)
	}
	if got.Bind != "" && info.Size() != 0 {
		t.Error("what is to be bound over is not empty")
	}
}

func TestFetchNoBind(t *testing.T) {
	dir := t.TempDir()
	data := strings.Repeat("x", 2<<20)
	src := write(t, dir+"/src", data)
	private := write(t, dir+"/private", data)
	must(t, os.Chmod(private, 0o600))
	for name, c := range map[string]struct {
		in  caisson.Input
		env stage.Env
	}{
		"writable": {caisson.Input{From: "file:" + src, Writable: true}, stage.Env{}},
		"mode":     {caisson.Input{From: "file:" + src, Mode: "0600"}, stage.Env{}},
		"NoBind":   {caisson.Input{From: "file:" + src}, stage.Env{NoBind: true}},
		"small":    {caisson.Input{From: "file:" + write(t, dir+"/small", "x")}, stage.Env{}},
	} {
		w := work(t)
		c.in.To = "a"
		got, err := anyPath(t).Fetch(t.Context(), &c.in, w, &c.env)
		if err != nil || got.Bind != "" {
			t.Errorf("%s: %+v, %v, want a copy", name, got, err)
		}
		if info, err := w.Stat("a"); err != nil || info.Size() != got.Bytes {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	got, err := anyPath(t).Fetch(t.Context(), &caisson.Input{From: "file:" + private, To: "a"}, work(t), &stage.Env{})
	if err != nil || os.Geteuid() == 0 && got.Bind != "" {
		t.Errorf("a file that the program could not read: %+v, %v, want a copy", got, err)
	}
}

// The digest is checked before a bind, too.
func TestFetchBindDigest(t *testing.T) {
	src := write(t, t.TempDir()+"/src", strings.Repeat("x", 2<<20))
	w := work(t)
	in := &caisson.Input{From: "file:" + src, To: "a", SHA256: strings.Repeat("0", 64)}
	if got, err := anyPath(t).Fetch(t.Context(), in, w, &stage.Env{}); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("Fetch = %+v, %v, want ErrInvalid", got, err)
	}
	if _, err := w.Lstat("a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something is at to: %v", err)
	}
}

// What is not writable has no write permission; the caller's files never
// change, not even when root writes to the copy.
func TestFetchLeavesSource(t *testing.T) {
	dir := t.TempDir()
	src := write(t, dir+"/d/f", "data")
	for _, from := range []string{src, filepath.Dir(src)} {
		w := work(t)
		_, err := anyPath(t).Fetch(t.Context(), &caisson.Input{From: "file:" + from, To: "a"}, w, &stage.Env{})
		must(t, err)
		name := "a"
		if from != src {
			name = "a/f"
		}
		info, err := w.Stat(name)
		if err != nil || info.Mode().Perm() != 0o444 {
			t.Errorf("mode %v, %v, want 0444", info.Mode(), err)
		}
		must(t, w.Chmod(name, 0o644))
		must(t, w.WriteFile(name, []byte("changed"), 0))
		if data, _ := os.ReadFile(src); string(data) != "data" {
			t.Fatalf("the source is now %q", data)
		}
	}
}

func TestFetchFolder(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/sub/run.sh", "#!")
	must(t, os.Chmod(dir+"/sub/run.sh", 0o755))
	must(t, os.Mkdir(dir+"/empty", 0o755))
	must(t, os.Symlink("sub/run.sh", dir+"/in"))
	must(t, os.Symlink("/etc/passwd", dir+"/out"))
	w := work(t)
	got, err := anyPath(t).Fetch(t.Context(), &caisson.Input{From: "file:" + dir + "/", To: "d/", Writable: true}, w, &stage.Env{})
	if err != nil || got.Bytes != 2 || got.Bind != "" {
		t.Fatalf("Fetch = %+v, %v", got, err)
	}
	for name, want := range map[string]fs.FileMode{
		"d/sub/run.sh": 0o755, "d/empty": fs.ModeDir | 0o755, "d/in": fs.ModeSymlink | 0o777, "d/out": fs.ModeSymlink | 0o777,
	} {
		if info, err := w.Lstat(name); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", name, info, err, want)
		}
	}
	if target, _ := w.Readlink("d/out"); target != "/etc/passwd" {
		t.Errorf("the link leads to %q, want it as it was", target)
	}
}

// A folder is not bound over what an earlier input has put below its place.
func TestFetchFolderMerges(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/big", strings.Repeat("x", 2<<20))
	w := work(t)
	s := anyPath(t)
	_, err := s.Fetch(t.Context(), &caisson.Input{From: "file:" + write(t, t.TempDir()+"/f", "first"), To: "d/f"}, w, &stage.Env{})
	must(t, err)
	got, err := s.Fetch(t.Context(), &caisson.Input{From: "file:" + dir, To: "d"}, w, &stage.Env{})
	must(t, err)
	if _, err := w.Stat("d/big"); err != nil || got.Bind != "" {
		t.Errorf("Fetched = %+v, %v, want a copy beside the first input", got, err)
	}
	if data, err := w.ReadFile("d/f"); err != nil || string(data) != "first" {
		t.Errorf("the first input is %q, %v", data, err)
	}
	got, err = s.Fetch(t.Context(), &caisson.Input{From: "file:" + dir, To: "e"}, w, &stage.Env{})
	if err != nil || got.Bind == "" {
		t.Errorf("at an empty place: %+v, %v, want a bind", got, err)
	}
}

func TestFetchErrSpecial(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(dir+"/d", 0o755))
	must(t, unix.Mkfifo(dir+"/d/fifo", 0o644))
	for _, from := range []string{dir + "/d", dir + "/d/fifo", "/dev/null"} {
		in := &caisson.Input{From: "file:" + from, To: "a"}
		if _, err := anyPath(t).Fetch(t.Context(), in, work(t), &stage.Env{}); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("Fetch(%s) = %v, want ErrInvalid", from, err)
		}
	}
}

func collect(t *testing.T, dir string, out *caisson.Output) []stage.File {
	t.Helper()
	root, err := safefs.Open(dir, nil)
	must(t, err)
	t.Cleanup(func() { root.Close() })
	files, err := stage.Collect(t.Context(), root, out)
	must(t, err)
	return files
}

func TestStore(t *testing.T) {
	dir, dest := t.TempDir(), t.TempDir()
	write(t, dir+"/out/suid", "data")
	must(t, os.Chmod(dir+"/out/suid", 0o777|fs.ModeSetuid|fs.ModeSetgid))
	must(t, os.MkdirAll(dir+"/out/empty", 0o755))
	must(t, os.Symlink("suid", dir+"/out/link"))
	write(t, dir+"/out/closed", "data")
	must(t, os.Chmod(dir+"/out/closed", 0))
	secret := write(t, dest+"/secret", "SECRET")
	must(t, os.Symlink("secret", dest+"/at-file"))
	must(t, os.Mkdir(dest+"/results", 0o755))
	must(t, os.Symlink("../secret", dest+"/results/closed"))

	env := &stage.Env{BaseDir: dest}
	if os.Geteuid() == 0 {
		env.OutUID, env.OutGID = 1234, 1235
	} else {
		must(t, os.Remove(dir+"/out/closed"))
	}
	out := &caisson.Output{Path: "out", To: "file:results"}
	files := collect(t, dir, out)
	got, err := anyPath(t).Store(t.Context(), out, files, env)
	must(t, err)
	for name, want := range map[string]fs.FileMode{
		"suid": 0o755, "empty": fs.ModeDir | 0o755, "link": fs.ModeSymlink | 0o777, "closed": 0o400,
	} {
		info, err := os.Lstat(dest + "/results/" + name)
		if name == "closed" && os.Geteuid() != 0 {
			continue
		}
		if err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", name, info, err, want)
			continue
		}
		if st := info.Sys().(*syscall.Stat_t); os.Geteuid() == 0 && (st.Uid != 1234 || st.Gid != 1235) {
			t.Errorf("%s belongs to %d:%d, want the submitter", name, st.Uid, st.Gid)
		}
	}
	for _, o := range got {
		if o.To != "file:"+dest+"/results/"+strings.TrimPrefix(o.Path, "out/") || o.Size != 4 {
			t.Errorf("OutputFile %+v", o)
		}
	}
	one := &caisson.Output{Path: "out/suid", To: "file:at-file"}
	_, err = anyPath(t).Store(t.Context(), one, collect(t, dir, one), env)
	must(t, err)
	if data, err := os.ReadFile(secret); string(data) != "SECRET" {
		t.Errorf("the file that a link at the destination leads to is now %q, %v", data, err)
	}
	if info, err := os.Lstat(dest + "/at-file"); err != nil || !info.Mode().IsRegular() {
		t.Errorf("at-file is %v, %v, want a file in place of the link", info, err)
	}
}

func TestStoreErrPlace(t *testing.T) {
	dir, dest := t.TempDir(), t.TempDir()
	write(t, dir+"/a", "data")
	write(t, dir+"/d/x", "data")
	must(t, os.MkdirAll(dest+"/folder/full", 0o755))
	write(t, dest+"/file", "old")
	must(t, os.Symlink(t.TempDir(), dest+"/d"))
	for to, path := range map[string]string{"folder": "a", "file/x": "a", "file/": "d/x", "": "d"} {
		out := &caisson.Output{Path: path, To: "file:" + dest + "/" + to}
		_, err := anyPath(t).Store(t.Context(), out, collect(t, dir, out), &stage.Env{})
		kind := caisson.ErrInvalid
		if to == "" {
			kind = caisson.ErrDenied // the submitter's link stands where a folder of the task goes
		}
		if !errors.Is(err, kind) {
			t.Errorf("Store to %q = %v, want %v", to, err, kind)
		}
	}
	if data, _ := os.ReadFile(dest + "/file"); string(data) != "old" {
		t.Errorf("the file in the way is now %q", data)
	}
}

// A full disk is told as such, and nothing half written stays.
func TestStoreErrFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir, dest := t.TempDir(), t.TempDir()
	must(t, unix.Mount("test", dest, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { unix.Unmount(dest, unix.MNT_DETACH) })
	write(t, dir+"/a", strings.Repeat("x", 600_000))
	write(t, dir+"/b", strings.Repeat("y", 600_000))
	out := &caisson.Output{Path: "*", To: "file:" + dest + "/"}
	got, err := anyPath(t).Store(t.Context(), out, collect(t, dir, out), &stage.Env{})
	if !errors.Is(err, caisson.ErrExhausted) || len(got) != 1 {
		t.Errorf("Store = %v, %v, want one file and ErrExhausted", got, err)
	}
	entries, err := os.ReadDir(dest)
	must(t, err)
	if len(entries) != 1 || entries[0].Name() != "a" {
		t.Errorf("the folder holds %v, want a alone", entries)
	}
	w, err := os.OpenRoot(dest)
	must(t, err)
	defer w.Close()
	_, err = anyPath(t).Fetch(t.Context(), &caisson.Input{From: "file:" + dir + "/b", To: "b", Writable: true}, w, &stage.Env{})
	if !errors.Is(err, caisson.ErrExhausted) {
		t.Errorf("Fetch = %v, want ErrExhausted", err)
	}
}

// Sparse files stay sparse, and their digest is that of all their bytes.
func TestStoreSparse(t *testing.T) {
	dir, dest := t.TempDir(), t.TempDir()
	write(t, dir+"/s", "x")
	must(t, os.Truncate(dir+"/s", 256<<20))
	out := &caisson.Output{Path: "s", To: "file:" + dest + "/"}
	got, err := anyPath(t).Store(t.Context(), out, collect(t, dir, out), &stage.Env{})
	must(t, err)
	info, err := os.Stat(dest + "/s")
	must(t, err)
	if onDisk := info.Sys().(*syscall.Stat_t).Blocks * 512; info.Size() != 256<<20 || onDisk > 1<<20 {
		t.Errorf("size %d, on disk %d", info.Size(), onDisk)
	}
	if len(got) != 1 || got[0].Size != 256<<20 {
		t.Errorf("Store = %+v", got)
	}
}

// A file that the task still writes to gives an error, never half a file.
func TestStoreGrowing(t *testing.T) {
	dir, dest := t.TempDir(), t.TempDir()
	path := write(t, dir+"/a", strings.Repeat("x", 3<<20))
	out := &caisson.Output{Path: "a", To: "file:" + dest + "/"}
	env := &stage.Env{Progress: func(int64, int64) {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		must(t, err)
		fmt.Fprint(f, "more")
		f.Close()
	}}
	got, err := anyPath(t).Store(t.Context(), out, collect(t, dir, out), env)
	entries, readErr := os.ReadDir(dest)
	must(t, readErr)
	if err == nil { // a clone is of one moment
		if len(got) != 1 || got[0].Size < 3<<20 {
			t.Errorf("Store = %+v", got)
		}
		return
	}
	if !errors.Is(err, caisson.ErrInvalid) || len(entries) != 0 {
		t.Errorf("Store = %v, folder %v; want ErrInvalid and nothing", err, entries)
	}
}

// The folder appears with exactly the files of the task, each once, in order.
func TestStoreMany(t *testing.T) {
	dir, dest := t.TempDir(), t.TempDir()
	var want []string
	for i := range 300 {
		name := fmt.Sprintf("d%02d/f%03d", i%7, i)
		write(t, dir+"/"+name, name)
		want = append(want, name)
	}
	slices.Sort(want)
	out := &caisson.Output{Path: "**/f*", To: "file:" + dest + "/"}
	got, err := anyPath(t).Store(t.Context(), out, collect(t, dir, out), &stage.Env{})
	must(t, err)
	var names []string
	for _, o := range got {
		names = append(names, o.Path)
	}
	if !slices.Equal(names, want) {
		t.Errorf("stored %d files %q...", len(names), names[:3])
	}
	must(t, filepath.WalkDir(dest, func(path string, _ fs.DirEntry, err error) error {
		if atomicfile.IsTemp(filepath.Base(path)) {
			t.Errorf("%s left", path)
		}
		return err
	}))
}
