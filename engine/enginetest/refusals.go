package enginetest

import (
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// A refusal is what an engine that does not declare a feature must refuse.
type refusal struct {
	feature string
	field   string // of the task document, as the error names it
	ask     func(t *T, spec *engine.Spec)
}

// refusals has an entry for every feature that a spec can ask for.
func refusals() []refusal {
	mount := func(m engine.Mount) func(*T, *engine.Spec) {
		return func(t *T, spec *engine.Spec) {
			if m.Type == engine.MountBind {
				m.Source = t.folder("bound")
			}
			spec.Mounts = append(spec.Mounts, m)
		}
	}
	network := func(n caisson.Network) func(*T, *engine.Spec) {
		return func(_ *T, spec *engine.Spec) { spec.Network = n }
	}
	return []refusal{
		{"command", "cmd", func(_ *T, s *engine.Spec) { s.Args, s.Module = []string{"true"}, "" }},
		{"script", "run", func(_ *T, s *engine.Spec) { s.Args, s.Run = nil, "true" }},
		{"image", "image", func(_ *T, s *engine.Spec) { s.Image = "busybox:stable" }},
		{"rootfs", "image", func(t *T, s *engine.Spec) { s.RootFS = &engine.RootFS{Path: t.folder("rootfs")} }},
		{"module", "module", func(t *T, s *engine.Spec) { s.Module = t.folder("module") }},
		{"machine", "machine", func(_ *T, s *engine.Spec) { s.Machine = &caisson.Machine{} }},
		{"options", "options", func(_ *T, s *engine.Spec) { s.Options = []byte(`{"x":1}`) }},
		{"input", "input", func(_ *T, s *engine.Spec) { s.Input = []byte("x") }},
		{"limits.cpus", "limits.cpus", func(_ *T, s *engine.Spec) { s.Limits.CPUs = 500 }},
		{"limits.memory", "limits.memory", func(_ *T, s *engine.Spec) { s.Limits.Memory = caisson.GiB }},
		{"limits.pids", "limits.pids", func(_ *T, s *engine.Spec) { s.Limits.PIDs = 100 }},
		{"limits.disk", "limits.disk", func(_ *T, s *engine.Spec) { s.Limits.Disk = caisson.GiB }},
		{"limits.log", "limits.log", func(_ *T, s *engine.Spec) { s.Limits.Log = caisson.GiB }},
		{"limits.files", "limits.files", func(_ *T, s *engine.Spec) { s.Limits.Files = 1000 }},
		{"networks.none", "network", network(caisson.Network{Mode: caisson.NetworkNone})},
		{"networks.default", "network", network(caisson.Network{Mode: caisson.NetworkDefault})},
		{"networks.host", "network", network(caisson.Network{Mode: caisson.NetworkHost})},
		{"networks.allow", "network", network(caisson.Network{Mode: caisson.NetworkAllow, Allow: []string{"example.com:443"}})},
		{"networks.named", "network", network(caisson.Network{Mode: "lan"})},
		{"networks.shared", "network", func(t *T, s *engine.Spec) { s.SharedNetwork = t.folder("network") }},
		{"snapshot", "snapshot", func(t *T, s *engine.Spec) { s.Snapshot = t.folder("snapshot") }},
		{"mounts.bind", "mounts", mount(engine.Mount{Type: engine.MountBind, Target: "/bound"})},
		{"mounts.tmpfs", "mounts", mount(engine.Mount{Type: engine.MountTmpfs, Target: "/fast"})},
		{"mounts.readonly", "mounts", mount(engine.Mount{Type: engine.MountBind, Target: "/bound", ReadOnly: true})},
		{"user", "user", func(_ *T, s *engine.Spec) { s.User = "1234:1234" }},
		{"user", "group", func(_ *T, s *engine.Spec) { s.Group = "1234" }},
		{"hostname", "hostname", func(_ *T, s *engine.Spec) { s.Hostname = "chosen" }},
		{"privileged", "privileged", func(_ *T, s *engine.Spec) { s.Privileged = true }},
		{"devices", "devices", func(_ *T, s *engine.Spec) { s.Devices = []caisson.Device{{Source: "/dev/null", Target: "/dev/x"}} }},
		{"gpus", "gpus", func(_ *T, s *engine.Spec) { s.GPUs = "all" }},
		{"registry", "registry", func(_ *T, s *engine.Spec) { s.Registry = &caisson.Registry{Pull: "never"} }},
		{"ports", "ports", func(_ *T, s *engine.Spec) { s.Ports = []caisson.Port{{Port: 80}} }},
		{"dns", "dns", func(_ *T, s *engine.Spec) { s.DNS = &caisson.DNS{Servers: []string{"192.0.2.1"}} }},
		{"secrets", "secrets", func(_ *T, s *engine.Spec) {
			s.Secrets = []engine.Secret{{Name: "TOKEN", Value: []byte("0123456789"), As: caisson.SecretEnv}}
		}},
		{"displays", "displays", func(_ *T, s *engine.Spec) {
			s.Displays = append(s.Displays, caisson.Display{Name: "any", Socket: "any"})
		}},
		{"screen", "displays", func(_ *T, s *engine.Spec) { s.Displays = append(s.Displays, caisson.Display{Name: "screen"}) }},
		{"display_servers", "displays", func(_ *T, s *engine.Spec) {
			s.Displays = append(s.Displays, caisson.Display{Name: "server", Socket: "vnc.sock"})
		}},
		{"keep", "keep", func(_ *T, s *engine.Spec) { s.Keep = caisson.Duration(time.Minute) }},
		{"gateway", "gateway", func(_ *T, s *engine.Spec) { s.Gateway = new(engine.Gateway) }},
	}
}

func refusalCases() []Case {
	cases := []Case{
		{
			Name: "refusals/all-at-once", Rules: []int{4, 5}, Attacks: []int{46},
			Rule: "a spec that asks for several things that are not declared is refused with all of them named",
			body: refuseAll,
		},
		{
			Name: "refusals/terminal", Rules: []int{4, 63}, Needs: []string{"exec"}, wants: []facility{undeclared("terminal")},
			Rule: "without terminals an exec that asks for one is ErrUnsupported and has no effect",
			body: refuseTerminal,
		},
	}
	cases = append(cases, Case{
		Name: "refusals/options-only", Rules: []int{4, 5}, Needs: []string{"options_only"},
		Rule: "where tasks are options alone, a variable or a folder of a task's own is ErrUnsupported, by its name",
		body: refuseOwn,
	})
	for _, r := range refusals() {
		name := strings.NewReplacer(".", "-", "_", "-").Replace(r.feature)
		if r.field == "group" {
			name = "group"
		}
		cases = append(cases, Case{
			Name: "refusals/" + name, Rules: []int{4}, Attacks: attacksOf(r.feature),
			Rule:  r.feature + " is not declared, so asking for it is ErrUnsupported, names " + r.field + " and has no effect",
			wants: []facility{undeclared(r.feature)},
			body:  func(t *T) { t.refuse(r) },
		})
	}
	return cases
}

// attacksOf tells which features are also attacks where the operator has not
// permitted them.
func attacksOf(feature string) []int {
	switch feature {
	case "privileged", "devices", "networks.host", "mounts.bind":
		return []int{46}
	}
	return nil
}

// undeclared is what a case wants that checks a refusal.
func undeclared(feature string) facility {
	return func(s *suite) string {
		if has, _ := declared(&s.features, feature); has {
			return feature + " is declared; its own cases check it"
		}
		if feature == "options" && s.features.OptionsSchema != nil {
			return "options are declared by their schema"
		}
		return ""
	}
}

// refuse asks for something that is not declared.
func (t *T) refuse(r refusal) {
	spec := t.spec("write /work/effect x")
	r.ask(t, spec)
	err := t.refused(spec, caisson.ErrUnsupported)
	if err != nil && !strings.Contains(err.Error(), r.field) {
		t.Errorf("the error does not name %s: %v", r.field, err)
	}
	if err != nil && strings.Contains(err.Error(), "0123456789") {
		t.Errorf("the error has a secret's value: %v", err)
	}
}

func refuseAll(t *T) {
	spec := t.spec("exit 0")
	var fields []string
	for _, r := range refusals() {
		if undeclared(r.feature)(t.suite) != "" || r.feature == "script" || r.field == "network" {
			continue
		}
		r.ask(t, spec)
		fields = append(fields, r.field)
	}
	if len(fields) == 0 {
		return
	}
	err := t.refused(spec, caisson.ErrUnsupported)
	for _, field := range fields {
		if err != nil && !strings.Contains(err.Error(), field) {
			t.Errorf("the error does not name %s: %v", field, err)
		}
	}
}

func refuseOwn(t *T) {
	for field, ask := range map[string]func(*engine.Spec){
		"LD_PRELOAD": func(s *engine.Spec) { s.Env = map[string]string{"LD_PRELOAD": "/work/x.so"} },
		"workdir":    func(s *engine.Spec) { s.Workdir = "/tmp" },
		"cmd":        func(s *engine.Spec) { s.Args = []string{"/work/program"} },
	} {
		spec := t.spec("write /work/effect x")
		ask(spec)
		if err := t.refused(spec, caisson.ErrUnsupported); err != nil && !strings.Contains(err.Error(), field) {
			t.Errorf("the error does not name %s: %v", field, err)
		}
	}
}

func refuseTerminal(t *T) {
	b := t.holding()
	s, err := b.Sandbox.(engine.Execer).Exec(t.ctx, &engine.ExecSpec{Args: t.argv("write /work/effect x"), Terminal: true})
	if err == nil {
		s.Close()
	}
	t.kind(err, "Exec with a terminal", caisson.ErrUnsupported)
}
