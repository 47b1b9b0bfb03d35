// Package embed holds the agent of virtual machines, a static program for
// Linux, which becomes the first process of a guest.
package embed

import (
	"bytes"
	files "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"

	"github.com/klauspost/compress/gzip"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/atomicfile"
)

// embedded holds the agent, compressed, if it was built before this program, and
// else a note alone.
//
//go:embed all:embedded
var embedded files.FS

// limit is far more than the agent has, in bytes.
const limit = 64 << 20

// Packed returns the agent for a processor, in Go's words, compressed by gzip.
// Equal agents are equal here.
//
// Errors: ErrUnavailable if it is not part of this program.
func Packed(arch string) ([]byte, error) {
	data, err := embedded.ReadFile("embedded/caisson-guest-linux-" + arch + ".gz")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &caisson.Error{
			Op: caisson.OpProbe, Item: "the agent for guests", Kind: caisson.ErrUnavailable,
			Err: fmt.Errorf("it is not part of this caisson for %s; build caisson with make", arch),
		}
	}
	return data, err
}

// Write writes the agent for this host's processor to a file, of which there is
// all or nothing.
//
// Errors: as Packed.
func Write(path string) error {
	packed, err := Packed(runtime.GOARCH)
	if err != nil {
		return err
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return err
	}
	data, err := io.ReadAll(io.LimitReader(z, limit))
	if err != nil {
		return err
	}
	const mode os.FileMode = 0o755
	return atomicfile.Write(path, data, mode)
}
