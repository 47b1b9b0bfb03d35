//go:build linux

package keeper_test

import (
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/keeper"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// isolated returns the spec of a script in a sandbox of its own, with the
// folder that it runs in shared.
func isolated(t *testing.T, script string) *keeper.Spec {
	t.Helper()
	s := spec(t, script)
	uid, gid := os.Geteuid(), os.Getegid()
	ids := func(host int) []isolate.IDMap { return []isolate.IDMap{{Inside: 1000, Host: host, Size: 1}} }
	box := &isolate.Spec{
		ID:   "keeper-test",
		UIDs: ids(uid), GIDs: ids(gid),
		User: &isolate.User{UID: 1000, GID: 1000},
	}
	if uid == 0 {
		const base = 1879048192
		box.UIDs = []isolate.IDMap{{Inside: 0, Host: base, Size: 1}, {Inside: 1000, Host: base + 1, Size: 1}}
		box.GIDs = box.UIDs
	}
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		if target, err := os.Readlink("/" + name); err == nil {
			box.Entries = append(box.Entries, isolate.Entry{Path: "/" + name, Link: target})
		}
	}
	box.Mounts = []isolate.Mount{
		{Type: isolate.Bind, Source: "/usr", Target: "/usr", ReadOnly: true},
		{Type: isolate.Tmpfs, Target: "/tmp"},
		{Type: isolate.Bind, Source: s.Program.Dir, Target: "/work", Owner: &isolate.User{UID: uid, GID: gid}},
	}
	s.Box, s.Program.Dir = box, "/work"
	return s
}

// startIsolated starts a script; its files are found as without isolation.
func startIsolated(t *testing.T, s *keeper.Spec) *kept {
	t.Helper()
	k := start(t, s)
	outside := *s
	outside.Program.Dir = s.Box.Mounts[2].Source
	k.spec = &outside
	return k
}

func TestIsolated(t *testing.T) {
	t.Run("ImmediateExit", func(t *testing.T) {
		inParallel(40, func(i int) {
			k := startIsolated(t, isolated(t, "printf out; printf err >&2; exit "+itoa(i)))
			if exit := k.wait(); exit.Code != i || exit.Reason != caisson.ReasonExited {
				t.Errorf("exit = %+v, want code %d", exit, i)
			}
			want := map[tasklog.Stream]string{tasklog.Stdout: "out", tasklog.Stderr: "err", tasklog.System: ""}
			if diff := cmp.Diff(want, k.log()); diff != "" {
				t.Error(diff)
			}
			if err := k.Destroy(k.ctx()); err != nil {
				t.Errorf("Destroy: %v", err)
			}
		})
	})
	t.Run("Signal", func(t *testing.T) {
		k := startIsolated(t, isolated(t, "kill -SEGV $$; sleep 60"))
		if exit := k.wait(); exit.Reason != caisson.ReasonSignaled || exit.Signal != 11 {
			t.Errorf("exit = %+v, want signal 11", exit)
		}
	})
	t.Run("NotFound", func(t *testing.T) {
		s := isolated(t, "")
		s.Program.Args = []string{"no-such-command"}
		if exit := startIsolated(t, s).wait(); exit.Code != 127 {
			t.Errorf("exit = %+v, want code 127", exit)
		}
	})
	t.Run("TimeoutKillsTheTree", func(t *testing.T) {
		s := isolated(t, "trap '' TERM; (setsid sh -c 'trap \"\" TERM; sleep 1003' &); sleep 1003")
		s.Timeout = caisson.Duration(300 * time.Millisecond)
		s.Grace = caisson.Duration(50 * time.Millisecond)
		k := startIsolated(t, s)
		if exit := k.wait(); exit.Reason != caisson.ReasonTimeout {
			t.Errorf("exit = %+v, want timeout", exit)
		}
		if n := processes(t, "sleep\x001003\x00"); n != 0 {
			t.Errorf("%d processes live after the timeout", n)
		}
	})
	t.Run("Stop", func(t *testing.T) {
		k := startIsolated(t, isolated(t, "trap 'exit 4' TERM; echo ready >ready; while :; do sleep 0.01; done"))
		k.awaitFile("ready")
		if err := k.Pause(k.ctx()); err != nil {
			t.Fatal(err)
		}
		if err := k.Stop(k.ctx(), caisson.ReasonStopped, 0, patience); err != nil {
			t.Fatal(err)
		}
		if exit := k.wait(); exit.Reason != caisson.ReasonStopped || exit.Code != 4 {
			t.Errorf("exit = %+v, want stopped with code 4", exit)
		}
	})
	t.Run("KeeperKilled", func(t *testing.T) {
		k := startIsolated(t, isolated(t, "(setsid setsid sleep 1004 &); echo ready >ready; sleep 1004"))
		k.awaitFile("ready")
		status, err := k.Status(k.ctx())
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(status.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "everything dies with the keeper", func() bool { return processes(t, "sleep\x001004\x00") == 0 })
		wantKind(t, "Wait", errorOf(k.Wait(k.ctx())), caisson.ErrUnavailable)
	})
	t.Run("Exec", func(t *testing.T) {
		k := startIsolated(t, isolated(t, sleeps))
		p := &isolate.Program{
			Args: []string{"sh", "-c", "id -u; tty; stty size; read x; echo got $x; exit 6"}, Env: []string{"PATH=/usr/bin"},
			Dir: "/work", Terminal: true, Cols: 90, Rows: 20,
		}
		e := k.exec(p)
		in := newExpect(t, e.Stdout())
		in.await("1000")
		in.await("20 90")
		io.WriteString(e.Stdin(), "this\r")
		in.await("got this")
		if exit := k.end(e); exit.Code != 6 {
			t.Errorf("exit = %+v, want code 6", exit)
		}
		p = &isolate.Program{Args: []string{"sh", "-c", "sleep 1005 & echo started; wait"}, Env: []string{"PATH=/usr/bin"}}
		e = k.exec(p)
		newExpect(t, e.Stdout()).await("started")
		e.Close()
		eventually(t, "the exec's processes end", func() bool { return processes(t, "sleep\x001005\x00") == 0 })
	})
	t.Run("Root", func(t *testing.T) {
		k := startIsolated(t, isolated(t, "echo inside >/tmp/file"))
		k.wait()
		root, err := k.Root(k.ctx())
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		data, err := os.ReadFile("/proc/self/fd/" + itoa(int(root.Fd())) + "/tmp/file")
		if err != nil || string(data) != "inside\n" {
			t.Errorf("file of the ended sandbox = %q, %v", data, err)
		}
	})
	t.Run("OnExit", func(t *testing.T) {
		s := isolated(t, "exit 3")
		onExit(t, s, "wait and destroy")
		k := startIsolated(t, s)
		k.Close()
		k.awaitFile("finished")
		k.awaitGone()
		if lines := k.attendants(); len(lines) != 1 {
			t.Errorf("attendants = %q, want one", lines)
		}
	})
}

// processes counts those with such an argument list.
func processes(t *testing.T, argv string) int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if data, err := os.ReadFile("/proc/" + e.Name() + "/cmdline"); err == nil && strings.HasSuffix(string(data), argv) && !gone(e.Name()) {
			n++
		}
	}
	return n
}

// What a sleeping sandbox costs, in proportional memory.
func TestMemory(t *testing.T) {
	needRoot(t, readsMemory)
	n := 100
	if testing.Short() {
		n = 10
	}
	for _, c := range []struct {
		name  string
		spec  func(*testing.T, string) *keeper.Spec
		limit int // bytes
	}{{"None", spec, 2 << 20}, {"Isolated", isolated, 3 << 20}} {
		t.Run(c.name, func(t *testing.T) {
			pids := map[int]bool{}
			inits := 0
			var keepers []*kept
			for range n {
				s := c.spec(t, "exec sleep 1000")
				s.Redact = [][]byte{[]byte("a secret value")}
				k := start(t, s)
				keepers = append(keepers, k)
			}
			// Memory that the start took is given back after a while.
			var keeperSum, initSum int
			eventually(t, "keepers are small", func() bool {
				keeperSum, initSum, inits = 0, 0, 0
				for _, k := range keepers {
					status, err := k.Status(k.ctx())
					if err != nil {
						t.Fatal(err)
					}
					pids[status.PID] = true
					keeperSum += pss(t, status.PID)
					for _, child := range children(t, status.PID) {
						name, _ := os.ReadFile("/proc/" + child + "/comm")
						if strings.HasPrefix(string(name), "caisson") {
							initSum += pss(t, atoi(t, child))
							inits++
						}
					}
				}
				return keeperSum/n < 2<<20 && (keeperSum+initSum)/n < c.limit
			})
			t.Logf("%d sandboxes: keeper %d KiB, init %d KiB each (%d inits)", n, keeperSum/n>>10, initSum/n>>10, inits)
		})
	}
}
