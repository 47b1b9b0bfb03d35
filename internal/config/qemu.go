package config

import (
	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/fields"
)

// Qemu is the section [engine.qemu].
type Qemu struct {
	Program    string            `json:"program"`           // of QEMU, a name or a path; empty: the usual names
	Kernel     string            `json:"kernel,omitempty"`  // that guests boot; empty: the newest of KernelRoot
	Modules    string            `json:"modules,omitempty"` // of Kernel; empty: the usual places
	KernelRoot string            `json:"kernel_root,omitempty"`
	Kernels    map[string]string `json:"kernels,omitempty"` // files, by the names that tasks may give
	Accel      []string          `json:"accel"`             // kvm, tcg; empty: the engine's own order
	Type       []string          `json:"type"`              // q35, pc, microvm; empty: the engine's own order
	CPUs       int               `json:"cpus,omitempty"`    // where the task sets no limit; 0: the engine's default
	Memory     caisson.Bytes     `json:"memory,omitempty"`  // likewise
	Disk       caisson.Bytes     `json:"disk,omitempty"`    // likewise
	BootTime   caisson.Duration  `json:"boot_time,omitempty"`
	Snapshot   bool              `json:"snapshot,omitempty"`  // machines are saved once they have booted
	States     int               `json:"states,omitempty"`    // how many are kept; 0: the engine's default
	StateAge   caisson.Duration  `json:"state_age,omitempty"` // unused; 0: likewise
	NonRoot    bool              `json:"nonroot"`             // a program that would be root becomes UID and GID
	UID        int               `json:"uid,omitempty"`       // 0: the engine's default
	GID        int               `json:"gid,omitempty"`       // 0: the engine's default
	// CNIConfigDir and the next two are as the engine oci has them.
	CNIConfigDir  string   `json:"cni_config_dir"`
	CNIPluginDirs []string `json:"cni_plugin_dirs"`
	DefaultSubnet string   `json:"default_subnet"`
	IDBase        uint32   `json:"id_base"`  // first id of the host for QEMUs
	IDCount       uint32   `json:"id_count"` // how many ids of the host
}

func defaultQemu() Qemu { return Qemu{NonRoot: true, IDBase: 1946288128, IDCount: 65536} }

func qemuSection() *fields.Type {
	id := func() *fields.Type { return whole("an id, 0 to 65535", 0, 65535) }
	words := func(of ...string) *fields.Type {
		t := list(&fields.Type{Form: fields.Text, Enum: of})
		t.Unique = true
		return t
	}
	return section("settings of the engine qemu",
		fields.Field{
			Name: "program", Type: &fields.Type{Form: fields.Text, Want: "the name of a program, or its absolute path"},
			Default: "`qemu-system-x86_64`, or `/usr/libexec/qemu-kvm`", Examples: []any{"/opt/qemu/bin/qemu-system-x86_64"}, Doc: "QEMU, of version 5.2 or later.",
		},
		fields.Field{
			Name: "kernel", Type: folder(), Default: "the newest in `kernel_root`", Examples: []any{"/boot/vmlinuz-6.1.0-28-amd64"},
			Doc: "The file of the kernel that guests boot.",
		},
		fields.Field{
			Name: "modules", Type: folder(), Default: "`lib/modules/VERSION`, beside the folder that the kernel is in, or of this host",
			Doc: "The folder of that kernel's modules.",
		},
		fields.Field{
			Name: "kernel_root", Type: folder(), Default: "this host", Examples: []any{"/srv/kernels/debian"},
			Doc: "A folder with a kernel as distributions install it, such as an unpacked package: `boot/vmlinuz-VERSION` and `lib/modules/VERSION`.",
		},
		fields.Field{
			Name: "kernels", Type: &fields.Type{Form: fields.Table, Want: "a file for each name", Elem: folder()}, Default: "none",
			Examples: []any{map[string]any{"new": "/boot/vmlinuz-6.12.0-amd64"}}, Doc: "Kernels that tasks may name as `machine.kernel`.",
		},
		fields.Field{
			Name: "accel", Type: words("kvm", "tcg"), Default: "`kvm`, `tcg`", Also: []string{"accels", "accelerator"}, Examples: []any{[]any{"kvm"}},
			Doc: "Accelerators, most wanted first. With `tcg` the processor is emulated, which works everywhere and is slow.",
		},
		fields.Field{
			Name: "type", Type: words("q35", "pc", "microvm"), Default: "`q35`, `pc`, `microvm`", Also: []string{"types"}, Examples: []any{[]any{"microvm", "q35"}},
			Doc: "Types of machine, most wanted first.",
		},
		fields.Field{
			Name: "cpus", Type: whole("a number of processors, 0 to 255", 0, 255), Default: "as many as the host, two at most",
			Doc: "How many processors a machine has where its task sets no limit.",
		},
		fields.Field{
			Name: "memory", Type: sizeType(), Default: "512m", Examples: []any{"2g"},
			Doc: "What programs may use where the task sets no limit. The guest's kernel gets what it needs besides.",
		},
		fields.Field{
			Name: "disk", Type: sizeType(), Default: "16g", Examples: []any{"100g"},
			Doc: "How much can be written to the root where the task sets no limit. Nothing of it is taken before it is written to.",
		},
		fields.Field{
			Name: "boot_time", Type: durationType(), Default: "10 seconds with KVM, a minute without", Examples: []any{"3m"},
			Doc: "How long a guest may take to boot.",
		},
		fields.Field{
			Name: "snapshot", Type: toggle(), Default: "false",
			Doc: "The state of a machine is saved when the first of its kind has booted, before anything of a task runs in it. Those of the same image, size " +
				"and limits go on from there, each with its own randomness, clock and disk. States that `caisson vm snapshot` has made are used also without.",
		},
		fields.Field{
			Name: "states", Type: whole("a number, 0 or more", 0, 1<<20), Default: "16",
			Doc: "How many saved states are kept, those that were used last. Each takes about as much as a guest uses that has just booted.",
		},
		fields.Field{Name: "state_age", Type: durationType(), Default: "30 days", Examples: []any{"168h"}, Doc: "How long a saved state is kept that nobody uses."},
		fields.Field{
			Name: "nonroot", Type: toggle(), Default: "true", Also: []string{"sandbox"},
			Doc: "A user that is root in any spelling, or none, in the image or in the task, becomes `uid` and `gid`. An image with another user " +
				"keeps it. Without it programs may be root of their guest, with the capabilities that they have with Docker.",
		},
		fields.Field{Name: "uid", Type: id(), Default: "1000", Doc: "Who programs run as that would be root. 0 is the default."},
		fields.Field{Name: "gid", Type: id(), Default: "1000", Doc: "The group of that user."},
		cniConfigDir(), cniPluginDirs(), defaultSubnet(),
		fields.Field{
			Name: "id_base", Type: whole("an id of the host, 65536 to 4294901760", 65536, 1<<32-65536), Default: "1946288128",
			Doc: "As root, the first user and group id of the host that is given to QEMUs. The range must belong to nobody else.",
		},
		fields.Field{
			Name: "id_count", Type: whole("a number of ids, 2 or more", 2, 1<<31-1), Default: "65536",
			Doc: "How many ids of the host are given to QEMUs. Each uses two.",
		},
	)
}
