// Package volume mounts folders of a task's own, and named ones that outlive tasks.
package volume

import (
	"context"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/mount"
)

// A Mounter makes volume mounts.
type Mounter struct{ store *Store }

// New returns a Mounter of the volumes in store.
func New(store *Store) *Mounter { return &Mounter{store: store} }

// Type implements mount.Mounter.
func (*Mounter) Type() string { return "volume" }

// Check implements mount.Mounter.
func (m *Mounter) Check(mt caisson.Mount, env mount.Env) error { panic("todo") }

// Mount implements mount.Mounter.
func (m *Mounter) Mount(ctx context.Context, req *mount.Request) (*mount.Place, error) { panic("todo") }

// Release implements mount.Mounter.
func (m *Mounter) Release(ctx context.Context, place *mount.Place) error { panic("todo") }
