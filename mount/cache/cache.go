// Package cache mounts named folders that outlive tasks and are made on first use.
package cache

import (
	"context"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/mount"
	"github.com/caissonrun/caisson/mount/volume"
)

// A Mounter makes cache mounts.
type Mounter struct{ dir string }

// New returns a Mounter of the caches in dir, made if it does not exist.
func New(dir string) (*Mounter, error) { return &Mounter{dir: dir}, nil }

// List returns the caches by name.
func (m *Mounter) List(ctx context.Context) ([]volume.Info, error) { panic("todo") }

// Remove deletes a cache. Errors: ErrNotFound; ErrExists if it is in use.
func (m *Mounter) Remove(ctx context.Context, name string) error { panic("todo") }

// Type implements mount.Mounter.
func (*Mounter) Type() string { return "cache" }

// Check implements mount.Mounter.
func (m *Mounter) Check(mt caisson.Mount, env mount.Env) error { panic("todo") }

// Mount implements mount.Mounter.
func (m *Mounter) Mount(ctx context.Context, req *mount.Request) (*mount.Place, error) { panic("todo") }

// Release implements mount.Mounter.
func (m *Mounter) Release(ctx context.Context, place *mount.Place) error { panic("todo") }
