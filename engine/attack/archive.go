package attack

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// hostFolder is the Bound of attacks whose aim is a folder made for them.
const hostFolder = "what it aims at is an empty folder or file of the attack's own"

func archives() []Attack {
	needs := []string{"files"}
	return []Attack{
		{
			ID: "B18", Name: "archive/put-hostile", Run: putHostile, Needs: needs, Bound: hostFolder,
			Tries: "put an archive with .., absolute names, links that are followed, hard links to outside, devices, garbage",
			CVE:   []string{"CVE-2018-15664", "CVE-2021-29136", "CVE-2021-41089"},
		},
		{
			ID: "B22", Name: "archive/put-through-link", Run: putThroughLink, Needs: needs, Bound: hostFolder,
			Tries: "have files that are put into the sandbox go through a link that the task made",
			CVE:   []string{"CVE-2018-15664", "CVE-2024-28185"},
		},
	}
}

// An Entry is one of a tar stream that an attack makes.
type Entry struct {
	Name, Text, Link string
	Kind             byte // 0: a regular file
	Mode             int64
}

// Pack returns a tar stream.
func Pack(entries ...Entry) *bytes.Buffer {
	var data bytes.Buffer
	w := tar.NewWriter(&data)
	for _, e := range entries {
		if e.Kind == 0 {
			e.Kind = tar.TypeReg
		}
		if e.Mode == 0 {
			e.Mode = 0o644
		}
		header := &tar.Header{
			Name: e.Name, Typeflag: e.Kind, Linkname: e.Link, Mode: e.Mode,
			Size: int64(len(e.Text)), ModTime: time.Unix(1e9, 0),
		}
		err := w.WriteHeader(header)
		if err == nil {
			_, err = io.WriteString(w, e.Text)
		}
		if err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return &data
}

func putHostile(t *Trial) {
	victim := t.Folder("victim")
	b := t.launch("say ready ; hold")
	b.says("ready")
	filer := b.Sandbox.(engine.Filer)
	up := strings.Repeat("../", 20) + victim[1:]
	for _, bad := range [][]Entry{
		{{Name: "../out", Text: "x"}},
		{{Name: up + "/x", Text: "x"}},
		{{Name: victim + "/x", Text: "x"}},
		{{Name: "a/../../out", Text: "x"}},
		{{Name: "link", Kind: tar.TypeSymlink, Link: victim}, {Name: "link/x", Text: "x"}},
		{{Name: "link", Kind: tar.TypeSymlink, Link: up}, {Name: "link/x", Text: "x"}},
		{{Name: "hard", Kind: tar.TypeLink, Link: "../../etc/passwd"}},
		{{Name: "hard", Kind: tar.TypeLink, Link: victim}},
		{{Name: "dev", Kind: tar.TypeBlock}},
		{{Name: "dev", Kind: tar.TypeChar}},
	} {
		err := filer.Put(t.ctx, "work", Pack(bad...))
		t.kind(err, "Put of "+bad[0].Name+" -> "+bad[0].Link, caisson.ErrInvalid)
	}
	t.kind(filer.Put(t.ctx, "work", strings.NewReader(strings.Repeat("garbage ", 200))), "Put of garbage", caisson.ErrInvalid)
	cut := Pack(Entry{Name: "cut", Text: strings.Repeat("x", 5000)}).Bytes()[:2000]
	if err := filer.Put(t.ctx, "work", bytes.NewReader(cut)); err == nil {
		t.Errorf("Put of half an archive worked")
	}
	t.Empty(victim)
	b.kill()
}

func putThroughLink(t *Trial) {
	victim := t.Folder("victim")
	b := t.launch(fmt.Sprintf("symlink %s /work/link ; symlink %s/made /work/file ; say ready ; hold", victim, victim))
	b.says("ready")
	filer := b.Sandbox.(engine.Filer)
	for _, name := range []string{"work", "work/link"} {
		// Whether it is an error depends on what is inside at the link's target.
		_ = filer.Put(t.ctx, name, Pack(Entry{Name: "link/x", Text: "x"}, Entry{Name: "file", Text: "x"}))
		_ = filer.Put(t.ctx, name, Pack(Entry{Name: "file", Text: "x"}))
	}
	t.Empty(victim)
	b.kill()
}

func files() []Attack {
	needs := []string{"files"}
	return []Attack{
		{
			ID: "C23", Name: "files/links-out", Run: linksOut, Needs: needs, Bound: readOnly,
			Tries: "have the host's files read through links that the task made",
			CVE:   []string{"CVE-2018-15664", "CVE-2019-14271", "CVE-2024-28185"},
		},
		{
			ID: "C23", Name: "files/swap", Run: filesSwap, Needs: needs, Bound: readOnly,
			Tries: "swap a file for a link while it is read, again and again",
			CVE:   []string{"CVE-2018-15664"},
		},
		{
			ID: "C24", Name: "files/fifo", Run: filesFIFO, Needs: needs, Bound: readOnly,
			Tries: "hold up whoever reads its files by FIFOs and devices",
		},
		{
			ID: "C25", Name: "log/swapped", Run: logSwapped, Bound: hostFolder,
			Tries: "have the log written through a link to a file of the host",
			CVE:   []string{"CVE-2026-6959"},
		},
	}
}

func linksOut(t *Trial) {
	flag, text := t.Flag()
	var args []string
	for name, target := range map[string]string{
		"out": flag, "outdir": filepath.Dir(flag), "dots": strings.Repeat("../", 30) + flag[1:],
		"proc": "/proc/self/root" + flag, "proc1": "/proc/1/root" + flag, "loop": "loop",
	} {
		args = append(args, "symlink", target, "/work/"+name, ";")
	}
	b := t.run(args...)
	b.success()
	filer := b.Sandbox.(engine.Filer)
	view, err := filer.FS(t.ctx)
	t.OK(err, "FS")
	t.After(func() { view.Close() })
	for _, name := range []string{"out", "dots", "outdir/flag", "loop", "proc", "proc1"} {
		if data, err := fs.ReadFile(view, "work/"+name); strings.Contains(string(data), text) {
			t.Errorf("%s gives the host's file (error %v)", name, err)
		}
	}
	for _, name := range []string{"work", "work/out", "work/outdir", "work/proc1"} {
		var out strings.Builder
		// An error is as good as an archive without the file.
		_ = filer.Tar(t.ctx, name, &out)
		if strings.Contains(out.String(), text) {
			t.Errorf("an archive of %s has the host's file", name)
		}
	}
}

func filesSwap(t *Trial) {
	flag, text := t.Flag()
	b := t.launch("mkdir", "/work/d", ";", "write", "/work/d/f", "inside", ";", "say", "ready", ";", "flip", "/work/d/f", "inside", flag)
	b.says("ready")
	filer := b.Sandbox.(engine.Filer)
	view, err := filer.FS(t.ctx)
	t.OK(err, "FS")
	defer view.Close()
	for range t.Times(1000) {
		data, _ := fs.ReadFile(view, "work/d/f")
		if strings.Contains(string(data), text) {
			t.Errorf("a swapped file gave the host's")
			break
		}
	}
	for range t.Times(50) {
		var out strings.Builder
		_ = filer.Tar(t.ctx, "work/d", &out)
		if strings.Contains(out.String(), text) {
			t.Errorf("an archive has the host's file")
			break
		}
	}
	b.kill()
}

// withFIFO returns a sandbox whose program has made a folder with a FIFO, and has ended;
// nil if no FIFO can be made there.
func (t *Trial) withFIFO(dir string) *box {
	b := t.run("mkdir", "/"+dir, ";", "write", "/"+dir+"/plain", "x", ";", "try", "fifo", "/"+dir+"/fifo")
	b.success()
	if strings.TrimSpace(b.stdout()) == "fifo ok" {
		return b
	}
	b.destroy()
	return nil
}

func filesFIFO(t *Trial) {
	b, dir := t.withFIFO("work/d"), "work/d"
	if b == nil {
		// A shared folder may have none.
		b, dir = t.withFIFO("tmp/d"), "tmp/d"
	}
	if b == nil {
		t.Inapplicable("no FIFO can be made, neither in the work folder nor in /tmp")
	}
	filer := b.Sandbox.(engine.Filer)
	view, err := filer.FS(t.ctx)
	t.OK(err, "FS")
	defer view.Close()
	for _, name := range []string{dir + "/fifo", "dev/zero", "dev/null"} {
		f, err := view.Open(name)
		if err == nil {
			f.Close()
			t.Errorf("opening %s worked", name)
		}
	}
	var out bytes.Buffer
	t.OK(filer.Tar(t.ctx, dir, &out), "Tar")
	for archive := tar.NewReader(&out); ; {
		header, err := archive.Next()
		if err == io.EOF {
			return
		}
		t.OK(err, "reading the archive")
		if header.Typeflag == tar.TypeFifo {
			t.Errorf("the archive has the FIFO")
		}
	}
}

func logSwapped(t *Trial) {
	victim := filepath.Join(t.Dir, "victim")
	const text = "of the host\n"
	t.OK(os.WriteFile(victim, []byte(text), 0o644), "WriteFile")
	spec := t.Spec("say hello")
	t.OK(os.Symlink(victim, spec.Log), "Symlink")
	sb, err := t.Engine.Create(t.ctx, spec)
	if err == nil {
		b := &box{t: t, spec: spec, Sandbox: sb}
		t.After(b.destroy)
		if process, err := sb.Start(t.ctx); err == nil {
			_, _ = process.Wait(t.ctx)
		}
	}
	if data, err := os.ReadFile(victim); string(data) != text {
		t.Errorf("a file of the host was written to through the log's path: %.100q, %v", data, err)
	}
}
