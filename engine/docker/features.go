package docker

import (
	_ "embed"
	"fmt"

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
	info := &f.info
	out := engine.Features{
		Usable:  f.broken == nil,
		Version: version(f),
		Command: true, Script: true, Image: true, ImageOnly: true,
		ShareWork: true,
		Limits: engine.LimitFeatures{
			CPUs: info.CPUCfsQuota, Memory: info.MemoryLimit, PIDs: info.PidsLimit,
			Disk: f.disk, Log: true, Files: true,
		},
		Networks: engine.NetworkFeatures{
			None: true, Default: f.network, Host: o.AllowHostNetwork, Named: f.networks, Shared: f.networks,
			Allow: f.ungated == nil, Inside: f.ungated == nil,
		},
		Mounts: engine.MountFeatures{Bind: true, Tmpfs: true, ReadOnly: true},
		User:   true, Hostname: true, Secrets: true, Registry: true, Ports: f.network || f.networks, DNS: true,
		Privileged: o.AllowPrivileged, Devices: o.AllowDevices, GPUs: o.AllowGPUs && !f.podman,
		Fork: engine.ForkDisk,
		Exec: true, Terminal: f.terminal, Files: true, Stats: f.stats, Pause: true, Prepare: true,
		Gateway: f.ungated == nil, Keep: true,
		Displays: f.ungated == nil, DisplayServers: f.ungated == nil,
		ConfigSchema: configSchema, OptionsSchema: optionsSchema, Doc: doc,
	}
	out.Missing = o.missing(f, &out)
	if out.Usable {
		out.Isolation = o.isolation(f)
	}
	return out
}

func version(f *found) string {
	if f.info.ServerVersion == "" {
		return ""
	}
	return fmt.Sprintf("%s, API %s, %s", f.info.ServerVersion, f.api, f.info.Driver)
}

// isolation lists what separates a program from the host.
func (o *Options) isolation(f *found) []string {
	list := []string{
		engine.IsolatedMounts, engine.IsolatedPIDs, engine.IsolatedIPC, engine.IsolatedHostname, engine.IsolatedNetwork,
		engine.IsolatedRoot, engine.NoNewPrivileges, engine.FilteredSyscalls, engine.KilledTogether,
		engine.CleanDescriptors, engine.CleanEnvironment, engine.InvisibleHostProc,
	}
	if !o.Root {
		list = append(list, engine.NoCapabilities)
	}
	if f.info.CgroupVersion == "2" {
		list = append(list, engine.IsolatedCgroup)
	}
	return list
}

// missing says what this daemon does not give.
func (o *Options) missing(f *found, out *engine.Features) []engine.Missing {
	if f.broken != nil {
		return []engine.Missing{{What: "containers", Why: f.broken.Error(), Do: "start a Docker daemon on this host, or set engine.docker.host"}}
	}
	var list []engine.Missing
	add := func(missing bool, what, why, do string) {
		if missing {
			list = append(list, engine.Missing{What: what, Why: why, Do: do})
		}
	}
	const kernel = "the kernel or the daemon has no control group for it"
	add(!out.Limits.CPUs, engine.WhatCPUs, kernel, "")
	add(!out.Limits.Memory, engine.WhatMemory, kernel, "")
	add(!out.Limits.PIDs, engine.WhatPIDs, kernel, "")
	add(!out.Limits.Disk, engine.WhatDisk, "the daemon's storage driver can't bound a container's files", "use overlay2 on XFS with pquota")
	if o.Network == "" {
		add(true, engine.WhatNetwork, "what the daemon's own bridge reaches is not bounded", "name a network, such as network: bridge, or set engine.docker.network")
	} else {
		add(!out.Networks.Default, engine.WhatNetwork, fmt.Sprintf("the daemon has no network %q", o.Network), "set engine.docker.network")
	}
	add(!out.Networks.Host, engine.WhatHostNet, "the operator does not permit it", "set engine.docker.allow_host_network")
	add(!out.Networks.Named, engine.WhatNamedNets, "the daemon has no network driver bridge", "")
	if f.ungated != nil {
		const do = "run Caisson as root of the daemon's host, outside of containers"
		add(true, engine.WhatAllowList, f.ungated.Error(), do)
		add(true, engine.WhatGateway, f.ungated.Error(), do)
		add(true, engine.WhatDisplays, f.ungated.Error(), do)
	}
	add(out.Displays, engine.WhatScreen, "a container has no screen of its own", "run a VNC server in the task and name its socket or port, or use engine qemu")
	add(true, engine.WhatWarm, "the daemon fixes a container's program when it makes it", "use engine oci")
	add(!out.Privileged, engine.WhatPrivileged, "the operator does not permit it", "set engine.docker.allow_privileged")
	add(!out.Devices, engine.WhatDevices, "the operator does not permit it", "set engine.docker.allow_devices")
	if f.podman {
		add(true, engine.WhatGPUs, "Podman takes no notice of what is asked of drivers", "use devices")
	} else {
		add(!out.GPUs, engine.WhatGPUs, "the operator does not permit it", "set engine.docker.allow_gpus")
	}
	return list
}
