package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseHierarchies(t *testing.T) {
	tests := []struct {
		name, mounts, groups string
		want                 []hierarchy
	}{
		{
			"v2 with systemd",
			"28 22 0:25 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n",
			"0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope\n",
			[]hierarchy{{dir: "/sys/fs/cgroup", own: "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope", v2: true}},
		},
		{
			"v1 with shared controllers, in docker",
			"30 25 0:26 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n" +
				"31 25 0:27 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n" +
				"32 25 0:28 /docker/abc /sys/fs/cgroup/systemd ro - cgroup cgroup rw,xattr,name=systemd\n",
			"3:cpu,cpuacct:/docker/abc\n2:memory:/docker/abc/inner\n1:name=systemd:/docker/abc\n",
			[]hierarchy{
				{dir: "/sys/fs/cgroup/cpu,cpuacct", own: "/sys/fs/cgroup/cpu,cpuacct", controllers: []string{"cpu", "cpuacct"}},
				{dir: "/sys/fs/cgroup/memory", own: "/sys/fs/cgroup/memory/inner", controllers: []string{"memory"}},
			},
		},
		{
			"hybrid, mounted twice, with a space",
			"30 25 0:26 / /c\\040g/pids rw - cgroup cgroup rw,pids\n" +
				"31 25 0:26 / /again rw - cgroup cgroup rw,pids\n" +
				"32 25 0:27 / /unified rw - cgroup2 cgroup2 rw\nnot a line\n",
			"8:pids:/\n0::/../outside\n",
			[]hierarchy{
				{dir: "/c g/pids", own: "/c g/pids", controllers: []string{"pids"}},
				{dir: "/unified", v2: true},
			},
		},
		{"none", "22 1 0:1 / / rw - ext4 /dev/vda rw\n", "", nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := parseHierarchies([]byte(test.mounts), []byte(test.groups))
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(hierarchy{})); diff != "" {
				t.Errorf("parseHierarchies: (-want +got)\n%s", diff)
			}
		})
	}
}

func TestCPUQuota(t *testing.T) {
	tests := []struct{ milli, period, quota int64 }{
		{1000, 100_000, 100_000},
		{500, 100_000, 50_000},
		{10, 100_000, 1_000},
		{9, 1_000_000, 9_000},
		{1, 1_000_000, 1_000},
		{64_000, 100_000, 6_400_000},
	}
	for _, test := range tests {
		period, quota := cpuQuota(test.milli)
		if period != test.period || quota != test.quota {
			t.Errorf("cpuQuota(%d) = %d, %d, want %d, %d", test.milli, period, quota, test.period, test.quota)
		}
	}
}

// fakeV2 returns a group whose folder holds ordinary files in place of the
// kernel's.
func fakeV2(t *testing.T, files map[string]string) *Group {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &Group{name: "fake", version: "v2", dirs: []folder{{path: dir, v2: true, controllers: []string{"cpu", "memory", "pids"}}}}
}

func TestVersion2Limits(t *testing.T) {
	g := fakeV2(t, map[string]string{"cpu.max": "", "memory.max": "", "memory.swap.max": "", "pids.max": ""})
	if err := g.set(Limits{CPUs: 1500, Memory: 10<<20 + 1, PIDs: 7}); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"cpu.max": "150000 100000", "memory.max": "10485760", "memory.swap.max": "0", "pids.max": "7"}
	for name, value := range want {
		got, err := os.ReadFile(filepath.Join(g.dirs[0].path, name))
		if err != nil || string(got) != value {
			t.Errorf("%s = %q, %v, want %q", name, got, err, value)
		}
	}
}

func TestVersion2Stats(t *testing.T) {
	g := fakeV2(t, map[string]string{
		"cpu.stat":       "usage_usec 1500\nuser_usec 1000\nnr_throttled 2\nthrottled_usec 30\n",
		"memory.current": "4096\n",
		"memory.events":  "low 0\noom 3\noom_kill 2\noom_group_kill 0\n",
		"pids.current":   "3\n",
	})
	got, err := g.Stats()
	want := Stats{CPU: 1500_000, Memory: 4096, PeakMemory: -1, PIDs: 3, OOMKills: 2, Throttled: 30_000}
	if err != nil || got != want {
		t.Errorf("Stats() = %+v, %v, want %+v", got, err, want)
	}
}

func TestMissingController(t *testing.T) {
	g := fakeV2(t, nil)
	g.dirs[0].controllers = []string{"pids"}
	if err := g.set(Limits{Memory: 1 << 20}); err == nil {
		t.Error("a memory limit was set without the controller")
	}
	if s, err := g.Stats(); err != nil || s.Memory != -1 || s.OOMKills != -1 || s.CPU != -1 {
		t.Errorf("Stats() = %+v, %v, want -1 where nothing is known", s, err)
	}
}

func TestSetExactNoticesAnotherValue(t *testing.T) {
	// /dev/null takes everything and keeps nothing.
	if err := setExact("/dev", "null", "5"); err == nil {
		t.Error("a value that was not kept passed")
	}
	if err := setExact(t.TempDir(), "absent", "5"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("setExact of no file = %v, want ErrNotExist", err)
	}
}
