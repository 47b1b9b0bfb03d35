package executor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/native"
	"github.com/caissonrun/caisson/internal/crash"
	"github.com/caissonrun/caisson/internal/disk"
	"github.com/caissonrun/caisson/internal/slowtest"
	"github.com/caissonrun/caisson/internal/state"
	"github.com/caissonrun/caisson/keeper"
	"github.com/caissonrun/caisson/keeper/keepertest"
	"github.com/caissonrun/caisson/mount"
	"github.com/caissonrun/caisson/mount/component"
	"github.com/caissonrun/caisson/stage"
	"github.com/caissonrun/caisson/stage/file"
)

// These tests kill real processes: this test's program is also the child that
// submits tasks and attends to them, with engine native and real keepers.
const (
	envState     = "EXECUTOR_TEST_STATE"     // the state folder: this is a child
	envKeeper    = "EXECUTOR_TEST_KEEPER"    // the keeper's program; a test that has none builds one
	envIsolation = "EXECUTOR_TEST_ISOLATION" // of engine native
	envAlone     = "EXECUTOR_TEST_ALONE"     // set: nobody starts attendants
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(envState); dir != "" {
		if err := child(dir, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child is one program on the state folder dir.
func child(dir string, args []string) error {
	ctx := context.Background()
	x, err := childExecutor(dir)
	if err != nil {
		return err
	}
	defer x.Close()
	switch args[0] {
	case "run":
		id, err := x.Submit(ctx, crashTask(args[1]), &Submission{
			BaseDir: filepath.Dir(dir), Trusted: true, Secrets: map[string][]byte{"TOKEN": []byte("s3cr3t-value")},
		})
		if err != nil {
			return err
		}
		return x.Attend(ctx, id, false)
	case "attend":
		err := x.Attend(ctx, args[1], true)
		if errors.Is(err, caisson.ErrExists) || errors.Is(err, caisson.ErrNotFound) {
			return nil
		}
		return err
	case "finish":
		return finishAll(ctx, x)
	case "stop", "remove":
		ids, err := x.folder.Tasks()
		if err != nil {
			return err
		}
		for _, id := range ids {
			if r, err := readRecord(x.folder.Task(id)); err == nil && r.Parent != nil {
				continue // it goes with its parent
			}
			if args[0] == "stop" {
				err = x.Stop(ctx, id, engine.Stop{Reason: caisson.ReasonStopped, Grace: caisson.Duration(time.Second)})
			} else {
				err = x.Remove(ctx, id, true)
			}
			if err != nil && !errors.Is(err, caisson.ErrEnded) && !errors.Is(err, caisson.ErrNotFound) {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("no command %q", args[0])
}

// finishAll is the next command after a crash: it looks after all tasks and
// sees each to its end.
func finishAll(ctx context.Context, x *Executor) error {
	if err := x.Recover(ctx); err != nil {
		return err
	}
	ids, err := x.folder.Tasks()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if os.Getenv(envAlone) != "" {
			err = x.Attend(ctx, id, false)
		} else {
			_, err = x.Wait(ctx, id)
		}
		if err != nil && !errors.Is(err, caisson.ErrExists) && !errors.Is(err, caisson.ErrNotFound) {
			return err
		}
	}
	return nil
}

func childExecutor(dir string) (*Executor, error) {
	folder, err := state.Open(dir)
	if err != nil {
		return nil, err
	}
	runtime := filepath.Join(filepath.Dir(dir), "run")
	e, err := native.New(&native.Options{
		Isolation: os.Getenv(envIsolation), Installation: folder.Short(),
		Runtime: filepath.Join(runtime, "native"), Keeper: keeper.Command{os.Getenv(envKeeper)},
	})
	if err != nil {
		return nil, err
	}
	files, err := file.New(nil)
	if err != nil {
		return nil, err
	}
	opts := &Options{
		State: dir, Runtime: runtime, Engines: []engine.Engine{rooting{networked{e, filepath.Join(filepath.Dir(dir), "held")}}}, Stagers: []stage.Stager{files},
		Mounters: []mount.Mounter{marker(filepath.Join(filepath.Dir(dir), "held")), component.New()},
		Images:   shelf(filepath.Join(filepath.Dir(dir), "held")), Composite: new(cook),
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	if os.Getenv(envAlone) == "" {
		opts.Attend = []string{os.Args[0], "attend"}
		for _, name := range []string{envState, envKeeper, envIsolation} {
			opts.AttendEnv = append(opts.AttendEnv, name+"="+os.Getenv(name))
		}
	}
	return New(opts)
}

// crashTask is the task of a scenario. Every program prints its step's name, so
// that the logs tell how often it ran.
func crashTask(scenario string) *caisson.Task {
	switch scenario {
	case "composite":
		return composedOf(crashRecipe())
	case "composite-stop":
		task := composed("echo ran-one; sleep 60")
		task.Grace = caisson.Duration(time.Second)
		return task
	}
	say := func(script string) caisson.Program { return caisson.Program{Run: "echo ran-$CAISSON_STEP; " + script} }
	task := &caisson.Task{
		Program: say("mkdir out; cat in > out/a; echo $TOKEN; sleep 0.02"),
		Pre:     []caisson.Step{{Program: say("true")}},
		Post:    []caisson.Step{{Program: say("test -f out/a")}},
		Finally: []caisson.Step{{Program: say("true")}},
		Inputs:  []caisson.Input{{From: "file:in", To: "in"}},
		Outputs: []caisson.Output{{Path: "out/*", To: "file:out/"}},
		Secrets: map[string]caisson.Secret{"TOKEN": {}},
		Grace:   caisson.Duration(time.Second),
	}
	if os.Getenv(envIsolation) == native.Full {
		task.Mounts = []caisson.Mount{{Type: "marker", Target: "/m"}}
	}
	switch scenario {
	case "retry":
		task.Post[0].Program = say("test $CAISSON_ATTEMPT = 2")
		task.Retry.Limit = 1
	case "image":
		// What the image says shows in every step.
		task.Image = "test"
		task.Program.Run += "; test $FROM_IMAGE = yes"
		task.Post[0].Program.Run += "; test $FROM_IMAGE = yes"
	case "network":
		task.Sidecars = []caisson.Step{{Program: say("sleep 60")}}
	case "keep":
		task.Keep = caisson.Duration(10 * time.Millisecond)
	case "stop":
		task.Program = say("sleep 60")
	}
	return task
}

// networked is engine native with shared networks that are files.
type networked struct {
	*native.Engine
	held string
}

func (n networked) Probe(ctx context.Context) (engine.Features, error) {
	f, err := n.Engine.Probe(ctx)
	f.Networks.Shared = true
	return f, err
}

func (n networked) Create(ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
	own := *spec
	if own.SharedNetwork != "" {
		h, err := engine.ReadHandle(own.SharedNetwork, native.Name)
		if err != nil {
			return nil, err
		}
		if _, err := os.Lstat(n.file(h.ID)); err != nil {
			return nil, err
		}
		own.SharedNetwork = ""
	}
	return n.Engine.Create(ctx, &own)
}

func (n networked) Sweep(ctx context.Context, live []string) ([]string, error) {
	removed, err := n.Engine.Sweep(ctx, live)
	files, _ := filepath.Glob(n.file("*"))
	for _, file := range files {
		if id := strings.TrimPrefix(filepath.Base(file), "net-"); !slices.Contains(live, id) {
			err = errors.Join(err, os.Remove(file))
			removed = append(removed, id)
		}
	}
	return removed, err
}

func (n networked) MakeNetwork(_ context.Context, spec *engine.NetworkSpec) error {
	if err := engine.WriteHandle(spec.Dir, &engine.Handle{Engine: native.Name, ID: spec.ID}); err != nil {
		return err
	}
	f, err := os.OpenFile(n.file(spec.ID), os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func (n networked) RemoveNetwork(_ context.Context, dir string) error {
	h, err := engine.ReadHandle(dir, native.Name)
	if errors.Is(err, caisson.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.Remove(n.file(h.ID)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Remove(filepath.Join(dir, engine.HandleFile))
}

func (n networked) Dial(context.Context, string, int) (net.Conn, error) {
	return nil, errors.New("nobody is there")
}

func (n networked) file(id string) string { return filepath.Join(n.held, "net-"+id) }

// marker is a mounter that leaves a file for everything that it has mounted.
type marker string

func (m marker) Type() string { return "marker" }

func (m marker) Check(mt caisson.Mount, env mount.Env) error { return nil }

func (m marker) Mount(ctx context.Context, req *mount.Request) (*mount.Place, error) {
	place := &mount.Place{Type: m.Type(), Source: req.Dir, Target: req.Mount.Target, Owned: true, Data: map[string]string{
		"file": filepath.Join(string(m), fmt.Sprintf("%s-%d-%d", req.Task, req.Attempt, req.Index)),
	}}
	if err := req.Save(place); err != nil {
		return nil, err
	}
	return place, os.WriteFile(place.Data["file"], nil, 0o600)
}

func (m marker) Release(ctx context.Context, place *mount.Place) error {
	err := os.Remove(place.Data["file"])
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// crashSetup is what the children of all cases share.
type crashSetup struct {
	keeper    string
	isolation string
}

func newCrashSetup(t *testing.T) *crashSetup {
	t.Helper()
	command := keeper.Command{os.Getenv(envKeeper)}
	if command[0] == "" {
		var err error
		if command, err = keepertest.Build(t.TempDir()); err != nil {
			t.Fatal(err)
		}
	}
	s := &crashSetup{keeper: command[0], isolation: native.Full}
	e, err := native.New(&native.Options{Runtime: filepath.Join(t.TempDir(), "run"), Keeper: command})
	if err != nil {
		t.Fatal(err)
	}
	if f, err := e.Probe(t.Context()); err != nil || !f.Usable {
		t.Logf("full isolation does not work here, so none is used: %v, %v", f.Missing, err)
		s.isolation = native.None
	}
	return s
}

// host is one state folder, with what lies around it.
type host struct {
	*crashSetup
	t     *testing.T
	dir   string
	alone bool
}

func (s *crashSetup) host(t *testing.T, alone bool) *host {
	t.Helper()
	// Not t.TempDir, whose name is too long for sockets.
	dir, err := os.MkdirTemp("", "crash")
	if err != nil {
		t.Fatal(err)
	}
	h := &host{crashSetup: s, t: t, dir: dir, alone: alone}
	t.Cleanup(func() {
		h.until("no attendant is left", h.deserted)
		h.clearProbes()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Mkdir(filepath.Join(dir, "held"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "in"), []byte("input"), 0o644); err != nil {
		t.Fatal(err)
	}
	return h
}

// clearProbes has the next probe remove what one has left that was killed, as if
// some time had passed.
func (h *host) clearProbes() {
	left, _ := filepath.Glob(filepath.Join(h.dir, "run", "native", ".caisson-probe-*"))
	if len(left) == 0 {
		return
	}
	old := time.Now().Add(-time.Hour)
	for _, dir := range left {
		if err := os.Chtimes(dir, old, old); err != nil {
			h.t.Error(err)
		}
	}
	disk.Probe(filepath.Join(h.dir, "run", "native"))
}

// deserted reports whether no process works on the state folder any more: of
// several attendants of one task, the late ones see that it has ended.
func (h *host) deserted() bool {
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range environs {
		if data, err := os.ReadFile(path); err == nil && strings.Contains(string(data), envState+"="+h.dir+"/") {
			return false
		}
	}
	return true
}

// command is a child, to be killed at a point, if any.
func (h *host) command(at crash.Name, args ...string) (*exec.Cmd, *strings.Builder) {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), envState+"="+filepath.Join(h.dir, "state"), envKeeper+"="+h.keeper, envIsolation+"="+h.isolation, crash.Variable+"="+string(at))
	if h.alone {
		cmd.Env = append(cmd.Env, envAlone+"=1")
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	return cmd, &stderr
}

// run runs a child and reports whether it was killed at the point.
func (h *host) run(at crash.Name, args ...string) (killed bool) {
	h.t.Helper()
	cmd, stderr := h.command(at, args...)
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return true
	}
	if err != nil {
		h.t.Errorf("child %q: %v\n%s", args, err, stderr)
	}
	return false
}

// check checks that every accepted task has ended well, exactly once, and that
// nothing else is left on the host.
func (h *host) check(scenario string) {
	t := h.t
	t.Helper()
	folder, err := state.Open(filepath.Join(h.dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	ids, err := folder.Tasks()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		h.checkTask(folder.Task(id), scenario)
	}
	for what, pattern := range map[string]string{
		"mount": "held/*", "secrets": "run/*/secrets/*", "work folder": "state/tasks/*/attempt-*/disk",
		"sandbox folder": "state/tasks/*/attempt-*/*[0-9n]", "lock": "state/tasks/*/lock",
		"network":        "state/tasks/*/attempt-*/network",
		"runtime folder": "run/native/" + folder.Short() + "/*", "temporary file": "state/tasks/*/.caisson-*",
	} {
		if left, _ := filepath.Glob(filepath.Join(h.dir, pattern)); len(left) > 0 {
			t.Errorf("%s is left: %q", what, left)
		}
	}
}

func (h *host) checkTask(task state.Task, scenario string) {
	t := h.t
	t.Helper()
	result, err := readResult(task)
	if err != nil || result == nil {
		t.Errorf("result of %s = %v, %v", task.ID, result, err)
		return
	}
	attempts, steps := 1, []string{"pre-0", "main", "post-0", "finally-0"}
	switch scenario {
	case "retry":
		attempts = 2
	case "stop":
		steps = []string{"pre-0", "main", "finally-0"}
		if result.Exit.Reason != caisson.ReasonStopped {
			t.Errorf("result = %+v, want stopped", result)
		}
	}
	if scenario != "stop" && (!result.Success || result.Attempt != attempts) {
		text, _ := os.ReadFile(task.Journal())
		t.Errorf("result = %+v, want success of attempt %d; journal:\n%s", result, attempts, text)
	}
	events, _, err := state.ReadJournal(task.Journal(), 0)
	if err != nil {
		t.Error(err)
	}
	checkJournal(t, events)
	for n := 1; n <= attempts; n++ {
		for _, step := range steps {
			// With those of sandboxes whose making was cut short: they must be empty.
			logs, _ := filepath.Glob(strings.TrimSuffix(task.Attempt(n).Log(step), ".log") + "*.log")
			var data string
			for _, path := range logs {
				text, err := os.ReadFile(path)
				if err != nil {
					t.Error(err)
				}
				data += string(text)
			}
			if got := strings.Count(data, "ran-"+step); got != 1 {
				t.Errorf("attempt %d: step %s ran %d times", n, step, got)
			}
			if strings.Contains(data, "s3cr3t-value") {
				t.Errorf("the secret stands in the log of %s", step)
			}
		}
	}
	if scenario == "stop" {
		return
	}
	if data, err := os.ReadFile(filepath.Join(h.dir, "out", "a")); string(data) != "input" {
		t.Errorf("output = %q, %v", data, err)
	}
}

// scenarioOf is what a child must do to pass a point.
func scenarioOf(at crash.Name) string {
	for prefix, scenario := range map[string]string{"retry-": "retry", "keep-": "keep", "network-": "network", "root-": "image", "control-": "stop", "remove-": "remove"} {
		if strings.HasPrefix(string(at), prefix) {
			return scenario
		}
	}
	return "full"
}

// TestCrash kills a process at every durable write, lets another go on, kills
// that at the same point, too, and lets a third one finish. No task is lost, none
// runs twice, and nothing is left.
func TestCrash(t *testing.T) {
	if testing.Short() {
		t.Skip("kills some hundred processes")
	}
	s := newCrashSetup(t)
	t.Cleanup(func() { checkNoKeepers(t, s.keeper) })
	var unreached atomic.Int32
	t.Run("points", func(t *testing.T) {
		for _, at := range crash.Points() {
			for _, alone := range []bool{true, false} {
				name := string(at)
				if !alone {
					name += " with attendants"
				}
				t.Run(name, func(t *testing.T) {
					// Just before a write all is mostly as it was just after the last one.
					if !alone || strings.HasSuffix(name, "-before") {
						slowtest.Skip(t)
					}
					t.Parallel()
					h := s.host(t, alone)
					scenario := scenarioOf(at)
					if !h.crash(at, scenario) {
						if !slices.Contains([]crash.Name{crash.PlacesBefore, crash.PlacesAfter}, at) || s.isolation == native.Full {
							t.Errorf("%s was never reached", at)
						}
						unreached.Add(1)
					}
					h.check(scenario)
				})
			}
		}
	})
}

// TestCrashAtEveryWrite kills the caller at every atomic write that it does, and
// who goes on after it at its first one.
func TestCrashAtEveryWrite(t *testing.T) {
	slowtest.Skip(t)
	s := newCrashSetup(t)
	t.Cleanup(func() { checkNoKeepers(t, s.keeper) })
	for _, at := range crash.Repeated() {
		t.Run(string(at), func(t *testing.T) {
			t.Parallel()
			for n := 1; ; n++ {
				h := s.host(t, true)
				reached := h.run(crash.Name(fmt.Sprintf("%s:%d", at, n)), "run", "full")
				h.run(at, "finish")
				h.run("", "finish")
				h.untilSettled()
				h.check("full")
				if left, _ := filepath.Glob(filepath.Join(h.dir, "out", ".caisson-*")); len(left) > 0 {
					t.Errorf("%s:%d: beside the outputs lies %q", at, n, left)
				}
				if !reached {
					if n == 1 {
						t.Errorf("%s was never reached", at)
					}
					return
				}
			}
		})
	}
}

// crash lets children die at a point until they are through. It reports whether
// one did.
func (h *host) crash(at crash.Name, scenario string) (reached bool) {
	h.t.Helper()
	switch scenario {
	case "stop":
		return h.crashStop(at)
	case "remove":
		h.run("", "run", "full")
		reached = h.run(at, "remove")
		h.run(at, "remove")
		h.run("", "remove")
		h.run("", "finish")
		if left, _ := filepath.Glob(filepath.Join(h.dir, "state", "tasks", "*")); len(left) > 0 {
			h.t.Errorf("left: %q", left)
		}
		return reached
	}
	reached = h.run(at, "run", scenario)
	if h.alone {
		h.run(at, "finish")
	}
	h.run("", "finish")
	if scenario == "keep" {
		h.untilUnkept()
	}
	h.untilSettled()
	return reached
}

// crashStop kills who stops a running task, and who attends to it.
func (h *host) crashStop(at crash.Name) (reached bool) {
	h.t.Helper()
	attendant, _ := h.command("", "run", "stop")
	if err := attendant.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.until("main runs", func() bool {
		logs, _ := filepath.Glob(filepath.Join(h.dir, "state", "tasks", "*", "attempt-1", "main.log"))
		if len(logs) == 0 {
			return false
		}
		data, err := os.ReadFile(logs[0])
		return err == nil && strings.Contains(string(data), "ran-main")
	})
	reached = h.run(at, "stop")
	if err := attendant.Process.Kill(); err != nil {
		h.t.Error(err)
	}
	_ = attendant.Wait()
	h.run("", "stop")
	h.run("", "finish")
	h.untilSettled()
	return reached
}

// untilSettled waits for the attendants: the result is there before the last of
// them has put everything away, and one that comes late may lock an ended task
// for a moment.
func (h *host) untilSettled() {
	h.t.Helper()
	h.until("settled", func() bool {
		locks, _ := filepath.Glob(filepath.Join(h.dir, "state", "tasks", "*", "lock"))
		return len(locks) == 0 && h.deserted()
	})
}

// untilUnkept has commands look at the task until what it kept is gone.
func (h *host) untilUnkept() {
	h.t.Helper()
	h.until("nothing is kept", func() bool {
		h.run("", "finish")
		kept, _ := filepath.Glob(filepath.Join(h.dir, "state", "tasks", "*", "lock"))
		return len(kept) == 0
	})
}

func (h *host) until(what string, cond func() bool) {
	h.t.Helper()
	for end := time.Now().Add(30 * time.Second); !cond(); {
		if time.Now().After(end) {
			h.t.Fatalf("never: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// checkNoKeepers checks that no keeper of these tests lives.
func checkNoKeepers(t *testing.T, program string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; {
		var left []string
		exes, _ := filepath.Glob("/proc/[0-9]*/exe")
		for _, exe := range exes {
			if target, err := os.Readlink(exe); err == nil && strings.TrimSuffix(target, " (deleted)") == program {
				left = append(left, exe)
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Errorf("keepers are left: %q", left)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestAttendantsKilledAtRandom kills every attendant again and again while
// tasks run, from the outside, at whatever they are doing.
func TestAttendantsKilledAtRandom(t *testing.T) {
	slowtest.Skip(t)
	s := newCrashSetup(t)
	t.Cleanup(func() { checkNoKeepers(t, s.keeper) })
	h := s.host(t, true)
	var tasks sync.WaitGroup
	for range 4 {
		tasks.Go(func() {
			cmd, _ := h.command("", "run", "full")
			if err := cmd.Start(); err != nil {
				t.Error(err)
				return
			}
			// Only once the task is accepted: before that there is nothing that
			// somebody would go on with.
			h.until("accepted", func() bool {
				accepted, _ := filepath.Glob(filepath.Join(h.dir, "state", "tasks", "*", "task.json"))
				return len(accepted) >= 4
			})
			h.killSoon(cmd)
		})
	}
	tasks.Wait()
	for range 25 {
		cmd, _ := h.command("", "finish")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		h.killSoon(cmd)
	}
	h.run("", "finish")
	h.run("", "finish") // sweeps what no task knows of any more
	h.check("full")
}

// killSoon kills a child after a time that differs from call to call.
func (h *host) killSoon(cmd *exec.Cmd) {
	timer := time.AfterFunc(time.Duration(time.Now().UnixNano()%60)*time.Millisecond, func() { _ = cmd.Process.Kill() })
	_ = cmd.Wait()
	timer.Stop()
}
