package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/fields"
)

const (
	// FileName is the name of configuration files.
	FileName = "caisson.toml"
	// maxSize is the most bytes that a file may have.
	maxSize = 1 << 20
)

// files reads the configuration files, nearest first.
func (l *loader) files() error {
	named := l.opts.File
	if named == "" {
		named = l.env[configVariable]
	}
	if named != "" {
		for path := range strings.SplitSeq(named, string(os.PathListSeparator)) {
			if err := l.file(l.absolute(path), true); err != nil {
				return err
			}
		}
		return nil
	}
	for _, dir := range l.folders() {
		if err := l.file(filepath.Join(dir, FileName), false); err != nil {
			return err
		}
	}
	return nil
}

// folders returns the usual places, nearest first.
func (l *loader) folders() []string {
	dirs := []string{l.dir}
	if xdg := l.env["XDG_CONFIG_HOME"]; filepath.IsAbs(xdg) {
		dirs = append(dirs, filepath.Join(xdg, "caisson"))
	} else if home := l.env["HOME"]; filepath.IsAbs(home) {
		dirs = append(dirs, filepath.Join(home, ".config", "caisson"))
	}
	return append(dirs, l.system)
}

// file reads one file as the next layer. One that is not named may be absent,
// but not be another user's.
func (l *loader) file(path string, named bool) error {
	data, err := readFile(path, named, l.euid)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return nil
	}
	if err != nil {
		return configError(path, err)
	}
	for _, known := range l.read {
		if known == path {
			return nil // such as the current folder being /etc/caisson
		}
	}
	l.read = append(l.read, path)
	value, problems := parseTOML(path, data)
	l.problems = append(l.problems, problems...)
	if value != nil {
		l.layer(path, filepath.Dir(path), value)
	}
	return nil
}

// errOthers says that somebody else decides what is in a file.
type errOthers string

func (e errOthers) Error() string { return string(e) }

func readFile(path string, named bool, euid int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, errors.Unwrap(err) // the cause without the path
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && !named {
		switch {
		case stat.Uid != 0 && int(stat.Uid) != euid:
			return nil, errOthers(fmt.Sprintf("it belongs to user %d; read it with --config if you trust that user", stat.Uid))
		case info.Mode().Perm()&0o002 != 0:
			return nil, errOthers("everybody may write it; take that right away with chmod o-w")
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err == nil && len(data) > maxSize {
		err = fmt.Errorf("it is larger than %d KiB", maxSize>>10)
	}
	return data, err
}

func configError(path string, err error) error {
	kind := caisson.ErrInvalid
	var others errOthers
	switch {
	case errors.Is(err, fs.ErrNotExist):
		kind = caisson.ErrNotFound
	case errors.Is(err, fs.ErrPermission), errors.As(err, &others):
		kind = caisson.ErrDenied
	}
	return &caisson.Error{Op: caisson.OpConfig, Item: path, Kind: kind, Err: err}
}

// absolute returns path as seen from the current folder.
func (l *loader) absolute(path string) string { return under(l.dir, path) }

func under(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

// programPath makes the program of a command start at dir, unless it is a name to
// be looked for, or absolute.
func programPath(v *fields.Value, dir string) {
	if len(v.Items) == 0 {
		return
	}
	if first := v.Items[0]; first.Kind == fields.String && strings.Contains(first.Text, "/") {
		first.Text = under(dir, first.Text)
	}
}

// absolutePaths makes the relative paths in v, which is a t, start at dir.
func absolutePaths(v *fields.Value, t *fields.Type, dir string) {
	switch t.Form {
	case fields.Text:
		if t.Name == pathName && v.Kind == fields.String && v.Text != "" && v.Text[0] != '~' {
			v.Text = under(dir, v.Text)
		}
	case fields.Series:
		if t.Elem.Name == argumentName {
			programPath(v, dir)
		}
		for _, item := range v.Items {
			absolutePaths(item, t.Elem, dir)
		}
	case fields.Table:
		for _, e := range v.Keys {
			absolutePaths(e.Value, t.Elem, dir)
		}
	case fields.Object:
		for i := range t.Fields {
			if inner := v.Lookup(t.Fields[i].Name); inner != nil {
				absolutePaths(inner, t.Fields[i].Type, dir)
			}
		}
	}
}
