// Package all opens a storage by its URL. It is the one list of storages.
package all

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/file"
	"github.com/caissonrun/caisson/component/storage/s3"
	"github.com/caissonrun/caisson/component/storage/sql"
)

// Options are settings that URLs don't have.
type Options struct {
	// Dir is where relative paths start; empty: the working folder.
	Dir string
	// CellLimit is how large a value may be in a storage of files or objects, in
	// bytes; 0: 64 MiB.
	CellLimit int64
	// Memory is about how much a load with a key takes of it there, in bytes; 0:
	// 64 MiB.
	Memory int64
	// Getenv looks credentials up that a URL does not have; nil: os.Getenv.
	Getenv func(string) string
}

// forms are the URLs that Open knows, for people.
const forms = `a folder, "file:FOLDER", "postgres://USER@HOST/DATABASE", "sqlite:FILE" or "s3://BUCKET/PREFIX?endpoint=URL"`

// Open returns the storage of a URL, or of the path of a folder. It does not ask
// a server yet. Errors: ErrInvalid.
func Open(text string, opts *Options) (storage.Storage, error) {
	if opts == nil {
		opts = &Options{}
	}
	getenv := opts.Getenv
	if getenv == nil {
		getenv = os.Getenv
	}
	scheme, rest, ok := strings.Cut(text, ":")
	if !ok || strings.ContainsAny(scheme, "/.") {
		scheme, rest = "file", text
	}
	switch scheme {
	case "file":
		dir, err := local(rest)
		if err != nil {
			return nil, invalid(text, err)
		}
		return file.Open(below(opts.Dir, dir), &file.Options{CellLimit: opts.CellLimit, Memory: opts.Memory})
	case "postgres", "postgresql":
		return sql.New(text, nil)
	case "sqlite":
		if rest == "" {
			return nil, invalid(text, errors.New("a file is missing: sqlite:FILE"))
		}
		return sql.New("sqlite:"+below(opts.Dir, rest), nil)
	case "s3":
		return s3.Open(text, &s3.Options{CellLimit: opts.CellLimit, Memory: opts.Memory, Getenv: getenv})
	}
	return nil, invalid(text, fmt.Errorf("no storage has URLs of %q; it is %s", scheme+":", forms))
}

// local is the path of a file: URL.
func local(rest string) (string, error) {
	if strings.HasPrefix(rest, "//") {
		u, err := url.Parse("file:" + rest)
		if err != nil || u.Host != "" && u.Host != "localhost" {
			return "", errors.New("the URL of a folder is file:FOLDER, or file:///FOLDER")
		}
		rest = u.Path
	}
	if rest == "" {
		return "", errors.New("a folder is missing; the storage is " + forms)
	}
	return rest, nil
}

func below(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// invalid names a URL without what could be a password.
func invalid(text string, err error) error {
	if u, parsed := url.Parse(text); parsed == nil {
		text = u.Redacted()
	} else if scheme, _, ok := strings.Cut(text, ":"); ok {
		text = scheme + ":"
	}
	return &caisson.Error{Op: caisson.OpConfig, Item: fmt.Sprintf("storage %q", text), Kind: caisson.ErrInvalid, Err: err}
}
