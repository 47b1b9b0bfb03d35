package allow_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/allow"
)

// tree makes folders and links; it returns the real path of their folder.
func tree(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"u1/f", "u10/f", "other/f"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"u1/out": dir + "/other", "u1/up": "../other/f", "in": "u1", "u1/in": "f", "u1/dangling": "nowhere", "link": "u1/../other",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestExisting(t *testing.T) {
	dir := tree(t)
	l, err := allow.New([]string{dir + "/in/"}, false)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]caisson.Kind{
		"u1/f": 0, "u1": 0, "in/f": 0, "u1/in": 0, "u1/../u1/f": 0,
		"u10/f": caisson.ErrDenied, "u10": caisson.ErrDenied, "other/f": caisson.ErrDenied, "u1/out/f": caisson.ErrDenied,
		"u1/up": caisson.ErrDenied, "u1/../other/f": caisson.ErrDenied, ".": caisson.ErrDenied, "link/f": caisson.ErrDenied,
		"u1/absent": caisson.ErrNotFound, "u1/dangling": caisson.ErrNotFound, "absent": caisson.ErrDenied, "U1/f": caisson.ErrDenied,
	} {
		real, err := l.Existing(dir+"/"+path, false)
		if caisson.KindOf(err) != want {
			t.Errorf("Existing(%s) = %q, %v, want kind %v", path, real, err, want)
		}
		if err == nil {
			if again, _ := filepath.EvalSymlinks(real); again != real {
				t.Errorf("Existing(%s) = %q, which has links in it", path, real)
			}
		}
	}
	if _, err := l.Existing(dir+"/other/f", true); err != nil {
		t.Errorf("for a trusted task: %v", err)
	}
	if _, err := l.Existing(dir+"/absent", true); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("absent for a trusted task: %v, want ErrNotFound", err)
	}
}

func TestNew(t *testing.T) {
	dir := tree(t)
	l, err := allow.New([]string{dir + "/u1"}, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path   string
		folder bool
		want   string
		kind   caisson.Kind
	}{
		{"u1/new", false, "u1/new", 0},
		{"u1/a/b/c", false, "u1/a/b/c", 0},
		{"in/a", true, "u1/a", 0},
		{"u1/in", false, "u1/in", 0},
		{"u1/up", false, "u1/up", 0},
		{"u1/out", false, "u1/out", 0},
		{"u1/out", true, "", caisson.ErrDenied},
		{"u1/out/x", false, "", caisson.ErrDenied},
		{"u1/out/a/b", true, "", caisson.ErrDenied},
		{"u1/../x", false, "", caisson.ErrDenied},
		{"u10/x", false, "", caisson.ErrDenied},
		{"u1/dangling/x", false, "", caisson.ErrNotFound},
		{"u1/dangling", true, "", caisson.ErrNotFound},
	} {
		got, err := l.New(dir+"/"+c.path, c.folder, false)
		if caisson.KindOf(err) != c.kind {
			t.Errorf("New(%s, %v) = %q, %v, want kind %v", c.path, c.folder, got, err, c.kind)
		}
		if err == nil && got != dir+"/"+c.want {
			t.Errorf("New(%s, %v) = %q, want %s", c.path, c.folder, got, c.want)
		}
	}
}

func TestAny(t *testing.T) {
	l, err := allow.New(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Existing("/", false); err != nil {
		t.Error(err)
	}
	if _, err := allow.New([]string{"relative"}, false); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("New with a relative directory = %v, want ErrInvalid", err)
	}
}

func TestWithin(t *testing.T) {
	for _, c := range []struct {
		path, dir string
		want      bool
	}{
		{"/a", "/a", true}, {"/a/b", "/a", true}, {"/ab", "/a", false}, {"/", "/a", false}, {"/a", "/", true}, {"/", "/", true},
	} {
		if got := allow.Within(c.path, c.dir); got != c.want {
			t.Errorf("Within(%q, %q) = %v", c.path, c.dir, got)
		}
	}
}
