package engine_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// asking is a spec that asks for everything.
func asking() *engine.Spec {
	return &engine.Spec{
		Args: []string{"true"}, Run: "true", Image: "i", RootFS: &engine.RootFS{Path: "/r"}, Module: "m", Machine: &caisson.Machine{}, Options: []byte("{}"),
		User: "1", Group: "1", Hostname: "h", Privileged: true, Devices: []caisson.Device{{}}, GPUs: "all", Registry: &caisson.Registry{},
		Secrets: []engine.Secret{{}}, Displays: []caisson.Display{{}}, Ports: []caisson.Port{{}}, DNS: &caisson.DNS{},
		Gateway: &engine.Gateway{For: []string{"proxies.app"}}, Limits: caisson.Limits{CPUs: 1, Memory: 1, PIDs: 1, Disk: 1, Log: 1, Files: 1},
		Network:  caisson.Network{Mode: caisson.NetworkAllow, Attach: []caisson.NetworkAttach{{Name: "lan"}}},
		Mounts:   []engine.Mount{{Type: engine.MountBind, ReadOnly: true}, {Type: engine.MountTmpfs}},
		Forkable: true, Snapshot: "/s",
	}
}

func TestCheckNamesEverything(t *testing.T) {
	err := (&engine.Features{}).Check(asking())
	if !errors.Is(err, caisson.ErrUnsupported) {
		t.Fatalf("Check = %v, want ErrUnsupported", err)
	}
	for _, field := range []string{
		"cmd", "run", "image", "module", "machine", "options", "user", "group", "hostname", "privileged", "devices", "gpus",
		"registry", "secrets", "displays", "ports", "dns", "proxies.app", "limits.cpus", "limits.memory", "limits.pids", "limits.disk",
		"limits.log", "limits.files", "network.allow", `network: "lan"`, "mounts[0].type: bind", "mounts[0].readonly", "mounts[1].type: tmpfs",
		"forkable", "snapshot",
	} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("the error does not name %s: %v", field, err)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("the error has several lines: %q", err)
	}
}

func TestCheckOK(t *testing.T) {
	f := &engine.Features{
		Command: true, Script: true, Image: true, RootFS: true, Module: true, Machine: true, Options: true,
		User: true, Hostname: true, Privileged: true, Devices: true, GPUs: true, Registry: true, Ports: true, DNS: true, Secrets: true,
		Displays: true, Screen: true, Gateway: true, Snapshot: true, Fork: engine.ForkDisk,
		Limits:   engine.LimitFeatures{CPUs: true, Memory: true, PIDs: true, Disk: true, Log: true, Files: true},
		Networks: engine.NetworkFeatures{None: true, Default: true, Host: true, Allow: true, Named: true},
		Mounts:   engine.MountFeatures{Bind: true, Tmpfs: true, ReadOnly: true},
	}
	if err := f.Check(asking()); err != nil {
		t.Errorf("Check = %v, want nil", err)
	}
	if err := (&engine.Features{Command: true}).Check(&engine.Spec{Args: []string{"true"}}); err != nil {
		t.Errorf("Check of a modest spec = %v, want nil", err)
	}
}

func TestCheckNetwork(t *testing.T) {
	for mode, field := range map[string]string{
		caisson.NetworkNone: "network: none", caisson.NetworkDefault: "network: default", caisson.NetworkHost: "network: host",
		caisson.NetworkAllow: "network.allow", "lan": `network: "lan"`,
	} {
		err := (&engine.Features{Command: true}).Check(&engine.Spec{Args: []string{"x"}, Network: caisson.Network{Mode: mode}})
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("mode %q: %v, want %s named", mode, err, field)
		}
	}
}

func TestCheckGivesTheReason(t *testing.T) {
	f := &engine.Features{Command: true, Missing: []engine.Missing{
		{What: engine.WhatMemory, Why: "no memory controller is delegated to this user", Do: "delegate it"},
		{What: engine.WhatDNS, Why: "no reason to be told"},
	}}
	err := f.Check(&engine.Spec{Args: []string{"x"}, Limits: caisson.Limits{Memory: 1, PIDs: 1}})
	want := "create: limits.memory (no memory controller is delegated to this user; delegate it), limits.pids: "
	if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "no reason") {
		t.Errorf("Check = %v, want it to begin with %q", err, want)
	}
}

// A task that is to be copied with its memory has nothing of the host's.
func TestCheckForkable(t *testing.T) {
	f := &engine.Features{Command: true, Fork: engine.ForkMemory, Snapshot: true, Mounts: engine.MountFeatures{Bind: true, Tmpfs: true}}
	s := &engine.Spec{Args: []string{"true"}, Forkable: true, Mounts: []engine.Mount{{Type: engine.MountTmpfs}}}
	if err := f.Check(s); err != nil {
		t.Errorf("Check = %v, want nil", err)
	}
	s.Mounts = append(s.Mounts, engine.Mount{Type: engine.MountBind})
	if err := f.Check(s); !errors.Is(err, caisson.ErrUnsupported) || !strings.Contains(err.Error(), "mounts[1]") {
		t.Errorf("Check with a bind = %v, want that it is refused by name", err)
	}
	s.Forkable = false
	if err := f.Check(s); err != nil {
		t.Errorf("Check of one that is not forkable = %v, want nil", err)
	}
}
