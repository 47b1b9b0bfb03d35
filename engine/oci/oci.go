// Package oci runs images on this host without a daemon: an image's root file
// system, which the executor has made ready, in a sandbox that an OCI runtime
// makes (crun, runc, runsc, or another one by path), or Caisson itself
// (builtin), so that images run where nothing is installed.
//
// builtin isolates with the same means as engine native, and shares the host's
// kernel: mount, pid, ipc, uts, cgroup, user and network namespaces, control
// groups, a system call filter, Landlock, no capabilities unless the operator
// lets programs be root. It needs Linux 5.12, and 5.19 for many sandboxes on
// one unpacked image; as root every live sandbox has 65536 user ids of its own,
// otherwise all have the caller's one.
//
// The making of a sandbox is package internal/isolate, called in the keeper.
// This package decides what it is to be: see plan, which turns an engine.Spec
// into a keeper.Spec. What it is for users stands in doc.md.
package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/keeper"
)

// Name is the engine's name.
const Name = "oci"

// Builtin is the runtime that is Caisson itself.
const Builtin = "builtin"

const (
	// idsPerSandbox is what images expect: every id that a small system has.
	idsPerSandbox = 65536
	// groups begins the names of control groups.
	groups = "caissonoci"
)

// What Options are where they say nothing.
const (
	// DefaultUID and DefaultGID are who programs run as that would be root.
	DefaultUID = 1000
	DefaultGID = 1000
	// DefaultIDBase follows the range of engine native.
	DefaultIDBase = 1879113728
	// DefaultIDCount is for 1024 sandboxes.
	DefaultIDCount = 1024 * idsPerSandbox
)

// Options configures an Engine. Only Runtime and Keeper are required.
type Options struct {
	// Use names the OCI runtime: Builtin, the name of a program in PATH, or its
	// absolute path. Empty: the first of Prefer that works.
	Use string
	// Prefer lists runtimes, most wanted first. Empty: the engine's own order.
	Prefer []string
	// EnforceFloors refuses runtimes older than the last known escape.
	EnforceFloors bool
	// AllowRuntimes lets tasks choose among Prefer.
	AllowRuntimes bool
	// Root lets programs be root of their sandbox, as images want it. Otherwise
	// a user that is root in any spelling, or none, becomes UID and GID.
	Root bool
	// UID and GID are who programs run as that would be root. Zero: DefaultUID
	// and DefaultGID.
	UID, GID int
	// IDBase is the first of IDCount host ids (users and groups alike) that
	// sandboxes are given where Caisson runs as root. Nobody else may use them.
	// Zero: DefaultIDBase and DefaultIDCount.
	IDBase, IDCount uint32
	// Volumes lets tasks bind absolute paths by the option volumes. Relative
	// ones, which lie in the task's work folder, always may be.
	Volumes bool
	// AllowHostNetwork lets tasks ask for the host's network.
	AllowHostNetwork bool
	// CNIConfigDir has the networks that tasks can name. Empty: /etc/cni/net.d.
	CNIConfigDir string
	// CNIPluginDirs are where their plugins are looked for, in order. Empty: the
	// usual places.
	CNIPluginDirs []string
	// VPNs are networks that tasks can name, too, by name: configurations of OpenVPN's
	// client, through which all goes.
	VPNs map[string]string
	// DefaultSubnet is the private IPv4 network of which sandboxes on the network
	// default get addresses. Empty: 10.213.0.0/16.
	DefaultSubnet string
	// AllowDevices are devices of the host, or folders of them, that tasks may
	// ask for.
	AllowDevices []string
	// AllowCaps are capabilities that tasks may add to those that root has.
	AllowCaps []string
	// AllowInsecure lets tasks switch off protection by insecure_options.
	AllowInsecure bool
	// Ports is the folder of reserved ports that engines share. Empty: one in Runtime.
	Ports string
	// Installation names the state folder that this engine works for: [a-z0-9],
	// at most 16. Sweep touches nothing of another one. Empty: "0".
	Installation string
	// Runtime is an absolute folder for sockets and records of live sandboxes
	// that may be shared by installations. It is made if it does not exist.
	Runtime string
	// Keeper is how keepers are started.
	Keeper keeper.Command
	// Logger is told what has no other way to be seen. Nil: nobody.
	Logger *slog.Logger
}

// An Engine makes sandboxes out of images' root file systems.
type Engine struct {
	opts   Options
	found  atomic.Pointer[found] // by the last Probe, or by the first Create
	idmaps kept.Idmaps
	boxes  *kept.Sandboxes
}

var (
	_ engine.Engine       = (*Engine)(nil)
	_ engine.Looker       = (*Engine)(nil)
	_ engine.ImageChooser = (*Engine)(nil)
)

// New returns an engine. It looks at nothing but opts.
//
// Errors: ErrInvalid, for all options that are wrong.
func New(opts *Options) (*Engine, error) {
	e := &Engine{opts: *opts}
	o := &e.opts
	o.Prefer, o.AllowDevices, o.AllowCaps = slices.Clone(o.Prefer), slices.Clone(o.AllowDevices), slices.Clone(o.AllowCaps)
	setDefault(&o.UID, DefaultUID)
	setDefault(&o.GID, DefaultGID)
	setDefault(&o.IDBase, DefaultIDBase)
	setDefault(&o.IDCount, DefaultIDCount)
	setDefault(&o.Installation, "0")
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	e.boxes = kept.New(&kept.Options{
		Engine: Name, Groups: groups, Installation: o.Installation, Runtime: o.Runtime, IDs: o.ids(), Keeper: o.Keeper,
		Remove: e.remove,
	})
	return e, nil
}

// setDefault gives an option that is not set its default.
func setDefault[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

// check names everything that is wrong, by the keys of the configuration.
func (o *Options) check() error {
	var wrong []string
	add := func(bad bool, format string, args ...any) {
		if bad {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	for _, name := range append([]string{o.Use}, o.Prefer...) {
		add(strings.Contains(name, "/") && !filepath.IsAbs(name), "runtime: %q is neither a name nor an absolute path", name)
	}
	add(o.UID < 1 || o.UID > maxInside, "uid: %d: use 1 to %d", o.UID, maxInside)
	add(o.GID < 1 || o.GID > maxInside, "gid: %d: use 1 to %d", o.GID, maxInside)
	add(o.IDBase < idsPerSandbox, "id_base: %d: below %d are the ids of people", o.IDBase, idsPerSandbox)
	add(o.IDCount < idsPerSandbox, "id_count: %d: a sandbox needs %d", o.IDCount, idsPerSandbox)
	add(uint64(o.IDBase)+uint64(o.IDCount) > math.MaxUint32, "id_base, id_count: beyond %d", uint32(math.MaxUint32))
	for _, p := range o.AllowDevices {
		add(!kept.Below(p, "/dev") || filepath.Clean(p) != p, "allow_devices: %q is not a path below /dev", p)
	}
	for _, name := range o.AllowCaps {
		_, known := capability(name)
		add(!known, "allow_caps: %q is no capability", name)
	}
	if err := kept.CheckInstallation(o.Installation); err != nil {
		add(true, "installation: %v", err)
	}
	for _, dir := range append([]string{o.CNIConfigDir}, o.CNIPluginDirs...) {
		add(dir != "" && !filepath.IsAbs(dir), "cni_config_dir, cni_plugin_dirs: %q is not an absolute path", dir)
	}
	add(!filepath.IsAbs(o.Runtime), "runtime folder: %q is not an absolute path", o.Runtime)
	add(len(o.Keeper) == 0, "keeper: no command is given")
	if len(wrong) == 0 {
		return nil
	}
	return &caisson.Error{
		Op: caisson.OpConfig, Item: "engine.oci", Kind: caisson.ErrInvalid, Err: errors.New(strings.Join(wrong, "; ")),
	}
}

// ids are the host ids of sandboxes.
func (o *Options) ids() kept.Range {
	return kept.Range{Base: o.IDBase, Count: o.IDCount, Each: idsPerSandbox}
}

// Name implements engine.Engine.
func (e *Engine) Name() string { return Name }

// Recover implements engine.Engine.
func (e *Engine) Recover(ctx context.Context, dir string) (engine.Sandbox, error) {
	return e.boxes.Recover(ctx, dir)
}

// Sweep implements engine.Engine.
func (e *Engine) Sweep(ctx context.Context, live []string) (removed []string, err error) {
	removed, err = e.boxes.Sweep(ctx, live)
	networks, netErr := e.opts.networks().Sweep(ctx, live)
	return append(removed, networks...), errors.Join(err, netErr)
}

// Running implements engine.Looker.
func (e *Engine) Running(dir string) (bool, error) { return e.boxes.Running(dir) }

// Close implements engine.Engine. It gives up what this process has of living
// sandboxes: their keepers then see to what follows.
func (e *Engine) Close() error { return e.boxes.Close() }
