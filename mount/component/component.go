//go:build unix

// Package component mounts what a task lends to the tasks that are made as parts
// of it: the data folders of a component's run, for its steps.
//
// What may be mounted is said by mount.Env.Parent, which comes from the
// executor's record of the child. A document can name the type, but as it is
// nobody's child it is refused.
package component

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/mount"
)

// Type is the type of these mounts.
const Type = "component"

// What a source begins with that is not in the parent's folder: "private:" is
// followed by a path in its folder in memory, "link:" by the name of a link.
const (
	privatePrefix = "private:"
	linkPrefix    = "link:"
)

// A Mounter makes mounts of a parent's files and folders. They are Owned, but
// for links, which are read-only and keep their owner.
type Mounter struct{}

var _ mount.Mounter = Mounter{}

// New returns a Mounter.
func New() Mounter { return Mounter{} }

// Type implements mount.Mounter.
func (Mounter) Type() string { return Type }

// Check implements mount.Mounter.
func (Mounter) Check(mt caisson.Mount, env mount.Env) error {
	_, err := resolve(mt, &env)
	return err
}

// Mount implements mount.Mounter. It makes nothing: the engine binds the place.
func (Mounter) Mount(_ context.Context, req *mount.Request) (*mount.Place, error) {
	source, err := resolve(req.Mount, &req.Env)
	if err != nil {
		return nil, err
	}
	place := mount.NewPlace(req)
	place.Source = source
	place.Owned = !isLink(req.Mount.Source)
	place.ReadOnly = place.ReadOnly || isLink(req.Mount.Source)
	return place, req.Save(place)
}

// Release implements mount.Mounter.
func (Mounter) Release(context.Context, *mount.Place) error { return nil }

func isLink(source string) bool { return strings.HasPrefix(source, linkPrefix) }

// resolve returns the real path of the source.
func resolve(mt caisson.Mount, env *mount.Env) (string, error) {
	if env.Parent == nil {
		return "", &caisson.Error{
			Op: caisson.OpMount, Item: mount.Item(mt), Kind: caisson.ErrDenied,
			Err: errors.New("mounts of this type are made by component runs, for their own steps; use a volume or a bind"),
		}
	}
	if err := errors.Join(mount.CheckTarget(mt), mount.CheckOpts(mt)); err != nil {
		return "", err
	}
	if name, ok := strings.CutPrefix(mt.Source, linkPrefix); ok {
		return resolveLink(mt, env.Parent.Links[name])
	}
	if rel, ok := strings.CutPrefix(mt.Source, privatePrefix); ok {
		return resolveIn(mt, env.Parent.Private, rel)
	}
	return resolveIn(mt, env.Parent.Dir, mt.Source)
}

// resolveIn returns the path of a file or folder below dir. Programs may have
// written in there: no link is followed.
func resolveIn(mt caisson.Mount, dir, rel string) (string, error) {
	if !filepath.IsLocal(rel) || filepath.Clean(rel) == "." || dir == "" {
		return "", mount.Invalid(mt, fmt.Sprintf("source %q: use a path below the parent's folder", rel))
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", safefs.Sorted(caisson.OpMount, mount.Item(mt), err)
	}
	root, err := safefs.Open(real, nil)
	if err != nil {
		return "", safefs.Sorted(caisson.OpMount, mount.Item(mt), err)
	}
	defer root.Close()
	info, err := root.Stat(filepath.Clean(rel))
	if err != nil {
		return "", safefs.Sorted(caisson.OpMount, mount.Item(mt), err)
	}
	return filepath.Join(real, rel), checkType(mt, info.Mode)
}

func checkType(mt caisson.Mount, mode fs.FileMode) error {
	if mode.IsDir() || mode.IsRegular() {
		return nil
	}
	return mount.Invalid(mt, "source is neither a file nor a folder")
}

// resolveLink returns the path of a file or folder of the host. It has to be
// readable by everyone: its owner stays what it is.
func resolveLink(mt caisson.Mount, source string) (string, error) {
	if !filepath.IsAbs(source) {
		return "", mount.Invalid(mt, "there is no such link")
	}
	real, err := filepath.EvalSymlinks(source)
	if err != nil {
		return "", safefs.Sorted(caisson.OpMount, mount.Item(mt), err)
	}
	info, err := os.Lstat(real)
	if err != nil {
		return "", safefs.Sorted(caisson.OpMount, mount.Item(mt), err)
	}
	if err := checkType(mt, info.Mode()); err != nil {
		return "", err
	}
	need := fs.FileMode(0o004)
	if info.IsDir() {
		need = 0o005
	}
	if os.Geteuid() == 0 && info.Mode().Perm()&need != need {
		return "", &caisson.Error{
			Op: caisson.OpMount, Item: mount.Item(mt), Kind: caisson.ErrDenied,
			Err: fmt.Errorf("%q can't be read by everyone: copy it", real),
		}
	}
	return real, nil
}
