package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/internal/safefs"
)

// maxHandle bounds what ReadHandle reads: a handle is a few names.
const maxHandle = 1 << 20

// WriteHandle writes h durably to dir, the Spec.Dir of its sandbox: when it
// returns nil, h survives a crash of the host. A zero Version is set to
// HandleVersion.
//
// Errors: ErrNotFound if there is no such folder; ErrExhausted if the disk is
// full; ErrDenied.
func WriteHandle(dir string, h *Handle) error {
	out := *h
	if out.Version == 0 {
		out.Version = HandleVersion
	}
	data, err := json.Marshal(&out)
	if err != nil {
		return handleError(caisson.OpCreate, dir, caisson.ErrInternal, err)
	}
	path := filepath.Join(dir, HandleFile)
	return safefs.Sorted(caisson.OpCreate, path, atomicfile.Write(path, append(data, '\n'), 0o600))
}

// ReadHandle reads the handle in dir and checks that the engine called name
// wrote it and that this code understands it.
//
// Errors: ErrNotFound if dir has no handle; ErrInvalid if it is another
// engine's, of a newer version, or no handle at all; ErrDenied.
func ReadHandle(dir, name string) (*Handle, error) {
	data, err := readHandleFile(filepath.Join(dir, HandleFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, handleError(caisson.OpRecover, dir, caisson.ErrNotFound, errors.New("no sandbox was made here"))
	case errors.Is(err, fs.ErrPermission):
		return nil, handleError(caisson.OpRecover, dir, caisson.ErrDenied, err)
	case err != nil:
		return nil, handleError(caisson.OpRecover, dir, caisson.ErrInvalid, err)
	}
	h := new(Handle)
	if err := json.Unmarshal(data, h); err != nil {
		return nil, handleError(caisson.OpRecover, dir, caisson.ErrInvalid, fmt.Errorf("not a handle: %w", err))
	}
	if err := h.check(name); err != nil {
		return nil, handleError(caisson.OpRecover, dir, caisson.ErrInvalid, err)
	}
	return h, nil
}

func readHandleFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxHandle+1))
	if err == nil && len(data) > maxHandle {
		err = fmt.Errorf("larger than %d bytes", maxHandle)
	}
	return data, err
}

func (h *Handle) check(name string) error {
	switch {
	case h.Version > HandleVersion:
		return fmt.Errorf("handle of version %d, this program knows %d: use the newer program", h.Version, HandleVersion)
	case h.Version < 1:
		return fmt.Errorf("handle of version %d", h.Version)
	case h.Engine != name:
		return fmt.Errorf("handle of engine %q, not %q", h.Engine, name)
	}
	return checkID(h.ID)
}

func handleError(op caisson.Op, dir string, kind caisson.Kind, err error) error {
	return &caisson.Error{Op: op, Item: filepath.Join(dir, HandleFile), Kind: kind, Err: err}
}
