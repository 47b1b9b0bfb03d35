package atomicfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/caissonrun/caisson/internal/atomicfile"
)

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	for _, want := range []string{"first", "second, longer", ""} {
		if err := atomicfile.Write(path, []byte(want), 0o666); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want {
			t.Errorf("ReadFile = %q, %v, want %q", got, err, want)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("mode = %v, %v, want 0666 whatever the umask", info.Mode(), err)
	}
	if got := names(t, filepath.Dir(path)); len(got) != 1 {
		t.Errorf("folder holds %q, want the file alone", got)
	}
}

func TestWriteErrLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Write(filepath.Join(dir, "taken"), []byte("x"), 0o600); err == nil {
		t.Error("writing over a folder succeeded")
	}
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("folder holds %q, want no temporary file", got)
	}
	err := atomicfile.Write(filepath.Join(dir, "absent", "a"), nil, 0o600)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Write in an absent folder = %v, want ErrNotExist", err)
	}
}

func TestCloseTakesBack(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	f, err := atomicfile.CreateIn(root, "a", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	got := names(t, dir)
	if len(got) != 1 || !atomicfile.IsTemp(got[0]) {
		t.Errorf("while it is written the folder holds %q, want one name that IsTemp tells", got)
	}
	for range 2 {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	if got := names(t, dir); len(got) != 0 {
		t.Errorf("after Close the folder holds %q, want nothing", got)
	}
	if err := f.Commit(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Commit after Close = %v, want ErrClosed", err)
	}
}

func TestCreateInErrName(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, name := range []string{"", ".", "..", "a/b", "/a"} {
		if _, err := atomicfile.CreateIn(root, name, 0o600); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("CreateIn(%q) = %v, want ErrInvalid", name, err)
		}
	}
}

func TestIsTemp(t *testing.T) {
	a, b := atomicfile.TempNameOf("a"), atomicfile.TempNameOf("b")
	if a == b || a != atomicfile.TempNameOf("a") {
		t.Errorf("TempNameOf = %q and %q, want one name for each seed", a, b)
	}
	for _, name := range []string{atomicfile.TempName(), a} {
		if !atomicfile.IsTemp(name) {
			t.Errorf("IsTemp does not know %q", name)
		}
	}
	for _, name := range []string{"", ".caisson-.tmp", ".caisson-x.tmp", "result.json"} {
		if atomicfile.IsTemp(name) {
			t.Errorf("IsTemp(%q) = true", name)
		}
	}
}
