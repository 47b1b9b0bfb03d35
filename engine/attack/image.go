package attack

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// A File is one thing in a root file system that an attack makes.
type File struct {
	Path  string      // relative, with slashes
	Link  string      // of a symbolic link: its target
	Text  string      // of a regular file
	Mode  fs.FileMode // type and permission; 0: a regular file of 0644
	Major uint32      // of a device
	Minor uint32
}

func images() []Attack {
	all := []Attack{
		{
			ID: "A6", Name: "image/self-exe", Run: imageSelfExe, Bound: "programs are compared before and after",
			Tries: "have an image's program be #!/proc/self/exe", CVE: []string{"CVE-2019-5736"},
		},
		{
			ID: "A8", Name: "image/set-id", Run: imageSetID, Bound: "the program that gains rights only tells which",
			Tries: "gain rights by a set-id program of root's in the image", Host: notRoot,
		},
		{
			ID: "A9", Name: "image/devices", Run: imageDevices, Bound: "the devices are opened and closed",
			Tries: "use device nodes that are in the image", Host: notRoot,
		},
		{
			ID: "A12", Name: "image/users", Run: imageUsers, Needs: []string{"user"}, Bound: readOnly,
			Tries: "become root by a name whose number in the image's passwd is too large, negative or doubled",
			CVE:   []string{"CVE-2024-40635", "CVE-2026-30892", "CVE-2016-3697"},
		},
		{
			ID: "A12", Name: "image/endless-passwd", Run: imageEndlessPasswd, Needs: []string{"user"}, Bound: "what reads it has a limit of its own to keep",
			Tries: "use up memory or time by a passwd that is a device, a FIFO or a terabyte of holes",
			CVE:   []string{"CVE-2026-47262"},
		},
	}
	for _, l := range []struct {
		path string
		cve  []string
	}{
		{"dev", []string{"CVE-2026-41579", "CVE-2026-47766"}},
		{"proc", []string{"CVE-2019-19921", "CVE-2023-27561", "CVE-2023-28642", "CVE-2025-52881"}},
		{"sys", []string{"CVE-2019-16884", "CVE-2023-28642"}},
		{"etc", nil},
		{"tmp", []string{"CVE-2021-30465", "CVE-2024-45310"}},
		{"work", []string{"CVE-2021-30465", "CVE-2022-23648"}},
		{"dev/null", []string{"CVE-2025-31133"}},
		{"dev/console", []string{"CVE-2025-52565"}},
		{"dev/pts", []string{"CVE-2025-52565"}},
		{"dev/shm", []string{"CVE-2021-30465"}},
		{"etc/passwd", []string{"CVE-2026-47262"}},
		{"etc/resolv.conf", nil},
	} {
		all = append(all, Attack{
			ID: "A5", Name: "image/link-" + strings.ReplaceAll(l.path, "/", "-"), Run: imageLink(l.path), Bound: hostFolder,
			Tries: "an image whose /" + l.path + " is a link to the host or into /proc", CVE: l.cve,
		})
	}
	return all
}

// startHostile creates and starts a sandbox of a hostile image. It returns nil
// where the engine would not: that is as good as if the attack were held, since
// a plain image was seen to run.
func (t *Trial) startHostile(spec *engine.Spec) *box {
	return t.startUnless(spec, append(refusals(), caisson.ErrUnknown, caisson.ErrInternal, caisson.ErrUnavailable)...)
}

// refusals are the errors by which an engine may turn something hostile away.
func refusals() []caisson.Kind {
	return []caisson.Kind{caisson.ErrInvalid, caisson.ErrDenied, caisson.ErrNotFound, caisson.ErrUnsupported, caisson.ErrExhausted}
}

// inRoot returns a spec whose program runs in a root file system with files.
func (t *Trial) inRoot(files []File, args ...string) *engine.Spec {
	spec := t.Spec(args...)
	if t.Image == nil {
		t.Inapplicable("the engine runs no images")
	}
	if !t.imageRan {
		// An engine that runs no image at all withstands nothing.
		plain := t.Spec("exit 0")
		t.OK(t.Image(plain, nil), "making a plain image")
		b := t.start(plain)
		b.success()
		b.destroy()
		t.imageRan = true
	}
	t.OK(t.Image(spec, files), "making the image")
	return spec
}

// imageLink returns an attack by an image in which path is a link.
func imageLink(path string) func(t *Trial) {
	return func(t *Trial) {
		_, text := t.Flag()
		victim := t.Folder("victim")
		file := filepath.Join(t.Dir, "victim-file")
		t.OK(os.WriteFile(file, []byte("of the host\n"), 0o666), "WriteFile")
		for _, target := range []string{
			victim, file, "/proc/self/root" + victim, "/proc/sys/kernel/core_pattern", "/proc/self/fd/3",
		} {
			args := []string{"try", "read", "/" + path + "/../flag", ";", "try", "write", "/" + path + "/made", "x"}
			for attempt := range strings.FieldsSeq("core-pattern sysrq uevent-helper cgroup-write open-kcore") {
				args = append(args, ";", "attempt", attempt)
			}
			b := t.startHostile(t.inRoot([]File{{Path: path, Link: target, Mode: fs.ModeSymlink}}, args...))
			if b == nil {
				continue
			}
			b.wait()
			t.linkHeld(path, target, b.stdout(), text)
			b.destroy()
		}
		t.Empty(victim)
		if data, err := os.ReadFile(file); string(data) != "of the host\n" {
			t.Errorf("a file of the host holds %.100q, %v", data, err)
		}
	}
}

// linkHeld checks what a program said in a root with a link.
func (t *Trial) linkHeld(path, target, out, text string) {
	if strings.Contains(out, text) {
		t.Errorf("/%s -> %s: the program reads the host's file", path, target)
	}
	for _, line := range lines(out) {
		name, result, _ := strings.Cut(line, " ")
		switch name {
		case "core-pattern", "sysrq", "uevent-helper", "cgroup-write", "open-kcore":
			if !denied(result) && result != "ENOTDIR" && result != "ELOOP" && !t.separateKernel() {
				t.Errorf("/%s -> %s: %s", path, target, line)
			}
		}
	}
}

func imageSelfExe(t *Trial) {
	before := t.programs()
	spec := t.inRoot([]File{{Path: "entry", Text: "#!/proc/self/exe\n", Mode: 0o755}})
	spec.Args = []string{"/entry", "attempt", "write-own-exe"}
	if b := t.startHostile(spec); b != nil {
		b.kill()
		if strings.Contains(b.stdout(), " ok") {
			t.Errorf("a program of the host's could be written to: %.200q", b.stdout())
		}
	}
	for path, sum := range t.programs() {
		if was, ok := before[path]; ok && was != sum {
			t.Errorf("%s has changed", path)
		}
	}
}

func imageSetID(t *Trial) {
	want := t.launch("report").facts()
	spec := t.inRoot([]File{{Path: "setid", Text: string(t.program()), Mode: 0o755 | fs.ModeSetuid | fs.ModeSetgid}})
	spec.Args = []string{"/setid", "report"}
	b := t.startHostile(spec)
	if b == nil || b.wait().Code == 126 {
		return
	}
	if f := b.facts(); f.UID != want.UID || f.GID != want.GID || strings.Trim(f.Caps["CapEff"], "0") != "" {
		t.Errorf("a set-id program is %d:%d with %s, others are %d:%d", f.UID, f.GID, f.Caps["CapEff"], want.UID, want.GID)
	}
}

func imageDevices(t *Trial) {
	// A loop device and FUSE's: nothing happens when they are opened, and the
	// kernel looks at nothing but the permission to use devices at all.
	files := []File{
		{Path: "block", Mode: fs.ModeDevice | 0o666, Major: 7},
		{Path: "char", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o666, Major: 10, Minor: 229},
		{Path: "dev/block", Mode: fs.ModeDevice | 0o666, Major: 7},
	}
	b := t.startHostile(t.inRoot(files, "open /block 1 ; open /char 1 ; open /dev/block 1"))
	if b == nil {
		return
	}
	b.success()
	for _, line := range lines(b.stdout()) {
		fields := strings.Fields(line)
		// ENXIO comes from the driver: it was reached.
		if last := fields[len(fields)-1]; last != "EACCES" && last != "EPERM" && last != "ENOENT" && !t.separateKernel() {
			t.Errorf("a device of the image: %s", line)
		}
	}
}

func imageUsers(t *Trial) {
	passwd := "root:x:0:0:root:/:/x\nover:x:4294967296:4294967296::/:/x\nminus:x:-1:-1::/:/x\n" +
		"word:x:zero:zero::/:/x\nempty:x:::::/x\nhex:x:0x0:0x0::/:/x\nspace:x: 0: 0::/:/x\nshort:x:0\n:x:0:0::/:/x\n1234:x:0:0::/:/x\n"
	for _, user := range []string{"over", "minus", "word", "empty", "hex", "space", "short", "1234", "over:over"} {
		spec := t.inRoot([]File{{Path: "etc/passwd", Text: passwd}, {Path: "etc/group", Text: passwd}}, "report")
		spec.User = user
		b := t.startHostile(spec)
		if b == nil {
			continue
		}
		exit := b.wait()
		if exit.Code != 0 {
			continue
		}
		// A number without an entry has the group 0, as in Docker.
		if f := b.facts(); f.UID == 0 {
			t.Errorf("user %q is %d:%d", user, f.UID, f.GID)
		}
		b.destroy()
	}
}

func imageEndlessPasswd(t *Trial) {
	for _, file := range []File{
		{Path: "etc/passwd", Link: "/dev/zero", Mode: fs.ModeSymlink},
		{Path: "etc/passwd", Mode: fs.ModeNamedPipe | 0o666},
		{Path: "etc/passwd", Text: strings.Repeat("x:x:1000:1000::/:/x\n", 1<<19)},
		{Path: "etc/passwd", Mode: fs.ModeDir | 0o755},
	} {
		before := t.Memory()
		spec := t.inRoot([]File{file}, "exit 0")
		spec.User = "somebody"
		b := t.startHostile(spec)
		if b != nil {
			b.kill()
			b.destroy()
		}
		if more := t.Memory() - before; more > 32*caisson.MiB {
			t.Errorf("Caisson uses %v more than before", more)
		}
	}
}

// programs returns what the programs that the engine starts on the host hold.
func (t *Trial) programs() map[string]string {
	sums := make(map[string]string)
	for _, path := range t.Programs {
		data, err := os.ReadFile(path)
		t.OK(err, "reading a program of the host")
		sums[path] = fmt.Sprintf("%x", sha256.Sum256(data))
	}
	return sums
}
