//go:build unix

// Package volume mounts folders of Caisson's own. A volume without a name
// belongs to one attempt and is gone with it. A named one outlives tasks: it is
// made by `caisson volume create`, or a Store, before.
//
// Every volume begins empty, whatever an image has at its target, and so in
// every engine.
//
// A task that may write to a named volume has it alone; any number of tasks may
// share one that they only read. A folder is no boundary for sizes: a volume
// can grow as far as the file system that the state folder is on.
package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/mount"
	"github.com/caissonrun/caisson/mount/internal/shelf"
)

// Type is the type of these mounts.
const Type = "volume"

// ownDir is the folder of a volume without a name, in the attempt's.
const ownDir = "data"

// The options: mode in octal, of the folder of a volume without a name (default:
// 0755); nocopy, which is true anyway and may be said.
const (
	modeOpt   = "mode"
	nocopyOpt = "nocopy"
)

// A Mounter makes volume mounts: the source is a volume's name, or empty. There
// are no options of a driver's: what they could say, such as a device to bind,
// is refused.
type Mounter struct{ store *Store }

var (
	_ mount.Mounter = (*Mounter)(nil)
	_ mount.Sweeper = (*Mounter)(nil)
)

// New returns a Mounter of the volumes in store.
func New(store *Store) *Mounter { return &Mounter{store: store} }

// Type implements mount.Mounter.
func (*Mounter) Type() string { return Type }

// Check implements mount.Mounter. A named volume must exist.
func (m *Mounter) Check(mt caisson.Mount, _ mount.Env) error {
	err := errors.Join(mount.CheckTarget(mt), mount.CheckOpts(mt, modeOpt, nocopyOpt))
	if err == nil {
		_, err = options(mt)
	}
	if err != nil || mt.Source == "" {
		return err
	}
	if err := m.store.shelf.CheckName(mt.Source); err != nil {
		return err
	}
	if !m.store.shelf.Exists(mt.Source) {
		return absent(mt)
	}
	return nil
}

// options returns the mode of the volume's folder.
func options(mt caisson.Mount) (fs.FileMode, error) {
	if text, ok := mt.Opts[nocopyOpt]; ok {
		if on, err := strconv.ParseBool(text); err != nil || !on {
			return 0, mount.Invalid(mt, fmt.Sprintf("nocopy %q: volumes begin empty, use true or leave it out", text))
		}
	}
	text, ok := mt.Opts[modeOpt]
	if !ok {
		return 0o755, nil
	}
	if mt.Source != "" {
		return 0, mount.Invalid(mt, "mode: a volume with a name keeps the one that it has")
	}
	mode, err := mount.ParseMode(mt, text)
	if err == nil && mode != mode.Perm() {
		err = mount.Invalid(mt, fmt.Sprintf("mode %q: use permission bits in octal, such as 0700", text))
	}
	return mode, err
}

func absent(mt caisson.Mount) error {
	return &caisson.Error{
		Op: caisson.OpMount, Item: mount.Item(mt), Kind: caisson.ErrNotFound,
		Err: errors.New("there is no volume " + mt.Source + ": make it with `caisson volume create " + mt.Source + "`"),
	}
}

// Mount implements mount.Mounter.
func (m *Mounter) Mount(ctx context.Context, req *mount.Request) (*mount.Place, error) {
	if err := m.Check(req.Mount, req.Env); err != nil {
		return nil, err
	}
	place := mount.NewPlace(req)
	place.Owned = true
	if req.Mount.Source == "" {
		return m.mountOwn(req, place)
	}
	lease := shelf.LeaseOf(req)
	place.Data = lease.Data(req.Mount.Source)
	if err := req.Save(place); err != nil {
		return nil, err
	}
	data, err := m.store.shelf.Take(ctx, req.Mount.Source, lease, shelf.Owner{UID: req.UID, GID: req.GID})
	if errors.Is(err, caisson.ErrNotFound) {
		return nil, absent(req.Mount)
	}
	if err != nil {
		return nil, err
	}
	place.Source = data
	return place, nil
}

// mountOwn makes a volume of the attempt's own. The caller removes it with the
// attempt's folder.
func (m *Mounter) mountOwn(req *mount.Request, place *mount.Place) (*mount.Place, error) {
	if err := req.Save(place); err != nil {
		return nil, err
	}
	root, err := safefs.Open(req.Dir, nil)
	if err != nil {
		return nil, safefs.Sorted(caisson.OpMount, mount.Item(req.Mount), err)
	}
	defer root.Close()
	var owner *safefs.Owner
	if os.Geteuid() == 0 {
		owner = &safefs.Owner{UID: req.UID, GID: req.GID}
	}
	mode, err := options(req.Mount)
	if err != nil {
		return nil, err
	}
	err = root.MkdirAll(ownDir, 0o755, owner)
	if err == nil {
		err = root.Chmod(ownDir, mode)
	}
	if err != nil {
		return nil, safefs.Sorted(caisson.OpMount, mount.Item(req.Mount), err)
	}
	place.Source, err = filepath.EvalSymlinks(filepath.Join(req.Dir, ownDir))
	return place, safefs.Sorted(caisson.OpMount, mount.Item(req.Mount), err)
}

// Release implements mount.Mounter.
func (m *Mounter) Release(ctx context.Context, place *mount.Place) error {
	name, lease, ok := shelf.LeaseFrom(place)
	if !ok {
		return nil
	}
	return m.store.shelf.Release(ctx, name, lease)
}

// Sweep implements mount.Sweeper.
func (m *Mounter) Sweep(ctx context.Context, live func(task string, attempt int) bool) error {
	return m.store.shelf.Sweep(ctx, live)
}
