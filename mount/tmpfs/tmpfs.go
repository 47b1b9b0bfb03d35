// Package tmpfs mounts memory.
package tmpfs

import (
	"context"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/mount"
)

// A Mounter makes tmpfs mounts.
type Mounter struct{}

// New returns a Mounter.
func New() *Mounter { return &Mounter{} }

// Type implements mount.Mounter.
func (*Mounter) Type() string { return "tmpfs" }

// Check implements mount.Mounter.
func (m *Mounter) Check(mt caisson.Mount, env mount.Env) error { panic("todo") }

// Mount implements mount.Mounter.
func (m *Mounter) Mount(ctx context.Context, req *mount.Request) (*mount.Place, error) { panic("todo") }

// Release implements mount.Mounter.
func (m *Mounter) Release(ctx context.Context, place *mount.Place) error { panic("todo") }
