package oci_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/caissonrun/caisson/engine/enginetest"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// TestOrdinaryUser runs this package's tests again as a user without rights, in
// short.
func TestOrdinaryUser(t *testing.T) {
	needRoot(t)
	const nobody = 65534
	base, err := os.MkdirTemp("", "oci-user-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	program, home := filepath.Join(base, "oci.test"), filepath.Join(base, "home")
	inside := enginetest.BuildInside(t)
	for name, from := range map[string]string{program: "/proc/self/exe", filepath.Join(base, "inside"): inside} {
		data, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(name, data, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	err = errors.Join(os.Chmod(base, 0o755), os.Mkdir(home, 0o700), os.Chown(home, nobody, nobody))
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-test.v=" + fmt.Sprint(testing.Verbose()), "-test.timeout=10m"}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = base
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home,
		keeperPath + "=" + theKeeper[0], insidePath + "=" + filepath.Join(base, "inside"),
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
