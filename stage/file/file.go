//go:build unix

// Package file stages files and folders of this host: "file:PATH", absolute or
// relative to the task document's folder. The path is taken as it stands,
// without percent decoding.
//
// With the caller's rights (on the command line) any path can be named.
// Otherwise it must, after all symbolic links are resolved, lie below a
// directory that the operator lists.
package file

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/allow"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/stage"
	"github.com/caissonrun/caisson/stage/internal/landing"
)

// Options configures a Stager.
type Options struct {
	// Allow lists the folders below which paths may lie, after symbolic links
	// are resolved. Empty: none but for trusted tasks.
	Allow []string
	// AnyPath allows every path to every task.
	AnyPath bool
}

// A Stager serves file: URLs, in both directions.
type Stager struct{ allowed *allow.List }

var (
	_ stage.Fetcher = (*Stager)(nil)
	_ stage.Storer  = (*Stager)(nil)
)

// New returns a Stager. Nil options mean the defaults. Errors: ErrInvalid for
// an allowed folder that is not absolute.
func New(opts *Options) (*Stager, error) {
	if opts == nil {
		opts = &Options{}
	}
	allowed, err := allow.New(opts.Allow, opts.AnyPath)
	if err != nil {
		return nil, err
	}
	return &Stager{allowed: allowed}, nil
}

// Schemes implements stage.Stager.
func (s *Stager) Schemes() []string { return []string{"file"} }

// parse returns the path of a file: URL.
func parse(url, baseDir string) (string, error) {
	scheme, path, ok := strings.Cut(url, ":")
	if !ok || !strings.EqualFold(scheme, "file") {
		return "", fmt.Errorf("%q: use file:PATH", url)
	}
	if after, hasHost := strings.CutPrefix(path, "//"); hasHost {
		path = strings.TrimPrefix(after, "localhost")
		if !strings.HasPrefix(path, "/") {
			return "", fmt.Errorf("%q: a file: URL can't name another host; use file:PATH or file:///PATH", url)
		}
	}
	switch {
	case path == "":
		return "", fmt.Errorf("%q: the path is missing", url)
	case strings.IndexByte(path, 0) >= 0:
		return "", fmt.Errorf("%q: it has a zero byte", url)
	case filepath.IsAbs(path):
		return path, nil
	case baseDir == "":
		return "", fmt.Errorf("%q: a relative path, and the document has no folder: use an absolute one", url)
	}
	if strings.HasSuffix(path, "/") {
		return filepath.Join(baseDir, path) + "/", nil
	}
	return filepath.Join(baseDir, path), nil
}

// host opens the root of this host's file system, below which a resolved path
// is opened without following any link.
func host() (*safefs.Root, error) { return safefs.Open("/", &safefs.Options{CrossMounts: true}) }

// inHost makes a name for host of a resolved path.
func inHost(real string) string {
	if real == "/" {
		return "."
	}
	return strings.TrimPrefix(real, "/")
}

// CheckInput implements stage.Fetcher. An input that is not there is told
// unless it is optional.
func (s *Stager) CheckInput(in *caisson.Input, env *stage.Env) error {
	if in.Text != "" {
		return landing.Invalid(in, errors.New("it has both from and text: use one"))
	}
	if err := landing.CheckNoGit(in); err != nil {
		return err
	}
	if err := landing.Check(in); err != nil {
		return err
	}
	_, err := s.source(in, env)
	if in.Optional && errors.Is(err, caisson.ErrNotFound) {
		return nil
	}
	return err
}

// source returns the real path of an input.
func (s *Stager) source(in *caisson.Input, env *stage.Env) (string, error) {
	path, err := parse(in.From, env.BaseDir)
	if err != nil {
		return "", landing.Invalid(in, err)
	}
	real, err := s.allowed.Existing(path, env.Trusted)
	return real, about(caisson.OpStageIn, err)
}

// about adds the operation to an error that another package has sorted.
func about(op caisson.Op, err error) error {
	var sorted *caisson.Error
	if !errors.As(err, &sorted) {
		return err
	}
	named := *sorted
	named.Op = op
	return &named
}
