package engine

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
)

// A refusal collects what a spec asks for and an engine does not promise.
type refusal struct {
	missing []Missing
	fields  []string
}

// newRefusal compares all of spec with f. Fields have their names in the task
// document.
func newRefusal(f *Features, spec *Spec) *refusal {
	r := &refusal{missing: f.Missing}
	r.program(f, spec)
	r.limits(f, &spec.Limits)
	r.network(f, spec)
	r.mounts(f, spec)
	r.add(spec.User != "" && !f.User, "user", WhatUsers)
	r.add(spec.Group != "" && !f.User, "group", WhatUsers)
	r.add(spec.Hostname != "" && !f.Hostname, "hostname", WhatHostname)
	r.add(spec.Privileged && !f.Privileged, "privileged", WhatPrivileged)
	r.add(len(spec.Devices) > 0 && !f.Devices, "devices", WhatDevices)
	r.add(spec.GPUs != "" && !f.GPUs, "gpus", WhatGPUs)
	r.add(spec.Registry != nil && !f.Registry, "registry", WhatRegistry)
	r.add(len(spec.Secrets) > 0 && !f.Secrets, "secrets", WhatSecrets)
	r.displays(f, spec)
	return r
}

// displays looks at who is to show each.
func (r *refusal) displays(f *Features, spec *Spec) {
	if len(spec.Displays) > 0 && !f.Displays {
		r.add(true, "displays", WhatDisplays)
		return
	}
	for i, d := range spec.Displays {
		field := fmt.Sprintf("displays[%d]", i)
		r.add(!d.Server() && !f.Screen, field+" without socket or port", WhatScreen)
		r.add(d.Socket != "" && !f.DisplayServers, field+".socket", WhatServers)
		r.add(d.Port != 0 && !f.DisplayServers, field+".port", WhatServers)
		r.add(d.Port != 0 && f.DisplayServers && !f.Networks.Inside, field+".port", WhatPortScreen)
	}
}

// program looks at the form of the task.
func (r *refusal) program(f *Features, spec *Spec) {
	// The arguments of a module belong to it.
	r.add(len(spec.Args) > 0 && !f.Command && (spec.Module == "" || !f.Module), "cmd", WhatCommands)
	r.add(spec.Run != "" && !f.Script, "run", WhatScripts)
	r.add(spec.Image != "" && !f.Image, "image", WhatImages)
	r.add(spec.RootFS != nil && !f.RootFS, "image", WhatImages)
	r.add(spec.RootFS == nil && spec.Image == "" && f.ImageOnly && (spec.Machine == nil || !f.Machine), "no image", WhatNoImage)
	r.add(spec.RootFS != nil && spec.RootFS.Changes != "" && f.RootFS && !f.Overlay, "rootfs.changes", WhatOverlays)
	r.add(spec.Module != "" && !f.Module, "module", WhatModules)
	r.add(spec.Machine != nil && !f.Machine, "machine", WhatMachines)
	r.add(len(spec.Options) > 0 && !f.Options && f.OptionsSchema == nil, "options", WhatOptions)
	r.add(spec.OptionsAlone() && !f.Options, "options alone", WhatOptions)
	r.add(len(spec.Input) > 0 && !f.Input, "input", WhatInput)
	r.add(spec.Forkable && f.Fork == "", "forkable", WhatForks)
	r.add(spec.Snapshot != "" && !f.Snapshot, "snapshot", WhatForks)
	if f.OptionsOnly {
		r.own(spec)
	}
}

// own looks at what only belongs to a program of the task's own.
func (r *refusal) own(spec *Spec) {
	for _, name := range slices.Sorted(maps.Keys(spec.Env)) {
		r.add(!strings.HasPrefix(name, "CAISSON_"), fmt.Sprintf("env.%q", name), WhatOwnProgram)
	}
	r.add(spec.Workdir != "" && spec.Workdir != caisson.WorkDir, "workdir", WhatOwnProgram)
}

func (r *refusal) limits(f *Features, l *caisson.Limits) {
	r.add(l.CPUs != 0 && !f.Limits.CPUs, "limits.cpus", WhatCPUs)
	r.add(l.Memory != 0 && !f.Limits.Memory, "limits.memory", WhatMemory)
	r.add(l.PIDs != 0 && !f.Limits.PIDs, "limits.pids", WhatPIDs)
	r.add(l.Disk != 0 && !f.Limits.Disk, "limits.disk", WhatDisk)
	r.add(l.Log != 0 && !f.Limits.Log, "limits.log", WhatLog)
	r.add(l.Files != 0 && !f.Limits.Files, "limits.files", WhatFiles)
}

// network looks at the network and what belongs to it. A spec that asks for
// nothing gets the most closed network that the engine has; whether the
// operator accepts one that is not closed is decided by the engine's
// configuration, not here.
func (r *refusal) network(f *Features, spec *Spec) {
	n := &spec.Network
	switch n.Mode {
	case "":
	case caisson.NetworkNone:
		r.add(!f.Networks.None, "network: none", WhatNoNetwork)
	case caisson.NetworkDefault:
		r.add(!f.Networks.Default, "network: default", WhatNetwork)
	case caisson.NetworkHost:
		r.add(!f.Networks.Host, "network: host", WhatHostNet)
	case caisson.NetworkAllow:
		r.add(!f.Networks.Allow, "network.allow", WhatAllowList)
	default:
		r.add(!f.Networks.Named, fmt.Sprintf("network: %q", n.Mode), WhatNamedNets)
	}
	r.add(n.Mode != caisson.NetworkAllow && len(n.Allow) > 0 && !f.Networks.Allow, "network.allow", WhatAllowList)
	for _, a := range n.Attach {
		r.add(!f.Networks.Named, fmt.Sprintf("network: %q", a.Name), WhatNamedNets)
	}
	r.add(spec.SharedNetwork != "" && !f.Networks.Shared, "network: shared", WhatSharedNets)
	r.add(len(spec.Ports) > 0 && !f.Ports, "ports", WhatPorts)
	r.add(spec.DNS != nil && !f.DNS, "dns", WhatDNS)
	if spec.Gateway != nil {
		for _, field := range gatewayFields(f, spec) {
			r.add(!f.Gateway, field, WhatGateway)
		}
	}
	r.add(spec.Keep != 0 && !f.Keep, "keep", WhatKeep)
}

// gatewayFields are the fields of the task that a gateway is for, as far as they
// are not named already.
func gatewayFields(f *Features, spec *Spec) []string {
	fields := spec.Gateway.For
	switch allow := spec.Network.Mode == caisson.NetworkAllow; {
	case allow && f.Networks.Allow:
		return append([]string{"network.allow"}, fields...)
	case !allow && len(fields) == 0:
		return []string{"gateway"}
	}
	return fields
}

func (r *refusal) mounts(f *Features, spec *Spec) {
	for i, m := range spec.Mounts {
		field := fmt.Sprintf("mounts[%d]", i)
		r.add(m.Type == MountBind && !f.Mounts.Bind, field+".type: bind", WhatBinds)
		r.add(m.Type == MountTmpfs && !f.Mounts.Tmpfs, field+".type: tmpfs", WhatTmpfs)
		r.add(m.ReadOnly && !f.Mounts.ReadOnly, field+".readonly", WhatReadOnly)
		r.add(m.Type == MountBind && spec.Forkable && f.Fork == ForkMemory, field+".type: bind, of a task that is forkable", WhatForks)
	}
}

// add refuses a field, with the host's reason where it is known.
func (r *refusal) add(refused bool, field, what string) {
	if !refused {
		return
	}
	for _, m := range r.missing {
		if m.What == what && m.Why != "" {
			field += " (" + m.String() + ")"
			break
		}
	}
	r.fields = append(r.fields, field)
}

// err returns nil where nothing was refused.
func (r *refusal) err() error {
	if len(r.fields) == 0 {
		return nil
	}
	return &caisson.Error{
		Op:   caisson.OpCreate,
		Item: strings.Join(r.fields, ", "),
		Kind: caisson.ErrUnsupported,
		Err:  errors.New("this engine can't do that here; choose another one or leave it out"),
	}
}

// String returns why something is missing and what can be done about it.
func (m Missing) String() string {
	if m.Do == "" {
		return m.Why
	}
	return m.Why + "; " + m.Do
}
