package machine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/caissonrun/caisson"
)

// maxModule bounds a module, unpacked.
const maxModule = 64 << 20

// packed are the ends of the names of compressed modules.
var packed = []string{".gz", ".xz", ".zst"}

// errTooLarge says that a module is beyond maxModule.
var errTooLarge = fmt.Errorf("it is larger than %d MiB", maxModule>>20)

// Read returns the module's bytes, unpacked: a guest may not be able to.
//
// Errors: ErrUnsupported if nothing here unpacks it.
func (m *Module) Read() ([]byte, error) {
	data, err := readBounded(m.Path)
	if err == nil {
		data, err = unpack(m.Path, data)
	}
	if err == nil {
		return data, nil
	}
	kind := caisson.ErrInvalid
	switch {
	case errors.Is(err, exec.ErrNotFound):
		kind = caisson.ErrUnsupported
		err = errors.New("it is compressed by xz, and there is no program xz to unpack it")
	case fileKind(err) != caisson.ErrInternal:
		kind, err = fileKind(err), plainCause(err)
	}
	return nil, kernelError(m.Path, kind, err)
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f)
}

// readAll reads what must not be more than maxModule.
func readAll(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err == nil && len(data) > maxModule {
		err = errTooLarge
	}
	return data, err
}

// unpack undoes the compression that the name tells of.
func unpack(path string, data []byte) ([]byte, error) {
	switch filepath.Ext(path) {
	case ".gz":
		r, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			return nil, err
		}
		return readAll(r)
	case ".zst":
		r, err := zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxModule))
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return readAll(r)
	case ".xz":
		return unxz(data)
	}
	return data, nil
}

// unxz has the host's program unpack: distributions that compress modules so
// have it, and no library that is used here knows the format.
func unxz(data []byte) ([]byte, error) {
	cmd := exec.Command("xz", "--decompress", "--stdout", "--single-stream")
	cmd.Stdin = bytes.NewReader(data)
	cmd.Env = []string{}
	out := &bounded{max: maxModule}
	cmd.Stdout = out
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("xz: %w", err)
	}
	return out.Bytes(), nil
}

// bounded is a buffer that refuses to grow beyond max.
type bounded struct {
	bytes.Buffer
	max int
}

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > b.max {
		return 0, errTooLarge
	}
	return b.Buffer.Write(p)
}
