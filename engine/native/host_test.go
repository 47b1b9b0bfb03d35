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
		if strings.HasPrefix(l.target, "/") && !below(l.target, "/usr") {
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

func TestVerify(t *testing.T) {
	outside := map[string]string{"mnt": "mnt:[1]", "net": "net:[2]"}
	const good = "Name:\tsh\r\nCapInh:\t0000000000000000\r\nCapPrm:\t0000000000000000\r\nCapEff:\t0000000000000000\r\n" +
		"CapBnd:\t0000000000000000\r\nCapAmb:\t0000000000000000\r\nNoNewPrivs:\t1\r\nSeccomp:\t2\r\nns mnt mnt:[3]\r\nns net net:[4]\r\nterminal\r\n"
	if err := verify([]byte(good), outside); err != nil {
		t.Errorf("verify = %v", err)
	}
	weak := map[string]string{
		good + "sees /root\r\n": "sees /root",
		strings.Replace(good, "CapEff:\t0000000000000000", "CapEff:\t0000000000000001", 1): "CapEff",
		strings.Replace(good, "NoNewPrivs:\t1", "NoNewPrivs:\t0", 1):                       "NoNewPrivs",
		strings.Replace(good, "Seccomp:\t2", "Seccomp:\t0", 1):                             "Seccomp",
		strings.Replace(good, "net:[4]", "net:[2]", 1):                                     "net namespace",
		strings.Replace(good, "Seccomp:\t2\r\n", "", 1):                                    "did not tell",
		"": "did not tell",
	}
	for said, word := range weak {
		if err := verify([]byte(said), outside); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("verify = %v, want it to say %q", err, word)
		}
	}
}
