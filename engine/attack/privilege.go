package attack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

func workdirs() []Attack {
	return []Attack{{
		ID: "A3", Name: "lifecycle/hostile-workdir", Run: hostileWorkdir, Bound: readOnly,
		Tries: "start in /proc/self/fd/N, /proc/1/root and the like, and read the host's files from there",
		CVE:   []string{"CVE-2024-21626"},
	}}
}

// hostileDirs are folders that may be the host's while a sandbox is being made.
func hostileDirs() []string {
	dirs := []string{"/proc/self/root", "/proc/1/root", "/proc/1/cwd", "/../../..", "/work/../../.."}
	for fd := 3; fd < 16; fd++ {
		dirs = append(dirs, "/proc/self/fd/"+strconv.Itoa(fd))
	}
	return dirs
}

func hostileWorkdir(t *Trial) {
	flag, text := t.Flag()
	for _, dir := range t.some(hostileDirs()) {
		spec := t.Spec("try", "read", "."+flag, ";", "try", "read", "../../../../../.."+flag, ";", "exit", "0")
		spec.Workdir = dir
		b := t.startUnless(spec, caisson.ErrInvalid, caisson.ErrNotFound, caisson.ErrDenied)
		if b == nil {
			continue
		}
		b.wait()
		if out := b.stdout(); strings.Contains(out, text) {
			t.Errorf("Workdir %q: the program reads the host's %s", dir, flag)
		}
		b.destroy()
	}
}

func privileges() []Attack {
	return []Attack{
		{
			ID: "A8", Name: "isolation/user", Run: noRights, Bound: readOnly,
			Tries: "be root, have root's groups, or have a capability in any of the five sets",
			CVE:   []string{"CVE-2022-29162", "CVE-2022-24769"},
		},
		{
			ID: "A8", Name: "isolation/no-new-privileges", Run: noNewPrivileges, Bound: readOnly,
			Tries: "run without no_new_privs",
		},
		{
			ID: "A8", Name: "isolation/set-id", Run: setID, Bound: "the program that gains rights only tells which",
			Tries: "gain rights by a set-id program of root's in the work folder",
			Needs: []string{"command", "share_work"}, Host: notRoot,
		},
	}
}

func noRights(t *Trial) {
	f := t.launch("report").facts()
	if f.UID == 0 || f.GID == 0 || slices.Contains(f.Groups, 0) {
		t.Errorf("the program is %d:%d with groups %v", f.UID, f.GID, f.Groups)
	}
	for set, bits := range f.Caps {
		if strings.Trim(bits, "0") != "" {
			t.Errorf("%s = %s, want none", set, bits)
		}
	}
	if len(f.Caps) != 5 && !t.separateKernel() { // another kernel may know fewer
		t.Errorf("the program knows %d sets of capabilities: is /proc there?", len(f.Caps))
	}
}

func noNewPrivileges(t *Trial) {
	// Another kernel need not tell: whether set-id programs gain something there,
	// isolation/set-id tries.
	if f := t.launch("report").facts(); !f.NoNewPrivs && !t.separateKernel() {
		t.Errorf("no_new_privs is not set")
	}
}

func setID(t *Trial) {
	want := t.launch("report").facts()
	for _, uid := range []int{0, t.Owner.UID} {
		spec := t.Spec("report")
		path := filepath.Join(spec.Work, "setid")
		t.OK(os.WriteFile(path, t.program(), 0o755), "WriteFile")
		t.OK(os.Chown(path, uid, uid), "Chown")
		t.OK(os.Chmod(path, 0o755|os.ModeSetuid|os.ModeSetgid), "Chmod")
		spec.Args = []string{t.inWork(spec, "setid"), "report"}
		b := t.start(spec)
		// A file of an owner unknown inside may not be executable at all.
		if exit := b.wait(); exit.Code == 126 {
			continue
		}
		if f := b.facts(); f.UID != want.UID || f.GID != want.GID {
			t.Errorf("a set-id program is %d:%d, others are %d:%d", f.UID, f.GID, want.UID, want.GID)
		}
	}
}

// inWork returns where a file of the work folder is for the program.
func (t *Trial) inWork(spec *engine.Spec, name string) string {
	if spec.Args[0] == t.Inside {
		return filepath.Join(spec.Work, name) // it sees the host's own files
	}
	return caisson.WorkDir + "/" + name
}

// program returns the inside program.
func (t *Trial) program() []byte {
	program, err := os.ReadFile(t.Inside)
	t.OK(err, "reading the inside program")
	return program
}

func users() []Attack {
	return []Attack{
		{
			ID: "A12", Name: "isolation/chosen-user", Run: chosenUser, Needs: []string{"user"}, Bound: readOnly,
			Tries: "become another user by a spelling: -1, 2^31, 2^32, colons, spaces, names that are not there",
			CVE:   []string{"CVE-2024-40635", "CVE-2026-30892", "CVE-2016-3697"},
		},
		{
			ID: "A13", Name: "construction/ids", Run: hostileIDs,
			Bound: "an id that leads elsewhere would name a folder below the engine's own",
			Tries: "name a sandbox with separators, .., NUL, newlines or 10000 letters",
		},
	}
}

func chosenUser(t *Trial) {
	for user, want := range map[string][2]int{"1234:5678": {1234, 5678}, "1000": {1000, 1000}, "65534:65534": {65534, 65534}} {
		spec := t.Spec("report")
		spec.User = user
		// Without root an engine has few users to give.
		b := t.startUnless(spec, caisson.ErrUnsupported, caisson.ErrDenied)
		if b == nil {
			continue
		}
		if f := b.facts(); f.UID != want[0] || f.GID != want[1] {
			t.Errorf("user %q is %d:%d inside", user, f.UID, f.GID)
		}
	}
	for _, user := range []string{
		"-1", "4294967295", "4294967296", "2147483648:2147483648", "99999999999999999999", "1:2:3",
		":", "1:", ":1", "0x0", "1000 ", "nobody-has-this-name", "../x", "a\nb",
	} {
		spec := t.Spec("report")
		spec.User = user
		sb, err := t.Engine.Create(t.ctx, spec)
		if err == nil {
			b := &box{t: t, spec: spec, Sandbox: sb}
			b.destroy()
			t.Errorf("user %q was accepted", user)
			continue
		}
		t.kind(err, fmt.Sprintf("Create with user %q", user), caisson.ErrInvalid, caisson.ErrUnsupported, caisson.ErrNotFound, caisson.ErrDenied)
	}
}

func hostileIDs(t *Trial) {
	for _, id := range []string{
		"", ".", "..", "../x", "a/b", "A", "-x", "a b", "a\nb", "a\x00b", "ü", "a.b", "$(id)", "%s",
		strings.Repeat("a", 61), strings.Repeat("a", 10000),
	} {
		spec := t.Spec("exit 0")
		spec.ID = id
		sb, err := t.Engine.Create(t.ctx, spec)
		if err == nil {
			b := &box{t: t, spec: spec, Sandbox: sb}
			b.destroy()
		}
		if !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("Create with the id %.30q = %v, want an error of kind %v", id, err, caisson.ErrInvalid)
		}
		if entries, _ := os.ReadDir(spec.Dir); len(entries) > 0 {
			t.Errorf("a refused id left %s in Spec.Dir", entries[0].Name())
		}
	}
}
