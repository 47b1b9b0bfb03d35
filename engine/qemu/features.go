//go:build unix

package qemu

import (
	_ "embed"
	"errors"
	"fmt"

	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/machine"
)

// The engine's documentation and schemas, as Features carries them.
var (
	//go:embed doc.md
	doc string
	//go:embed config.schema.json
	configSchema []byte
	//go:embed options.schema.json
	optionsSchema []byte
)

// features turns what was found into what is declared.
func (o *Options) features(h *host) engine.Features {
	out := engine.Features{ConfigSchema: configSchema, OptionsSchema: optionsSchema, Doc: doc}
	t := o.chosen(h)
	if h.broken != nil || t == nil {
		out.Missing = []engine.Missing{{What: engine.WhatMachines, Why: h.reason(), Do: h.remedy()}}
		return out
	}
	shares := h.base.shares()
	out.Usable, out.Version = true, versionOf(h.base, t)
	out.Command, out.Script, out.RootFS, out.Disk, out.Overlay, out.ImageOnly, out.Machine = true, true, true, true, true, true, true
	// Under a disk limit everything is on one disk of that size.
	out.ShareWork, out.PrivateDisk = shares, true
	out.Limits = engine.LimitFeatures{CPUs: true, Memory: true, PIDs: true, Disk: true, Log: true, Files: true}
	out.Networks = engine.NetworkFeatures{None: true, Allow: t.Works.Gateway}
	h.netFeatures(&out)
	out.Mounts = engine.MountFeatures{Bind: shares, Tmpfs: true, ReadOnly: true}
	out.User, out.Hostname, out.Secrets, out.Registry, out.DNS = true, true, true, true, true
	out.Exec, out.Terminal, out.Files = true, t.Works.Terminal, true
	out.Stats, out.Pause, out.Keep, out.Gateway = t.Works.Stats, t.Works.Pause, t.Works.Keep, t.Works.Gateway
	out.Displays, out.Screen = t.Works.Displays, t.Works.Displays
	out.Snapshot, out.Fork, out.Warm = true, engine.ForkMemory, true
	if h.root {
		out.MaxSandboxes = o.ids().Slots()
	}
	out.Isolation = o.isolates()
	out.Missing = o.missing(h, t)
	return out
}

// A remedied error is one that the operator can do something about.
type remedied struct {
	error
	do string
}

// Unwrap returns the error itself.
func (r *remedied) Unwrap() error { return r.error }

// remedy is what an operator can do where nothing boots.
func (h *host) remedy() string {
	var r *remedied
	if errors.As(h.broken, &r) {
		return r.do
	}
	return "see docs/engines.md"
}

// reason is why no machine can be made.
func (h *host) reason() string {
	if h.broken == nil {
		return "no guest boots here"
	}
	return h.broken.Error()
}

// versionOf names what machines are made of.
func versionOf(b *base, t *tried) string {
	return fmt.Sprintf("QEMU %s, %s with %s, Linux %s", b.QEMU.Version, t.Type, t.Accel, b.Kernel.Version)
}

// isolates lists what separates a program from the host.
func (o *Options) isolates() []string {
	list := []string{
		engine.SeparateKernel, engine.CleanDescriptors, engine.CleanEnvironment, engine.KilledTogether,
		engine.IsolatedRoot, engine.NoNewPrivileges, engine.InvisibleHostProc,
	}
	if !o.Root {
		list = append(list, engine.NoCapabilities)
	}
	return list
}

// missing says why what is not there is not.
func (o *Options) missing(h *host, t *tried) []engine.Missing {
	var list []engine.Missing
	add := func(what, why, do string) {
		list = append(list, engine.Missing{What: what, Why: why, Do: do})
	}
	for _, b := range h.base.boots() {
		if b.Missing == "" {
			continue
		}
		do := ""
		if b.Accel == machine.KVM {
			do = "without KVM processors are emulated, which is slow"
		}
		add("machine "+b.Type+" with "+b.Accel, b.Missing, do)
	}
	if !h.base.shares() {
		why := fmt.Sprintf("kernel %s has no 9p", h.base.Kernel.Version)
		add("live work folder", why, "use a kernel that has it, such as Debian's linux-image-amd64 (engine.qemu.kernel)")
		add(engine.WhatBinds, why, "use a kernel that has it, such as Debian's linux-image-amd64 (engine.qemu.kernel)")
	}
	for _, m := range h.support.Cgroup.Missing {
		add("host's "+m.What, m.Why+"; the guest's kernel holds it", m.Do)
	}
	if t.Works.Displays {
		add(engine.WhatServers, "nobody outside can connect to a server in a guest", "use the machine's own screen, or engine oci")
	} else {
		add(engine.WhatDisplays, "machine "+t.Type+" has no screen here", "use type q35 or pc (engine.qemu.types), and a QEMU with VNC")
	}
	if !t.Works.Gateway {
		for _, what := range []string{engine.WhatAllowList, engine.WhatGateway} {
			add(what, "nobody can serve a guest here", "use engine oci")
		}
	}
	if !h.root {
		add(engine.IsolatedUserID, "without root all QEMUs have this user's id", "run as root")
	}
	h.netMissing(o, add)
	add(engine.WhatHostNet, "a machine has a network of its own", "use engine oci")
	add(engine.WhatDevices, "a machine has its own", "use engine oci")
	add(engine.WhatGPUs, "a machine has none", "use engine docker")
	return list
}
