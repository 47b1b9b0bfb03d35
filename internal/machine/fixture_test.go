package machine

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// need skips a test for want of something that every host of CI has. As root,
// which is how CI runs, that is a failure: scripts/setup has installed it.
func need(t *testing.T, what string, err error) {
	t.Helper()
	if os.Geteuid() == 0 {
		t.Fatalf("%s: %v", what, err)
	}
	t.Skipf("%s: %v", what, err)
}

// testKernel is a distribution's kernel, with its modules: the one of the folder
// in CAISSON_TEST_KERNEL, or what scripts/kernel fetches for root. Others fetch
// nothing.
func testKernel(t *testing.T) *Kernel {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("the kernel for tests is for amd64")
	}
	root := os.Getenv("CAISSON_TEST_KERNEL")
	if root == "" && os.Geteuid() != 0 {
		t.Skip("CAISSON_TEST_KERNEL is not set")
	}
	if root == "" {
		cmd := exec.Command("sh", filepath.Join("..", "..", "scripts", "kernel"))
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("scripts/kernel: %v", err)
		}
		root = strings.TrimSpace(string(out))
	}
	k, err := FindKernel(&KernelOptions{Roots: []string{root}})
	if err != nil {
		need(t, root, err)
	}
	return k
}
