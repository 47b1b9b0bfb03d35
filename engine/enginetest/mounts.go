package enginetest

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

func mountCases() []Case {
	bind := []string{"mounts.bind", "share_work"}
	readonly := append(bind, "mounts.readonly")
	return []Case{
		{
			Name: "mounts/bind", Rules: []int{76, 83}, Needs: bind,
			Rule: "what one sandbox writes to a bind the next one reads, also after a kill, and files belong to WorkOwner on disk",
			body: mountBind,
		},
		{
			Name: "mounts/empty", Rules: []int{77}, Needs: bind,
			Rule: "an empty folder is bound empty",
			body: mountEmpty,
		},
		{
			Name: "mounts/readonly", Rules: []int{78, 79}, Needs: readonly,
			Rule: "a read-only bind can be read and not written, and the host's files are as before",
			body: mountReadOnly,
		},
		{
			Name: "mounts/readonly-tricks", Rules: []int{80}, Needs: readonly,
			Rule: "a read-only bind stays so: for execs, by hard links out of it, by remounting",
			body: mountReadOnlyTricks,
		},
		{
			Name: "mounts/file", Rules: []int{82}, Needs: readonly,
			Rule: "a single file can be bound, and nothing of its folder comes with it",
			body: mountFile,
		},
		{
			Name: "mounts/shared", Rules: []int{82}, Needs: readonly,
			Rule: "one folder is bound into several sandboxes, and at several places, at once",
			body: mountShared,
		},
		{
			Name: "mounts/nested", Rules: []int{82}, Needs: append(readonly, "mounts.tmpfs"),
			Rule: "mounts are made in order, and one may lie in another; names with spaces, dots and UTF-8 work",
			body: mountNested,
		},
		{
			Name: "mounts/bad-targets", Rules: []int{82}, Needs: bind, Attacks: []int{5},
			Rule: "a target that is the root, the sandbox's own, relative or unclean is ErrInvalid",
			body: mountBadTargets,
		},
		{
			Name: "mounts/hostile-target", Rules: []int{82, 126}, Needs: bind, Attacks: []int{5},
			Rule: "a link in the work folder at a target leads no mount out of the sandbox",
			body: mountHostileTarget,
		},
		{
			Name: "mounts/unmounted", Rules: []int{84, 116}, Needs: bind,
			Rule: "Destroy leaves what the caller mounted and what it contains",
			body: mountStays,
		},
		{
			Name: "mounts/private", Rules: []int{84}, Needs: append(bind, "exec", isolation(engine.IsolatedMounts)), wants: []facility{root, rooted},
			Rule: "what the host mounts in a bind's source is not seen by a sandbox that is there already",
			body: mountPrivate,
		},
		{
			Name: "mounts/tmpfs", Rules: []int{85, 128}, Needs: []string{"mounts.tmpfs"},
			Rule: "a tmpfs is empty, writable, of its mode, and holds no more than its size",
			body: mountTmpfs,
		},
		{
			Name: "mounts/tmp", Rules: []int{22}, Needs: []string{"share_work"}, wants: []facility{rooted},
			Rule: "/tmp is the folder Spec.Tmp, or an empty one of the sandbox's own, never the host's",
			body: mountTmp,
		},
		{
			Name: "mounts/work", Rules: []int{83}, Needs: []string{"share_work"},
			Rule: "the work folder is live in both directions, and its files belong to WorkOwner on disk", wants: []facility{system},
			body: mountWork,
		},
	}
}

// folder makes a folder on the host that belongs to the owner of work folders.
func (t *T) folder(name string) string {
	dir := filepath.Join(t.dir, name)
	t.ok(os.MkdirAll(dir, 0o755), "MkdirAll")
	t.own(dir)
	return dir
}

// binding returns a bind of a folder that belongs to the owner of work folders.
func binding(source, target string, readonly bool) engine.Mount {
	return engine.Mount{Type: engine.MountBind, Source: source, Target: target, ReadOnly: readonly, Owned: true}
}

// with returns a spec with more mounts.
func (t *T) with(mounts []engine.Mount, args ...string) *engine.Spec {
	spec := t.spec(args...)
	spec.Mounts = append(spec.Mounts, mounts...)
	return spec
}

func mountBind(t *T) {
	dir := t.folder("data")
	mounts := []engine.Mount{binding(dir, "/data", false)}
	b := t.start(t.with(mounts, "write /data/a first ; mkdir /data/sub ; write /data/sub/b second ; say ready ; hold"))
	b.says("ready")
	b.stop(engine.Stop{Reason: caisson.ReasonKilled})
	b.wait()
	b = t.start(t.with(mounts, "read /data/a ; read /data/sub/b ; write /data/a third"))
	b.success()
	if got := b.stdout(); got != "firstsecond" {
		t.Errorf("the next sandbox reads %q", got)
	}
	t.owned(filepath.Join(dir, "a"))
	t.owned(filepath.Join(dir, "sub/b"))
	if data, err := os.ReadFile(filepath.Join(dir, "a")); string(data) != "third" {
		t.Errorf("the host reads %q, %v", data, err)
	}
}

func mountEmpty(t *T) {
	b := t.start(t.with([]engine.Mount{binding(t.folder("empty"), "/empty", false)}, "list /empty ; try read /empty/x"))
	b.success()
	if got := b.stdout(); got != "read ENOENT\n" {
		t.Errorf("an empty folder: %q", got)
	}
}

// changes are commands that try to change a folder with the file "kept".
func changes(dir string) []string {
	var args []string
	for _, change := range [][]string{
		{"write", dir + "/new", "x"},
		{"write", dir + "/kept", "changed"},
		{"append", dir + "/kept", "more"},
		{"remove", dir + "/kept"},
		{"mkdir", dir + "/folder"},
		{"chmod", "777", dir + "/kept"},
		{"symlink", "/x", dir + "/link"},
		{"hardlink", dir + "/kept", dir + "/hard"},
		{"fifo", dir + "/fifo"},
	} {
		args = append(append(append(args, "try"), change...), ";")
	}
	return args
}

// unchanged checks that a folder on the host has only the file "kept" as it
// was made.
func (t *T) unchanged(dir string) {
	entries, err := os.ReadDir(dir)
	t.ok(err, "ReadDir")
	if len(entries) != 1 || entries[0].Name() != "kept" {
		t.Errorf("the read-only folder has %v", entries)
	}
	data, err := os.ReadFile(filepath.Join(dir, "kept"))
	if string(data) != "as it was" || err != nil {
		t.Errorf("the read-only file holds %q, %v", data, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "kept")); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("the read-only file is %v, %v", info, err)
	}
}

// kept makes a folder with the file "kept".
func (t *T) kept() string {
	dir := t.folder("readonly")
	path := filepath.Join(dir, "kept")
	t.ok(os.WriteFile(path, []byte("as it was"), 0o644), "WriteFile")
	t.own(path)
	return dir
}

func mountReadOnly(t *T) {
	dir := t.kept()
	args := append([]string{"read", "/ro/kept", ";", "say", ";"}, changes("/ro")...)
	b := t.start(t.with([]engine.Mount{binding(dir, "/ro", true)}, args...))
	b.success()
	out := lines(b.stdout())
	if out[0] != "as it was" {
		t.Errorf("the program reads %q", out[0])
	}
	for _, line := range out[1:] {
		if !strings.HasSuffix(line, " EROFS") && !strings.HasSuffix(line, " EACCES") && !strings.HasSuffix(line, " EPERM") {
			t.Errorf("in a read-only folder: %s", line)
		}
	}
	t.unchanged(dir)
}

func mountReadOnlyTricks(t *T) {
	dir := t.kept()
	spec := t.with([]engine.Mount{binding(dir, "/ro", true)},
		"try hardlink /ro/kept /work/hard ; symlink /ro/kept /work/soft ; try append /work/soft more ; say ready ; hold")
	b := t.start(spec)
	b.says("ready")
	if out := b.stdout(); strings.Contains(out, " ok") {
		t.Errorf("a link to a read-only file: %q", out)
	}
	if t.features.Exec {
		if out, _, _ := b.exec(changes("/ro")...).finish(); strings.Contains(out, " ok") {
			t.Errorf("an exec in a read-only folder: %q", out)
		}
	}
	t.unchanged(dir)
}

func mountFile(t *T) {
	dir := t.kept()
	t.ok(os.WriteFile(filepath.Join(dir, "other"), []byte("secret"), 0o644), "WriteFile")
	b := t.start(t.with([]engine.Mount{binding(filepath.Join(dir, "kept"), "/etc/app.conf", true)},
		"read /etc/app.conf ; try read /etc/other ; try write /etc/app.conf x"))
	b.success()
	if out := b.stdout(); !strings.HasPrefix(out, "as it wasread ENOENT\nwrite E") {
		t.Errorf("a bound file: %q", out)
	}
}

func mountShared(t *T) {
	dir := t.kept()
	mounts := []engine.Mount{binding(dir, "/one", true), binding(dir, "/two/deep", true)}
	var boxes []*box
	for range 3 {
		boxes = append(boxes, t.start(t.with(mounts, "read /one/kept ; read /two/deep/kept ; say ; hold")))
	}
	for _, b := range boxes {
		b.says("as it wasas it was")
	}
	t.destroy(boxes[0].Sandbox)
	b := t.start(t.with(mounts, "read /one/kept"))
	b.success()
	t.unchanged(dir)
}

func mountNested(t *T) {
	outer, inner := t.folder("outer"), t.folder("inner")
	for _, dir := range []string{"mid", "tmp", "a b"} {
		t.folder("outer/" + dir)
	}
	t.ok(os.WriteFile(filepath.Join(inner, "file"), []byte("inner"), 0o644), "WriteFile")
	b := t.start(t.with([]engine.Mount{
		binding(outer, "/outer", false),
		binding(inner, "/outer/mid", true),
		{Type: engine.MountTmpfs, Target: "/outer/tmp"},
		binding(inner, "/outer/a b", true),
		binding(inner, "/with.dots.../ünï", true),
		binding(inner, "/work/below", true),
	}, "read", "/outer/mid/file", ";", "read", "/outer/a b/file", ";", "read", "/with.dots.../ünï/file", ";",
		"read", "/work/below/file", ";", "say", ";",
		"write", "/outer/tmp/x", "gone", ";", "try", "write", "/outer/mid/x", "no", ";", "write", "/outer/x", "stays"))
	b.success()
	if out := lines(b.stdout()); out[0] != "innerinnerinnerinner" || !strings.HasPrefix(out[1], "write E") {
		t.Errorf("nested mounts: %q", out)
	}
	if data, _ := os.ReadFile(filepath.Join(outer, "x")); string(data) != "stays" {
		t.Errorf("what was written to the outer mount is %q on the host", data)
	}
	if _, err := os.Stat(filepath.Join(outer, "tmp/x")); err == nil {
		t.Errorf("what was written to a tmpfs is on the host")
	}
}

func mountBadTargets(t *T) {
	dir := t.folder("data")
	for _, target := range []string{
		"", "/", "relative", "/a/../b", "/a/", "//a", "/./a", "/proc", "/proc/self", "/sys", "/dev", "/dev/null", "/a\x00b",
	} {
		t.refused(t.with([]engine.Mount{binding(dir, target, false)}, "exit 0"), caisson.ErrInvalid)
	}
	t.refused(t.with([]engine.Mount{binding(dir, "/a", false), binding(dir, "/a", false)}, "exit 0"), caisson.ErrInvalid)
	t.refused(t.with([]engine.Mount{binding("relative", "/a", false)}, "exit 0"), caisson.ErrInvalid)
	t.refused(t.with([]engine.Mount{{Type: "nfs", Source: dir, Target: "/a"}}, "exit 0"), caisson.ErrInvalid)
}

func mountHostileTarget(t *T) {
	victim, dir := t.folder("victim"), t.folder("data")
	spec := t.with([]engine.Mount{binding(dir, "/work/link/inner", false)}, "write /work/link/inner/x x")
	t.ok(os.Symlink(victim, filepath.Join(spec.Work, "link")), "Symlink")
	sb, err := t.engine.Create(t.ctx, spec)
	if err == nil {
		t.after(func() { t.destroy(sb) })
		if process, err := sb.Start(t.ctx); err == nil {
			_, err = process.Wait(t.ctx)
			t.ok(err, "Wait")
		}
	}
	if entries, _ := os.ReadDir(victim); len(entries) > 0 {
		t.Errorf("a mount made %s in a folder of the host", entries[0].Name())
	}
}

func mountStays(t *T) {
	dir := t.kept()
	b := t.start(t.with([]engine.Mount{binding(dir, "/data", false)}, "say ready ; hold"))
	b.says("ready")
	t.destroy(b.Sandbox)
	t.unchanged(dir)
}

func mountPrivate(t *T) {
	dir, below := t.folder("data"), t.folder("data/below")
	t.ok(os.WriteFile(filepath.Join(below, "f"), []byte("before"), 0o644), "WriteFile")
	b := t.start(t.with([]engine.Mount{binding(dir, "/data", false)}, "say ready ; hold"))
	b.says("ready")
	t.mountTmpfs(below, 1<<20)
	t.ok(os.WriteFile(filepath.Join(below, "f"), []byte("after"), 0o644), "WriteFile")
	if out, stderr, exit := b.exec("read /data/below/f").finish(); out != "before" {
		t.Errorf("the sandbox reads %q, want what was there before (%s, %+v)", out, stderr, exit)
	}
}

func mountTmpfs(t *T) {
	b := t.start(t.with([]engine.Mount{
		{Type: engine.MountTmpfs, Target: "/fast", Size: 1 << 20},
		{Type: engine.MountTmpfs, Target: "/private", Mode: 0o1777},
	}, "list /fast ; fill /fast/x 8m ; remove /fast/x ; fill /fast/y 512k ; write /private/x x"))
	b.success()
	out := lines(b.stdout())
	if len(out) != 2 || !strings.HasSuffix(out[0], " ENOSPC") || out[1] != "fill 524288 ok" {
		t.Errorf("a tmpfs of 1 MiB took %q", out)
	}
}

func mountTmp(t *T) {
	flag := filepath.Join(os.TempDir(), "caisson-enginetest-flag")
	t.ok(os.WriteFile(flag, nil, 0o644), "WriteFile")
	t.after(func() { os.Remove(flag) })
	b, _ := t.run("list /tmp ; write /tmp/own x")
	b.success()
	if got := b.stdout(); got != "" {
		t.Errorf("/tmp of a new sandbox has %q", got)
	}
	spec := t.spec("write /tmp/mine text")
	spec.Tmp = t.folder("tmp")
	t.ok(os.Chmod(spec.Tmp, 0o777|os.ModeSticky), "Chmod")
	t.start(spec).success()
	if t.features.Disk {
		// It may be on the disk that is the sandbox's own.
		return
	}
	if data, err := os.ReadFile(filepath.Join(spec.Tmp, "mine")); string(data) != "text" {
		t.Errorf("Spec.Tmp has %q, %v", data, err)
	}
}

func mountWork(t *T) {
	spec := t.spec("read", "/work/in", ";", "mkdir", "/work/out", ";", "write", "/work/out/made", "by the task", ";",
		"append", "/work/in", " and more", ";", "trap", "15", ";", "say", "ready", ";", "await", "15", ";", "read", "/work/later")
	t.put(spec, "in", "input", 0o644)
	b := t.start(spec)
	b.says("inputready")
	if got := t.get(spec, "in") + t.get(spec, "out/made"); got != "input and moreby the task" {
		t.Errorf("the host reads %q while the program runs", got)
	}
	t.put(spec, "later", "from the host", 0o644)
	t.ok(b.process.Signal(t.ctx, sigTerm), "Signal")
	b.success()
	if got := b.stdout(); got != "inputready\nfrom the host" {
		t.Errorf("the program reads %q", got)
	}
	t.owned(filepath.Join(spec.Work, "out"))
	t.owned(filepath.Join(spec.Work, "out/made"))
}
