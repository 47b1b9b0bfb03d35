package enginetest

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/enginetest/inside/act"
	"github.com/caissonrun/caisson/internal/safefs"
)

// volumeCases check the folders that volumes are to an engine: made and filled
// before the sandbox, and there after it. Who may have one when is package
// mount/volume's.
func volumeCases() []Case {
	bind := []string{"mounts.bind", "share_work"}
	return []Case{
		{
			Name: "mounts/filled", Rules: []int{81}, Needs: bind,
			Rule: "a folder filled from an archive is in the sandbox as it was filled: empty, nested, linked and oddly named, with its modes",
			body: mountFilled,
		},
		{
			Name: "mounts/filled-large", Rules: []int{81}, Needs: bind,
			Rule: "large and sparse files of a volume are complete, and stay sparse on disk",
			body: mountFilledLarge,
		},
		{
			Name: "mounts/readers", Rules: []int{82}, Needs: append(bind, "mounts.readonly"),
			Rule: "two sandboxes read one volume at once, also when one of them is destroyed",
			body: mountReaders,
		},
		{
			Name: "mounts/readonly-root", Rules: []int{80}, Needs: append(bind, "mounts.readonly", "user"),
			Rule: "a read-only mount is not written by root, nor remounted by it", wants: []facility{root},
			body: mountReadOnlyRoot,
		},
		{
			Name: "mounts/survives", Rules: []int{83}, Needs: bind,
			Rule: "a volume is as its task left it after an abort and after a kill, and the next sandbox goes on with it",
			body: mountSurvives,
		},
		{
			Name: "mounts/survives-crash", Rules: []int{83}, Needs: bind, wants: []facility{system, lose},
			Rule: "a volume is as its task left it when what keeps the sandbox dies",
			body: mountSurvivesCrash,
		},
		{
			Name: "mounts/other-user", Rules: []int{83}, Needs: append(bind, "user"), wants: []facility{root},
			Rule: "another user's sandbox reads and writes a volume's files, which belong on disk to WorkOwner",
			body: mountOtherUser,
		},
		{
			Name: "mounts/odd-tree", Rules: []int{86}, Needs: bind,
			Rule: "whatever tree a task made of a volume, the host can remove it",
			body: mountOddTree,
		},
	}
}

// filling is the tree that cases fill a volume with, by name: folders have a
// slash at their end, links an arrow in their text. Nothing above nested/deep is
// told.
var filling = []tar.Header{
	{Name: "empty", Typeflag: tar.TypeReg, Mode: 0o644},
	{Name: "nothing/", Typeflag: tar.TypeDir, Mode: 0o755},
	{Name: "nested/deep/below/file", Typeflag: tar.TypeReg, Mode: 0o640, Linkname: "nested"},
	{Name: "program", Typeflag: tar.TypeReg, Mode: 0o755, Linkname: "run"},
	{Name: "private", Typeflag: tar.TypeReg, Mode: 0o600, Linkname: "private"},
	{Name: "fixed", Typeflag: tar.TypeReg, Mode: 0o444, Linkname: "fixed"},
	{Name: "a b", Typeflag: tar.TypeReg, Mode: 0o644, Linkname: "space"},
	{Name: "-n", Typeflag: tar.TypeReg, Mode: 0o644, Linkname: "dash"},
	{Name: "naïve/日本語", Typeflag: tar.TypeReg, Mode: 0o644, Linkname: "unicode"},
	{Name: "...", Typeflag: tar.TypeReg, Mode: 0o644, Linkname: "dots"},
	{Name: "link", Typeflag: tar.TypeSymlink, Mode: 0o777, Linkname: "nested/deep/below/file"},
	{Name: "outside", Typeflag: tar.TypeSymlink, Mode: 0o777, Linkname: "/no/such/file"},
	{Name: strings.Repeat("l", 200), Typeflag: tar.TypeReg, Mode: 0o644, Linkname: "long"},
}

// fillVolume unpacks filling into a folder of the host, as a volume is filled.
func (t *T) fillVolume(dir string) {
	r, w := io.Pipe()
	go func() { w.CloseWithError(writeFilling(w)) }()
	disk, err := safefs.Open(dir, nil)
	t.ok(err, "opening the volume")
	defer disk.Close()
	opts := &safefs.UntarOptions{AnyLink: true}
	if os.Geteuid() == 0 {
		opts.Owner = &safefs.Owner{UID: t.owner.UID, GID: t.owner.GID}
	}
	err = disk.Untar(t.ctx, ".", r, opts)
	r.CloseWithError(err) // so that the writer ends, too
	t.ok(err, "filling the volume")
}

func writeFilling(w io.Writer) error {
	stream := tar.NewWriter(w)
	for _, header := range filling {
		var text string
		if header.Typeflag == tar.TypeReg {
			text, header.Linkname = header.Linkname, ""
		}
		header.Size = int64(len(text))
		if err := stream.WriteHeader(&header); err != nil {
			return err
		}
		if _, err := io.WriteString(stream, text); err != nil {
			return err
		}
	}
	return stream.Close()
}

// filled is what the inside program's walk prints of filling, sorted. Without
// modes there is only the type, as a module sees it.
func filled(modes bool) []string {
	folders := map[string]fs.FileMode{}
	var want []string
	for _, header := range filling {
		name := strings.TrimSuffix(header.Name, "/")
		for above := path.Dir(name); above != "."; above = path.Dir(above) {
			folders[above] = 0o755
		}
		info := header.FileInfo()
		switch header.Typeflag {
		case tar.TypeDir:
			folders[name] = info.Mode().Perm()
		case tar.TypeReg:
			want = append(want, walked(name, info.Mode(), modes)+" "+strconv.Itoa(len(header.Linkname)))
		default:
			want = append(want, walked(name, info.Mode(), modes))
		}
	}
	for name, mode := range folders {
		want = append(want, walked(name, fs.ModeDir|mode, modes))
	}
	slices.Sort(want)
	return want
}

func walked(name string, mode fs.FileMode, modes bool) string {
	if !modes {
		mode = mode.Type()
	}
	return strconv.QuoteToASCII(name) + " " + mode.String()
}

// withoutModes takes permissions out of lines of walk.
func withoutModes(walk []string) []string {
	var out []string
	for _, line := range walk {
		end := strings.LastIndexByte(line, '"') + 1
		words := strings.Fields(line[end:])
		if len(words) > 0 {
			words[0] = words[0][:1] + "---------"
		}
		out = append(out, line[:end]+" "+strings.Join(words, " "))
	}
	return out
}

func mountFilled(t *T) {
	dir := t.folder("volume")
	t.fillVolume(dir)
	b := t.start(t.with([]engine.Mount{binding(dir, "/volume", false)},
		"walk", "/volume", ";", "say", "====", ";", "read", "/volume/link", ";", "read", "/volume/private", ";",
		"read", "/volume/naïve/日本語", ";", "say", ";", "try", "read", "/volume/outside", ";",
		"append", "/volume/private", "+", ";", "write", "/volume/nothing/new", "new", ";", "remove", "/volume/fixed"))
	b.success()
	walk, rest, _ := strings.Cut(b.stdout(), "====\n")
	modes := system(t.suite) == ""
	got, want := lines(walk), filled(modes)
	if !modes {
		got = withoutModes(got)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the sandbox sees\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !strings.HasPrefix(rest, "nestedprivateunicode\nread E") {
		t.Errorf("the sandbox reads %q", rest)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "private")); string(data) != "private+" {
		t.Errorf("the host reads %q, %v", data, err)
	}
	t.owned(filepath.Join(dir, "nothing/new"))
	if _, err := os.Lstat(filepath.Join(dir, "fixed")); !os.IsNotExist(err) {
		t.Errorf("what the task removed is there: %v", err)
	}
}

func mountFilledLarge(t *T) {
	const size, huge = 16 << 20, 5 << 30
	dir := t.folder("volume")
	large, err := os.Create(filepath.Join(dir, "large"))
	t.ok(err, "Create")
	digest := sha256.New()
	_, err = io.CopyN(io.MultiWriter(large, digest), act.Pattern(76), size)
	t.ok(err, "writing a large file")
	t.ok(large.Close(), "Close")
	t.ok(os.WriteFile(filepath.Join(dir, "sparse"), []byte("begin"), 0o644), "WriteFile")
	t.ok(os.Truncate(filepath.Join(dir, "sparse"), huge), "Truncate")
	for _, name := range []string{"large", "sparse"} {
		t.own(filepath.Join(dir, name))
	}
	b := t.start(t.with([]engine.Mount{binding(dir, "/volume", false)},
		"sum /volume/large ; append /volume/sparse end ; walk /volume"))
	b.success()
	out := lines(b.stdout())
	if want := hex.EncodeToString(digest.Sum(nil)); out[0] != want {
		t.Errorf("the large file's digest is %s, want %s", out[0], want)
	}
	if last := out[len(out)-1]; !strings.HasSuffix(last, fmt.Sprint(" ", huge+3)) {
		t.Errorf("the sparse file is %q, want %d bytes", last, huge+3)
	}
	disk, err := safefs.Open(dir, nil)
	t.ok(err, "opening the volume")
	defer disk.Close()
	if info, err := disk.Stat("sparse"); err != nil || info.Size != huge+3 || info.Blocks > 1<<20 {
		t.Errorf("the sparse file has %d bytes, %d of them on disk, %v", info.Size, info.Blocks, err)
	}
}

func mountReaders(t *T) {
	dir := t.folder("volume")
	t.fillVolume(dir)
	mounts := []engine.Mount{binding(dir, "/volume", true)}
	args := "read /volume/link ; say ; try write /volume/link x ; try write /volume/new x ; say ready ; hold"
	one, two := t.start(t.with(mounts, args)), t.start(t.with(mounts, args))
	for _, b := range []*box{one, two} {
		b.says("ready")
		if out := b.stdout(); !strings.HasPrefix(out, "nested\nwrite E") || strings.Contains(out, " ok") {
			t.Errorf("a reader sees %q", out)
		}
	}
	t.destroy(one.Sandbox)
	three := t.start(t.with(mounts, "read /volume/link"))
	three.success()
	if out := three.stdout(); out != "nested" {
		t.Errorf("a reader after the first was destroyed sees %q", out)
	}
	two.stop(engine.Stop{Reason: caisson.ReasonKilled})
	two.wait()
	if data, err := os.ReadFile(filepath.Join(dir, "nested/deep/below/file")); string(data) != "nested" {
		t.Errorf("the volume holds %q, %v", data, err)
	}
}

func mountReadOnlyRoot(t *T) {
	dir := t.kept()
	spec := t.with([]engine.Mount{binding(dir, "/ro", true)},
		append([]string{"attempt", "remount:/ro", ";"}, append(changes("/ro"), "read", "/ro/kept")...)...)
	spec.User, spec.Root = "0:0", true
	b := t.startUnless(spec, caisson.ErrUnsupported, caisson.ErrDenied, caisson.ErrInvalid)
	if b == nil {
		t.unchanged(dir)
		return
	}
	b.success()
	out := b.stdout()
	if strings.Contains(out, " ok\n") || !strings.HasSuffix(out, "as it was") {
		t.Errorf("root on a read-only mount: %q", out)
	}
	t.unchanged(dir)
}

func mountSurvives(t *T) {
	dir := t.folder("volume")
	t.fillVolume(dir)
	mounts := []engine.Mount{binding(dir, "/volume", false)}
	aborted := t.start(t.with(mounts, "write /volume/one 1 ; write /volume/private changed ; say ready ; hold"))
	aborted.says("ready")
	t.destroy(aborted.Sandbox)
	killed := t.start(t.with(mounts, "read /volume/one ; read /volume/private ; write /volume/two 2 ; say ; say ready ; hold"))
	killed.says("ready")
	if out := killed.stdout(); out != "1changed\nready\n" {
		t.Errorf("after an abort the next sandbox reads %q", out)
	}
	killed.stop(engine.Stop{Reason: caisson.ReasonKilled})
	killed.wait()
	t.destroy(killed.Sandbox)
	t.goesOn(dir)
}

// goesOn checks what mountSurvives and mountSurvivesCrash have written.
func (t *T) goesOn(dir string) {
	b := t.start(t.with([]engine.Mount{binding(dir, "/other/place", false)},
		"read /other/place/one ; read /other/place/two ; read /other/place/link ; append /other/place/two +"))
	b.success()
	if out := b.stdout(); out != "12nested" {
		t.Errorf("the next sandbox reads %q", out)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "two")); string(data) != "2+" {
		t.Errorf("the volume holds %q, %v", data, err)
	}
}

func mountSurvivesCrash(t *T) {
	t.alone()
	dir := t.folder("volume")
	t.fillVolume(dir)
	b := t.start(t.with([]engine.Mount{binding(dir, "/volume", false)}, "write /volume/one 1 ; write /volume/two 2 ; say ready ; hold"))
	b.says("ready")
	t.lose(b.spec)
	b.wait()
	t.destroy(b.Sandbox)
	t.restart()
	t.goesOn(dir)
}

func mountOtherUser(t *T) {
	dir := t.folder("volume")
	t.fillVolume(dir)
	spec := t.with([]engine.Mount{binding(dir, "/volume", false)},
		"read /volume/private ; append /volume/private + ; write /volume/new new ; mkdir /volume/folder/below ; chmod 600 /volume/new")
	spec.User = "4321:4321"
	b := t.startUnless(spec, caisson.ErrUnsupported)
	if b == nil {
		return
	}
	b.success()
	if out := b.stdout(); out != "private" {
		t.Errorf("another user reads %q", out)
	}
	for _, name := range []string{"private", "new", "folder", "folder/below"} {
		t.owned(filepath.Join(dir, name))
	}
	last := t.start(t.with([]engine.Mount{binding(dir, "/volume", false)}, "read /volume/private ; read /volume/new"))
	last.success()
	if out := last.stdout(); out != "private+new" {
		t.Errorf("the user before reads %q", out)
	}
}

func mountOddTree(t *T) {
	dir := t.folder("volume")
	b := t.start(t.with([]engine.Mount{binding(dir, "/volume", false)},
		"mkdir /volume/closed/below ; write /volume/closed/below/f x ; mkdir /volume/many ; many /volume/many 300 ; "+
			"write /volume/fixed x ; symlink /etc /volume/etc ; symlink . /volume/loop ; try fifo /volume/fifo ; "+
			"try chmod 444 /volume/fixed ; try chmod 0 /volume/closed/below ; try chmod 0 /volume/closed ; mkdir /volume/deep ; try deep /volume/deep 500"))
	b.success()
	t.destroy(b.Sandbox)
	disk, err := safefs.Open(dir, nil)
	t.ok(err, "opening the volume")
	defer disk.Close()
	t.ok(disk.RemoveAll(t.ctx, "."), "RemoveAll")
	if entries, err := os.ReadDir(dir); len(entries) > 0 || err != nil {
		t.Errorf("left of the volume: %v, %v", entries, err)
	}
}
