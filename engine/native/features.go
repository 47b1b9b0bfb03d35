package native

import (
	_ "embed"
	"runtime"

	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
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

// found is what the last Probe has found out about the host.
type found struct {
	host    *host
	support kept.Support
	// broken is why the sandbox of the probe did not work, or nil.
	broken error
	// ungated is why one with a gateway did not, or nil.
	ungated error
	// works is what worked in it.
	works kept.Works
}

// features turns what was found into what is declared, for one isolation.
func (o *Options) features(f *found, isolation string) engine.Features {
	full := isolation == Full
	s := &f.support
	out := engine.Features{
		// The probe has tried what the operator has configured. What a task asks
		// for instead shows when its sandbox is made.
		Usable: f.broken == nil || isolation != o.Isolation, Version: s.Version,
		Command: true, Script: true, Options: false, Input: true, ShareWork: true,
		Limits: engine.LimitFeatures{
			CPUs: s.Cgroup.CPUs, Memory: s.Cgroup.Memory, PIDs: s.Cgroup.PIDs,
			Disk: full, Log: true, Files: true,
		},
		PrivateDisk: full && s.Disk.Method == "",
		Networks: engine.NetworkFeatures{
			None: full, Host: !full || o.AllowHostNetwork, Allow: full && f.works.Gateway, Inside: full && f.host.root,
		},
		Mounts: engine.MountFeatures{Bind: full, Tmpfs: full, ReadOnly: full},
		User:   full || f.host.root, Hostname: full, Secrets: true,
		Fork: engine.ForkDisk, Warm: true,
		Exec: true, Terminal: f.works.Terminal, Files: full, Stats: f.works.Stats, Pause: f.works.Pause,
		Gateway:  full && f.works.Gateway,
		Displays: full && f.works.Displays, DisplayServers: full && f.works.Displays,
		Keep:         full && f.works.Keep,
		ConfigSchema: configSchema, OptionsSchema: optionsSchema, Doc: doc,
	}
	if full && f.host.root {
		out.MaxSandboxes = o.ids().Slots()
	}
	out.Isolation = o.isolates(f, full)
	out.Missing = o.missing(f, full)
	return out
}

// isolates lists what separates a program from the host.
func (o *Options) isolates(f *found, full bool) []string {
	list := []string{engine.CleanDescriptors, engine.CleanEnvironment}
	if f.support.Cgroup.Usable || full {
		list = append(list, engine.KilledTogether)
	}
	if !full {
		return list
	}
	list = append(list, engine.IsolatedMounts, engine.IsolatedPIDs, engine.IsolatedIPC, engine.IsolatedHostname,
		engine.IsolatedNetwork, engine.IsolatedUsers, engine.IsolatedRoot, engine.NoNewPrivileges,
		engine.NoCapabilities, engine.FilteredSyscalls, engine.InvisibleHostProc)
	if f.host.root {
		list = append(list, engine.IsolatedUserID)
	}
	if f.support.Landlock > 0 {
		list = append(list, engine.RestrictedFiles)
	}
	return list
}

// missing says why what is not there is not.
func (o *Options) missing(f *found, full bool) []engine.Missing {
	var list []engine.Missing
	add := func(what, why, do string) {
		list = append(list, engine.Missing{What: what, Why: why, Do: do})
	}
	if f.broken != nil {
		add("isolation "+o.Isolation, f.broken.Error(), remedy(full))
	}
	for _, m := range f.support.Cgroup.Missing {
		add(m.What, m.Why, m.Do)
	}
	const unasked = "a task with isolation none has none"
	switch {
	case !full:
		for _, what := range []string{
			engine.WhatDisk, engine.WhatNoNetwork, engine.WhatAllowList, engine.WhatGateway, engine.WhatBinds, engine.WhatTmpfs, engine.WhatReadOnly, engine.WhatHostname,
		} {
			add(what, unasked, "use isolation: full")
		}
		add(engine.WhatKeep, unasked+" that could be entered", "use isolation: full")
		add(engine.WhatDisplays, unasked+" that could be entered", "use isolation: full")
	case f.support.Disk.Method == "":
		add("disk limit without memory", "under a disk limit the work folder is in memory: "+f.support.Disk.Why, f.support.Disk.Do)
	}
	if full && !o.AllowHostNetwork {
		add(engine.WhatHostNet, "the operator does not permit it", "set engine."+o.Name+".allow_host_network")
	}
	if full && f.support.Landlock == 0 {
		add(engine.RestrictedFiles, "the kernel has no Landlock, or it is switched off", "boot with lsm=landlock,...")
	}
	if full && !f.host.root {
		add(engine.IsolatedUserID, "without root all sandboxes have this user's id", "run as root")
	}
	if full && f.works.Displays {
		add(engine.WhatScreen, "a program has no screen of its own", "run a VNC server in the task and name its socket, or use engine qemu")
		if !f.host.root {
			add(engine.WhatPortScreen, "without root nobody can enter a sandbox's network", "use socket")
		}
	}
	const other = "native runs what is on this host"
	add(engine.WhatNetwork, other+", with the host's network or none", "use engine oci")
	if full && f.ungated != nil {
		for _, what := range []string{engine.WhatAllowList, engine.WhatGateway} {
			add(what, "nobody can serve a sandbox here: "+f.ungated.Error(), "use engine docker")
		}
	}
	add(engine.WhatImages, other, "use engine oci or docker")
	return list
}

// remedy is what an operator can do where sandboxes do not work.
func remedy(full bool) string {
	switch {
	case runtime.GOOS != "linux":
		return "use Linux, or set engine.native.isolation = \"none\""
	case full:
		return "allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces, " +
			"kernel.apparmor_restrict_unprivileged_userns=0), or run as root"
	}
	return ""
}
