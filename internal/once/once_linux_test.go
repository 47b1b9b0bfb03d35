package once_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/once"
)

// add makes a file in a folder.
func add(t *testing.T, o *once.Files, dir, name, value string) error {
	t.Helper()
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	return o.Add(int(root.Fd()), &once.File{Path: name, Value: []byte(value), UID: os.Geteuid(), GID: os.Getegid()})
}

func TestOnce(t *testing.T) {
	dir := t.TempDir()
	var o once.Files
	defer o.Close()
	for _, name := range []string{"/a", "b"} {
		if err := add(t, &o, dir, name, "value of "+name); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(dir + "/a")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// The end comes because nobody else holds it.
	if data, err := io.ReadAll(f); string(data) != "value of /a" || err != nil {
		t.Errorf("read %q, %v", data, err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		_, err := os.Lstat(dir + "/a")
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it is still there: %v", err)
		}
	}
	if err := add(t, &o, dir, "b", "x"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second one of the name = %v", err)
	}
	o.Close()
	o.Close()
	if list, err := os.ReadDir(dir); len(list) != 0 || err != nil {
		t.Errorf("after Close there are %v, %v", list, err)
	}
	if err := add(t, &o, dir, "b", string(make([]byte, once.Max+1))); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("a value too large = %v", err)
	}
	if err := os.Symlink(".", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := add(t, &o, dir, "link/b", "x"); err == nil {
		t.Error("a link was followed")
	}
}
