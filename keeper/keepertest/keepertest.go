//go:build unix

// Package keepertest gives tests a keeper program. A test's own program can't
// be one.
package keepertest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/caissonrun/caisson/keeper"
)

// Build builds the small keeper program in dir, from the source that the test
// is built from.
func Build(dir string) (keeper.Command, error) {
	path := filepath.Join(dir, "caisson-keeper")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", path, "github.com/caissonrun/caisson/cmd/caisson-keeper")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build keeper: %w: %s", err, out)
	}
	return keeper.Command{path}, nil
}
