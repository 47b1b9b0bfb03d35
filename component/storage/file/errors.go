//go:build unix

package file

import (
	"errors"
	"io/fs"

	"github.com/caissonrun/caisson"
	"golang.org/x/sys/unix"
)

// kinds sorts what the file system says.
var kinds = []struct {
	err  error
	kind caisson.Kind
}{
	{fs.ErrNotExist, caisson.ErrNotFound},
	{fs.ErrPermission, caisson.ErrDenied},
	{unix.EROFS, caisson.ErrDenied},
	{unix.ENOSPC, caisson.ErrExhausted},
	{unix.EDQUOT, caisson.ErrExhausted},
	{unix.EMFILE, caisson.ErrExhausted},
	{unix.ENFILE, caisson.ErrExhausted},
	{unix.ENOTDIR, caisson.ErrInvalid},
	{unix.EISDIR, caisson.ErrInvalid},
	{unix.ENAMETOOLONG, caisson.ErrInvalid},
	{unix.EIO, caisson.ErrUnavailable},
	{unix.ESTALE, caisson.ErrUnavailable},
}

// wrap gives an error its kind and its path.
func (s *store) wrap(key string, err error) error {
	var sorted *caisson.Error
	if errors.As(err, &sorted) {
		return err
	}
	e := &caisson.Error{Item: s.path(key), Err: err}
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			e.Kind = k.kind
			break
		}
	}
	var p *fs.PathError
	if errors.As(err, &p) {
		e.Item, e.Err = p.Path, p.Err // else the path would be there twice
	}
	return e
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
