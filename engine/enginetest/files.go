package enginetest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

func fileCases() []Case {
	needs := []string{"files"}
	return []Case{
		{
			Name: "files/read", Rules: []int{97, 102}, Needs: needs,
			Rule: "files and folders of a running and an ended sandbox can be read, in order, each once",
			body: filesRead,
		},
		{
			Name: "files/absent", Rules: []int{98, 99}, Needs: needs,
			Rule: "what is not there is fs.ErrNotExist in FS, and ErrNotFound in Tar",
			body: filesAbsent,
		},
		{
			Name: "files/names", Rules: []int{104}, Needs: needs,
			Rule: "any name that a file can have is read and archived as it is",
			body: filesNames,
		},
		{
			Name: "files/hostile-names", Rules: []int{105}, Needs: needs,
			Rule: "no name that a caller passes leads out of the sandbox",
			body: filesHostileNames,
		},
		{
			Name: "files/links", Rules: []int{106}, Attacks: []int{23}, Needs: needs,
			Rule: "links are followed inside of the sandbox only, however they are made",
			body: filesLinks,
		},
		{
			Name: "files/swap", Rules: []int{107}, Attacks: []int{23}, Needs: needs,
			Rule: "a file that is swapped for a link while it is read never gives bytes of the host",
			body: filesSwap,
		},
		{
			Name: "files/special", Rules: []int{108}, Attacks: []int{24}, Needs: needs,
			Rule: "a FIFO, a socket or a device is an error at once, and nothing hangs",
			body: filesSpecial,
		},
		{
			Name: "files/concurrent", Rules: []int{111}, Needs: needs,
			Rule: "files are read from several callers, also while the sandbox is destroyed; afterwards they are closed",
			body: filesConcurrent,
		},
		{
			Name: "files/too-late", Rules: []int{111}, Needs: needs,
			Rule: "after Destroy FS, Tar and Put are ErrAborted",
			body: filesTooLate,
		},
		{
			Name: "files/many", Rules: []int{103}, Needs: needs,
			Rule: "empty files and folders, long names, deep and large folders are complete",
			body: filesMany,
		},
	}
}

// fs returns the files of a sandbox until the case ends.
func (b *box) fs() engine.FS {
	files, err := b.Sandbox.(engine.Filer).FS(b.t.ctx)
	b.t.ok(err, "FS")
	b.t.after(func() { files.Close() })
	return files
}

func filesRead(t *T) {
	b := t.launch("trap 15 ; mkdir /work/a/b ; write /work/a/one 1 ; write /work/a/b/two 22 ; write /tmp/three 333 ; " +
		"say ready ; await 15")
	b.says("ready")
	check := func(when string) {
		files := b.fs()
		for name, want := range map[string]string{"work/a/one": "1", "work/a/b/two": "22", "tmp/three": "333"} {
			if data, err := fs.ReadFile(files, name); string(data) != want || err != nil {
				t.Errorf("%s: %s holds %q, %v, want %q", when, name, data, err, want)
			}
		}
		var names []string
		err := fs.WalkDir(files, "work/a", func(name string, _ fs.DirEntry, err error) error {
			names = append(names, name)
			return err
		})
		if want := []string{"work/a", "work/a/b", "work/a/b/two", "work/a/one"}; !slices.Equal(names, want) || err != nil {
			t.Errorf("%s: a walk finds %v, %v, want %v", when, names, err, want)
		}
		info, err := files.Stat("work/a/b/two")
		if err != nil || info.Size() != 2 || !info.Mode().IsRegular() || info.Name() != "two" {
			t.Errorf("%s: Stat = %v, %v", when, info, err)
		}
		entries, err := files.ReadDir(".")
		if err != nil || !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == "work" }) {
			t.Errorf("%s: the root has %v, %v", when, entries, err)
		}
	}
	check("while the program runs")
	t.ok(b.process.Signal(t.ctx, sigTerm), "Signal")
	b.success()
	check("after its end")
}

func filesAbsent(t *T) {
	b, _ := t.run("write /work/file x")
	files := b.fs()
	for _, name := range []string{"work/absent", "absent/x", "work/absent/x"} {
		if _, err := files.Open(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Open(%q) = %v, want fs.ErrNotExist", name, err)
		}
		if _, err := files.ReadDir(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("ReadDir(%q) = %v, want fs.ErrNotExist", name, err)
		}
		t.kind(b.Sandbox.(engine.Filer).Tar(t.ctx, name, io.Discard), "Tar of "+name, caisson.ErrNotFound)
	}
	if _, err := files.Open("work/file/x"); err == nil {
		t.Errorf("opening something below a file worked")
	}
	if _, err := files.ReadDir("work/file"); err == nil {
		t.Errorf("reading a file as a folder worked")
	}
}

// oddNames are names that a file can have.
func oddNames() []string {
	return []string{
		"with space", "new\nline", "tab\t", `back\slash`, "co:lon", "-dash", "--flag=x", "grüße", "dot.", "..dots", "*", "'", `"`,
		"$(id)", "%s", "\x1b[31m", strings.Repeat("n", 255), "CASE", "case",
	}
}

func filesNames(t *T) {
	var args []string
	for _, name := range oddNames() {
		args = append(args, "write", "/work/d/"+name, "is "+name, ";")
	}
	b, _ := t.run(append([]string{"mkdir", "/work/d", ";"}, args...)...)
	b.success()
	files := b.fs()
	for _, name := range oddNames() {
		if !fs.ValidPath("work/d/" + name) {
			continue // package fs has no word for it; the archive has
		}
		if data, err := fs.ReadFile(files, "work/d/"+name); string(data) != "is "+name || err != nil {
			t.Errorf("%q holds %q, %v", name, data, err)
		}
	}
	found := t.archive(b.Sandbox, "work/d")
	for _, name := range oddNames() {
		if got := found["d/"+name]; got != "is "+name {
			t.Errorf("the archive has %q with %q", name, got)
		}
	}
	if len(found) != len(oddNames())+1 {
		t.Errorf("the archive has %d entries, want %d", len(found), len(oddNames())+1)
	}
}

func filesHostileNames(t *T) {
	flag := filepath.Join(t.dir, "flag")
	t.ok(os.WriteFile(flag, []byte("of the host"), 0o644), "WriteFile")
	b, _ := t.run("write /work/file x")
	files, filer := b.fs(), b.Sandbox.(engine.Filer)
	for _, name := range []string{
		"", "/", "..", "../x", "work/../..", "/etc/passwd", "a//b", "work/", "work/.", "\x00", "work\x00",
		".." + flag, "../../../../../.." + flag, flag,
	} {
		if f, err := files.Open(name); err == nil {
			f.Close()
			t.Errorf("Open(%q) worked: it is no name of package fs", name)
		}
	}
	for _, name := range []string{"..", "../..", "work/../../..", "\x00", "../../../../../.." + flag, "work/../.." + flag} {
		var out strings.Builder
		if err := filer.Tar(t.ctx, name, &out); err == nil || strings.Contains(out.String(), "of the host") {
			t.Errorf("Tar(%q) = %v, %d bytes, want an error and none of the host's", name, err, out.Len())
		}
	}
}

func filesLinks(t *T) {
	flag := filepath.Join(t.dir, "flag")
	t.ok(os.WriteFile(flag, []byte("of the host"), 0o644), "WriteFile")
	args := words([]string{"write /work/file inside ; mkdir /work/dir ; write /work/dir/x in-a-folder ; " +
		"try hardlink /work/file /work/hard ;"})
	for name, target := range map[string]string{
		"relative": "file", "absolute": "/work/file", "todir": "/work/dir", "loop": "loop", "dangling": "absent",
		"out": flag, "outdir": filepath.Dir(flag), "dots": strings.Repeat("../", 30) + flag[1:],
		"proc": "/proc/self/root" + flag, "proc1": "/proc/1/root" + flag,
	} {
		args = append(args, "symlink", target, "/work/"+name, ";")
	}
	b, _ := t.run(args...)
	b.success()
	files := b.fs()
	for name, want := range map[string]string{"relative": "inside", "absolute": "inside", "todir/x": "in-a-folder", "hard": "inside"} {
		if data, err := fs.ReadFile(files, "work/"+name); string(data) != want || err != nil {
			t.Errorf("%s holds %q, %v, want %q", name, data, err, want)
		}
	}
	for _, name := range []string{"out", "dots", "outdir/flag", "loop", "dangling", "proc", "proc1"} {
		if data, err := fs.ReadFile(files, "work/"+name); err == nil {
			t.Errorf("%s holds %q, want an error", name, data)
		}
	}
	if target, err := files.ReadLink("work/out"); target != flag || err != nil {
		t.Errorf("ReadLink = %q, %v, want %q", target, err, flag)
	}
	if info, err := files.Lstat("work/out"); err != nil || info.Mode().Type() != fs.ModeSymlink {
		t.Errorf("Lstat = %v, %v, want a link", info, err)
	}
	for name, data := range t.archive(b.Sandbox, "work") {
		if strings.Contains(data, "of the host") {
			t.Errorf("the archive has the host's file as %s", name)
		}
	}
}

func filesSwap(t *T) {
	flag := filepath.Join(t.dir, "flag")
	t.ok(os.WriteFile(flag, []byte("of the host"), 0o644), "WriteFile")
	b := t.launch("mkdir", "/work/d", ";", "write", "/work/d/f", "inside", ";", "say", "ready", ";", "flip", "/work/d/f", "inside", flag)
	b.says("ready")
	files := b.fs()
	swaps := 0 // that were seen: a busy host may run the program late
	link := false
	for i := 0; i < t.times(20000) || swaps < t.times(200); i++ {
		data, err := fs.ReadFile(files, "work/d/f")
		if err == nil && string(data) != "inside" && len(data) > 0 {
			t.Fatalf("a swapped file gave %q", data)
		}
		info, err := files.Lstat("work/d/f")
		if now := err == nil && info.Mode().Type() == fs.ModeSymlink; now != link {
			swaps++
			link = now
		}
		t.ok(t.ctx.Err(), "waiting for the program to swap")
	}
	for range t.times(1000) {
		var out strings.Builder
		// An error is as good as an archive without the file.
		_ = b.Sandbox.(engine.Filer).Tar(t.ctx, "work/d", &out)
		if strings.Contains(out.String(), "of the host") {
			t.Fatalf("an archive has the host's file")
		}
	}
	b.stop(engine.Stop{Reason: caisson.ReasonKilled})
	b.expect(caisson.ReasonKilled, 0, sigKill)
}

func filesSpecial(t *T) {
	b, dir := t.withFIFO("work/d"), "work/d"
	if b == nil {
		// A folder of the host's need not be able to hold one in a machine.
		b, dir = t.withFIFO("tmp/d"), "tmp/d"
	}
	if b == nil {
		t.Fatalf("no FIFO can be made, neither in the work folder nor in /tmp")
	}
	files := b.fs()
	for _, name := range []string{dir + "/fifo", "dev/zero", "dev/null"} {
		f, err := files.Open(name)
		if err == nil {
			f.Close()
			t.Errorf("opening %s worked", name)
		}
	}
	if data, err := fs.ReadFile(files, dir+"/plain"); string(data) != "x" {
		t.Errorf("a file beside a FIFO holds %q, %v", data, err)
	}
	found := t.archive(b.Sandbox, dir)
	if _, ok := found["d/fifo"]; ok || found["d/plain"] != "x" {
		t.Errorf("an archive of a folder with a FIFO has %v", found)
	}
	// Who reads for root can read it, others may be refused.
	if err := b.Sandbox.(engine.Filer).Tar(t.ctx, dir+"-locked", io.Discard); err != nil {
		t.kind(err, "Tar of a file that nobody may read", caisson.ErrDenied)
	}
}

// withFIFO returns a sandbox whose program has made a folder with a FIFO, and has ended;
// nil if no FIFO can be made there.
func (t *T) withFIFO(dir string) *box {
	b, _ := t.run(fmt.Sprintf("mkdir /%[1]s ; write /%[1]s/plain x ; write /%[1]s-locked x ; chmod 0 /%[1]s-locked ; try fifo /%[1]s/fifo", dir))
	b.success()
	if !strings.HasSuffix(strings.TrimSpace(b.stdout()), " ok") {
		return nil
	}
	return b
}

func filesConcurrent(t *T) {
	b := t.launch("mkdir /work/d ; many /work/d 50 ; say ready ; hold")
	b.says("ready")
	files := b.fs()
	parallel(8, func(i int) {
		if i == 7 {
			t.destroy(b.Sandbox)
			return
		}
		for n := range 200 {
			data, err := fs.ReadFile(files, fmt.Sprintf("work/d/%06d", n%50))
			if err == nil && string(data) != fmt.Sprint(n%50) {
				t.Errorf("a file holds %q, want %d", data, n%50)
			}
		}
	})
	if _, err := files.Open("work/d/000001"); err == nil {
		t.Errorf("opening a file after Destroy worked")
	}
	for range 2 {
		t.ok(files.Close(), "Close")
	}
	if _, err := files.Open("work/d/000001"); err == nil {
		t.Errorf("opening a file after Close worked")
	}
}

func filesTooLate(t *T) {
	b, _ := t.run("exit 0")
	t.destroy(b.Sandbox)
	filer := b.Sandbox.(engine.Filer)
	_, err := filer.FS(t.ctx)
	t.kind(err, "FS after Destroy", caisson.ErrAborted)
	t.kind(filer.Tar(t.ctx, "work", io.Discard), "Tar after Destroy", caisson.ErrAborted)
	t.kind(filer.Put(t.ctx, "work", strings.NewReader("")), "Put after Destroy", caisson.ErrAborted)
}

func filesMany(t *T) {
	many, deep := 2000, 200
	if t.h.Slow && !*heavy {
		many, deep = 300, 100
	}
	long := strings.Repeat("/"+strings.Repeat("l", 200), 3)[1:]
	b, _ := t.run(fmt.Sprintf("mkdir /work/empty ; fill /work/zero 0 ; mkdir /work/many ; many /work/many %d ; ", many) +
		fmt.Sprintf("mkdir /work/deep ; deep /work/deep %d ; mkdir /work/%s ; write /work/%s/f far", deep, long, long))
	b.success()
	found := t.archive(b.Sandbox, "work")
	for name, want := range map[string]string{
		"work/zero": "", "work/many/000000": "0", fmt.Sprintf("work/many/%06d", many-1): strconv.Itoa(many - 1), "work/" + long + "/f": "far",
	} {
		if got, ok := found[name]; !ok || got != want {
			t.Errorf("the archive has %.60s with %q (%v), want %q", name, got, ok, want)
		}
	}
	if _, ok := found["work/empty/"]; !ok {
		t.Errorf("the archive lacks the empty folder")
	}
	count := 0
	for name := range found {
		if strings.HasPrefix(name, "work/deep/") {
			count++
		}
	}
	if count != deep+1 {
		t.Errorf("the archive has %d nested folders, want %d", count, deep+1)
	}
	entries, err := b.fs().ReadDir("work/many")
	if len(entries) != many || err != nil {
		t.Errorf("ReadDir = %d entries, %v, want %d", len(entries), err, many)
	}
}
