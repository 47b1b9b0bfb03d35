//go:build unix

package machine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
)

// here is for files that are where the spec says.
func here(path string) string { return path }

// shaped is a machine with files, and its shape.
func shaped(t *testing.T, q *QEMU) (*Spec, *Shape) {
	t.Helper()
	dir := t.TempDir()
	s := small()
	s.Kernel, s.Initrd = put(t, filepath.Join(dir, "vmlinuz"), []byte("k")), put(t, filepath.Join(dir, "initrd"), []byte("i"))
	s.Disks = []Disk{
		{Name: "image", Path: put(t, filepath.Join(dir, "image"), []byte("disk")), Format: "raw", ReadOnly: true},
		{Name: "layer", Path: put(t, filepath.Join(dir, "layer"), make([]byte, 1<<20)), Format: "raw"},
	}
	sh, err := q.Shape(s, here, "agent")
	if err != nil {
		t.Fatal(err)
	}
	return s, sh
}

// TestShape holds what a saved state depends on, and what not.
func TestShape(t *testing.T) {
	q := whole()
	s, sh := shaped(t, q)
	for name, c := range map[string]struct {
		change func(s *Spec, q *QEMU)
		why    string // empty: the same shape
	}{
		"another identity":    {func(s *Spec, _ *QEMU) { s.UUID = "01234567-89ab-cdef-0123-456789abcdef" }, ""},
		"it waits":            {func(s *Spec, _ *QEMU) { s.Incoming, s.Paused = true, true }, ""},
		"a disk's contents":   {func(s *Spec, _ *QEMU) { s.Disks[1].Path = put(t, filepath.Join(t.TempDir(), "x"), make([]byte, 1<<20)) }, ""},
		"another size":        {func(s *Spec, _ *QEMU) { s.Disks[1].Path = put(t, filepath.Join(t.TempDir(), "x"), make([]byte, 2<<20)) }, "another size"},
		"another image":       {func(s *Spec, _ *QEMU) { s.Disks[0].Path = put(t, filepath.Join(t.TempDir(), "x"), []byte("disk")) }, "disk-image"},
		"another kernel":      {func(s *Spec, _ *QEMU) { s.Kernel = put(t, filepath.Join(t.TempDir(), "x"), []byte("k")) }, "kernel"},
		"more memory":         {func(s *Spec, _ *QEMU) { s.Memory *= 2 }, "machine is another"},
		"another QEMU":        {func(_ *Spec, q *QEMU) { q.Version.Micro++ }, "made by QEMU"},
		"its distribution's":  {func(_ *Spec, q *QEMU) { q.Version.Package += "x" }, "made by QEMU"},
		"a machine's version": {func(s *Spec, q *QEMU) { q.Machines[s.Type] += "x" }, "it is of a machine"},
	} {
		t.Run(name, func(t *testing.T) {
			other, otherQ := *s, whole()
			other.Disks = append([]Disk(nil), s.Disks...)
			c.change(&other, otherQ)
			got, err := otherQ.Shape(&other, here, "agent")
			if err != nil {
				t.Fatal(err)
			}
			why := got.Differs(sh)
			if (why == "") != (c.why == "") || !strings.Contains(why, c.why) {
				t.Errorf("Differs() = %q, want %q", why, c.why)
			}
			// What is on disks, and their size, is all that a guest without need not know.
			disks := c.why == "" || c.why == "another size" || c.why == "disk-image"
			if why := got.WithoutDisks().Differs(sh.WithoutDisks()); (why == "") != disks {
				t.Errorf("Differs() without disks = %q, want equal: %v", why, disks)
			}
			if (got.Key() == sh.Key()) != (c.why == "") {
				t.Errorf("Key() = %s and %s, want them to tell the same as Differs: %q", got.Key(), sh.Key(), why)
			}
		})
	}
	if without := sh.WithoutDisks(); without.Differs(sh) == "" || sh.Differs(without) == "" || without.Key() == sh.Key() {
		t.Error("a guest that knows its disks goes on where none does")
	}
	if other, err := q.Shape(s, here, "agent 2"); err != nil || other.Differs(sh) == "" || other.Key() == sh.Key() {
		t.Errorf("another agent: %v, %v", other, err)
	}
	s.Kernel += "absent"
	if _, err := q.Shape(s, here, ""); err == nil {
		t.Error("Shape() without the kernel's file = nil")
	}
}

// save puts a state into a folder.
func save(t *testing.T, s *States, name string, sh *Shape) *State {
	t.Helper()
	g, err := s.Begin(name, sh)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.File().WriteString("memory of " + name); err != nil {
		t.Fatal(err)
	}
	st, err := g.Commit()
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func openStates(t *testing.T, dir string, o *StatesOptions) *States {
	t.Helper()
	s, err := OpenStates(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStates(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "states")
	s := openStates(t, dir, nil)
	_, sh := shaped(t, whole())
	if _, err := s.Find("a", sh); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("Find() in an empty folder = %v, want ErrNotFound", err)
	}
	g, err := s.Begin("a", sh)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Find("a", sh); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("Find() while it is made = %v, want ErrNotFound", err)
	}
	if err := g.Discard(); err != nil {
		t.Fatal(err)
	}
	st := save(t, s, "a", sh)
	got, err := s.Find("a", sh)
	if err != nil || got.File != st.File || got.Size != caisson.Bytes(len("memory of a")) {
		t.Fatalf("Find() = %+v, %v, want %+v", got, err, st)
	}
	disk := filepath.Join(t.TempDir(), "layer")
	put(t, disk, []byte("written to"))
	g, err = s.Begin("with a disk", sh)
	if err == nil {
		_, err = g.File().WriteString("memory")
	}
	if err = errors.Join(err, g.AddDisk("layer", disk), g.AddDisk("absent", disk+"x")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("AddDisk() = %v, want only that one is not there", err)
	}
	if data, err := os.ReadFile(DiskOf(g.File().Name(), "layer")); string(data) != "written to" || err != nil {
		t.Errorf("a state's disk says %q, %v", data, err)
	}
	if err := g.Discard(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(got.File); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its file: %v, %v, want that only its owner reads it", info, err)
	}
	// A second one of the same is as good as the first, which stays.
	if again := save(t, s, "a", sh); again.Made != got.Made && !again.Made.Equal(got.Made) {
		t.Errorf("a second one was made at %v, the first at %v, want the first to stay", again.Made, got.Made)
	}
	// One of another version of QEMU is told as such.
	newer := *sh
	newer.QEMU = "99.0.0"
	if _, err := s.Find("a", &newer); !errors.Is(err, caisson.ErrUnsupported) || !strings.Contains(err.Error(), "99.0.0") || strings.Contains(err.Error(), "\n") {
		t.Errorf("Find() by another QEMU = %v, want one line that says so", err)
	}
	if _, err := s.Find("b", &newer); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("Find() of another name = %v, want ErrNotFound", err)
	}
	if err := s.Remove(st.Key); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(st.Key); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("Remove() again = %v, want ErrNotFound", err)
	}
	for _, key := range []string{"", "..", "../x", strings.Repeat("0", 31) + "/"} {
		if err := s.Remove(key); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("Remove(%q) = %v, want ErrInvalid", key, err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestStatesHostile holds that nothing is gone on from that somebody else could have
// written, or that is not as it was made.
func TestStatesHostile(t *testing.T) {
	_, sh := shaped(t, whole())
	for name, c := range map[string]struct {
		spoil func(dir string, st *State) error
		kind  caisson.Kind
	}{
		"cut off":             {func(_ string, st *State) error { return os.Truncate(st.File, 3) }, caisson.ErrInvalid},
		"empty":               {func(_ string, st *State) error { return os.Truncate(st.File, 0) }, caisson.ErrInvalid},
		"open to others":      {func(_ string, st *State) error { return os.Chmod(st.File, 0o640) }, caisson.ErrDenied},
		"a folder of others'": {func(dir string, _ *State) error { return os.Chmod(dir, 0o770) }, caisson.ErrDenied},
		"its folder":          {func(_ string, st *State) error { return os.Chmod(filepath.Dir(st.File), 0o777) }, caisson.ErrDenied},
		"a link": {func(_ string, st *State) error {
			return errors.Join(os.Rename(st.File, st.File+"x"), os.Symlink(st.File+"x", st.File))
		}, caisson.ErrDenied},
		"no description": {func(_ string, st *State) error {
			return os.WriteFile(filepath.Join(filepath.Dir(st.File), stateMeta), []byte("{"), 0o600)
		}, caisson.ErrInvalid},
		"an empty description": {func(_ string, st *State) error {
			return os.WriteFile(filepath.Join(filepath.Dir(st.File), stateMeta), []byte("{}"), 0o600)
		}, caisson.ErrInvalid},
		"a long description": {func(_ string, st *State) error {
			return os.WriteFile(filepath.Join(filepath.Dir(st.File), stateMeta), make([]byte, maxStateMeta+1), 0o600)
		}, caisson.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "states")
			s := openStates(t, dir, nil)
			st := save(t, s, "a", sh)
			if err := c.spoil(dir, st); err != nil {
				t.Fatal(err)
			}
			if got, err := s.Find("a", sh); caisson.KindOf(err) != c.kind {
				t.Errorf("Find() = %v, %v, want %v", got, err, c.kind)
			}
			if c.kind == caisson.ErrInvalid {
				// A new one takes its place.
				save(t, s, "a", sh)
				if _, err := s.Find("a", sh); err != nil {
					t.Errorf("Find() of a new one = %v", err)
				}
			}
		})
	}
}

func TestStatesCollect(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "states")
	s := openStates(t, dir, &StatesOptions{Max: 2, Age: time.Hour})
	_, sh := shaped(t, whole())
	used := func(name string, ago time.Duration) *State {
		other := *sh
		other.Agent = name
		st := save(t, s, name, &other)
		when := time.Now().Add(-ago)
		if err := os.Chtimes(filepath.Join(filepath.Dir(st.File), stateMeta), when, when); err != nil {
			t.Fatal(err)
		}
		return st
	}
	used("old", 2*time.Hour)
	kept := used("third", 3*time.Minute)
	used("second", 2*time.Minute)
	used("first", time.Minute)
	left, err := os.MkdirTemp(dir, stateNew)
	if err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-2 * staleState)
	if err := os.Chtimes(left, long, long); err != nil {
		t.Fatal(err)
	}
	g, err := s.Begin("new", sh)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Discard()
	removed, err := s.Collect(kept.Key)
	if err != nil || len(removed) != 1 || removed[0] != "old" {
		t.Errorf("Collect() = %q, %v, want the old one: the third is kept", removed, err)
	}
	if removed, err := s.Collect(""); err != nil || len(removed) != 1 || removed[0] != "third" {
		t.Errorf("Collect() = %q, %v, want the third", removed, err)
	}
	if _, err := os.Lstat(left); err == nil {
		t.Error("what nobody finishes is still there")
	}
	if _, err := os.Lstat(g.dir); err != nil {
		t.Errorf("what is being made has gone: %v", err)
	}
}
