package landlock

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// inside names the environment variable that makes this test binary the child
// which restricts itself; its value is the folder to play in.
const inside = "CAISSON_TEST_LANDLOCK"

func TestMain(m *testing.M) {
	if dir := os.Getenv(inside); dir != "" {
		os.Exit(child(dir))
	}
	os.Exit(m.Run())
}

// child restricts one thread and prints what it then can't do.
func child(dir string) int {
	runtime.LockOSThread()
	err := errors.Join(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), Restrict([]Rule{
		{Path: filepath.Join(dir, "read")},
		{Path: filepath.Join(dir, "write"), Write: true},
		{Path: filepath.Join(dir, "file"), Write: true},
		{Path: filepath.Join(dir, "absent")},
	}))
	if err != nil {
		fmt.Println("restrict:", err)
		return 1
	}
	check := func(what string, err error) {
		if err != nil {
			fmt.Println(what)
		}
	}
	read := func(name string) error { _, err := os.ReadFile(filepath.Join(dir, name)); return err }
	write := func(name string) error { return os.WriteFile(filepath.Join(dir, name), nil, 0o600) }
	check("read read", read("read/x"))
	check("write read", write("read/x"))
	check("make read", write("read/new"))
	check("read write", read("write/x"))
	check("make write", write("write/new"))
	check("read file", read("file"))
	check("write file", write("file"))
	check("read other", read("other"))
	return 0
}

func TestRestrict(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"read/x", "write/x", "file", "other"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), inside+"="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := "write read\nmake read\nread other\n"
	if Available() == 0 {
		want = "" // it degrades to nothing
	}
	if string(out) != want {
		t.Errorf("refused:\n%swant:\n%s", out, want)
	}
}

func TestRuleset(t *testing.T) {
	tests := []struct {
		abi            int
		rights, scoped uint64
	}{
		{1, 0x1fff, 0},
		{2, 0x3fff, 0},
		{3, 0x7fff, 0},
		{4, 0x7fff, 0},
		{5, 0xffff, 0},
		{6, 0xffff, 3},
		{99, 0xffff, 3},
	}
	for _, test := range tests {
		got := ruleset(test.abi)
		if got.Handled_access_fs != test.rights || got.Scoped != test.scoped || got.Handled_access_net != 0 {
			t.Errorf("ruleset(%d) = %+v, want rights %#x, scoped %#x", test.abi, got, test.rights, test.scoped)
		}
	}
}

func TestRights(t *testing.T) {
	if got := rights(false, true) & (unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_MAKE_REG); got != 0 {
		t.Errorf("a rule to read gives %#x", got)
	}
	if got := rights(true, false) &^ fileRights; got != 0 {
		t.Errorf("a rule for a file gives rights of folders: %#x", got)
	}
	if rights(false, false)&unix.LANDLOCK_ACCESS_FS_READ_FILE == 0 || rights(true, true)&firstRights != firstRights {
		t.Error("a rule gives too little")
	}
}
