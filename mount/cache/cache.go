//go:build unix

// Package cache mounts named folders that outlive tasks and are made on first
// use. Their contents may vanish at any time between tasks; what must not is a
// volume.
//
// A task that may write to a cache has it alone; any number of tasks may share
// one that they only read.
package cache

import (
	"context"
	"errors"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/mount"
	"github.com/caissonrun/caisson/mount/internal/shelf"
	"github.com/caissonrun/caisson/mount/volume"
)

// Type is the type of these mounts.
const Type = "cache"

// A Mounter makes cache mounts: the source is a cache's name. They have no
// options.
type Mounter struct{ shelf *shelf.Shelf }

var (
	_ mount.Mounter = (*Mounter)(nil)
	_ mount.Sweeper = (*Mounter)(nil)
)

// New returns a Mounter of the caches in dir, made on first use.
func New(dir string) (*Mounter, error) { return &Mounter{shelf: shelf.New(dir, "cache")}, nil }

// Type implements mount.Mounter.
func (*Mounter) Type() string { return Type }

// Check implements mount.Mounter.
func (m *Mounter) Check(mt caisson.Mount, _ mount.Env) error {
	if err := errors.Join(mount.CheckTarget(mt), mount.CheckOpts(mt)); err != nil {
		return err
	}
	if mt.Source == "" {
		return mount.Invalid(mt, "source is missing: name the cache")
	}
	return m.shelf.CheckName(mt.Source)
}

// Mount implements mount.Mounter.
func (m *Mounter) Mount(ctx context.Context, req *mount.Request) (*mount.Place, error) {
	if err := m.Check(req.Mount, req.Env); err != nil {
		return nil, err
	}
	lease := shelf.LeaseOf(req)
	place := mount.NewPlace(req)
	place.Owned, place.Data = true, lease.Data(req.Mount.Source)
	if err := req.Save(place); err != nil {
		return nil, err
	}
	data, err := m.take(ctx, req.Mount.Source, lease, shelf.Owner{UID: req.UID, GID: req.GID})
	if err != nil {
		return nil, err
	}
	place.Source = data
	return place, nil
}

// maxRaces is how often a cache is made again that somebody else removes, or
// makes, at the same moment.
const maxRaces = 16

func (m *Mounter) take(ctx context.Context, name string, lease shelf.Lease, owner shelf.Owner) (string, error) {
	for range maxRaces {
		data, err := m.shelf.Take(ctx, name, lease, owner)
		if !errors.Is(err, caisson.ErrNotFound) {
			return data, err
		}
		err = m.shelf.Create(ctx, name, owner, nil)
		if err != nil && !errors.Is(err, caisson.ErrExists) {
			return "", err
		}
	}
	return m.shelf.Take(ctx, name, lease, owner)
}

// Release implements mount.Mounter.
func (m *Mounter) Release(ctx context.Context, place *mount.Place) error {
	name, lease, ok := shelf.LeaseFrom(place)
	if !ok {
		return nil
	}
	return m.shelf.Release(ctx, name, lease)
}

// Sweep implements mount.Sweeper.
func (m *Mounter) Sweep(ctx context.Context, live func(task string, attempt int) bool) error {
	return m.shelf.Sweep(ctx, live)
}

// List returns the caches by name.
func (m *Mounter) List(ctx context.Context) ([]volume.Info, error) {
	list, err := m.shelf.List(ctx)
	return volume.Infos(list), err
}

// Remove deletes a cache. Errors: ErrNotFound; ErrExists if it is in use.
func (m *Mounter) Remove(ctx context.Context, name string) error { return m.shelf.Remove(ctx, name) }
