package native

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

var update = flag.Bool("update", false, "write the golden files of this package's tests")

// testHost is a host with little of everything.
func testHost(root bool) *host {
	h := &host{
		root: root, uid: 501, gid: 502, shell: "/bin/bash", resolv: []byte("nameserver 192.0.2.1\n"),
		links: []link{{"/bin", "usr/bin"}, {"/etc/localtime", "/usr/share/zoneinfo/Etc/UTC"}},
		binds: []bind{{"/usr", "/usr"}, {"/data/tools", "/opt/tools"}},
		files: []file{{"/etc/timezone", []byte("Etc/UTC\n")}},
	}
	if root {
		h.uid, h.gid = 0, 0
	}
	return h
}

func testSpec(change func(*engine.Spec)) *engine.Spec {
	s := &engine.Spec{
		ID: "task-1-main", Dir: "/state/dir", Log: "/state/log", Work: "/state/work", Tmp: "/state/tmp",
		WorkOwner: engine.Owner{UID: 1000, GID: 1000}, Args: []string{"true"},
	}
	if change != nil {
		change(s)
	}
	return s
}

func testSetting(root bool, opts Options, change func(*setting)) *setting {
	opts.Runtime, opts.Keeper = "/run/caisson", []string{"keeper"}
	e, err := New(&opts)
	if err != nil {
		panic(err)
	}
	set := &setting{
		opts: &e.opts, isolation: e.opts.Isolation, host: testHost(root), slot: 7,
		run: "/run/caisson/0/task-1-main", group: "caisson-0-task-1-main", cgroup: true, landlock: true,
	}
	if change != nil {
		change(set)
	}
	return set
}

func TestPlan(t *testing.T) {
	tests := []struct {
		name string
		root bool
		opts Options
		set  func(*setting)
		spec func(*engine.Spec)
	}{
		{name: "root", root: true},
		{name: "rootless"},
		{name: "everything", root: true, opts: Options{Shell: []string{"sh", "-eu", "-c"}, AllowHostNetwork: true}, spec: func(s *engine.Spec) {
			s.Args, s.Run, s.Workdir = nil, "make", "/work/src/"
			s.Env = map[string]string{"A": "b=c\nd", "HOME": "/work", "CAISSON_OUTPUT": "/work/.out"}
			s.Hostname, s.User, s.Group = "build", "77:88", "99"
			s.Network.Mode = caisson.NetworkHost
			s.Mounts = []engine.Mount{
				{Type: engine.MountBind, Source: "/data/in", Target: "/in", ReadOnly: true},
				{Type: engine.MountBind, Source: "/state/volume", Target: "/scratch", Owned: true},
				{Type: engine.MountTmpfs, Target: "/fast", Size: caisson.MiB, Mode: 0o700},
			}
			s.Secrets = []engine.Secret{
				{Name: "TOKEN", Value: []byte("in-the-environment"), As: caisson.SecretEnv},
				{Name: "key", Value: []byte("in-a-file"), As: caisson.SecretFile},
				{Name: "one-time", Value: []byte("in-a-fifo"), As: caisson.SecretFile, Once: true},
				{Name: "other", Value: []byte("redacted-only")},
			}
			s.Limits = caisson.Limits{CPUs: 500, Memory: 64 * caisson.MiB, PIDs: 9, Disk: caisson.GiB, Log: caisson.KiB, Files: 100}
			s.Timeout, s.Grace, s.Linger = caisson.Duration(time.Minute), caisson.Duration(time.Second), caisson.Duration(2*time.Second)
			s.StopSignal, s.OnExit, s.OnExitEnv = 2, []string{"caisson", "attend"}, []string{"A=b"}
		}},
		{name: "user-root", root: true, spec: func(s *engine.Spec) { s.User = "root" }},
		{name: "no-folders", root: true, spec: func(s *engine.Spec) { s.Work, s.Tmp = "", "" }},
		{name: "private-disk", spec: func(s *engine.Spec) { s.Work, s.Tmp, s.Limits.Disk = "", "", 16*caisson.MiB }},
		{name: "gateway", spec: func(s *engine.Spec) {
			s.Network.Mode = caisson.NetworkAllow
			s.Gateway = &engine.Gateway{
				Sockets: []engine.Socket{
					{Network: "udp", Address: "127.64.0.1:53"}, {Network: "tcp", Address: "[::1]:80"}, {Network: "tcp", Address: "[::]:443"},
				},
				Names: map[string]string{"git": "127.64.0.2", "api.example.com": "127.64.0.3"}, Resolver: "127.64.0.1", Everything: true,
			}
		}},
		{name: "no-idmap", root: true, set: func(set *setting) { set.plain = []string{"/state/work"} }},
		{name: "no-cgroup", set: func(set *setting) { set.cgroup, set.landlock = false, false }},
		{name: "none", opts: Options{Isolation: None}, spec: func(s *engine.Spec) {
			s.Workdir = "/work/src"
			s.Env = map[string]string{"CAISSON_OUTPUT": "/work/.out", "PLAIN": "/work/stays"}
			s.Secrets = []engine.Secret{{Name: "TOKEN", Value: []byte("value"), As: caisson.SecretEnv}}
			s.Limits.Memory = caisson.MiB
		}},
		{name: "none-user", root: true, opts: Options{Isolation: None, UID: 33, GID: 34}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := plan(testSpec(test.spec), testSetting(test.root, test.opts, test.set))
			if err != nil {
				t.Fatal(err)
			}
			golden(t, test.name, got)
		})
	}
}

// golden compares a value with a file of testdata.
func golden(t *testing.T, name string, value any) {
	t.Helper()
	got, err := json.MarshalIndent(value, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", "spec", name+".json")
	if *update {
		if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)+"\n"); diff != "" {
		t.Errorf("%s: (-want +got)\n%s", path, diff)
	}
}

func TestPlanErrors(t *testing.T) {
	tests := []struct {
		name string
		root bool
		opts Options
		spec func(*engine.Spec)
		kind caisson.Kind
		item string
	}{
		{"OnceEnv", true, Options{}, func(s *engine.Spec) {
			s.Secrets = []engine.Secret{{Name: "K", Value: []byte("value"), As: caisson.SecretEnv, Once: true}}
		}, caisson.ErrUnsupported, "secrets.K.once"},
		{"OnceMount", true, Options{}, func(s *engine.Spec) {
			s.Secrets = []engine.Secret{{Name: "K", Value: []byte("value"), As: caisson.SecretFile, Once: true}}
			s.Mounts = []engine.Mount{{Type: engine.MountBind, Source: "/data", Target: "/run"}}
		}, caisson.ErrInvalid, "mounts[0].target"},
		{"SecretFileWithoutRoot", false, Options{Isolation: None}, func(s *engine.Spec) {
			s.Secrets = []engine.Secret{{Name: "K", Value: []byte("value"), As: caisson.SecretFile}}
		}, caisson.ErrUnsupported, "secrets.K.as"},
		{"Disk", false, Options{}, func(s *engine.Spec) { s.Work, s.Limits.Disk = "", caisson.KiB }, caisson.ErrInvalid, "limits.disk"},
		{"Group", false, Options{}, func(s *engine.Spec) { s.Group = "5" }, caisson.ErrUnsupported, "group"},
		{"User", true, Options{}, func(s *engine.Spec) { s.User = "somebody" }, caisson.ErrInvalid, "user"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := plan(testSpec(test.spec), testSetting(test.root, test.opts, nil))
			if !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.item) {
				t.Errorf("plan = %v, want %v of %s", err, test.kind, test.item)
			}
			if err != nil && strings.Contains(err.Error(), "value") {
				t.Errorf("plan = %v: it has the secret", err)
			}
		})
	}
}

// TestSlotsDoNotOverlap holds that no id of the host belongs to two sandboxes.
func TestSlotsDoNotOverlap(t *testing.T) {
	owner := map[int]int{}
	for slot := range 50 {
		set := testSetting(true, Options{}, func(set *setting) { set.slot = slot })
		k, err := plan(testSpec(func(s *engine.Spec) { s.User, s.Group = "5:6", "7" }), set)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range append(k.Box.UIDs, k.Box.GIDs...) {
			for id := m.Host; id < m.Host+m.Size; id++ {
				if other, taken := owner[id]; taken && other != slot {
					t.Errorf("host id %d belongs to slots %d and %d", id, other, slot)
				}
				owner[id] = slot
			}
		}
	}
}
