//go:build unix

// Package bind mounts files and folders of this host.
//
// On the command line they act with the caller's rights. Otherwise the source
// must, after all symbolic links are resolved, lie below a directory that the
// operator lists. The root of the host, /proc, /sys, /dev and what the operator
// denies, such as Caisson's own state, is never mounted, nor what holds it.
package bind

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/allow"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/mount"
)

// Type is the type of these mounts.
const Type = "bind"

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

// The option: propagation, of which there is private and rprivate. What is
// mounted on the host after the sandbox was made is not seen in it, and what is
// mounted in the sandbox is never seen on the host.
const propagationOpt = "propagation"

// A Mounter makes bind mounts: the source is a path, relative ones start at the
// document's folder.
type Mounter struct {
	allowed *allow.List
	denied  []string
}

var _ mount.Mounter = (*Mounter)(nil)

// New returns a Mounter. Nil options mean the defaults. Errors: ErrInvalid for
// an allowed folder that is not absolute.
func New(opts *Options) (*Mounter, error) {
	if opts == nil {
		opts = &Options{}
	}
	allowed, err := allow.New(opts.Allow, opts.AnyPath)
	if err != nil {
		return nil, err
	}
	m := &Mounter{allowed: allowed, denied: []string{"/proc", "/sys", "/dev"}}
	for _, dir := range opts.Deny {
		if dir != "" {
			m.denied = append(m.denied, dir)
		}
	}
	return m, nil
}

// Type implements mount.Mounter.
func (*Mounter) Type() string { return Type }

// Check implements mount.Mounter.
func (m *Mounter) Check(mt caisson.Mount, env mount.Env) error {
	_, _, err := m.resolve(mt, env)
	return err
}

// resolve returns the real path of the source and what is there.
func (m *Mounter) resolve(mt caisson.Mount, env mount.Env) (string, fs.FileInfo, error) {
	if err := errors.Join(mount.CheckTarget(mt), mount.CheckOpts(mt, propagationOpt), checkPropagation(mt)); err != nil {
		return "", nil, err
	}
	source := mt.Source
	switch {
	case source == "":
		return "", nil, mount.Invalid(mt, "source is missing: name a file or folder of the host")
	case !filepath.IsAbs(source) && env.BaseDir == "":
		why := fmt.Sprintf("source %q is relative, and the document has no folder: use an absolute path", source)
		return "", nil, mount.Invalid(mt, why)
	case !filepath.IsAbs(source):
		source = filepath.Join(env.BaseDir, source)
	}
	real, err := m.allowed.Existing(source, env.Trusted)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", mount.Item(mt), err)
	}
	if err := m.checkDenied(mt, real); err != nil {
		return "", nil, err
	}
	info, err := os.Lstat(real)
	if err != nil {
		return "", nil, safefs.Sorted(caisson.OpMount, mount.Item(mt), err)
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		return "", nil, mount.Invalid(mt, fmt.Sprintf("source %q is neither a file nor a folder", real))
	}
	return real, info, nil
}

func checkPropagation(mt caisson.Mount) error {
	switch how, ok := mt.Opts[propagationOpt]; {
	case !ok, how == "private", how == "rprivate":
		return nil
	case how == "shared", how == "rshared", how == "slave", how == "rslave":
		return &caisson.Error{
			Op: caisson.OpMount, Item: mount.Item(mt), Kind: caisson.ErrUnsupported,
			Err: fmt.Errorf("propagation %q: no mounts pass between host and sandbox, use private", how),
		}
	default:
		return mount.Invalid(mt, fmt.Sprintf("propagation %q: use private", how))
	}
}

// checkDenied refuses what is, is in, or holds a folder that is never mounted.
func (m *Mounter) checkDenied(mt caisson.Mount, real string) error {
	for _, dir := range m.denied {
		if resolved, err := filepath.EvalSymlinks(dir); err == nil {
			dir = resolved
		}
		if allow.Within(real, dir) || allow.Within(dir, real) {
			return &caisson.Error{
				Op: caisson.OpMount, Item: mount.Item(mt), Kind: caisson.ErrDenied,
				Err: fmt.Errorf("source %q: %s is never mounted", real, dir),
			}
		}
	}
	return nil
}

// Mount implements mount.Mounter. It makes nothing: the engine binds the place.
// A source that belongs to the task's user on disk is Owned, so that the task
// can use it as it uses its work folder; but only where that takes no change of
// owner, because the files are not Caisson's.
func (m *Mounter) Mount(_ context.Context, req *mount.Request) (*mount.Place, error) {
	real, info, err := m.resolve(req.Mount, req.Env)
	if err != nil {
		return nil, err
	}
	place := mount.NewPlace(req)
	place.Source = real
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		place.Owned = int(st.Uid) == req.UID && int(st.Gid) == req.GID && showsOtherIDs(real)
	}
	return place, req.Save(place)
}

// Release implements mount.Mounter.
func (*Mounter) Release(context.Context, *mount.Place) error { return nil }
