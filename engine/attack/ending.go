package attack

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

func endings() []Attack {
	return []Attack{
		{
			ID: "D31", Name: "stop/hidden", Run: hidden, Needs: []string{"share_work"},
			Bound: "what stays behind would be four processes that sleep for the attack's own time",
			Tries: "outlive its end: children, sessions, orphans, halted processes, deaf to signals",
		},
		{
			ID: "D31", Name: "stop/forking", Run: forking, Needs: []string{"limits.pids"},
			Bound: "it runs under a limit of processes",
			Tries: "start processes faster than they are killed",
		},
		{
			ID: "D33", Name: "log/long-line", Run: longLine, Needs: []string{"limits.log"},
			Bound: "the log has a limit of 1 MiB",
			Tries: "use up memory by a line of 64 MiB and by garbage",
			CVE:   []string{"CVE-2022-31030"},
		},
		{
			ID: "D33", Name: "exec/much-output", Run: muchOutput, Needs: []string{"exec"},
			Bound: "it stops at 64 MiB, which nobody keeps",
			Tries: "use up memory by what an exec prints while nobody reads",
			CVE:   []string{"CVE-2022-31030", "CVE-2025-64329"},
		},
		{
			ID: "D33", Name: "log/kept-open", Run: keptOpen,
			Bound: "the process that stays sleeps, and is killed",
			Tries: "hold up its end by a grandchild that keeps its output",
		},
		{
			ID: "D34", Name: "concurrency/many-runs", Run: manyRuns, Bound: "20 runs, one after the other",
			Tries: "use up descriptors, mounts, groups, terminals and loop devices by many runs",
		},
	}
}

// hiders are ways to start a process that stays. Each locks a file of its own.
func hiders() string {
	return strings.Join([]string{
		"spawn lock /work/lock0 , say held 0 , sleep 100s ;",
		"spawn -q -s ignore 1 2 15 , lock /work/lock1 , sleep 100s ;",
		// An orphan in a session of its own: the child that started it ends.
		"spawn -q -s spawn -q -s ignore 1 2 15 ,, lock /work/lock2 ,, sleep 100s , exit 0 ;",
		"spawn -s lock /work/lock3 , say held 3 , raise 19 , sleep 100s ;",
	}, " ")
}

func hidden(t *Trial) {
	if t.separateKernel() {
		t.Inapplicable("locks of a kernel of its own are not the host's, by which it would be seen what lives")
	}
	b := t.launch("trap 10 ; " + hiders() + " say ready ; await 10 ; exit 0")
	for _, line := range []string{"ready", "held 0", "held 3"} {
		b.says(line)
	}
	locks := []string{"lock0", "lock1", "lock2", "lock3"}
	for _, name := range locks {
		for !t.locked(filepath.Join(b.spec.Work, name)) {
			t.OK(t.ctx.Err(), "waiting for "+name)
			time.Sleep(5 * time.Millisecond)
		}
	}
	b.kill()
	for _, name := range locks {
		if t.locked(filepath.Join(b.spec.Work, name)) {
			t.Errorf("a process of the program holds %s after the end", name)
		}
	}
}

func forking(t *Trial) {
	spec := t.Spec("forks 100000 ; say full ; hold")
	spec.Limits.PIDs = pidsLimit
	b := t.start(spec)
	b.says("full")
	if exit := b.kill(); exit.Reason != caisson.ReasonKilled {
		t.Errorf("it ended with %+v, want reason killed", exit)
	}
}

func longLine(t *Trial) {
	const limit = caisson.MiB
	before := t.Memory()
	spec := t.Spec("print stdout 64m 1")
	spec.Limits.Log = limit
	b := t.start(spec)
	b.wait()
	if n := len(b.stdout()); n > int(limit) {
		t.Errorf("the log has %d bytes, the limit is %v", n, limit)
	}
	if more := t.Memory() - before; more > 32*caisson.MiB {
		t.Errorf("Caisson uses %v more than before", more)
	}
}

func muchOutput(t *Trial) {
	b := t.launch("say ready ; hold")
	b.says("ready")
	before := t.Memory()
	session, err := b.Sandbox.(engine.Execer).Exec(t.ctx, &engine.ExecSpec{Args: t.Argv("print stdout 64m 1")})
	t.OK(err, "Exec")
	time.Sleep(time.Second)
	more := t.Memory() - before
	t.OK(session.Close(), "Close")
	if more > 32*caisson.MiB {
		t.Errorf("Caisson uses %v more than before while nobody reads", more)
	}
	b.kill()
}

func keptOpen(t *Trial) {
	spec := t.Spec("spawn -s spawn -s ignore 15 ,, say grandchild ,, sleep 100s , exit 0 ; reap ; exit 2")
	spec.Linger = caisson.Duration(500 * time.Millisecond)
	begin := time.Now()
	exit := t.start(spec).wait()
	if exit.Reason != caisson.ReasonExited || exit.Code != 2 {
		t.Errorf("it ended with %+v, want code 2", exit)
	}
	if took := time.Since(begin); took > 90*time.Second {
		t.Errorf("a grandchild held its end up for %v", took)
	}
}

func manyRuns(t *Trial) {
	once := func() {
		b := t.run("exit 0")
		b.success()
		b.destroy()
	}
	// What is made once and kept is there after the first.
	once()
	before := t.resources()
	for range t.Times(20) {
		once()
	}
	// What the system takes away by itself may need a moment.
	var more []string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if more = t.resources().without(before); len(more) == 0 {
			return
		}
	}
	for _, what := range more {
		t.Errorf("left behind: %s", what)
	}
}
