package isolate

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// bundleOf returns the config.json of a spec, read again.
func bundleOf(t *testing.T, spec *Spec) *ociConfig {
	t.Helper()
	early, late := split(spec.Mounts)
	part := *spec
	part.Mounts = early
	s := &setup{hostname: "h", masked: DefaultMasked, readOnly: DefaultReadOnly, shm: 1 << 20, sys: spec.Sys, rootReadOnly: spec.RootReadOnly}
	data, err := bundle(spec, s, late)
	if err != nil {
		t.Fatal(err)
	}
	c := new(ociConfig)
	if err := json.Unmarshal(data, c); err != nil {
		t.Fatal(err)
	}
	return c
}

// targets are where a config mounts something.
func targets(c *ociConfig) (list []string) {
	for _, m := range c.Mounts {
		list = append(list, m.Target)
	}
	return list
}

func TestBundle(t *testing.T) {
	c := bundleOf(t, &Spec{
		Runtime: &Runtime{Kind: Crun}, Seccomp: true, Sys: true, RootReadOnly: true, Caps: []int{10, 5},
		Mounts: []Mount{{Type: Bind, Source: "/data", Target: "/data"}, {Type: Tmpfs, Target: "/dev/shm", Size: 4096}},
	})
	if !slices.Equal(c.Process.Args, []string{containedPath}) || !c.Process.NoNewPrivileges || !c.Root.ReadOnly || c.Root.Path != stageRoot {
		t.Errorf("process %+v, root %+v", c.Process, c.Root)
	}
	for _, set := range []string{"bounding", "effective", "permitted"} {
		caps := c.Process.Capabilities[set]
		if !slices.Contains(caps, "CAP_NET_BIND_SERVICE") || slices.Contains(caps, "CAP_SYS_PTRACE") || len(caps) != len(initCaps)+1 {
			t.Errorf("%s: %q", set, caps)
		}
	}
	// No mount of the task's is left to the runtime, but on its own /dev.
	want := []string{"/proc", "/dev", "/dev/pts", "/dev/shm", containedPath, "/sys", "/dev/shm"}
	if got := targets(c); !slices.Equal(got, want) {
		t.Errorf("mounts at %q, want %q", got, want)
	}
	var kinds []string
	for _, ns := range c.Linux.Namespaces {
		kinds = append(kinds, ns.Type)
	}
	if !slices.Equal(kinds, []string{"mount", "pid", "ipc", "uts", "cgroup"}) {
		t.Errorf("namespaces %q", kinds)
	}
	if r := c.Linux.Resources.Devices; len(r) < 2 || r[0].Allow || r[0].Access != "rwm" {
		t.Errorf("device rules %+v, want that all are refused first", r)
	}
	if s := c.Linux.Seccomp; s == nil || s.Default != "SCMP_ACT_ERRNO" || !slices.Contains(s.Syscalls[0].Names, "mount_setattr") || slices.Contains(s.Syscalls[0].Names, "mount") {
		t.Errorf("seccomp %+v", s)
	}
}

func TestBundleForSentry(t *testing.T) {
	c := bundleOf(t, &Spec{
		Runtime: &Runtime{Kind: Runsc}, Seccomp: true, RootReadOnly: true,
		Mounts: []Mount{{Type: Bind, Source: "/data", Target: "/data", ReadOnly: true}},
	})
	if !slices.Equal(c.Process.Args, []string{sentryPath, sentryWord}) || c.Linux.Seccomp != nil || slices.Contains(targets(c), containedPath) {
		t.Errorf("config %+v", c)
	}
	last := c.Mounts[len(c.Mounts)-1]
	if last.Target != "/data" || last.Source != stageMount(0) || !slices.Contains(last.Options, "ro") {
		t.Errorf("the task's mount: %+v", last)
	}
}

func TestRuntimeArgs(t *testing.T) {
	for _, test := range []struct {
		spec Spec
		want string
	}{
		{
			Spec{ID: "i", Runtime: &Runtime{Kind: Crun, Flags: []string{"--debug"}}},
			"x --debug --root /state --cgroup-manager=disabled run --detach --preserve-fds 1 --bundle /bundle i",
		},
		{Spec{ID: "i", Runtime: &Runtime{}}, "x --root /state run --detach --preserve-fds 1 --bundle /bundle i"},
		{Spec{ID: "i", Runtime: &Runtime{Kind: Runc}}, "x --root /state --rootless=true run --detach --preserve-fds 1 --bundle /bundle i"},
		{
			Spec{ID: "i", Runtime: &Runtime{Kind: Runsc}, HostNetwork: true},
			"x --root /state --ignore-cgroups --file-access=shared --network=host run --detach --bundle /bundle i",
		},
		{
			Spec{ID: "i", Runtime: &Runtime{Kind: Runsc}},
			"x --root /state --ignore-cgroups --file-access=shared --network=none run --detach --bundle /bundle i",
		},
	} {
		if got := strings.Join(runtimeArgs(&test.spec, "x"), " "); got != test.want {
			t.Errorf("%s: %s\nwant %s", test.spec.Runtime.Kind, got, test.want)
		}
	}
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{"a-1": true, "": false, "-a": false, "../a": false, "a b": false, "A": false, "a\n": false} {
		if got := validName(name); got != want {
			t.Errorf("validName(%q) = %v", name, got)
		}
	}
}
