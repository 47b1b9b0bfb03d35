//go:build unix

package component_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/mount"
	"github.com/caissonrun/caisson/mount/component"
	"github.com/caissonrun/caisson/mount/mounttest"
	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// parent returns what a task lends: a folder with a folder, a file, a link that
// leads out of it and a FIFO, one in memory, and links.
func parent(t *testing.T) *mount.Parent {
	t.Helper()
	top := t.TempDir()
	must(t, os.Chmod(top, 0o755))
	p := &mount.Parent{Dir: filepath.Join(top, "dir"), Private: filepath.Join(top, "private")}
	for _, dir := range []string{"dir/row/data", "private/row"} {
		must(t, os.MkdirAll(filepath.Join(top, dir), 0o700))
	}
	if os.Geteuid() == 0 {
		must(t, os.Chown(filepath.Join(p.Dir, "row/data"), 1000, 1000)) // as who makes it does
	}
	for name, mode := range map[string]os.FileMode{"dir/file": 0o600, "private/row/config": 0o600, "table": 0o644, "closed": 0o600} {
		must(t, os.WriteFile(filepath.Join(top, name), nil, mode))
	}
	must(t, os.Symlink("/etc", filepath.Join(p.Dir, "out")))
	must(t, unix.Mkfifo(filepath.Join(p.Dir, "fifo"), 0o600))
	p.Links = map[string]string{
		"table": filepath.Join(top, "table"), "closed": filepath.Join(top, "closed"),
		"folder": top, "fifo": filepath.Join(p.Dir, "fifo"), "relative": "table", "gone": filepath.Join(top, "gone"),
	}
	return p
}

func TestMounter(t *testing.T) {
	mounttest.Test(t, mounttest.Harness{
		New:        func(t *testing.T) mount.Mounter { return component.New() },
		Mount:      caisson.Mount{Source: "row/data"},
		Parent:     parent(t),
		Persistent: true,
		Invalid: map[string]caisson.Mount{
			"no source": {}, "the folder itself": {Source: "."}, "outside": {Source: "../closed"},
			"absolute": {Source: "/etc"}, "FIFO": {Source: "fifo"}, "no link": {Source: "link:other"},
			"FIFO as link": {Source: "link:fifo"}, "relative link": {Source: "link:relative"},
			"outside of memory": {Source: "private:../dir"}, "all memory": {Source: "private:"},
			"option": {Source: "row/data", Opts: map[string]string{"size": "1m"}},
		},
	})
}

// TestPlaces checks what becomes of each kind of source, and that nothing leads
// out of what was lent.
func TestPlaces(t *testing.T) {
	p := parent(t)
	for source, want := range map[string]mount.Place{
		"row/data":           {Source: filepath.Join(p.Dir, "row/data"), Owned: true},
		"file":               {Source: filepath.Join(p.Dir, "file"), Owned: true},
		"private:row/config": {Source: filepath.Join(p.Private, "row/config"), Owned: true},
		"link:table":         {Source: p.Links["table"], ReadOnly: true},
		"link:folder":        {Source: p.Links["folder"], ReadOnly: true},
	} {
		req := &mount.Request{
			Env: mount.Env{Parent: p}, Mount: caisson.Mount{Type: component.Type, Source: source, Target: "/data"},
			Dir: t.TempDir(), Save: func(*mount.Place) error { return nil },
		}
		got, err := component.New().Mount(t.Context(), req)
		if err != nil {
			t.Errorf("Mount(%q): %v", source, err)
			continue
		}
		if got.Source != want.Source || got.Owned != want.Owned || got.ReadOnly != want.ReadOnly {
			t.Errorf("Mount(%q) = %+v, want %+v", source, got, want)
		}
	}
	for _, source := range []string{"out", "out/passwd", "row/gone", "link:gone", "link:closed"} {
		if source == "link:closed" && os.Geteuid() != 0 {
			continue // one's own file can be read
		}
		err := component.New().Check(caisson.Mount{Type: component.Type, Source: source, Target: "/data"}, mount.Env{Parent: p})
		if err == nil {
			t.Errorf("Check(%q) took it", source)
		}
	}
}

// TestNobodysChild checks that a task that is no part of another gets nothing.
func TestNobodysChild(t *testing.T) {
	for _, source := range []string{"row/data", "private:row", "link:table", "/etc", ""} {
		err := component.New().Check(caisson.Mount{Type: component.Type, Source: source, Target: "/data"}, mount.Env{Trusted: true})
		if !errors.Is(err, caisson.ErrDenied) {
			t.Errorf("Check(%q) = %v, want denied", source, err)
		}
	}
}
