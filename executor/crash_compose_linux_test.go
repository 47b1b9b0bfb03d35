package executor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine/native"
	"github.com/caissonrun/caisson/internal/crash"
	"github.com/caissonrun/caisson/internal/slowtest"
	"github.com/caissonrun/caisson/internal/state"
)

// crashRecipe is of a task that is made of two. They share a folder of their
// parent's where the host can mount it.
func crashRecipe() *recipe {
	r := &recipe{Scripts: []string{"echo ran-one s3cr3t-value; sleep 0.02", "echo ran-two"}}
	if os.Getenv(envIsolation) == native.Full {
		r.Mounts = []caisson.Mount{{Type: "component", Source: "data", Target: "/data"}}
		r.Scripts = []string{
			"echo ran-one s3cr3t-value; echo 1 >> /data/ran; sleep 0.02", "echo ran-two; test $(wc -l < /data/ran) = 1",
		}
	}
	return r
}

// compositePoints are the points that a composite task or its children pass.
func compositePoints() []crash.Name {
	skip := []string{"retry-", "keep-", "network-", "root-", "control-", "remove-", "state-", "staged-out-", "print-"}
	list := slices.DeleteFunc(append(crash.Composite(), crash.Points()...), func(at crash.Name) bool {
		return slices.ContainsFunc(skip, func(prefix string) bool { return strings.HasPrefix(string(at), prefix) })
	})
	return append(list, crash.PrintBefore, crash.PrintAfter)
}

// TestCrashComposite kills a process at every durable write of a task that is
// made of others, and of these: the first that goes on is killed at the same
// point again. There is one result, each child has run once, and the log is
// whole and tells everything once.
func TestCrashComposite(t *testing.T) {
	slowtest.Skip(t)
	s := newCrashSetup(t)
	t.Cleanup(func() { checkNoKeepers(t, s.keeper) })
	t.Run("points", func(t *testing.T) {
		for _, at := range compositePoints() {
			for _, alone := range []bool{true, false} {
				if quick() && !alone {
					continue
				}
				name := string(at)
				if !alone {
					name += " with attendants"
				}
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					s.crashComposite(t, at, alone)
				})
			}
		}
	})
}

// TestCrashCompositeGoes kills who removes a task that is made of others: in the
// end nothing is left of it and them.
func TestCrashCompositeGoes(t *testing.T) {
	if testing.Short() {
		t.Skip("kills some processes")
	}
	s := newCrashSetup(t)
	t.Cleanup(func() { checkNoKeepers(t, s.keeper) })
	for _, at := range []crash.Name{crash.RemoveBefore, crash.RemoveMiddle, crash.RemoveAfter} {
		t.Run(string(at), func(t *testing.T) {
			t.Parallel()
			for n := 1; ; n++ {
				h := s.host(t, true)
				h.run("", "run", "composite")
				reached := h.run(crash.Name(fmt.Sprintf("%s:%d", at, n)), "remove")
				h.run("", "finish")
				h.run("", "remove")
				h.run("", "finish")
				if left, _ := filepath.Glob(filepath.Join(h.dir, "state", "tasks", "*")); len(left) > 0 {
					t.Errorf("killed at passing %d: left %q", n, left)
				}
				if !reached {
					if n < 4 {
						t.Errorf("%s was passed %d times, want once for the task and each of its parts", at, n-1)
					}
					return
				}
			}
		})
	}
}

// TestCrashCompositeStops kills who stops a task that is made of others, and who
// attends to it.
func TestCrashCompositeStops(t *testing.T) {
	slowtest.Skip(t)
	s := newCrashSetup(t)
	t.Cleanup(func() { checkNoKeepers(t, s.keeper) })
	for _, at := range []crash.Name{crash.ControlBefore, crash.ControlAfter} {
		for _, alone := range []bool{true, false} {
			t.Run(fmt.Sprint(at, " alone ", alone), func(t *testing.T) {
				t.Parallel()
				for n := 1; n <= 2; n++ { // the parent's request, then the part's
					s.host(t, alone).crashCompositeStop(at, n)
				}
			})
		}
	}
}

func (h *host) crashCompositeStop(at crash.Name, n int) {
	t := h.t
	t.Helper()
	attendant, _ := h.command("", "run", "composite-stop")
	if err := attendant.Start(); err != nil {
		t.Fatal(err)
	}
	h.until("the part runs", func() bool {
		logs, _ := filepath.Glob(filepath.Join(h.dir, "state", "tasks", "*", "attempt-1", "main.log"))
		return slices.ContainsFunc(logs, func(path string) bool {
			data, err := os.ReadFile(path)
			return err == nil && strings.Contains(string(data), "ran-one")
		})
	})
	_ = attendant.Process.Kill()
	_ = attendant.Wait()
	if !h.run(crash.Name(fmt.Sprintf("%s:%d", at, n)), "stop") {
		t.Errorf("%s:%d was never reached", at, n)
	}
	h.run("", "stop")
	h.run("", "finish")
	h.untilSettled()
	x, err := New(&Options{State: filepath.Join(h.dir, "state")})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	list, err := x.List(t.Context(), true)
	if err != nil || len(list) != 2 {
		t.Errorf("List = %+v, %v, want the task and its part", list, err)
	}
	for _, info := range list {
		if info.Result == nil || info.Result.Exit.Reason != caisson.ReasonStopped {
			t.Errorf("%s (%s): result = %+v, want stopped", info.ID, info.Part, info.Result)
		}
	}
}

// crashComposite kills who submits at the first, second and every other passing
// of a point.
func (s *crashSetup) crashComposite(t *testing.T, at crash.Name, alone bool) {
	t.Helper()
	for n := 1; ; n++ {
		h := s.host(t, alone)
		reached := h.run(crash.Name(fmt.Sprintf("%s:%d", at, n)), "run", "composite")
		if alone {
			h.run(at, "finish")
		}
		h.run("", "finish")
		h.untilSettled()
		h.run("", "finish") // sweeps what no task knows of any more
		h.untilSettled()
		h.checkComposite()
		if t.Failed() {
			t.Logf("killed at passing %d", n)
			return
		}
		if !reached {
			if n == 1 && !notPassed(at, s.isolation) {
				t.Errorf("%s was never reached", at)
			}
			return
		}
		if n == 2 && quick() {
			return // the task's passing, and its first part's
		}
	}
}

// quick reports whether this is the part of the tests that is to be over soon:
// root does all.
func quick() bool { return os.Geteuid() != 0 }

// notPassed reports whether a point may not be met: nothing wakes a parent that
// is at work, and without isolation there are no mounts.
func notPassed(at crash.Name, isolation string) bool {
	return isolation != native.Full && (at == crash.PlacesBefore || at == crash.PlacesAfter)
}

// checkComposite checks that the composite task ended well, once, if it was
// accepted.
func (h *host) checkComposite() {
	t := h.t
	t.Helper()
	x, err := New(&Options{State: filepath.Join(h.dir, "state")})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	ids, err := x.folder.Tasks()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		task := x.folder.Task(id)
		r, err := readRecord(task)
		if err != nil {
			t.Error(err)
			continue
		}
		h.checkJournalOf(task)
		if r.Parent == nil {
			h.checkParent(x, task, len(ids)-1)
		}
	}
	for what, pattern := range map[string]string{
		"secrets": "run/*/secrets/*", "private folder": "run/*/private/*", "work folder": "state/tasks/*/attempt-*/disk",
		"sandbox folder": "state/tasks/*/attempt-*/*[0-9n]", "lock": "state/tasks/*/lock",
		"runtime folder": "run/native/" + x.folder.Short() + "/*", "temporary file": "state/tasks/*/.caisson-*",
	} {
		if left, _ := filepath.Glob(filepath.Join(h.dir, pattern)); len(left) > 0 {
			t.Errorf("%s is left: %q", what, left)
		}
	}
}

func (h *host) checkJournalOf(task state.Task) {
	t := h.t
	t.Helper()
	result, err := readResult(task)
	if err != nil || result == nil || !result.Success || result.Attempt != 1 {
		text, _ := os.ReadFile(task.Journal())
		t.Errorf("result of %s = %+v, %v, want success; journal:\n%s", task.ID, result, err, text)
	}
	events, _, err := state.ReadJournal(task.Journal(), 0)
	if err != nil {
		t.Error(err)
	}
	checkJournal(t, events)
}

func (h *host) checkParent(x *Executor, task state.Task, children int) {
	t := h.t
	t.Helper()
	if children != 2 {
		t.Errorf("%d children, want 2", children)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var log strings.Builder
	err := x.Logs(ctx, task.ID, LogOptions{}, func(rec LogRecord) error { log.Write(rec.Data); return nil })
	want := "begin, with [redacted]\nran-one [redacted]\nrow-1/0 ended with 0\nran-two\nrow-1/1 ended with 0\n"
	if diff := cmp.Diff(want, log.String()); diff != "" || err != nil {
		text, _ := os.ReadFile(task.Journal())
		t.Errorf("log, %v (-want +got):\n%s\njournal:\n%s", err, diff, text)
	}
	if result, err := readResult(task); err != nil || string(result.Component) != cooked {
		t.Errorf("result = %+v, %v", result, err)
	}
}

// TestCompositeKilledAtRandom kills whoever is at work, attendants of parents
// and of children, again and again at whatever they are doing.
func TestCompositeKilledAtRandom(t *testing.T) {
	slowtest.Skip(t)
	s := newCrashSetup(t)
	t.Cleanup(func() { checkNoKeepers(t, s.keeper) })
	for _, alone := range []bool{true, false} {
		t.Run(fmt.Sprint("alone ", alone), func(t *testing.T) {
			rounds := 4
			if quick() {
				rounds = 1
			}
			for range rounds {
				h := s.host(t, alone)
				cmd, _ := h.command("", "run", "composite")
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				h.until("accepted", func() bool {
					accepted, _ := filepath.Glob(filepath.Join(h.dir, "state", "tasks", "*", "task.json"))
					return len(accepted) > 0
				})
				h.killSoon(cmd)
				for range 12 {
					cmd, _ := h.command("", "finish")
					if err := cmd.Start(); err != nil {
						t.Fatal(err)
					}
					h.killSoon(cmd)
					h.killAttendants()
				}
				h.run("", "finish")
				h.untilSettled()
				h.run("", "finish") // sweeps what no task knows of any more
				h.untilSettled()
				h.checkComposite()
			}
		})
	}
}

// killAttendants kills the attendants that others have started.
func (h *host) killAttendants() {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		environ, err := os.ReadFile(filepath.Join(filepath.Dir(path), "environ"))
		if err != nil || !strings.Contains(string(environ), envState+"="+h.dir+"/") {
			continue
		}
		line, _ := os.ReadFile(path)
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil && strings.Contains(string(line), "\x00attend\x00") {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}
