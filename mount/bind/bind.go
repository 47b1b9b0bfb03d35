// Package bind mounts folders and files of this host.
package bind

import (
	"context"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/mount"
)

// Options configures a Mounter.
type Options struct {
	// Allow lists the folders below which sources may lie, after symbolic
	// links are resolved. Empty: none but for trusted tasks.
	Allow []string
	// AnyPath allows every source to every task.
	AnyPath bool
	// Deny lists folders that are never mounted, nor what is below or above
	// them, such as the state folder. /, /proc, /sys and /dev are always in it.
	Deny []string
}

// A Mounter makes bind mounts.
type Mounter struct{ opts Options }

// New returns a Mounter. Nil options mean the defaults.
func New(opts *Options) (*Mounter, error) {
	if opts == nil {
		opts = &Options{}
	}
	return &Mounter{opts: *opts}, nil
}

// Type implements mount.Mounter.
func (*Mounter) Type() string { return "bind" }

// Check implements mount.Mounter.
func (m *Mounter) Check(mt caisson.Mount, env mount.Env) error { panic("todo") }

// Mount implements mount.Mounter.
func (m *Mounter) Mount(ctx context.Context, req *mount.Request) (*mount.Place, error) { panic("todo") }

// Release implements mount.Mounter.
func (m *Mounter) Release(ctx context.Context, place *mount.Place) error { panic("todo") }
