package enginetest

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/attack"
)

func archiveCases() []Case {
	needs := []string{"files"}
	return []Case{
		{
			Name: "archive/equals-files", Rules: []int{100, 102, 112}, Needs: needs,
			Rule: "an archive has what a walk finds, with modes and links, each once, of a folder or a single file",
			body: archiveEquals,
		},
		{
			Name: "archive/stalled-writer", Rules: []int{101, 110}, Needs: needs,
			Rule: "an archive whose reader fails, or whose context ends, ends with that error and holds nothing up",
			body: archiveStalled,
		},
		{
			Name: "archive/changing", Rules: []int{109}, Attacks: []int{24}, Needs: needs,
			Rule: "of files that grow and vanish meanwhile, an archive is well-formed or an error",
			body: archiveChanging,
		},
		{
			Name: "archive/put-before-start", Rules: []int{112}, Needs: needs,
			Rule: "files put before the start are the program's own, with their modes",
			body: putBeforeStart,
		},
		{
			Name: "archive/put-while-running", Rules: []int{112}, Needs: needs,
			Rule: "files put while the program runs are seen by it, and an archive comes back as it went in",
			body: putWhileRunning,
		},
		{
			Name: "archive/put-hostile", Rules: []int{105, 132}, Attacks: []int{18}, Needs: needs,
			Rule: "entries that lead out of the folder, devices, and links to outside are ErrInvalid, and nothing outside changes",
			body: attacked("archive/put-hostile"),
		},
		{
			Name: "archive/put-through-link", Rules: []int{106}, Attacks: []int{18, 22}, Needs: needs,
			Rule: "a link that the task made leads no file put into the sandbox out of it",
			body: attacked("archive/put-through-link"),
		},
	}
}

// archive returns what the archive of a path has: contents by name, of links
// the target after "-> "; names of folders end in "/".
func (t *T) archive(sb engine.Sandbox, name string) map[string]string {
	var data bytes.Buffer
	t.ok(sb.(engine.Filer).Tar(t.ctx, name, &data), "Tar")
	found, err := unpack(&data)
	t.ok(err, "reading the archive")
	return found
}

func unpack(r io.Reader) (map[string]string, error) {
	found := make(map[string]string)
	for archive := tar.NewReader(r); ; {
		header, err := archive.Next()
		if err == io.EOF {
			return found, nil
		}
		if err != nil {
			return found, err
		}
		if _, twice := found[header.Name]; twice || !filepath.IsLocal(header.Name) {
			return found, errors.New("an entry is there twice, or leads out: " + header.Name)
		}
		contents, err := io.ReadAll(archive)
		if err != nil {
			return found, err
		}
		switch header.Typeflag {
		case tar.TypeReg, tar.TypeDir:
			found[header.Name] = string(contents)
		case tar.TypeSymlink:
			found[header.Name] = "-> " + header.Linkname
		case tar.TypeLink:
			found[header.Name] = found[header.Linkname]
		default:
			return found, errors.New("an entry is a device or FIFO: " + header.Name)
		}
	}
}

func archiveEquals(t *T) {
	b, _ := t.run("mkdir /work/a/b ; write /work/a/f x ; write /work/a/b/g y ; chmod 750 /work/a/f ; " +
		"symlink f /work/a/s ; mkdir /work/a/empty")
	b.success()
	found := t.archive(b.Sandbox, "work/a")
	for name, want := range map[string]string{"a/": "", "a/b/": "", "a/b/g": "y", "a/empty/": "", "a/f": "x", "a/s": "-> f"} {
		if got, ok := found[name]; got != want || !ok {
			t.Errorf("the archive has %s with %q (%v), want %q", name, got, ok, want)
		}
	}
	if len(found) != 6 {
		t.Errorf("the archive has %d entries, want 6: %v", len(found), found)
	}
	var data bytes.Buffer
	t.ok(b.Sandbox.(engine.Filer).Tar(t.ctx, "work/a/f", &data), "Tar of a file")
	archive := tar.NewReader(&data)
	header, err := archive.Next()
	t.ok(err, "reading the archive of a file")
	if header.Name != "f" || header.Mode&0o777 != 0o750 || header.Size != 1 {
		t.Errorf("the archive of a file begins with %+v", header)
	}
	if _, err := archive.Next(); err != io.EOF {
		t.Errorf("the archive of a file has more: %v", err)
	}
}

// A brokenWriter fails after some bytes.
type brokenWriter struct{ left int }

var errBroken = errors.New("the reader is gone")

func (w *brokenWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, errBroken
	}
	return len(p), nil
}

func archiveStalled(t *T) {
	b, _ := t.run("fill /work/big 4m ; mkdir /work/d ; many /work/d 100")
	b.success()
	filer := b.Sandbox.(engine.Filer)
	for _, after := range []int{0, 100, 100000} {
		if err := filer.Tar(t.ctx, "work", &brokenWriter{after}); !errors.Is(err, errBroken) {
			t.Errorf("Tar to a writer that fails after %d bytes = %v", after, err)
		}
	}
	read, write := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- filer.Tar(t.ctx, "work", write) }()
	_, err := io.ReadFull(read, make([]byte, 10))
	t.ok(err, "reading ten bytes")
	if data, err := fs.ReadFile(b.fs(), "work/d/000007"); string(data) != "7" {
		t.Errorf("beside a stalled archive a file holds %q, %v", data, err)
	}
	read.Close()
	if err := <-ended; err == nil {
		t.Errorf("Tar to a closed pipe worked")
	}
	if len(t.archive(b.Sandbox, "work")) != 103 {
		t.Errorf("the archive is not complete afterwards")
	}
}

func archiveChanging(t *T) {
	b := t.launch("mkdir", "/work/d", ";", "write", "/work/d/steady", "as it is", ";", "spawn", "-q", "grow", "/work/d/growing", ";",
		"say", "ready", ";", "churn", "/work/d/churn")
	b.says("ready")
	for range t.times(200) {
		var data bytes.Buffer
		if err := b.Sandbox.(engine.Filer).Tar(t.ctx, "work/d", &data); err != nil {
			continue
		}
		found, err := unpack(&data)
		if err != nil || found["d/steady"] != "as it is" {
			t.Fatalf("an archive of changing files has %d entries, %v", len(found), err)
		}
	}
	b.stop(engine.Stop{Reason: caisson.ReasonKilled})
	b.wait()
}

// An entry is one of a tar stream that a case makes.
type entry struct {
	name, text, link string
	kind             byte // 0: a regular file
	mode             int64
}

func pack(entries ...entry) *bytes.Buffer {
	all := make([]attack.Entry, len(entries))
	for i, e := range entries {
		all[i] = attack.Entry{Name: e.name, Text: e.text, Link: e.link, Kind: e.kind, Mode: e.mode}
	}
	return attack.Pack(all...)
}

func putBeforeStart(t *T) {
	sb := t.create(t.spec("read /work/in/f ; append /work/in/f +changed ; write /work/in/new x"))
	t.ok(sb.(engine.Filer).Put(t.ctx, "work", pack(
		entry{name: "in/", kind: tar.TypeDir, mode: 0o755}, entry{name: "in/f", text: "put", mode: 0o640},
	)), "Put")
	process, err := sb.Start(t.ctx)
	t.ok(err, "Start")
	if exit, err := process.Wait(t.ctx); err != nil || exit.Code != 0 {
		t.Errorf("the program that changes what was put ended with %+v, %v", exit, err)
	}
	if found := t.archive(sb, "work/in"); found["in/f"] != "put+changed" || found["in/new"] != "x" {
		t.Errorf("the files put are %v", found)
	}
}

func putWhileRunning(t *T) {
	b := t.holding()
	filer := b.Sandbox.(engine.Filer)
	in := []entry{
		{name: "d/", kind: tar.TypeDir, mode: 0o755},
		{name: "d/run", text: "x", mode: 0o755},
		{name: "d/link", kind: tar.TypeSymlink, link: "run"},
	}
	t.ok(filer.Put(t.ctx, "work", pack(in...)), "Put")
	found := t.archive(b.Sandbox, "work/d")
	if len(found) != 3 || found["d/run"] != "x" || found["d/link"] != "-> run" {
		t.Errorf("what was put comes back as %v", found)
	}
	info, err := b.fs().Stat("work/d/run")
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the file put is %v, %v, want mode 0755", info, err)
	}
	t.kind(filer.Put(t.ctx, "work/absent", pack(in...)), "Put below a folder that is not there", caisson.ErrNotFound)
}
