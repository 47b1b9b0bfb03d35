// Package allow decides which paths of the host a task may name: with the
// caller's rights any, otherwise only those below directories that the operator
// lists. Paths are compared element by element after all symbolic links are
// resolved.
package allow

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/caissonrun/caisson"
)

// A List is what the operator allows. The zero value allows nothing but to
// trusted tasks.
type List struct {
	dirs []string
	any  bool
}

// New returns a List of directories; any allows all paths. Errors: ErrInvalid
// for a directory that is not absolute.
func New(dirs []string, any bool) (*List, error) {
	l := &List{any: any}
	for _, dir := range dirs {
		if !filepath.IsAbs(dir) {
			return nil, &caisson.Error{
				Op: caisson.OpConfig, Item: fmt.Sprintf("%q", dir), Kind: caisson.ErrInvalid,
				Err: errors.New("an allowed directory must be an absolute path"),
			}
		}
		l.dirs = append(l.dirs, filepath.Clean(dir))
	}
	return l, nil
}

// Existing returns the real path of a file or folder that is there. Trusted
// tasks act with the caller's rights.
//
// The path has no symbolic link in it. Whoever uses it opens it without
// following any, so that a change after this call can lead nowhere else.
//
// Errors: ErrNotFound; ErrDenied.
func (l *List) Existing(path string, trusted bool) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", l.hide(path, trusted, err)
	}
	return real, l.check(path, real, trusted)
}

// New returns the real path of a file or folder to be made, whose last elements
// may not be there yet. With folder set the last element may be a link to a
// folder; without, it is not looked at.
//
// Errors: ErrInvalid for a link that leads nowhere; ErrDenied.
func (l *List) New(path string, folder, trusted bool) (string, error) {
	path = filepath.Clean(path)
	rest := ""
	if !folder {
		path, rest = filepath.Dir(path), filepath.Base(path)
	}
	for at := path; ; at = filepath.Dir(at) {
		real, err := filepath.EvalSymlinks(at)
		if err == nil {
			real = filepath.Join(real, rest)
			return real, l.check(path, real, trusted)
		}
		if _, statErr := os.Lstat(at); statErr == nil || !errors.Is(err, fs.ErrNotExist) || at == "/" || at == "." {
			return "", l.hide(at, trusted, err)
		}
		rest = filepath.Join(filepath.Base(at), rest)
	}
}

// hide describes why a path does not resolve; but who may not see a path is not
// told what is there.
func (l *List) hide(path string, trusted bool, err error) error {
	if l.any || trusted || l.below(filepath.Clean(path)) {
		kind := caisson.ErrInvalid
		switch {
		case errors.Is(err, fs.ErrNotExist):
			kind = caisson.ErrNotFound
		case errors.Is(err, fs.ErrPermission):
			kind = caisson.ErrDenied
		}
		var pathErr *fs.PathError
		if errors.As(err, &pathErr) {
			err = pathErr.Err
		}
		return &caisson.Error{Item: fmt.Sprintf("%q", path), Kind: kind, Err: err}
	}
	return denied(path)
}

func (l *List) check(path, real string, trusted bool) error {
	if l.any || trusted || l.below(real) {
		return nil
	}
	return denied(path)
}

// below reports whether a real path is allowed.
func (l *List) below(real string) bool {
	for _, dir := range l.dirs {
		if resolved, err := filepath.EvalSymlinks(dir); err == nil && Within(real, resolved) {
			return true
		}
	}
	return false
}

func denied(path string) error {
	return &caisson.Error{
		Item: fmt.Sprintf("%q", path), Kind: caisson.ErrDenied,
		Err: errors.New("not below a directory that the operator allows"),
	}
}

// Within reports whether path is dir or lies below it, by elements. Both are
// clean.
func Within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}
