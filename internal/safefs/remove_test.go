//go:build linux

package safefs_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caissonrun/caisson/internal/safefs"
	"golang.org/x/sys/unix"
)

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestRemoveAll(t *testing.T) {
	both(t, func(t *testing.T, opts *safefs.Options) {
		dir, secret := hostile(t)
		r := open(t, dir, opts)
		must(t, r.RemoveAll(t.Context(), "absdir"))
		must(t, r.RemoveAll(t.Context(), "d"))
		must(t, r.RemoveAll(t.Context(), "absent"))
		must(t, r.RemoveAll(t.Context(), "absent/too"))
		if err := r.RemoveAll(t.Context(), "updir/secret"); !errors.Is(err, safefs.ErrLink) {
			t.Errorf("RemoveAll through a link = %v, want ErrLink", err)
		}
		if got := names(t, dir); slices.Contains(got, "absdir") || slices.Contains(got, "d") || !slices.Contains(got, "ok") {
			t.Errorf("left: %q", got)
		}
		must(t, r.RemoveAll(t.Context(), "."))
		if got := names(t, dir); len(got) != 0 {
			t.Errorf("left: %q", got)
		}
		for _, path := range []string{secret, filepath.Join(filepath.Dir(dir), "out", "secret")} {
			if data, err := os.ReadFile(path); string(data) != "SECRET" {
				t.Errorf("%s: %q, %v, want untouched", path, data, err)
			}
		}
	})
}

func TestRemove(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "d", "f"), "")
	r := open(t, dir, nil)
	if err := r.Remove("d"); !errors.Is(err, unix.ENOTEMPTY) {
		t.Errorf("Remove of a full folder = %v, want ENOTEMPTY", err)
	}
	for _, name := range []string{"d/f", "d", "d", "d/f"} {
		must(t, r.Remove(name))
	}
}

// Folders without permissions, as an ordinary user leaves them.
func TestRemoveAllReadOnly(t *testing.T) {
	if given := os.Getenv(userDir); given != "" {
		must(t, open(t, given, nil).RemoveAll(t.Context(), "."))
		return
	}
	dir := filepath.Join(t.TempDir(), "work")
	for _, name := range []string{"a/b/f", "c/d/f", "e/f"} {
		write(t, filepath.Join(dir, name), "")
	}
	must(t, os.Chmod(filepath.Join(dir, "a", "b"), 0o500))
	must(t, os.Chmod(filepath.Join(dir, "a"), 0))
	must(t, os.Chmod(filepath.Join(dir, "c"), 0o600))
	must(t, os.Chmod(filepath.Join(dir, "e"), 0o300))
	must(t, os.Chmod(dir, 0o500))
	if os.Geteuid() == 0 {
		asUser(t, dir)
	} else {
		must(t, open(t, dir, nil).RemoveAll(t.Context(), "."))
	}
	if got := names(t, dir); len(got) != 0 {
		t.Errorf("left: %q", got)
	}
}

// userDir is the variable that tells a test which folder it works on as an
// ordinary user.
const userDir = "SAFEFS_TEST_DIR"

// asUser runs the same test again in a process of an ordinary user to whom all
// in dir belongs.
func asUser(t *testing.T, dir string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, 1000, 1000))
	}))
	for up := filepath.Dir(dir); up != "/" && up != os.TempDir(); up = filepath.Dir(up) {
		must(t, os.Chmod(up, 0o755))
	}
	self := filepath.Join(filepath.Dir(dir), "test")
	exe, err := os.Executable()
	must(t, err)
	data, err := os.ReadFile(exe)
	must(t, err)
	must(t, os.WriteFile(self, data, 0o755))
	cmd := exec.Command(self, "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), userDir+"="+dir)
	cmd.Dir = "/"
	cmd.SysProcAttr = userAttr(1000)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("as user 1000: %v\n%s", err, out)
	}
}

func TestRemoveAllImmutable(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	for _, name := range []string{"f", "d/f", "e/f"} {
		write(t, filepath.Join(dir, name), "")
	}
	for _, flags := range [][]string{{"+i", "f"}, {"+i", "d/f"}, {"+i", "d"}, {"+a", "e"}} {
		path := filepath.Join(dir, flags[1])
		if out, err := exec.Command("chattr", flags[0], path).CombinedOutput(); err != nil {
			t.Fatalf("chattr %s: %v %s", flags[0], err, out)
		}
		t.Cleanup(func() { exec.Command("chattr", "-ia", path).Run() })
	}
	must(t, open(t, dir, nil).RemoveAll(t.Context(), "."))
	if got := names(t, dir); len(got) != 0 {
		t.Errorf("left: %q", got)
	}
}

// What can't be removed does not keep the rest from being removed, and is told.
func TestRemoveAllGoesOn(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	for _, name := range []string{"a/1", "b/m/x", "b/2", "c"} {
		write(t, filepath.Join(dir, name), "")
	}
	mount := filepath.Join(dir, "b", "m")
	must(t, unix.Mount("test", mount, "tmpfs", 0, "size=64k"))
	t.Cleanup(func() { unix.Unmount(mount, unix.MNT_DETACH) })
	r := open(t, dir, nil)
	err := r.RemoveAll(t.Context(), ".")
	if !errors.Is(err, safefs.ErrMount) || !strings.Contains(err.Error(), "b/m") {
		t.Errorf("RemoveAll = %v, want ErrMount naming b/m", err)
	}
	if got := walk(t, r, ".", &safefs.WalkOptions{SkipMounts: true}); !slices.Equal(got, []string{".", "b", "b/m"}) {
		t.Errorf("left: %q, want the mount point only", got)
	}
	must(t, unix.Unmount(mount, 0))
	must(t, r.RemoveAll(t.Context(), "."))
}

func TestRemoveAllCancelled(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "f"), "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := open(t, dir, nil).RemoveAll(ctx, "."); !errors.Is(err, context.Canceled) {
		t.Errorf("RemoveAll = %v, want Canceled", err)
	}
}

func TestChownAll(t *testing.T) {
	needRoot(t)
	both(t, func(t *testing.T, opts *safefs.Options) {
		dir, secret := hostile(t)
		must(t, os.Chmod(filepath.Join(dir, "ok"), 0o6755))
		must(t, os.Link(secret, filepath.Join(dir, "hard")))
		write(t, filepath.Join(dir, "twin"), "")
		must(t, os.Link(filepath.Join(dir, "twin"), filepath.Join(dir, "twin2")))
		must(t, os.Lchown(filepath.Join(dir, "twin"), 777, 777))
		r := open(t, dir, opts)
		owner := safefs.Owner{UID: 1000, GID: 1000}
		err := r.ChownAll(t.Context(), ".", owner, func(uid, _ int) bool { return uid == 777 })
		if err == nil || !strings.Contains(err.Error(), "hard") || strings.Contains(err.Error(), "twin") {
			t.Errorf("ChownAll = %v, want the foreign hard link refused", err)
		}
		must(t, r.Walk(t.Context(), ".", nil, func(e *safefs.Entry) error {
			want := 1000
			if e.Path == "hard" {
				want = 0
			}
			if e.UID != want || e.GID != want {
				t.Errorf("%s belongs to %d:%d, want %d", e.Path, e.UID, e.GID, want)
			}
			if e.Path == "ok" && e.Mode != 0o755 {
				t.Errorf("ok has mode %v, want no set-id bits", e.Mode)
			}
			return nil
		}))
		for _, path := range []string{secret, filepath.Dir(dir), "/dev/null", "/etc/passwd"} {
			info, err := safefsStat(path)
			if err != nil || info.Uid != 0 {
				t.Errorf("%s belongs to %d, %v, want it untouched", path, info.Uid, err)
			}
		}
	})
}

func safefsStat(path string) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	return st, err
}
