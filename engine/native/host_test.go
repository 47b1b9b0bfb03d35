package native

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine/internal/kept"
)

func TestCheckPath(t *testing.T) {
	for _, p := range []string{"/opt", "/opt/tools", "/nix/store", "/srv", "/homes", "/usr/local", "/etc/myapp"} {
		if err := checkPath(p); err != nil {
			t.Errorf("checkPath(%q) = %v", p, err)
		}
	}
	for _, p := range []string{
		"", "opt", "/", "/opt/", "/opt/../root", "/home", "/home/me", "/root", "/root/x", "/var", "/var/lib/caisson", "/proc", "/proc/1",
		"/sys", "/dev", "/dev/kvm", "/run", "/run/docker.sock", "/tmp", "/tmp/x", "/work", "/opt\x00",
	} {
		if err := checkPath(p); err == nil {
			t.Errorf("checkPath(%q) passed", p)
		}
	}
}

func TestLook(t *testing.T) {
	h, err := look(nil)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, b := range h.binds {
		seen[b.target] = true
		if real, err := filepath.EvalSymlinks(b.source); err != nil || real != b.source {
			t.Errorf("source %s leads to %s, %v", b.source, real, err)
		}
		if forbidden(b.source) {
			t.Errorf("%s is shown", b.source)
		}
	}
	if runtime.GOOS == "linux" && !seen["/usr"] {
		t.Error("/usr is not shown")
	}
	for _, l := range h.links {
		if strings.HasPrefix(l.target, "/") && !kept.Below(l.target, "/usr") {
			t.Errorf("link %s leads to %s", l.path, l.target)
		}
	}
}

func TestLookExtra(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	// Nothing below the folder of temporary files may be shown, also not by
	// way of a link.
	if _, err := look([]string{dir}); !errors.Is(err, caisson.ErrInvalid) || !errors.Is(err, errPrivate) {
		t.Errorf("look = %v, want ErrInvalid", err)
	}
	if _, err := look([]string{"/opt/caisson-does-not-exist"}); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("look = %v, want ErrInvalid", err)
	}
	h, err := look([]string{"/usr/bin"})
	if err != nil || !slices.Contains(h.binds, bind{"/usr/bin", "/usr/bin"}) {
		t.Errorf("look = %+v, %v, want /usr/bin", h, err)
	}
}

func TestSmall(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, size int, perm os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, size), perm); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if small(write("ok", 10, 0o644)) == nil {
		t.Error("a small file is not copied")
	}
	if small(write("large", smallFile+1, 0o644)) != nil {
		t.Error("a large file is copied")
	}
	if small(write("private", 10, 0o600)) != nil {
		t.Error("a private file is copied, and so becomes readable")
	}
	if small(dir) != nil || small(filepath.Join(dir, "absent")) != nil {
		t.Error("a folder, or nothing, is copied")
	}
}
