package cgroup_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/cgroup"
)

// needGroups skips a test that needs to make groups where nobody may.
func needGroups(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 && !cgroup.Probe().Usable {
		t.Skip("needs root or a delegated control group")
	}
}

// name returns a group's name that no other test uses.
func name(t *testing.T) string {
	return "test-" + strconv.Itoa(os.Getpid()) + "-" + strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(t.Name())), "-")
}

// create makes a group that is gone when the test ends.
func create(t *testing.T, limits cgroup.Limits) *cgroup.Group {
	t.Helper()
	needGroups(t)
	g, err := cgroup.Create(name(t), limits)
	if err != nil {
		t.Fatalf("Create(%+v) = %v", limits, err)
	}
	t.Cleanup(func() {
		if err := errors.Join(g.Kill(), g.Remove()); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return g
}

// start runs a shell that waits for a line before it runs script, and puts it
// into the group meanwhile. The returned function waits for its end.
func start(t *testing.T, g *cgroup.Group, script string) (pid int, wait func() (*os.ProcessState, string)) {
	t.Helper()
	cmd := exec.Command("sh", "-c", "read go; "+script)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	// What the shell leaves behind may hold the output.
	cmd.WaitDelay = 100 * time.Millisecond
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	if err := g.Add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	stdin.Write([]byte("\n"))
	return cmd.Process.Pid, func() (*os.ProcessState, string) {
		cmd.Wait()
		return cmd.ProcessState, out.String()
	}
}

// eventually polls until ok, and fails the test if that takes too long.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func signaled(s *os.ProcessState, sig syscall.Signal) bool {
	ws := s.Sys().(syscall.WaitStatus)
	return ws.Signaled() && ws.Signal() == sig
}

func TestProbe(t *testing.T) {
	before, err := cgroup.List("probe-")
	if err != nil {
		t.Fatal(err)
	}
	s := cgroup.Probe()
	if !s.Usable && len(s.Missing) == 0 {
		t.Errorf("Probe() = %+v: not usable, and nothing says why", s)
	}
	if os.Geteuid() == 0 && (!s.Usable || !s.Memory || !s.CPUs || !s.PIDs || !s.Freeze) {
		t.Errorf("Probe() = %+v: root has all limits", s)
	}
	// Probes of other processes come and go; one of ours would stay.
	var left []string
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		after, err := cgroup.List("probe-")
		if err != nil {
			t.Fatal(err)
		}
		isOld := func(name string) bool {
			return slices.Contains(before, name) || left != nil && !slices.Contains(left, name)
		}
		if left = slices.DeleteFunc(after, isOld); len(left) == 0 {
			return
		}
	}
	t.Errorf("Probe left groups: %q", left)
}

func TestCreate(t *testing.T) {
	t.Run("ErrExists", func(t *testing.T) {
		g := create(t, cgroup.Limits{})
		if _, err := cgroup.Create(g.Name(), cgroup.Limits{}); !errors.Is(err, caisson.ErrExists) {
			t.Errorf("second Create = %v, want ErrExists", err)
		}
		if err := g.Add(os.Getpid() + 1<<22); err == nil {
			t.Error("adding a process that does not exist succeeded")
		}
		if _, err := g.Stats(); err != nil {
			t.Errorf("the first group is gone: %v", err)
		}
	})
	t.Run("ErrName", func(t *testing.T) {
		for _, bad := range []string{"", ".", "..", "a/b", "A", "a b", "memory.max", strings.Repeat("a", 300)} {
			if _, err := cgroup.Create(bad, cgroup.Limits{}); !errors.Is(err, caisson.ErrInvalid) {
				t.Errorf("Create(%q) = %v, want ErrInvalid", bad, err)
			}
		}
	})
	t.Run("ErrLimitLeavesNothing", func(t *testing.T) {
		needGroups(t)
		// Less than a page can't be set exactly.
		_, err := cgroup.Create(name(t), cgroup.Limits{PIDs: 5, Memory: 1})
		if !errors.Is(err, caisson.ErrUnsupported) || !strings.Contains(err.Error(), "memory limit") {
			t.Errorf("Create = %v, want ErrUnsupported that names the memory limit", err)
		}
		if _, err := cgroup.Open(name(t)); !errors.Is(err, caisson.ErrNotFound) {
			t.Errorf("Open = %v, want ErrNotFound", err)
		}
	})
}

func TestOpenListRemove(t *testing.T) {
	g := create(t, cgroup.Limits{PIDs: 20})
	_, wait := start(t, g, "exec sleep 1000")
	other, err := cgroup.Open(g.Name())
	if err != nil {
		t.Fatal(err)
	}
	names, err := cgroup.List(g.Name())
	if err != nil || !slices.Equal(names, []string{g.Name()}) {
		t.Errorf("List = %q, %v, want the group", names, err)
	}
	if err := other.Remove(); err == nil {
		t.Error("a group with a live process was removed")
	}
	if err := other.Kill(); err != nil {
		t.Fatal(err)
	}
	if state, _ := wait(); !signaled(state, syscall.SIGKILL) {
		t.Errorf("process ended by %v, want SIGKILL", state)
	}
	for range 2 {
		if err := other.Remove(); err != nil {
			t.Errorf("Remove = %v", err)
		}
	}
	if err := g.Remove(); err != nil {
		t.Errorf("Remove of the first = %v", err)
	}
	if _, err := g.Stats(); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("Stats after Remove = %v, want ErrNotFound", err)
	}
	if pids, err := g.Procs(); err != nil || len(pids) > 0 {
		t.Errorf("Procs after Remove = %v, %v", pids, err)
	}
	if err := g.Kill(); err != nil {
		t.Errorf("Kill after Remove = %v", err)
	}
}

func TestMemoryLimitKills(t *testing.T) {
	g := create(t, cgroup.Limits{Memory: 32 * caisson.MiB})
	_, wait := start(t, g, "tail /dev/zero; exit 3")
	state, out := wait()
	if code := state.ExitCode(); code != 3 {
		t.Errorf("shell ended by %v, %q, want 3: only tail is to be killed", state, out)
	}
	s, err := g.Stats()
	if err != nil || s.OOMKills != 1 {
		t.Errorf("Stats = %+v, %v, want one oom kill", s, err)
	}
	if s.PeakMemory > 32*caisson.MiB || s.PeakMemory < 16*caisson.MiB {
		t.Errorf("peak memory = %s, want nearly 32m", s.PeakMemory)
	}
}

func TestPIDsLimit(t *testing.T) {
	g := create(t, cgroup.Limits{PIDs: 4})
	_, wait := start(t, g, "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; wait")
	state, out := wait()
	if state.Success() || !strings.Contains(strings.ToLower(out), "fork") {
		t.Errorf("shell ended by %v, %q, want a fork that fails", state, out)
	}
	if pids, err := g.Procs(); err != nil || len(pids) == 0 || len(pids) > 4 {
		t.Errorf("Procs = %v, %v, want at most 4", pids, err)
	}
}

func TestCPULimit(t *testing.T) {
	g := create(t, cgroup.Limits{CPUs: 50})
	start(t, g, "while :; do :; done")
	eventually(t, "the loop is held back", func() bool {
		s, err := g.Stats()
		return err == nil && s.Throttled > 0 && s.CPU > 0
	})
}

func TestKillForkBomb(t *testing.T) {
	g := create(t, cgroup.Limits{PIDs: 60})
	start(t, g, "f() { while :; do (setsid sleep 0.01 &) 2>/dev/null; done; }; f & f & f")
	eventually(t, "it forks", func() bool { pids, _ := g.Procs(); return len(pids) > 10 })
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all are gone", func() bool { pids, _ := g.Procs(); return len(pids) <= 1 })
}

func TestFreeze(t *testing.T) {
	g := create(t, cgroup.Limits{})
	_, wait := start(t, g, "while :; do :; done")
	cpu := func() time.Duration { s, _ := g.Stats(); return s.CPU }
	eventually(t, "it runs", func() bool { return cpu() > 0 })
	for range 2 {
		if err := g.Freeze(true); err != nil {
			t.Fatal(err)
		}
	}
	// What a processor has not accounted yet may still come in.
	eventually(t, "it stands still", func() bool {
		at := cpu()
		time.Sleep(20 * time.Millisecond)
		return cpu() == at
	})
	if err := g.Freeze(false); err != nil {
		t.Fatal(err)
	}
	at := cpu()
	eventually(t, "it runs again", func() bool { return cpu() > at })
	if err := g.Freeze(true); err != nil {
		t.Fatal(err)
	}
	if err := g.Kill(); err != nil {
		t.Fatalf("kill of frozen processes: %v", err)
	}
	if state, _ := wait(); !signaled(state, syscall.SIGKILL) {
		t.Errorf("process ended by %v, want SIGKILL", state)
	}
}

func TestThreadFiles(t *testing.T) {
	g := create(t, cgroup.Limits{PIDs: 5})
	files, err := g.ThreadFiles()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		f.Close()
	}
	if fd, ok := g.FD(); ok {
		defer syscall.Close(fd)
		if len(files) > 0 {
			t.Error("a version 2 group has files for threads")
		}
	} else if len(files) == 0 {
		t.Error("neither a descriptor nor files for threads")
	}
}
