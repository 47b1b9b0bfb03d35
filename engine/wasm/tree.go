package wasm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental/sys"
	"github.com/tetratelabs/wazero/experimental/sysfs"
	wazerosys "github.com/tetratelabs/wazero/sys"

	"github.com/caissonrun/caisson"
)

// A place is a folder or file of the host that a module sees.
type place struct {
	Target   string `json:"target"` // absolute, clean
	Source   string `json:"source"` // absolute, on the host
	ReadOnly bool   `json:"readonly,omitempty"`
	// Make says that Source is a folder that is to be made, for the module's
	// files alone.
	Make bool `json:"make,omitempty"`
	// Exact refuses a Source that leads through a link: what was permitted is
	// another place.
	Exact bool `json:"exact,omitempty"`
}

// A mounted is a place that is open. Whatever the module names is looked up by
// an os.Root, so that no link leads out, whoever has made it: wazero's own
// folders follow links to anywhere.
type mounted struct {
	target   string // without the leading slash; empty: the root
	root     *os.Root
	file     string // the one file of root that is meant; empty: all of root
	readonly bool
}

// openPlace opens a folder or file of the host.
func openPlace(p place) (*mounted, error) {
	if real, err := filepath.EvalSymlinks(p.Source); err == nil && p.Exact && real != filepath.Clean(p.Source) {
		return nil, &caisson.Error{Item: p.Target, Kind: caisson.ErrDenied, Err: fmt.Errorf("%s leads through a link", p.Source)}
	}
	m := &mounted{target: strings.Trim(p.Target, "/"), readonly: p.ReadOnly}
	info, err := os.Stat(p.Source)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Target, err)
	}
	dir := p.Source
	switch {
	case info.IsDir():
	case info.Mode().IsRegular():
		if dir, err = filepath.EvalSymlinks(p.Source); err != nil {
			return nil, err
		}
		dir, m.file = filepath.Split(dir)
	default:
		return nil, fmt.Errorf("%s: neither a file nor a folder", p.Target)
	}
	if m.root, err = os.OpenRoot(dir); err != nil {
		return nil, fmt.Errorf("%s: %w", p.Target, err)
	}
	return m, nil
}

// A tree is all files of a module: what is mounted, each at its place. What is
// not below another place is in the folder that is mounted at the root. It
// implements sys.FS.
type tree struct {
	sys.UnimplementedFS
	mounts  []*mounted // those with longer targets first
	secrets sys.FS     // below secretsDir; nil: none
}

var _ sys.FS = (*tree)(nil)

func newTree(mounts []*mounted, secrets []secretFile) *tree {
	// Of two of the same place the later one covers the earlier one.
	list := slices.Clone(mounts)
	slices.Reverse(list)
	slices.SortStableFunc(list, func(a, b *mounted) int { return len(b.target) - len(a.target) })
	t := &tree{mounts: list}
	if len(secrets) > 0 {
		t.secrets = &sysfs.ReadFS{FS: &sysfs.AdaptFS{FS: &secretFS{list: slices.Clone(secrets)}}}
	}
	return t
}

// secret returns the name below secretsDir of one that lies there.
func (t *tree) secret(name string) (string, bool) {
	rest, ok := strings.CutPrefix(path.Clean("/"+name), secretsDir)
	if t.secrets == nil || !ok || rest != "" && rest[0] != '/' {
		return "", false
	}
	return path.Clean(strings.TrimPrefix(rest, "/")), true
}

// find returns what is mounted at a name, and the name in there.
func (t *tree) find(name string) (*mounted, string, sys.Errno) {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	for _, m := range t.mounts {
		rest, ok := strings.CutPrefix(name, m.target)
		if !ok || m.target != "" && rest != "" && rest[0] != '/' {
			continue
		}
		rest = strings.TrimPrefix(rest, "/")
		switch {
		case m.file != "" && rest != "":
			return nil, "", sys.ENOTDIR
		case m.file != "":
			rest = m.file
		case rest == "":
			rest = "."
		}
		return m, rest, 0
	}
	return nil, "", sys.ENOENT
}

// change is find for what changes something.
func (t *tree) change(name string) (*mounted, string, sys.Errno) {
	m, rest, errno := t.find(name)
	switch {
	case errno != 0:
	case m.readonly:
		errno = sys.EROFS
	case rest == "." || m.file != "":
		errno = sys.EPERM // the place itself
	}
	return m, rest, errno
}

// carries reports whether something is mounted below a name, so that it is a
// folder even where nothing has made it.
func (t *tree) carries(name string) bool {
	name = strings.Trim(path.Clean("/"+name), "/")
	return slices.ContainsFunc(t.mounts, func(m *mounted) bool { return strings.HasPrefix(m.target, name+"/") })
}

// OpenFile implements sys.FS.
func (t *tree) OpenFile(name string, flag sys.Oflag, perm fs.FileMode) (sys.File, sys.Errno) {
	if base, ok := t.secret(name); ok {
		return t.secrets.OpenFile(base, flag, perm)
	}
	m, rest, errno := t.find(name)
	if errno != 0 {
		return t.openCarrier(name, errno)
	}
	if errno := m.swapped(); errno != 0 {
		return nil, errno
	}
	writes := flag&(sys.O_WRONLY|sys.O_RDWR|sys.O_CREAT|sys.O_TRUNC) != 0
	if m.readonly && writes {
		return nil, sys.EROFS
	}
	f, err := m.root.OpenFile(rest, hostFlags(flag), perm)
	if err != nil {
		return t.openCarrier(name, errnoOf(err))
	}
	opened, errno := m.opened(f, rest, flag)
	if errno != 0 {
		f.Close()
	}
	return opened, errno
}

// swapped refuses a file that has become a link, which could lead to another
// file of its folder.
func (m *mounted) swapped() sys.Errno {
	if m.file == "" {
		return 0
	}
	info, err := m.root.Lstat(m.file)
	if err == nil && !info.Mode().IsRegular() {
		return sys.EACCES
	}
	return errnoOf(err)
}

// opened is what an open file of the host is to a module.
func (m *mounted) opened(f *os.File, name string, flag sys.Oflag) (sys.File, sys.Errno) {
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, errnoOf(err)
	case info.IsDir():
		list, errno := (&sysfs.AdaptFS{FS: m.root.FS()}).OpenFile(name, sys.O_RDONLY, 0)
		if errno == 0 {
			f.Close()
		}
		return &folder{File: list, at: m, name: name}, errno
	case !info.Mode().IsRegular():
		// A pipe could block for ever, and a device be anything.
		return nil, sys.EACCES
	case flag&sys.O_DIRECTORY != 0:
		return nil, sys.ENOTDIR
	}
	seeker, errno := (&sysfs.AdaptFS{FS: single{f}}).OpenFile("file", sys.O_RDONLY, 0)
	return &file{File: seeker, f: f, append: flag&sys.O_APPEND != 0, at: m, name: name}, errno
}

// openCarrier opens a folder that is there only because something is mounted
// below it.
func (t *tree) openCarrier(name string, errno sys.Errno) (sys.File, sys.Errno) {
	if errno != sys.ENOENT || !t.carries(name) {
		return nil, errno
	}
	return &carrier{}, 0
}

// Lstat implements sys.FS.
func (t *tree) Lstat(name string) (wazerosys.Stat_t, sys.Errno) {
	return t.stat(name, (*os.Root).Lstat)
}

// Stat implements sys.FS.
func (t *tree) Stat(name string) (wazerosys.Stat_t, sys.Errno) {
	return t.stat(name, (*os.Root).Stat)
}

func (t *tree) stat(name string, stat func(*os.Root, string) (fs.FileInfo, error)) (wazerosys.Stat_t, sys.Errno) {
	if base, ok := t.secret(name); ok {
		return t.secrets.Stat(base)
	}
	m, rest, errno := t.find(name)
	if errno == 0 {
		info, err := stat(m.root, rest)
		if err == nil {
			return wazerosys.NewStat_t(info), 0
		}
		errno = errnoOf(err)
	}
	if errno == sys.ENOENT && t.carries(name) {
		return carrierStat(), 0
	}
	return wazerosys.Stat_t{}, errno
}

// Mkdir implements sys.FS.
func (t *tree) Mkdir(name string, perm fs.FileMode) sys.Errno {
	m, rest, errno := t.find(name)
	switch {
	case errno != 0:
		return errno
	case rest == ".":
		return sys.EEXIST
	case m.readonly:
		return sys.EROFS
	}
	return errnoOf(m.root.Mkdir(rest, perm))
}

// Chmod implements sys.FS.
func (t *tree) Chmod(name string, perm fs.FileMode) sys.Errno {
	m, rest, errno := t.change(name)
	if errno != 0 {
		return errno
	}
	return errnoOf(m.root.Chmod(rest, perm.Perm()))
}

// Rename implements sys.FS.
func (t *tree) Rename(from, to string) sys.Errno {
	return t.two(from, to, (*os.Root).Rename)
}

// Link implements sys.FS.
func (t *tree) Link(from, to string) sys.Errno {
	return t.two(from, to, (*os.Root).Link)
}

// two does something with two names of one place.
func (t *tree) two(from, to string, do func(*os.Root, string, string) error) sys.Errno {
	a, fromRest, errno := t.change(from)
	if errno != 0 {
		return errno
	}
	b, toRest, errno := t.change(to)
	switch {
	case errno != 0:
		return errno
	case a != b:
		return sys.ENOTSUP // as EXDEV, which wazero has no number for
	}
	return errnoOf(do(a.root, fromRest, toRest))
}

// Rmdir implements sys.FS.
func (t *tree) Rmdir(name string) sys.Errno { return t.remove(name, true) }

// Unlink implements sys.FS.
func (t *tree) Unlink(name string) sys.Errno { return t.remove(name, false) }

func (t *tree) remove(name string, dir bool) sys.Errno {
	m, rest, errno := t.change(name)
	if errno != 0 {
		return errno
	}
	info, err := m.root.Lstat(rest)
	switch {
	case err != nil:
		return errnoOf(err)
	case dir && !info.IsDir():
		return sys.ENOTDIR
	case !dir && info.IsDir():
		return sys.EISDIR
	}
	return errnoOf(m.root.Remove(rest))
}

// Symlink implements sys.FS. A link may say anything: it is followed inside of
// its place alone.
func (t *tree) Symlink(target, name string) sys.Errno {
	m, rest, errno := t.change(name)
	if errno != 0 {
		return errno
	}
	return errnoOf(m.root.Symlink(target, rest))
}

// Readlink implements sys.FS.
func (t *tree) Readlink(name string) (string, sys.Errno) {
	m, rest, errno := t.find(name)
	if errno != 0 {
		return "", errno
	}
	target, err := m.root.Readlink(rest)
	return target, errnoOf(err)
}

// Utimens implements sys.FS.
func (t *tree) Utimens(name string, atim, mtim int64) sys.Errno {
	m, rest, errno := t.find(name)
	switch {
	case errno != 0:
		return errno
	case m.readonly:
		return sys.EROFS
	}
	return setTimes(m.root, rest, atim, mtim)
}

// errnoOf turns an error of package os into WASI's. What would lead out of a
// place is not permitted.
func errnoOf(err error) sys.Errno {
	if err == nil {
		return 0
	}
	var pathErr *fs.PathError
	var linkErr *os.LinkError
	cause := err
	switch {
	case errors.As(err, &pathErr):
		cause = pathErr.Err
	case errors.As(err, &linkErr):
		cause = linkErr.Err
	}
	if cause != nil && cause.Error() == escapes {
		return sys.EPERM
	}
	return sys.UnwrapOSError(err)
}

// escapes is what os.Root says about names that lead out; it has no value for
// it. Where it says something else the error is EIO, and still one.
const escapes = "path escapes from parent"

// preopens is the tree as wazero takes it.
func (t *tree) preopens() wazero.FSConfig {
	config := wazero.NewFSConfig()
	if with, ok := config.(sysfs.FSConfig); ok {
		return with.WithSysFSMount(t, "/")
	}
	return config
}
