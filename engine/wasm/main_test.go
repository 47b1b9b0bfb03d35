//go:build linux

package wasm_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/caissonrun/caisson/engine/wasm"
	"github.com/caissonrun/caisson/keeper"
	"github.com/caissonrun/caisson/keeper/server"
)

// TestMain lets this program be a keeper, as the main binary is one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == keeper.Subcommand {
		os.Exit(server.MainWith(os.Args[2:], map[string]server.Opener{wasm.Kind: wasm.OpenBox}))
	}
	os.Exit(m.Run())
}

// options are those of an engine of these tests.
func options(t testing.TB) wasm.Options {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	return wasm.Options{
		Keeper: keeper.Command{self, keeper.Subcommand}, Runtime: filepath.Join(dir, "run"), Cache: filepath.Join(dir, "cache"),
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

// build makes a module of a Go package.
func build(t testing.TB, pkg string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program.wasm")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=wasip1", "GOARCH=wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", pkg, err, out)
	}
	return path
}

func mkfifo(path string) error { return syscall.Mkfifo(path, 0o666) }
