package sql_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage/sql"
)

// TestFileNames holds that nothing in a file's name is taken for a setting.
func TestFileNames(t *testing.T) {
	for _, name := range []string{"a b", "a?mode=memory", "a#b", "a%20b", "ä", "a;b"} {
		path := filepath.Join(t.TempDir(), name)
		load(t, open(t, "sqlite:"+path), people("1", "1,Anna"))
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%q has mode %v, want one for its owner alone", name, info.Mode())
		}
		wantRows(t, open(t, "sqlite:"+path), nil, `"1","Anna"`)
	}
}

func TestNoDatabase(t *testing.T) {
	dir := t.TempDir()
	s := open(t, "sqlite:"+filepath.Join(dir, "nothing", "a.db"))
	_, err := s.Tables(t.Context())
	wantError(t, err, caisson.ErrNotFound, "folder")

	path := filepath.Join(dir, "text")
	if err := os.WriteFile(path, []byte("This is no database, but a text that is long enough."), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = open(t, "sqlite:"+path).Tables(t.Context())
	wantError(t, err, caisson.ErrInvalid, "not a database")
	_, err = open(t, "sqlite:"+dir).Load(t.Context(), people("1", "1,Anna"))
	if !errors.Is(err, caisson.ErrUnavailable) && !errors.Is(err, caisson.ErrDenied) {
		t.Errorf("a folder in place of a file: %v", err)
	}
}

// TestReadOnlyFile holds that what may only be read can be read, and that a load
// says what is missing.
func TestReadOnlyFile(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write everything; scripts/test-user runs this as somebody else")
	}
	dir := t.TempDir()
	at := "sqlite:" + filepath.Join(dir, "a.db")
	s, err := sql.New(at, nil)
	if err != nil {
		t.Fatal(err)
	}
	load(t, s, people("1", "1,Anna"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "a.db"), 0o400); err != nil {
		t.Fatal(err)
	}
	s = open(t, at)
	wantRows(t, s, nil, `"1","Anna"`)
	_, err = s.Load(t.Context(), people("2", "1,Anna"))
	wantError(t, err, caisson.ErrDenied, "a.db", "readonly")
	wantRows(t, s, nil, `"1","Anna"`)
}
