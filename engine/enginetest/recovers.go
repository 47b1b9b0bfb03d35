package enginetest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

func recoverCases() []Case {
	return []Case{
		{
			Name: "recover/running", Rules: []int{120},
			Rule: "after a restart a program that runs is found: the same process, its log without gap or double, its true exit", wants: []facility{system},
			body: recoverRunning,
		},
		{
			Name: "recover/ended-meanwhile", Rules: []int{120},
			Rule: "a program that ended while nobody looked has its true exit", wants: []facility{system},
			body: recoverEnded,
		},
		{
			Name: "recover/usable", Rules: []int{120},
			Rule: "a sandbox that was found again can be stopped, signalled, executed in, read and destroyed", wants: []facility{system},
			body: recoverUsable,
		},
		{
			Name: "recover/unstarted", Rules: []int{119, 120},
			Rule: "a sandbox whose program was never started is found, says so, and can be destroyed",
			body: recoverUnstarted,
		},
		{
			Name: "recover/destroyed", Rules: []int{119},
			Rule: "after Destroy there is nothing to be found",
			body: recoverDestroyed,
		},
		{
			Name: "recover/bad-handles", Rules: []int{119, 131}, Attacks: []int{47},
			Rule: "a folder without a handle is ErrNotFound; one with garbage, or of another engine or a newer version, is ErrInvalid",
			body: recoverBadHandles,
		},
		{
			Name: "recover/close", Rules: []int{7},
			Rule: "Close leaves sandboxes as they are", wants: []facility{system},
			body: recoverClose,
		},
		{
			Name: "recover/sweep", Rules: []int{119},
			Rule: "Sweep destroys what belongs to no live sandbox, tells what, and leaves the others", wants: []facility{system},
			body: recoverSweep,
		},
		{
			Name: "recover/sweep-other", Rules: []int{8, 119}, wants: []facility{system, other},
			Rule: "Sweep touches nothing of another installation",
			body: sweepOther,
		},
		{
			Name: "recover/lost", Rules: []int{70, 122}, wants: []facility{system, lose}, Needs: []string{"share_work"},
			Rule: "when what keeps a sandbox dies, nothing of the program runs on, its reason is lost, and the next sandbox works",
			body: recoverLost,
		},
		{
			Name: "recover/reboot", Rules: []int{121}, wants: []facility{lose},
			Rule: "a handle of before the host's last boot is a sandbox whose program is lost",
			body: recoverReboot,
		},
		{
			Name: "recover/on-exit", Rules: []int{120}, wants: []facility{command},
			Rule: "OnExit is started once after the end if nobody is there to see it, and not otherwise",
			body: recoverOnExit,
		},
	}
}

// command says whether the inside program can be run on the host.
func command(s *suite) string {
	if s.h.Inside == "" {
		return "the harness has no program for the host"
	}
	return ""
}

// found returns what Recover finds in the folder of b.
func (t *T) found(b *box) *box {
	sb, err := t.engine.Recover(t.ctx, b.spec.Dir)
	t.ok(err, "Recover")
	t.after(func() { t.discard(b.spec.Dir, sb) })
	again := &box{t: t, spec: b.spec, Sandbox: sb}
	again.process, err = sb.Process(t.ctx)
	t.ok(err, "Process after Recover")
	if sb.ID() != b.spec.ID {
		t.Errorf("ID = %q after Recover, want %q", sb.ID(), b.spec.ID)
	}
	return again
}

func recoverRunning(t *T) {
	t.alone()
	b := t.launch("trap 10 15 ; count 10 ; exit 23")
	t.eventually("the program counts", func() bool { return len(lines(b.stdout())) > 5 })
	t.restart()
	again := t.found(b)
	third := t.found(b) // as often as one likes
	n := len(lines(again.stdout()))
	t.eventually("the program counts on", func() bool { return len(lines(again.stdout())) > n })
	t.ok(again.process.Signal(t.ctx, sigUsr1), "Signal")
	exit := again.expect(caisson.ReasonExited, 23, 0)
	if other := third.wait(); !same(exit, other) {
		t.Errorf("two Recovers give %+v and %+v", exit, other)
	}
	for i, line := range lines(again.stdout()) {
		if line != fmt.Sprint(i) {
			t.Fatalf("line %d of the log is %q: something was lost or doubled", i, line)
		}
	}
}

func recoverEnded(t *T) {
	for _, end := range []struct {
		program      string
		reason       caisson.Reason
		code, signal int
	}{
		{"exit 17", caisson.ReasonExited, 17, 0},
		{"raise 11", caisson.ReasonSignaled, 0, sigSegv},
	} {
		t.alone()
		b := t.launch("say ready ; sleep 200ms ; say last words ; " + end.program)
		b.says("ready")
		t.ok(t.engine.Close(), "Close")
		b.says("last words")
		t.restart()
		again := t.found(b)
		exit := again.expect(end.reason, end.code, end.signal)
		if got := again.stdout(); got != "ready\nlast words\n" {
			t.Errorf("the log has %q", got)
		}
		// And once more, when it has been waited for.
		t.restart()
		if later := t.found(b).wait(); !same(later, exit) {
			t.Errorf("after another restart Wait = %+v, before it was %+v", later, exit)
		}
	}
}

func recoverUsable(t *T) {
	t.alone()
	b := t.launch("write /work/f text ; ignore 15 ; say ready ; hold")
	b.says("ready")
	t.restart()
	again := t.found(b)
	_, err := again.Start(t.ctx)
	t.kind(err, "Start after Recover", caisson.ErrExists)
	if t.features.Exec {
		if out, _, exit := again.exec("read /work/f ; exit 3").finish(); out != "text" || exit.Code != 3 {
			t.Errorf("an exec after Recover printed %q, %+v", out, exit)
		}
	}
	if t.features.Files {
		if found := t.archive(again.Sandbox, "work/f"); found["f"] != "text" {
			t.Errorf("the files after Recover are %v", found)
		}
	}
	if t.features.Stats {
		_, err := again.Sandbox.(engine.StatsReader).Stats(t.ctx)
		t.ok(err, "Stats after Recover")
	}
	again.stop(engine.Stop{Reason: caisson.ReasonStopped, Grace: caisson.Duration(50 * time.Millisecond)})
	again.expect(caisson.ReasonStopped, 0, sigKill)
	t.destroy(again.Sandbox)
	t.destroy(again.Sandbox)
}

func recoverUnstarted(t *T) {
	t.alone()
	spec := t.spec("exit 9")
	t.create(spec)
	t.restart()
	sb, err := t.engine.Recover(t.ctx, spec.Dir)
	t.ok(err, "Recover")
	t.after(func() { t.discard(spec.Dir, sb) })
	_, err = sb.Process(t.ctx)
	t.kind(err, "Process", caisson.ErrNotFound)
	process, err := sb.Start(t.ctx)
	if err != nil {
		t.kind(err, "Start", caisson.ErrUnavailable, caisson.ErrAborted)
		return
	}
	if exit, err := process.Wait(t.ctx); err != nil || exit.Code != 9 && exit.Reason != caisson.ReasonLost {
		t.Errorf("Wait = %+v, %v, want code 9 or lost", exit, err)
	}
}

func recoverDestroyed(t *T) {
	b, _ := t.run("exit 0")
	t.destroy(b.Sandbox)
	if sb, err := t.engine.Recover(t.ctx, b.spec.Dir); err == nil {
		t.destroy(sb)
	} else {
		t.kind(err, "Recover after Destroy", caisson.ErrNotFound)
	}
}

func recoverBadHandles(t *T) {
	_, err := t.engine.Recover(t.ctx, t.folder("empty"))
	t.kind(err, "Recover of an empty folder", caisson.ErrNotFound)
	_, err = t.engine.Recover(t.ctx, filepath.Join(t.dir, "absent"))
	t.kind(err, "Recover of no folder", caisson.ErrNotFound)

	spec := t.spec("hold")
	t.create(spec)
	data, err := os.ReadFile(filepath.Join(spec.Dir, engine.HandleFile))
	t.ok(err, "reading the handle")
	var good map[string]any
	t.ok(json.Unmarshal(data, &good), "reading the handle")
	if good["engine"] != t.engine.Name() || good["id"] != spec.ID || good["boot_id"] == "" {
		t.Errorf("the handle is %s", data)
	}
	for what, text := range map[string]string{
		"nothing": "", "garbage": "\x00\xff{", "a list": "[]", "another engine's": edited(good, "engine", "other"),
		"a newer version's": edited(good, "version", engine.HandleVersion+1), "no version's": edited(good, "version", 0),
		"one with a hostile id": edited(good, "id", "../../../etc"), "a huge one": strings.Repeat(" ", 64<<20),
	} {
		dir := t.folder(strings.ReplaceAll(what, " ", "-"))
		t.ok(os.WriteFile(filepath.Join(dir, engine.HandleFile), []byte(text), 0o600), "WriteFile")
		_, err := t.engine.Recover(t.ctx, dir)
		t.kind(err, "Recover of a handle that is "+what, caisson.ErrInvalid)
	}
}

// edited returns a handle with one field changed.
func edited(handle map[string]any, field string, value any) string {
	changed := make(map[string]any)
	for k, v := range handle {
		changed[k] = v
	}
	changed[field] = value
	data, err := json.Marshal(changed)
	if err != nil {
		panic(err)
	}
	return string(data)
}

func recoverClose(t *T) {
	t.alone()
	b := t.launch("trap", "10", ";", "say", "ready", ";", "await", "10", ";", "say", "still here", ";", "exit", "2")
	b.says("ready")
	t.ok(t.engine.Close(), "Close")
	t.restart()
	again := t.found(b)
	t.ok(again.process.Signal(t.ctx, sigUsr1), "Signal")
	again.expect(caisson.ReasonExited, 2, 0)
}

func recoverSweep(t *T) {
	t.alone()
	kept, gone, unstarted := t.holding(), t.holding(), t.create(t.spec("hold"))
	ended, _ := t.run("exit 0")
	t.restart()
	live := []string{kept.spec.ID}
	removed, err := t.engine.Sweep(t.ctx, live)
	t.ok(err, "Sweep")
	for _, id := range []string{gone.spec.ID, unstarted.ID(), ended.spec.ID} {
		if !slices.ContainsFunc(removed, func(name string) bool { return strings.Contains(name, id) }) {
			t.Errorf("Sweep removed %v, want %s among them", removed, id)
		}
	}
	again := t.found(kept)
	t.ok(again.process.Signal(t.ctx, sigTerm), "Signal to the sandbox that was kept")
	again.success()
	if exit, err := gone.process.Wait(t.ctx); err == nil && exit.Reason == caisson.ReasonExited {
		t.Errorf("the sandbox swept away ended with %+v", exit)
	}
	if removed, err = t.engine.Sweep(t.ctx, live); err != nil || slices.Contains(removed, gone.spec.ID) {
		t.Errorf("a second Sweep = %v, %v", removed, err)
	}
	// The ids are free again.
	spec := t.spec("exit 0")
	spec.ID = gone.spec.ID
	t.start(spec).success()
}

func sweepOther(t *T) {
	mine, theirs := t.engine, t.h.Other(t.tb)
	t.after(func() { theirs.Close() })
	t.engine = theirs
	b := t.holding()
	t.engine = mine
	removed, err := mine.Sweep(t.ctx, nil)
	t.ok(err, "Sweep")
	if slices.Contains(removed, b.spec.ID) {
		t.Errorf("Sweep removed %v, which belongs to another installation", removed)
	}
	t.ok(b.process.Signal(t.ctx, sigTerm), "Signal")
	b.success()
}

func recoverLost(t *T) {
	t.alone()
	b := t.launch(strings.Join(hiders(), " ") + " say ready ; hold")
	b.says("ready")
	b.says("held 0")
	b.says("held 3")
	lock := filepath.Join(b.spec.Work, "lock0")
	t.lose(b.spec)
	if exit := b.wait(); exit.Reason != caisson.ReasonLost || exit.Status() != 125 {
		t.Errorf("Wait = %+v, want reason lost, status 125", exit)
	}
	dead := func() {
		t.eventually("nothing of the program runs", func() bool {
			held, err := locked(lock)
			return err == nil && !held
		})
	}
	// Where programs have a first process of their own, they die with it at
	// once; elsewhere when somebody looks.
	if slices.Contains(t.features.Isolation, engine.IsolatedPIDs) {
		dead()
	}
	t.restart()
	found := t.found(b)
	if exit := found.wait(); exit.Reason != caisson.ReasonLost {
		t.Errorf("after a restart Wait = %+v, want reason lost", exit)
	}
	if t.features.Exec {
		found.refusesExec("in a sandbox that is lost", caisson.ErrEnded)
	}
	dead()
	ok, _ := t.run("exit 0")
	ok.success()
}

func recoverReboot(t *T) {
	t.alone()
	b := t.holding()
	path := filepath.Join(b.spec.Dir, engine.HandleFile)
	data, err := os.ReadFile(path)
	t.ok(err, "reading the handle")
	var handle map[string]any
	t.ok(json.Unmarshal(data, &handle), "reading the handle")
	t.lose(b.spec)
	b.wait()
	t.ok(os.WriteFile(path, []byte(edited(handle, "boot_id", "00000000-0000-0000-0000-000000000000")), 0o600), "WriteFile")
	t.restart()
	again := t.found(b)
	if exit := again.wait(); exit.Reason != caisson.ReasonLost {
		t.Errorf("Wait = %+v, want reason lost", exit)
	}
	t.kind(again.process.Signal(t.ctx, sigTerm), "Signal", caisson.ErrEnded)
	t.destroy(again.Sandbox)
}

func recoverOnExit(t *T) {
	t.alone()
	told := filepath.Join(t.dir, "told")
	watched := t.spec("exit 0")
	watched.OnExit = []string{t.h.Inside, "append", told, "watched "}
	seen := t.start(watched)
	seen.success()
	t.destroy(seen.Sandbox)

	alone := t.spec("trap 10 ; say ready ; sleep 100ms ; exit 5")
	alone.OnExit = []string{t.h.Inside, "append", told, "alone "}
	b := t.start(alone)
	b.says("ready")
	t.ok(t.engine.Close(), "Close")
	read := func() string { data, _ := os.ReadFile(told); return string(data) }
	t.eventually("OnExit is started", func() bool { return strings.Contains(read(), "alone ") })
	t.restart()
	again := t.found(b)
	again.expect(caisson.ReasonExited, 5, 0)
	t.destroy(again.Sandbox)
	if got := read(); got != "alone " {
		t.Errorf("OnExit was started for %q, want once, for the program that nobody saw", got)
	}
}
