//go:build unix

// Package qemu runs tasks in virtual machines: an image's root file system
// under a kernel of its own, or the disk of a whole machine.
//
// A keeper, which is this program's own subcommand, starts QEMU in a sandbox of
// package isolate and talks to the agent in the guest (internal/guest). When
// the keeper ends, QEMU ends with it. Processes of the host that talk to a guest
// do so by its keeper.
//
// What isolates is the machine, and around it the host's kernel: QEMU has a user
// id of its own, namespaces, a control group, two system call filters, no network
// and no file but the machine's. It needs Linux on x86-64, QEMU 5.2, a kernel for
// guests, and no rights; with /dev/kvm it is fast.
//
// This package decides what a machine is to be: see plan, which turns an
// engine.Spec into a boxSpec. What it is for users stands in doc.md.
package qemu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/machine"
	"github.com/caissonrun/caisson/keeper"
)

// Name is the engine's name.
const Name = "qemu"

const (
	// leastMemory is the least that programs of a guest can have.
	leastMemory = 16 * caisson.MiB
	// leastDisk is the least file system that is worth its tables.
	leastDisk = 4 * caisson.MiB
	// maxCPUs is the most that a machine can have.
	maxCPUs = 255
	// idsPerSandbox is how many host ids a sandbox has: of its init, and of QEMU.
	idsPerSandbox = 2
	// groups begins the names of control groups.
	groups = "caissonqemu"
)

// What Options are where they say nothing.
const (
	// DefaultUID and DefaultGID are who programs run as that would be root.
	DefaultUID = 1000
	DefaultGID = 1000
	// DefaultIDBase follows the range of engine script.
	DefaultIDBase = 1946288128
	// DefaultIDCount is for 32768 sandboxes.
	DefaultIDCount = 65536
	// DefaultMemory is what a task's programs have that sets no limit.
	DefaultMemory = 512 * caisson.MiB
	// DefaultDisk is what a task can write to its root that sets no limit. Nothing
	// of it is taken before it is written to.
	DefaultDisk = 16 * caisson.GiB
)

// Options configures an Engine. Runtime, Cache and Keeper are required.
type Options struct {
	// Program is QEMU's name in PATH or absolute path. Empty: the usual names for
	// this host's processor.
	Program string
	// Kernel is the file of the kernel that guests boot, and Modules the folder of
	// its modules, see machine.KernelOptions. Empty: the newest of KernelRoot.
	Kernel, Modules string
	// KernelRoot is a folder with a kernel as distributions install it. Empty: this
	// host's root folder.
	KernelRoot string
	// Kernels are kernels that tasks may name, by their names.
	Kernels map[string]Kernel
	// Accels and Types are accelerators and types of machine, most wanted first.
	// Empty: all that there are, in the engine's own order.
	Accels, Types []string
	// CPUs is how many processors a machine has where the task sets no limit. Zero: as
	// many as the host, two at most.
	CPUs int
	// Memory is what programs have where the task sets no limit. Zero: DefaultMemory.
	Memory caisson.Bytes
	// Disk is how much can be written to the root where the task sets no limit.
	// Zero: DefaultDisk.
	Disk caisson.Bytes
	// BootTime is how long a guest may take until its agent answers. Zero: ten
	// seconds with KVM, a minute without.
	BootTime time.Duration
	// Snapshot has the state of each kind of machine saved when the first of it has
	// booted. Those that are saved are gone on from also without.
	Snapshot bool
	// States is how many saved states are kept, and StateAge how long after their last
	// use. Zero: 16, 30 days.
	States   int
	StateAge time.Duration
	// Root lets programs be root of their guest, as images want it. Otherwise a user
	// that is root in any spelling, or none, becomes UID and GID.
	Root bool
	// UID and GID are who programs run as that would be root. Zero: DefaultUID and
	// DefaultGID.
	UID, GID int
	// IDBase is the first of IDCount host ids (users and groups alike) that QEMUs
	// are given where Caisson runs as root. Nobody else may use them. Zero:
	// DefaultIDBase and DefaultIDCount.
	IDBase, IDCount uint32
	// CNIConfigDir has the networks that tasks may name, and CNIPluginDirs the plugins
	// that attach to them. Empty: the usual places, see package network.
	CNIConfigDir  string
	CNIPluginDirs []string
	// VPNs are networks that tasks may name, too, by name: configurations of OpenVPN's
	// client, through which all goes.
	VPNs map[string]string
	// DefaultSubnet is the private IPv4 network of which sandboxes on the network
	// default get addresses on this host. Empty: network.DefaultSubnet.
	DefaultSubnet string
	// Ports is the folder of reserved ports that engines share. Empty: one in Runtime.
	Ports string
	// Installation names the state folder that this engine works for: [a-z0-9], at
	// most 16. Sweep touches nothing of another one. Empty: "0".
	Installation string
	// Runtime is an absolute folder for sockets and records of live sandboxes that
	// may be shared by installations. It is made if it does not exist.
	Runtime string
	// Cache is an absolute folder for what is made once: what guests boot from, and
	// what was found out by booting. It is made if it does not exist, and must be
	// open to this user alone.
	Cache string
	// Agent is the file of the agent for guests. Empty: the one that is part of
	// this program.
	Agent string
	// Keeper is how keepers are started that know Kind.
	Keeper keeper.Command
	// Logger is told what has no other way to be seen. Nil: nobody.
	Logger *slog.Logger
}

// A Kernel is one that tasks may name.
type Kernel struct {
	Image   string // its file, absolute
	Modules string // the folder of its modules; empty: as machine.KernelOptions has it
}

// An Engine makes sandboxes that are virtual machines.
type Engine struct {
	opts   Options
	boxes  *kept.Sandboxes
	idmaps kept.Idmaps

	mu sync.Mutex
	// host is what was found out about the host; nil: nothing yet.
	host *host
}

var (
	_ engine.Engine = (*Engine)(nil)
	_ engine.Looker = (*Engine)(nil)
)

// New returns an engine. It looks at nothing but opts.
//
// Errors: ErrInvalid, for all options that are wrong.
func New(opts *Options) (*Engine, error) {
	e := &Engine{opts: *opts}
	o := &e.opts
	o.Accels, o.Types = slices.Clone(o.Accels), slices.Clone(o.Types)
	if len(o.Accels) == 0 {
		o.Accels = []string{machine.KVM, machine.TCG}
	}
	if len(o.Types) == 0 {
		// A microvm boots first, and with some kernels never.
		o.Types = []string{machine.Q35, machine.PC, machine.MicroVM}
	}
	setDefault(&o.Memory, DefaultMemory)
	setDefault(&o.Disk, DefaultDisk)
	setDefault(&o.UID, DefaultUID)
	setDefault(&o.GID, DefaultGID)
	setDefault(&o.IDBase, DefaultIDBase)
	setDefault(&o.IDCount, DefaultIDCount)
	setDefault(&o.Installation, "0")
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	e.boxes = kept.New(&kept.Options{
		Snapshots: true,
		Engine:    Name, Groups: groups, Installation: o.Installation, Runtime: o.Runtime, IDs: o.ids(), Keeper: o.Keeper,
		Guests: true, Remove: e.remove,
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
	add(strings.Contains(o.Program, "/") && !filepath.IsAbs(o.Program), "program: %q is neither a name nor an absolute path", o.Program)
	paths := map[string]string{"kernel": o.Kernel, "modules": o.Modules, "kernel_root": o.KernelRoot, "agent": o.Agent}
	for name, k := range o.Kernels {
		paths["kernels."+name], paths["kernels."+name+".modules"] = k.Image, k.Modules
		add(k.Image == "", "kernels.%s: it has no image", name)
	}
	for what, path := range paths {
		add(path != "" && !filepath.IsAbs(path), "%s: %q is not an absolute path", what, path)
	}
	add(o.Kernel != "" && o.KernelRoot != "", "kernel, kernel_root: use one of them")
	add(o.Modules != "" && o.Kernel == "", "modules: they belong to kernel, which is not set")
	for _, a := range o.Accels {
		add(a != machine.KVM && a != machine.TCG, "accel: %q is neither kvm nor tcg", a)
	}
	for _, t := range o.Types {
		add(t != machine.Q35 && t != machine.PC && t != machine.MicroVM, "type: %q is none of q35, pc, microvm", t)
	}
	add(o.CPUs < 0 || o.CPUs > maxCPUs, "cpus: %d: use 1 to %d", o.CPUs, maxCPUs)
	add(o.Memory < leastMemory, "memory: %s: the least is %s", o.Memory, leastMemory)
	add(o.Disk < leastDisk, "disk: %s: the least is %s", o.Disk, leastDisk)
	add(o.States < 0, "states: %d is negative", o.States)
	add(o.StateAge < 0, "state_age: %s is negative", o.StateAge)
	add(o.BootTime < 0, "boot_time: %s is negative", o.BootTime)
	add(o.UID < 1 || o.UID > kept.MaxAccount, "uid: %d: use 1 to %d", o.UID, kept.MaxAccount)
	add(o.GID < 1 || o.GID > kept.MaxAccount, "gid: %d: use 1 to %d", o.GID, kept.MaxAccount)
	add(o.IDBase < 65536, "id_base: %d: below 65536 are the ids of people", o.IDBase)
	add(o.IDCount < idsPerSandbox, "id_count: %d: a sandbox needs %d", o.IDCount, idsPerSandbox)
	add(uint64(o.IDBase)+uint64(o.IDCount) > math.MaxUint32, "id_base, id_count: beyond %d", uint32(math.MaxUint32))
	if err := kept.CheckInstallation(o.Installation); err != nil {
		add(true, "installation: %v", err)
	}
	for _, dir := range append([]string{o.CNIConfigDir, o.Ports}, o.CNIPluginDirs...) {
		add(dir != "" && !filepath.IsAbs(dir), "cni_config_dir, cni_plugin_dirs: %q is not an absolute path", dir)
	}
	for what, path := range map[string]string{"runtime": o.Runtime, "cache": o.Cache} {
		add(!filepath.IsAbs(path), "%s: %q is not an absolute path", what, path)
	}
	add(len(o.Keeper) == 0, "keeper: no command is given")
	if len(wrong) == 0 {
		return nil
	}
	slices.Sort(wrong)
	return &caisson.Error{
		Op: caisson.OpConfig, Item: "engine.qemu", Kind: caisson.ErrInvalid, Err: errors.New(strings.Join(wrong, "; ")),
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
