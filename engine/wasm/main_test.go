//go:build linux

package wasm_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/caissonrun/caisson/engine/wasm"
	"github.com/caissonrun/caisson/internal/slowtest"
	"github.com/caissonrun/caisson/keeper"
	"github.com/caissonrun/caisson/keeper/server"
)

// TestMain lets this program be a keeper, as the main binary is one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == keeper.Subcommand {
		os.Exit(server.MainWith(os.Args[2:], map[string]server.Opener{wasm.Kind: wasm.OpenBox}))
	}
	os.Exit(testMain(m))
}

// shared is a folder for what tests make once, since it takes seconds: the inside
// program as a module, and its compiled code.
var shared string

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "wasm-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	shared = dir
	return m.Run()
}

// options are those of an engine of these tests. The compiled code is shared.
func options(t testing.TB) wasm.Options {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return wasm.Options{
		Keeper: keeper.Command{self, keeper.Subcommand}, Runtime: filepath.Join(t.TempDir(), "run"), Cache: filepath.Join(shared, "cache"),
	}
}

func newEngine(t testing.TB, opts wasm.Options) *wasm.Engine {
	t.Helper()
	e, err := wasm.New(&opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// inside returns the program that observes sandboxes from within, as a module. To
// compile Go's own library and then the module takes longer than all other tests.
func inside(t testing.TB) string {
	t.Helper()
	slowtest.Skip(t)
	path, err := buildInside()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var buildInside = sync.OnceValues(func() (string, error) {
	const pkg = "github.com/caissonrun/caisson/engine/enginetest/inside"
	path := filepath.Join(shared, "inside.wasm")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", path, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=wasip1", "GOARCH=wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", pkg, err, out)
	}
	return path, nil
})

func mkfifo(path string) error { return syscall.Mkfifo(path, 0o666) }
