//go:build linux

package bind_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/mount"
	"github.com/caissonrun/caisson/mount/bind"
	"github.com/caissonrun/caisson/mount/mounttest"
	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newMounter(t *testing.T, opts *bind.Options) *bind.Mounter {
	t.Helper()
	m, err := bind.New(opts)
	must(t, err)
	return m
}

func TestMounter(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	must(t, unix.Mkfifo(fifo, 0o600))
	mounttest.Test(t, mounttest.Harness{
		New:        func(t *testing.T) mount.Mounter { return newMounter(t, nil) },
		Mount:      caisson.Mount{Source: dir, Opts: map[string]string{"propagation": "private"}},
		Persistent: true,
		Invalid: map[string]caisson.Mount{
			"no source": {}, "FIFO": {Source: fifo},
			"propagation": {Source: dir, Opts: map[string]string{"propagation": "some"}},
			"size":        {Source: dir, Opts: map[string]string{"size": "1m"}},
		},
	})
}

func TestErrPropagation(t *testing.T) {
	m := newMounter(t, nil)
	for _, how := range []string{"shared", "rshared", "slave", "rslave"} {
		mt := caisson.Mount{Type: "bind", Source: t.TempDir(), Target: "/x", Opts: map[string]string{"propagation": how}}
		if err := m.Check(mt, mount.Env{Trusted: true}); !errors.Is(err, caisson.ErrUnsupported) {
			t.Errorf("Check(%s) = %v, want unsupported", how, err)
		}
	}
}

func TestPolicy(t *testing.T) {
	top, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	for _, dir := range []string{"u1/in", "u10", "state/tasks", "srv/state"} {
		must(t, os.MkdirAll(filepath.Join(top, dir), 0o755))
	}
	must(t, os.Symlink("../u10", filepath.Join(top, "u1", "out")))
	must(t, os.Symlink("in", filepath.Join(top, "u1", "same")))
	must(t, os.Symlink("state", filepath.Join(top, "link")))
	must(t, os.Symlink("/proc/self", filepath.Join(top, "u1", "proc")))
	m := newMounter(t, &bind.Options{
		Allow: []string{top + "/u1", top + "/link", top + "/srv"},
		Deny:  []string{top + "/link", top + "/srv/state", ""},
	})
	for source, want := range map[string]struct{ untrusted, trusted caisson.Kind }{
		"u1":             {0, 0},
		"u1/in":          {0, 0},
		"u1/same":        {0, 0},
		"./u1/../u1":     {0, 0},
		"u10":            {caisson.ErrDenied, 0},
		"u1/out":         {caisson.ErrDenied, 0},
		"u1/../u10":      {caisson.ErrDenied, 0},
		"U1":             {caisson.ErrDenied, caisson.ErrNotFound},
		"u1/absent":      {caisson.ErrNotFound, caisson.ErrNotFound},
		"state/tasks":    {caisson.ErrDenied, caisson.ErrDenied},
		"link":           {caisson.ErrDenied, caisson.ErrDenied},
		"srv":            {caisson.ErrDenied, caisson.ErrDenied},
		".":              {caisson.ErrDenied, caisson.ErrDenied},
		"u1/proc":        {caisson.ErrDenied, caisson.ErrDenied},
		"../../../../..": {caisson.ErrDenied, caisson.ErrDenied},
		"/":              {caisson.ErrDenied, caisson.ErrDenied},
		"/proc":          {caisson.ErrDenied, caisson.ErrDenied},
		"/dev":           {caisson.ErrDenied, caisson.ErrDenied},
	} {
		mt := caisson.Mount{Type: "bind", Source: source, Target: "/x"}
		for trusted, kind := range map[bool]caisson.Kind{false: want.untrusted, true: want.trusted} {
			env := mount.Env{BaseDir: top, Trusted: trusted}
			if err := m.Check(mt, env); caisson.KindOf(err) != kind {
				t.Errorf("Check(%s), trusted %v = %v, want %v", source, trusted, err, kind)
			}
		}
	}
}

func TestOwned(t *testing.T) {
	dir := t.TempDir()
	m := newMounter(t, &bind.Options{AnyPath: true})
	req := &mount.Request{
		Env:   mount.Env{UID: os.Geteuid(), GID: os.Getegid()},
		Mount: caisson.Mount{Type: "bind", Source: dir, Target: "/x"}, Save: func(*mount.Place) error { return nil },
	}
	place, err := m.Mount(t.Context(), req)
	must(t, err)
	var st unix.Statfs_t
	must(t, unix.Statfs(dir, &st))
	if uint32(st.Type) == unix.EXT4_SUPER_MAGIC && !place.Owned {
		t.Error("a source of the task's user on ext4 is not Owned")
	}
	req.UID++
	if place, err = m.Mount(t.Context(), req); err != nil || place.Owned {
		t.Errorf("a source of another user: %+v, %v, want it not Owned", place, err)
	}
	req.Mount.Source = "rel"
	if _, err := m.Mount(t.Context(), req); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("a relative source without a folder: %v, want ErrInvalid", err)
	}
	if _, err := bind.New(&bind.Options{Allow: []string{"rel"}}); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("New = %v, want ErrInvalid", err)
	}
}
