package kept

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/accounts"
	"github.com/caissonrun/caisson/internal/isolate"
)

func TestAccounts(t *testing.T) {
	root := t.TempDir()
	etc := filepath.Join(root, "etc")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	write("passwd", "root:x:0:0:root:/root:/bin/sh\nbig:x:4294967296:0::/:\nlarge:x:70000:7::/:\nminus:x:-1:-1::/:\n"+
		"short:x:5\n:x:6:6::/:\nok:x:7:8:ok:/home/ok:/bin/sh\n12:x:13:13::/:\n")
	write("group", "ok:x:9:\nmore:x:10:a,ok\nfar:x:99999999999:ok\n")
	standard := isolate.User{UID: 1000, GID: 1000}
	a, err := ReadAccounts(root)
	if err != nil {
		t.Fatal(err)
	}
	p, err := a.Who("ok", "", standard, false)
	if err != nil || p.UID != 7 || p.GID != 8 || !slices.Equal(p.Groups, []int{10}) || p.Home != "/home/ok" {
		t.Errorf("ok = %+v, %v", p, err)
	}
	// A number is never a name (CVE-2024-40635).
	if p, err := a.Who("12", "", standard, false); err != nil || p.UID != 12 {
		t.Errorf("12 = %+v, %v", p, err)
	}
	for _, user := range []string{"big", "large", "minus", "short", "70000", "4294967296", "-1", "ok:far", "ok:70000", ":", "ok:"} {
		if p, err := a.Who(user, "", standard, false); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("%s = %+v, %v, want ErrInvalid", user, p, err)
		}
	}
	t.Run("ErrSize", func(t *testing.T) {
		write("passwd", strings.Repeat("x", accounts.MaxFile+1))
		if _, err := ReadAccounts(root); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("ReadAccounts = %v, want ErrInvalid", err)
		}
	})
	t.Run("LongLine", func(t *testing.T) {
		write("passwd", strings.Repeat("x", accounts.MaxLine+1)+":x:0:0::/:\nok:x:7:8::/:\n")
		a, err := ReadAccounts(root)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := a.Who("ok", "", standard, false); err == nil {
			t.Errorf("behind a line without end there is %+v", p)
		}
	})
	t.Run("ErrKind", func(t *testing.T) {
		if err := errors.Join(os.Remove(filepath.Join(etc, "passwd")), os.Mkdir(filepath.Join(etc, "passwd"), 0o755)); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadAccounts(root); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("ReadAccounts of a folder = %v", err)
		}
	})
	t.Run("LinkOut", func(t *testing.T) {
		if err := errors.Join(os.Remove(filepath.Join(etc, "passwd")), os.Symlink("/../../../../etc/passwd", filepath.Join(etc, "passwd"))); err != nil {
			t.Fatal(err)
		}
		a, err := ReadAccounts(root)
		if err != nil {
			return
		}
		if p, err := a.Who("daemon", "", standard, false); err == nil {
			t.Errorf("the host's users were read: %+v", p)
		}
	})
	t.Run("Permitted", func(t *testing.T) {
		a, err := ReadAccounts(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		for permitted, want := range map[bool]int{true: 0, false: standard.UID} {
			p, err := a.Who("0", "", standard, permitted)
			if err != nil || p.UID != want {
				t.Errorf("root, permitted %v = %+v, %v, want %d", permitted, p, err, want)
			}
		}
	})
	t.Run("Absent", func(t *testing.T) {
		a, err := ReadAccounts(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if p, err := a.Who("root", "", standard, false); err != nil || p.UID != standard.UID {
			t.Errorf("root = %+v, %v", p, err)
		}
	})
}
