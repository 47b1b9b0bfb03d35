package enginetest

import (
	"context"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// The signals that cases send, by their Linux numbers.
const (
	sigHup   = 1
	sigInt   = 2
	sigQuit  = 3
	sigAbrt  = 6
	sigKill  = 9
	sigUsr1  = 10
	sigSegv  = 11
	sigPipe  = 13
	sigTerm  = 15
	sigCont  = 18
	sigStop  = 19
	sigTstp  = 20
	sigWinch = 28
)

func lifecycleCases() []Case {
	return []Case{
		{
			Name: "lifecycle/run", Rules: []int{36},
			Rule: "a program is created, started, waited for and destroyed, and Spec.Dir, Spec.Log and the work folder stay",
			body: lifecycleRun,
		},
		{
			Name: "lifecycle/destroy-unstarted", Rules: []int{9, 117},
			Rule: "Destroy before Start releases everything, again and again, from several callers; what comes after is ErrAborted",
			body: destroyUnstarted,
		},
		{
			Name: "lifecycle/start-against-destroy", Rules: []int{10, 46},
			Rule: "of a Start and a Destroy at once, Start finds the program or is ErrAborted, and nothing remains",
			body: startAgainstDestroy,
		},
		{
			Name: "lifecycle/start-twice", Rules: []int{12},
			Rule: "a second Start is ErrExists and does not disturb the first, also after the end", wants: []facility{system},
			body: startTwice,
		},
		{
			Name: "lifecycle/process", Rules: []int{12},
			Rule: "Process is ErrNotFound before Start, and the program afterwards",
			body: processBeforeStart,
		},
		{
			Name: "lifecycle/same-id", Rules: []int{8},
			Rule: "an id that is live is ErrExists and its sandbox undisturbed; after Destroy it is free", wants: []facility{system},
			body: sameID,
		},
		{
			Name: "lifecycle/cancelled-create", Rules: []int{11, 53},
			Rule: "a Create whose context ends returns soon with the context's error and leaves nothing",
			body: cancelledCreate,
		},
		{
			Name: "lifecycle/cancelled-start", Rules: []int{53},
			Rule: "a Start whose context has ended either never runs the program or Process finds it",
			body: cancelledStart,
		},
		{
			Name: "lifecycle/cancelled-calls", Rules: []int{53},
			Rule: "any call whose context has ended returns at once, with the context's error or done, and the sandbox is as it was", wants: []facility{system},
			body: cancelledCalls,
		},
		{
			Name: "lifecycle/failed-create", Rules: []int{14, 82}, Needs: []string{"mounts.bind"},
			Rule: "a mount whose source is absent is ErrNotFound, nothing is left, and the next sandbox works",
			body: failedCreate,
		},
		{
			Name: "lifecycle/spec-is-copied", Rules: []int{13}, Needs: []string{"command"},
			Rule: "Create changes nothing in the spec and keeps no reference to it",
			body: specIsCopied,
		},
		{
			Name: "lifecycle/not-found", Rules: []int{15}, Needs: []string{"command"},
			Rule: "a program that is not found is an Exit of code 127 with a message, not an error",
			body: programNotFound,
		},
		{
			Name: "lifecycle/not-executable", Rules: []int{15}, Needs: []string{"command", "share_work"},
			Rule: "a program that can't be executed is an Exit of code 126 with a message, not an error",
			body: programNotExecutable,
		},
		{
			Name: "lifecycle/bad-arguments", Rules: []int{15}, Needs: []string{"command"},
			Rule: "an empty program name, and arguments with NUL or that are not UTF-8, are ErrInvalid",
			body: badArguments,
		},
		{
			Name: "lifecycle/many-arguments", Rules: []int{16}, Needs: []string{"command"},
			Rule: "10000 arguments, and one of 100 KiB, arrive byte for byte",
			body: manyArguments,
		},
		{
			Name: "lifecycle/too-many-arguments", Rules: []int{16}, Needs: []string{"command"},
			Rule: "more arguments than the system takes are the task's failure, 126, or ErrInvalid",
			body: tooManyArguments,
		},
		{
			Name: "lifecycle/script", Rules: []int{36}, Needs: []string{"script"},
			Rule: "a script runs in the engine's shell and its exit code is the program's",
			body: script,
		},
		{
			Name: "lifecycle/workdir", Rules: []int{15}, Needs: []string{"command"},
			Rule: "the program starts in Spec.Workdir, by default in the work folder; a folder that is not there is no internal error",
			body: workdir,
		},
		{
			Name: "lifecycle/hostile-workdir", Rules: []int{126}, Attacks: []int{3}, Needs: []string{"command"},
			Rule: "no Spec.Workdir leads out of the sandbox",
			body: attacked("lifecycle/hostile-workdir"), wants: []facility{rooted},
		},
	}
}

func lifecycleRun(t *T) {
	b, exit := t.run("write /work/made text ; say done")
	b.success()
	if exit.StartedAt.IsZero() || exit.EndedAt.Before(exit.StartedAt) {
		t.Errorf("the program ran from %v to %v", exit.StartedAt, exit.EndedAt)
	}
	if b.ID() != b.spec.ID {
		t.Errorf("ID = %q, want %q", b.ID(), b.spec.ID)
	}
	t.destroy(b.Sandbox)
	if got := b.stdout(); got != "done\n" {
		t.Errorf("the log after Destroy has %q, want %q", got, "done\n")
	}
	for _, path := range []string{b.spec.Dir, b.spec.Work} {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("after Destroy: %v", err)
		}
	}
	if t.features.ShareWork && t.get(b.spec, "made") != "text" {
		t.Errorf("the work folder lost what the program wrote")
	}
}

func destroyUnstarted(t *T) {
	sb := t.create(t.spec("hold"))
	parallel(8, func(int) { t.destroy(sb) })
	t.destroy(sb)
	_, err := sb.Start(t.ctx)
	t.kind(err, "Start after Destroy", caisson.ErrAborted)
	_, err = sb.Process(t.ctx)
	t.kind(err, "Process after Destroy", caisson.ErrAborted)
}

func startAgainstDestroy(t *T) {
	for range t.times(100) {
		sb := t.create(t.spec("hold"))
		delay := time.Duration(rand.Int64N(int64(20 * time.Millisecond)))
		var process engine.Process
		var err error
		parallel(2, func(i int) {
			if i == 0 {
				process, err = sb.Start(t.ctx)
				return
			}
			time.Sleep(delay)
			t.destroy(sb)
		})
		if err != nil {
			t.kind(err, "Start against Destroy", caisson.ErrAborted)
			continue
		}
		exit, err := process.Wait(t.ctx)
		if err != nil || exit.Reason != caisson.ReasonAborted {
			t.Errorf("Wait = %+v, %v, want reason aborted", exit, err)
		}
	}
}

func startTwice(t *T) {
	b := t.launch("say once ; trap 15 ; say ready ; await 15 ; exit 4")
	b.says("ready")
	_, err := b.Start(t.ctx)
	t.kind(err, "second Start", caisson.ErrExists)
	t.ok(b.process.Signal(t.ctx, sigTerm), "Signal")
	b.expect(caisson.ReasonExited, 4, 0)
	_, err = b.Start(t.ctx)
	t.kind(err, "Start after the end", caisson.ErrExists)
	if got := strings.Count(b.stdout(), "once"); got != 1 {
		t.Errorf("the program ran %d times", got)
	}
}

func processBeforeStart(t *T) {
	sb := t.create(t.spec("exit 5"))
	_, err := sb.Process(t.ctx)
	t.kind(err, "Process before Start", caisson.ErrNotFound)
	_, err = sb.Start(t.ctx)
	t.ok(err, "Start")
	process, err := sb.Process(t.ctx)
	t.ok(err, "Process")
	if exit, err := process.Wait(t.ctx); err != nil || exit.Code != 5 {
		t.Errorf("Wait = %+v, %v, want code 5", exit, err)
	}
}

func sameID(t *T) {
	b := t.launch("trap 15 ; say ready ; await 15 ; exit 6")
	b.says("ready")
	again := t.spec("exit 0")
	again.ID = b.spec.ID
	t.refused(again, caisson.ErrExists)
	t.ok(b.process.Signal(t.ctx, sigTerm), "Signal")
	b.expect(caisson.ReasonExited, 6, 0)
	t.destroy(b.Sandbox)
	t.start(again).success()
}

func cancelledCreate(t *T) {
	for i := range t.times(40) {
		ctx, cancel := context.WithCancel(t.ctx)
		if i == 0 {
			cancel()
		} else {
			stop := time.AfterFunc(time.Duration(rand.Int64N(int64(15*time.Millisecond))), cancel)
			defer stop.Stop()
		}
		spec := t.spec("hold")
		sb, err := t.engine.Create(ctx, spec)
		cancel()
		if err == nil {
			if i == 0 {
				t.Errorf("Create with an ended context succeeded")
			}
			t.destroy(sb)
			continue
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Create = %v, want context.Canceled", err)
		}
		if entries, _ := os.ReadDir(spec.Dir); len(entries) > 0 {
			t.Errorf("a cancelled Create left %s in Spec.Dir", entries[0].Name())
		}
	}
}

func cancelledStart(t *T) {
	sb := t.create(t.spec("exit 7"))
	ctx, cancel := context.WithCancel(t.ctx)
	cancel()
	if _, err := sb.Start(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Start = %v, want context.Canceled", err)
	}
	process, err := sb.Process(t.ctx)
	if errors.Is(err, caisson.ErrNotFound) {
		process, err = sb.Start(t.ctx)
	}
	t.ok(err, "Start or Process")
	if exit, err := process.Wait(t.ctx); err != nil || exit.Code != 7 {
		t.Errorf("Wait = %+v, %v, want code 7", exit, err)
	}
}

func cancelledCalls(t *T) {
	ctx, cancel := context.WithCancel(t.ctx)
	cancel()
	b := t.holding()
	calls := map[string]func() error{
		"Probe":   func() error { _, err := t.engine.Probe(ctx); return err },
		"Recover": func() error { _, err := t.engine.Recover(ctx, b.spec.Dir); return err },
		"Sweep":   func() error { _, err := t.engine.Sweep(ctx, []string{b.spec.ID}); return err },
		"Process": func() error { _, err := b.Process(ctx); return err },
		"Wait":    func() error { _, err := b.process.Wait(ctx); return err },
		"Signal":  func() error { return b.process.Signal(ctx, sigWinch) },
	}
	if t.features.Exec {
		calls["Exec"] = func() error {
			s, err := b.Sandbox.(engine.Execer).Exec(ctx, &engine.ExecSpec{Args: t.argv("exit 0")})
			if err == nil {
				s.Close()
			}
			return err
		}
	}
	if t.features.Stats {
		calls["Stats"] = func() error { _, err := b.Sandbox.(engine.StatsReader).Stats(ctx); return err }
	}
	if t.features.Files {
		calls["Tar"] = func() error { return b.Sandbox.(engine.Filer).Tar(ctx, "work", io.Discard) }
	}
	for name, call := range calls {
		if err := call(); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("%s = %v, want context.Canceled or nil", name, err)
		}
	}
	t.ok(b.process.Signal(t.ctx, sigTerm), "Signal")
	b.success()
	if err := b.Destroy(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Destroy = %v, want context.Canceled or nil", err)
	}
	t.destroy(b.Sandbox)
}

func failedCreate(t *T) {
	spec := t.spec("hold")
	spec.Mounts = append(spec.Mounts, engine.Mount{Type: engine.MountBind, Source: filepath.Join(t.dir, "absent"), Target: "/absent"})
	err := t.refused(spec, caisson.ErrNotFound)
	if err != nil && strings.Contains(err.Error(), "\n") {
		t.Errorf("the error has several lines: %q", err)
	}
	b, _ := t.run("exit 0")
	b.success()
}

func specIsCopied(t *T) {
	spec := t.spec("report")
	spec.Env = map[string]string{"KEPT": "1"}
	before := *spec
	before.Args, before.Env, before.Mounts = slices.Clone(spec.Args), maps.Clone(spec.Env), slices.Clone(spec.Mounts)
	sb := t.create(spec)
	if !reflect.DeepEqual(before, *spec) {
		t.Errorf("Create changed the spec to %+v from %+v", *spec, before)
	}
	for i := range spec.Args {
		spec.Args[i] = "changed"
	}
	for i := range spec.Mounts {
		spec.Mounts[i].Target = "/changed"
	}
	spec.Env["KEPT"] = "changed"
	process, err := sb.Start(t.ctx)
	t.ok(err, "Start")
	f := (&box{t: t, spec: &before, Sandbox: sb, process: process}).facts()
	if value, _ := variable(f, "KEPT"); value != "1" {
		t.Errorf("the program has KEPT=%q, want 1: Create kept the caller's map", value)
	}
}

func programNotFound(t *T) {
	for _, name := range []string{"no-such-program", "/no/such/program", "/work/absent"} {
		spec := t.spec()
		spec.Args = []string{name}
		exit := t.start(spec).expect(caisson.ReasonExited, 127, 0)
		if !strings.Contains(exit.Message, name) {
			t.Errorf("the message %q does not name %q", exit.Message, name)
		}
	}
}

func programNotExecutable(t *T) {
	for _, name := range []string{"/work/plain", "/work/garbage", "/work"} {
		spec := t.spec()
		t.put(spec, "plain", "text", 0o644)
		t.put(spec, "garbage", "\x00\x01\x02\x03 not a program of this machine", 0o755)
		spec.Args = t.inside(spec, name)
		exit := t.start(spec).expect(caisson.ReasonExited, 126, 0)
		if !strings.Contains(exit.Message, spec.Args[0]) {
			t.Errorf("the message %q does not name %q", exit.Message, name)
		}
	}
}

func badArguments(t *T) {
	for _, args := range [][]string{{""}, {"", "x"}, {"a\x00b"}, {"a", "b\x00"}, {"a", "\xff\xfe"}} {
		spec := t.spec()
		spec.Args = args
		t.refused(spec, caisson.ErrInvalid)
	}
}

func manyArguments(t *T) {
	args := []string{"report", ";", "exit", "0", ";"}
	for i := range 10000 {
		args = append(args, strconv.Itoa(i))
	}
	b := t.launch(args...)
	compareArgs(t, b.facts().Args, b.spec.Args)
	b = t.launch("report", ";", "exit", "0", ";", strings.Repeat("x", 100<<10))
	compareArgs(t, b.facts().Args, b.spec.Args)
}

func compareArgs(t *T, got, want []string) {
	if !slices.Equal(got, want) {
		t.Errorf("%d arguments arrived, want the %d that were given", len(got), len(want))
	}
}

func tooManyArguments(t *T) {
	spec := t.spec("exit 0 ;")
	for range 3000 {
		spec.Args = append(spec.Args, strings.Repeat("x", 1024))
	}
	b := t.startUnless(spec, caisson.ErrInvalid)
	if b == nil {
		return
	}
	if exit := b.wait(); exit.Code != 126 || exit.Message == "" {
		t.Errorf("Wait = %+v, want code 126 with a message", exit)
	}
}

func script(t *T) {
	spec := t.spec()
	spec.Args, spec.Run = nil, "echo first\necho second\nexit 7\n"
	b := t.start(spec)
	b.expect(caisson.ReasonExited, 7, 0)
	if got := b.stdout(); got != "first\nsecond\n" {
		t.Errorf("stdout = %q, want two lines", got)
	}
}

func workdir(t *T) {
	for want, dir := range map[string]string{caisson.WorkDir: "", "/tmp": "/tmp"} {
		spec := t.spec("report")
		spec.Workdir = dir
		if got := t.start(spec).facts().Dir; got != t.inside(spec, want)[0] {
			t.Errorf("Workdir %q: the program starts in %q, want %q", dir, got, t.inside(spec, want)[0])
		}
	}
	spec := t.spec("exit 0")
	spec.Workdir = "/work/absent"
	b := t.startUnless(spec, caisson.ErrInvalid, caisson.ErrNotFound)
	if b == nil {
		return
	}
	if exit := b.wait(); exit.Code != 126 && exit.Code != 127 || !strings.Contains(exit.Message, "absent") {
		t.Errorf("Wait = %+v, want code 126 or 127 and a message that names the folder", exit)
	}
}
