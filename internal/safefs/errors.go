//go:build unix

package safefs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/caissonrun/caisson"
	"golang.org/x/sys/unix"
)

// The refusals of this package. They are found with errors.Is inside of a
// *fs.PathError.
var (
	// ErrLink says that a symbolic link is, or stands in, the path.
	ErrLink = errors.New("symbolic links are not followed")
	// ErrMount says that something is mounted in the path.
	ErrMount = errors.New("something is mounted there")
	// ErrType says that the file is not of the type that was needed.
	ErrType = errors.New("neither a regular file nor a folder")
	// ErrNoSocket says that the file is no unix socket.
	ErrNoSocket = errors.New("not a socket")
	// ErrChanged says that somebody else changed the tree meanwhile.
	ErrChanged = errors.New("changed by somebody else meanwhile")
	// ErrTooMany says that there are more entries, levels or bytes than the
	// caller permits.
	ErrTooMany = errors.New("more than is permitted")
)

// errnoKinds sorts errors of the system.
var errnoKinds = map[unix.Errno]caisson.Kind{
	unix.ENOENT: caisson.ErrNotFound, unix.ENOTDIR: caisson.ErrNotFound,
	unix.EEXIST: caisson.ErrExists, unix.ENOTEMPTY: caisson.ErrExists, unix.EBUSY: caisson.ErrExists,
	unix.EACCES: caisson.ErrDenied, unix.EPERM: caisson.ErrDenied, unix.EROFS: caisson.ErrDenied,
	unix.ELOOP: caisson.ErrDenied, unix.EXDEV: caisson.ErrDenied,
	unix.ENOSPC: caisson.ErrExhausted, unix.EDQUOT: caisson.ErrExhausted, unix.EFBIG: caisson.ErrExhausted,
	unix.EMFILE: caisson.ErrExhausted, unix.ENFILE: caisson.ErrExhausted, unix.ENOMEM: caisson.ErrExhausted,
	unix.EINVAL: caisson.ErrInvalid, unix.ENAMETOOLONG: caisson.ErrInvalid, unix.EISDIR: caisson.ErrInvalid,
	unix.EIO: caisson.ErrUnavailable, unix.ESTALE: caisson.ErrUnavailable, unix.ETIMEDOUT: caisson.ErrUnavailable,
	unix.ENOTCONN: caisson.ErrUnavailable,
}

// Kind sorts an error of this package, or of the system, by what its reader can
// do about it. An error that is sorted already keeps its kind.
func Kind(err error) caisson.Kind {
	if kind := caisson.KindOf(err); kind != caisson.ErrUnknown {
		return kind
	}
	switch {
	case errors.Is(err, ErrLink), errors.Is(err, ErrMount):
		return caisson.ErrDenied
	case errors.Is(err, ErrType), errors.Is(err, ErrNoSocket), errors.Is(err, ErrTooMany), errors.Is(err, ErrChanged):
		return caisson.ErrInvalid
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errnoKinds[errno]
	}
	if errors.Is(err, fs.ErrInvalid) {
		return caisson.ErrInvalid
	}
	return caisson.ErrUnknown
}

// Sorted makes a *caisson.Error of err, about item. Nil stays nil, an error of
// a context stays one, and one that is sorted already is only wrapped.
func Sorted(op caisson.Op, item string, err error) error {
	var sorted *caisson.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.As(err, &sorted):
		return fmt.Errorf("%s: %w", item, err)
	}
	cause := err
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) && pathErr == err {
		cause = pathErr.Err
	}
	return &caisson.Error{Op: op, Item: item, Kind: Kind(err), Err: cause}
}

// pathErr describes what went wrong with name, if anything.
func pathErr(op, name string, err error) error {
	if err == nil {
		return nil
	}
	switch {
	case errors.Is(err, unix.ELOOP):
		err = ErrLink
	case errors.Is(err, unix.EXDEV):
		err = ErrMount
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}
