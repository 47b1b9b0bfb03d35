// Package tmpfs mounts memory: empty at the start of each step's sandbox and
// gone with it. It counts to the task's memory limit.
package tmpfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/mount"
)

// Type is the type of these mounts.
const Type = "tmpfs"

// The options: size in bytes with a unit (default: what the memory limit, or
// the kernel, permits), mode in octal (default: 1777).
const (
	sizeOpt = "size"
	modeOpt = "mode"
)

// A Mounter makes tmpfs mounts.
type Mounter struct{}

var _ mount.Mounter = (*Mounter)(nil)

// New returns a Mounter.
func New() *Mounter { return &Mounter{} }

// Type implements mount.Mounter.
func (*Mounter) Type() string { return Type }

// Check implements mount.Mounter.
func (*Mounter) Check(mt caisson.Mount, _ mount.Env) error {
	if err := errors.Join(mount.CheckTarget(mt), mount.CheckOpts(mt, modeOpt, sizeOpt)); err != nil {
		return err
	}
	if mt.Source != "" {
		return mount.Invalid(mt, "a tmpfs has no source")
	}
	if mt.ReadOnly {
		return mount.Invalid(mt, "an empty tmpfs that is read-only is of no use")
	}
	_, _, err := parse(mt)
	return err
}

func parse(mt caisson.Mount) (caisson.Bytes, uint32, error) {
	var size caisson.Bytes
	if text, ok := mt.Opts[sizeOpt]; ok {
		var err error
		if size, err = caisson.ParseBytes(text); err != nil {
			return 0, 0, mount.Invalid(mt, err.Error())
		}
		if size <= 0 {
			return 0, 0, mount.Invalid(mt, fmt.Sprintf("size %q: use more than 0", text))
		}
	}
	text, ok := mt.Opts[modeOpt]
	if !ok {
		return size, 0, nil
	}
	mode, err := mount.ParseMode(mt, text)
	if err != nil {
		return 0, 0, err
	}
	bits := uint32(mode.Perm())
	if mode&fs.ModeSticky != 0 {
		bits |= 0o1000
	}
	return size, bits, nil
}

// Mount implements mount.Mounter. It makes nothing: the engine does.
func (m *Mounter) Mount(_ context.Context, req *mount.Request) (*mount.Place, error) {
	if err := m.Check(req.Mount, req.Env); err != nil {
		return nil, err
	}
	place := mount.NewPlace(req)
	var err error
	if place.Size, place.Mode, err = parse(req.Mount); err != nil {
		return nil, err
	}
	return place, req.Save(place)
}

// Release implements mount.Mounter.
func (*Mounter) Release(context.Context, *mount.Place) error { return nil }
