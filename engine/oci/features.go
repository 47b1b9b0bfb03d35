package oci

import (
	_ "embed"

	"github.com/caissonrun/caisson/engine"
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
func (o *Options) features(f *found) engine.Features {
	s := &f.support
	out := engine.Features{
		Usable: f.broken == nil, Version: f.version(),
		Command: true, Script: true, RootFS: true, Overlay: f.overlay == nil, ImageOnly: true,
		ShareWork: true, PrivateDisk: s.Disk.Method == "",
		Limits: engine.LimitFeatures{
			CPUs: s.Cgroup.CPUs, Memory: s.Cgroup.Memory, PIDs: s.Cgroup.PIDs, Disk: true, Log: true, Files: true,
		},
		Networks: engine.NetworkFeatures{None: true, Host: o.AllowHostNetwork, Allow: f.works.Gateway, Inside: f.root},
		Mounts:   engine.MountFeatures{Bind: true, Tmpfs: true, ReadOnly: true},
		User:     true, Hostname: true, Secrets: true, Registry: true, DNS: true,
		Devices: f.root && len(o.AllowDevices) > 0,
		Fork:    engine.ForkDisk, Warm: true,
		Exec: true, Terminal: f.works.Terminal, Files: true, Stats: f.works.Stats, Pause: f.works.Pause,
		Gateway:  f.works.Gateway,
		Displays: f.works.Displays, DisplayServers: f.works.Displays,
		Keep:         f.works.Keep,
		ConfigSchema: configSchema, OptionsSchema: optionsSchema, Doc: doc,
	}
	f.netFeatures(&out)
	f.chosen().reduce(&out)
	if f.root {
		out.MaxSandboxes = o.ids().Slots()
	}
	out.Isolation = o.isolates(f)
	out.Missing = o.missing(f)
	return out
}

// version names the runtime, and what kind of control groups the host has.
func (f *found) version() string {
	name := Builtin
	if c := f.chosen(); c != nil {
		name = c.String()
	}
	return name + ", " + f.support.Version
}

// isolates lists what separates a program from the host.
func (o *Options) isolates(f *found) []string {
	list := []string{
		engine.CleanDescriptors, engine.CleanEnvironment, engine.KilledTogether,
		engine.IsolatedMounts, engine.IsolatedPIDs, engine.IsolatedIPC, engine.IsolatedHostname,
		engine.IsolatedNetwork, engine.IsolatedUsers, engine.IsolatedRoot, engine.NoNewPrivileges,
		engine.FilteredSyscalls, engine.InvisibleHostProc,
	}
	if !o.Root {
		list = append(list, engine.NoCapabilities)
	}
	if c := f.chosen(); c != nil && guest(c.runtime) {
		return append(list, engine.SeparateKernel)
	}
	if f.root {
		list = append(list, engine.IsolatedUserID)
	}
	if f.support.Landlock > 0 {
		list = append(list, engine.RestrictedFiles)
	}
	return list
}

// missing says why what is not there is not.
func (o *Options) missing(f *found) []engine.Missing {
	var list []engine.Missing
	add := func(what, why, do string) {
		list = append(list, engine.Missing{What: what, Why: why, Do: do})
	}
	f.missingRuntimes(add)
	f.chosen().missing(add)
	for _, m := range f.support.Cgroup.Missing {
		add(m.What, m.Why, m.Do)
	}
	if f.overlay != nil {
		add(engine.WhatOverlays, f.overlay.Error(), "images are copied instead")
	}
	if f.support.Disk.Method == "" {
		add("disk limit without memory", "under a disk limit the work folder is in memory: "+f.support.Disk.Why, f.support.Disk.Do)
	}
	f.netMissing(o, add)
	if f.ungated != nil {
		for _, what := range []string{engine.WhatAllowList, engine.WhatGateway} {
			add(what, "nobody can serve a sandbox here: "+f.ungated.Error(), "use engine docker")
		}
	}
	if !o.AllowHostNetwork {
		add(engine.WhatHostNet, "the operator does not permit it", "set engine.oci.allow_host_network")
	}
	if f.works.Displays {
		add(engine.WhatScreen, "a container has no screen of its own", "run a VNC server in the task and name its socket or port, or use engine qemu")
		if !f.root {
			add(engine.WhatPortScreen, "without root nobody can enter a sandbox's network", "use socket")
		}
	}
	if len(o.AllowDevices) == 0 {
		add(engine.WhatDevices, "the operator permits none", "set engine.oci.allow_devices")
	} else if !f.root {
		add(engine.WhatDevices, "only root can give them", "run as root")
	}
	if f.support.Landlock == 0 {
		add(engine.RestrictedFiles, "the kernel has no Landlock, or it is switched off", "boot with lsm=landlock,...")
	}
	if !f.root {
		add(engine.IsolatedUserID, "without root all sandboxes have this user's id", "run as root")
	}
	add(engine.WhatPrivileged, "a sandbox has no rights over the host", "use engine docker")
	add(engine.WhatGPUs, "this engine has no drivers of devices", "use engine docker")
	return list
}
