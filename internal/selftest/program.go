//go:build unix

package selftest

import (
	"compress/gzip"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/caissonrun/caisson"
)

// embedded holds the small static program that attacks run in sandboxes,
// compressed, if it was built before this one, and else a note alone.
//
//go:embed all:embedded
var embedded embed.FS

// source is the package of that program.
const source = "github.com/caissonrun/caisson/engine/enginetest/inside"

// program puts the program that attacks run into dir and returns its path.
// Everyone may read and run it.
func program(ctx context.Context, dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "caisson-inside")
	packed, err := embedded.Open("embedded/caisson-inside-linux-" + runtime.GOARCH + ".gz")
	if err != nil {
		return path, build(ctx, path)
	}
	defer packed.Close()
	plain, err := gzip.NewReader(packed)
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(plain)
	if err != nil {
		return "", err
	}
	return path, write(path, data)
}

// write makes a program whatever the caller's umask is.
func write(path string, data []byte) error {
	const everyone = 0o755
	return errors.Join(os.WriteFile(path, data, everyone), os.Chmod(path, everyone))
}

// build makes the program from its source, which is here where Caisson itself
// runs from its source.
func build(ctx context.Context, path string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", path, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		return &caisson.Error{
			Op: caisson.OpProbe, Item: "the program that attacks run", Kind: caisson.ErrUnavailable,
			Err: fmt.Errorf("it is not part of this caisson, and can't be built here: %w %.200s; build caisson with make", err, out),
		}
	}
	return os.Chmod(path, 0o755)
}
