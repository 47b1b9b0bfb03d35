//go:build unix

package all

import (
	"path/filepath"

	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/qemu"
	"github.com/caissonrun/caisson/keeper"
)

// ofMachines returns the engine qemu.
func ofMachines(opts *Options) (engine.Engine, error) {
	section := &opts.Config.Engine.Qemu
	kernels := make(map[string]qemu.Kernel, len(section.Kernels))
	for name, image := range section.Kernels {
		kernels[name] = qemu.Kernel{Image: image}
	}
	return qemu.New(&qemu.Options{
		Program: section.Program,
		Kernel:  section.Kernel, Modules: section.Modules, KernelRoot: section.KernelRoot, Kernels: kernels,
		Accels: section.Accel, Types: section.Type,
		CPUs: section.CPUs, Memory: section.Memory, Disk: section.Disk, BootTime: section.BootTime.Std(),
		Snapshot: section.Snapshot, States: section.States, StateAge: section.StateAge.Std(),
		Root: !section.NonRoot, UID: section.UID, GID: section.GID,
		IDBase: section.IDBase, IDCount: section.IDCount,
		CNIConfigDir: section.CNIConfigDir, CNIPluginDirs: section.CNIPluginDirs, DefaultSubnet: section.DefaultSubnet, Ports: ports(opts), VPNs: vpns(opts),
		Installation: opts.Installation,
		Runtime:      runtime(opts, qemu.Name),
		Cache:        filepath.Join(opts.Config.State, qemu.Name),
		Keeper:       keeper.Command{opts.Self, keeper.Subcommand},
		Logger:       opts.Logger,
	})
}
