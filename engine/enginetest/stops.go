package enginetest

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

func stopCases() []Case {
	shared := []string{"share_work"}
	return []Case{
		{
			Name: "stop/kill", Rules: []int{44, 45},
			Rule: "a stop without grace kills at once with its reason, and the sandbox and its files stay",
			body: stopKill,
		},
		{
			Name: "stop/grace", Rules: []int{49}, Needs: shared,
			Rule: "a program has its grace to end after the signal, and what it does then counts", wants: []facility{system},
			body: stopGrace,
		},
		{
			Name: "stop/grace-over", Rules: []int{49, 51}, Attacks: []int{31},
			Rule: "a program that ignores the signal is killed when its grace is over, not before", wants: []facility{system},
			body: stopGraceOver,
		},
		{
			Name: "stop/signal", Rules: []int{45, 49},
			Rule: "a stop sends its own signal, else the spec's, else SIGTERM", wants: []facility{system},
			body: stopSignals,
		},
		{
			Name: "stop/first-decides", Rules: []int{48, 54},
			Rule: "of several stops the first decides the reason; a later one can only make it quicker", wants: []facility{system},
			body: stopFirstDecides,
		},
		{
			Name: "stop/after-the-end", Rules: []int{44, 47},
			Rule: "a stop after the end is ErrEnded and changes nothing",
			body: stopAfterEnd,
		},
		{
			Name: "stop/timeout", Rules: []int{54, 128},
			Rule: "a program whose time is up is stopped with the spec's signal and grace, and its reason is timeout", wants: []facility{system},
			body: stopTimeout,
		},
		{
			Name: "stop/timeout-against-stop", Rules: []int{54},
			Rule: "of a timeout and a stop the first decides the reason", wants: []facility{system},
			body: stopAgainstTimeout,
		},
		{
			Name: "stop/tree", wants: []facility{system, sharedKernel}, Rules: []int{50}, Attacks: []int{31}, Needs: append(shared, isolation(engine.KilledTogether)),
			Rule: "no process that the program started outlives it, however it hides: children, sessions, orphans, deaf to signals",
			body: stopTree,
		},
		{
			Name: "stop/halted", Rules: []int{51}, Attacks: []int{31},
			Rule: "a program that is halted by a signal can be killed", wants: []facility{system},
			body: stopHalted,
		},
		{
			Name: "stop/forking", Rules: []int{50, 51}, Attacks: []int{31}, Needs: []string{"limits.pids"},
			Rule: "a program that starts processes as quickly as it can is killed with all of them",
			body: attacked("stop/forking"),
		},
		{
			Name: "stop/destroy", Rules: []int{46, 48},
			Rule: "Destroy of a running sandbox gives aborted to all waiters, and what comes after is ErrAborted",
			body: destroyRunning,
		},
		{
			Name: "stop/destroy-ended", Rules: []int{47},
			Rule: "Destroy after the end does not change the Exit",
			body: destroyEnded,
		},
		{
			Name: "stop/interleavings", Rules: []int{48},
			Rule: "stops, signals, waits, execs and destroys at once end without deadlock in one consistent Exit",
			body: stopInterleavings, deadline: 5 * time.Minute,
		},
	}
}

func stopKill(t *T) {
	for _, reason := range []caisson.Reason{
		caisson.ReasonStopped, caisson.ReasonKilled, caisson.ReasonCancelled, caisson.ReasonTimeout, caisson.ReasonPolicy,
	} {
		b := t.launch("trap 15 ; write /work/before kept ; say ready ; hold")
		b.says("ready")
		b.stop(engine.Stop{Reason: reason})
		b.expect(reason, 0, sigKill)
		if got := b.stdout(); got != "ready\n" {
			t.Errorf("stdout = %q, want what was printed before the kill", got)
		}
		if t.features.ShareWork && t.get(b.spec, "before") != "kept" {
			t.Errorf("the kill took the work folder's files")
		}
	}
}

func stopGrace(t *T) {
	b := t.launch("trap", "15", ";", "say", "ready", ";", "await", "15", ";", "sleep", "50ms", ";",
		"write", "/work/after", "written in grace", ";", "say", "bye", ";", "exit", "3")
	b.says("ready")
	b.stop(engine.Stop{Reason: caisson.ReasonStopped, Grace: caisson.Duration(time.Minute)})
	b.expect(caisson.ReasonStopped, 3, 0)
	if b.stdout() != "ready\nbye\n" || t.get(b.spec, "after") != "written in grace" {
		t.Errorf("the program's grace was cut: stdout = %q", b.stdout())
	}
}

func stopGraceOver(t *T) {
	const grace = 300 * time.Millisecond
	b := t.launch("ignore 15 ; say ready ; hold")
	b.says("ready")
	begin := time.Now()
	b.stop(engine.Stop{Reason: caisson.ReasonStopped, Grace: caisson.Duration(grace)})
	b.expect(caisson.ReasonStopped, 0, sigKill)
	if took := time.Since(begin); took < grace {
		t.Errorf("the program was killed after %v, its grace was %v", took, grace)
	}
}

func stopSignals(t *T) {
	long := caisson.Duration(time.Minute)
	for _, test := range []struct{ spec, stop, want int }{
		{0, 0, sigTerm}, {sigUsr1, 0, sigUsr1}, {sigUsr1, sigInt, sigInt}, {0, sigQuit, sigQuit}, {0, sigHup, sigHup},
	} {
		spec := t.spec("trap 1 2 3 10 15 ; say ready ; first 1 2 3 10 15")
		spec.StopSignal = test.spec
		b := t.start(spec)
		b.says("ready")
		b.stop(engine.Stop{Reason: caisson.ReasonStopped, Signal: test.stop, Grace: long})
		b.expect(caisson.ReasonStopped, test.want, 0)
	}
}

func stopFirstDecides(t *T) {
	b := t.launch("ignore 15 ; say ready ; hold")
	b.says("ready")
	b.stop(engine.Stop{Reason: caisson.ReasonStopped, Grace: caisson.Duration(time.Hour)})
	b.stop(engine.Stop{Reason: caisson.ReasonCancelled, Grace: caisson.Duration(2 * time.Hour)})
	b.stop(engine.Stop{Reason: caisson.ReasonKilled})
	b.expect(caisson.ReasonStopped, 0, sigKill)

	// A later grace that is longer does not lengthen the first.
	b = t.launch("ignore 15 ; say ready ; hold")
	b.says("ready")
	b.stop(engine.Stop{Reason: caisson.ReasonStopped, Grace: caisson.Duration(100 * time.Millisecond)})
	err := b.process.Stop(t.ctx, engine.Stop{Reason: caisson.ReasonKilled, Grace: caisson.Duration(time.Hour)})
	if err != nil {
		t.kind(err, "a second Stop", caisson.ErrEnded)
	}
	b.expect(caisson.ReasonStopped, 0, sigKill)
}

func stopAfterEnd(t *T) {
	b, exit := t.run("exit 4")
	stop := engine.Stop{Reason: caisson.ReasonKilled}
	t.kind(b.process.Stop(t.ctx, stop), "Stop after the end", caisson.ErrEnded)
	if again := b.wait(); !same(again, exit) {
		t.Errorf("Wait = %+v after the stop, before it was %+v", again, exit)
	}
	t.destroy(b.Sandbox)
	t.kind(b.process.Stop(t.ctx, stop), "Stop after Destroy", caisson.ErrAborted, caisson.ErrEnded)
}

// listening starts a program with a time limit that leaves it the time to say
// "ready": how long that takes depends on how busy the host is, so the limit
// grows until it does. A program that says so after its time would have had the
// signal while it could not hear it.
func (t *T) listening(args string, tune func(spec *engine.Spec)) *box {
	for timeout := 200 * time.Millisecond; ; timeout *= 4 {
		spec := t.spec(args)
		spec.Timeout = caisson.Duration(timeout)
		tune(spec)
		begun := time.Now()
		b := t.start(spec)
		ready := func() bool { return strings.HasPrefix(b.stdout(), "ready\n") }
		t.eventually("the program is ready or ends", func() bool {
			ctx, cancel := context.WithTimeout(t.ctx, 10*time.Millisecond)
			defer cancel()
			_, err := b.process.Wait(ctx)
			return err == nil || ready()
		})
		if ready() && time.Since(begun) < timeout || timeout > time.Minute {
			return b
		}
		t.destroy(b)
	}
}

func stopTimeout(t *T) {
	const grace = 200 * time.Millisecond
	b := t.listening("ignore 15 ; say ready ; hold", func(spec *engine.Spec) { spec.Grace = caisson.Duration(grace) })
	exit := b.expect(caisson.ReasonTimeout, 0, sigKill)
	if wall, least := exit.Usage.Wall.Std(), b.spec.Timeout.Std()+grace; wall < least || exit.Status() != 124 {
		t.Errorf("the program was killed after %v (%s), timeout and grace are %v; Status = %d, want 124", wall, exit.Message, least, exit.Status())
	}
	// One that obeys.
	b = t.listening("trap 10 ; say ready ; await 10 ; exit 5", func(spec *engine.Spec) {
		spec.Grace, spec.StopSignal = caisson.Duration(time.Minute), sigUsr1
	})
	b.expect(caisson.ReasonTimeout, 5, 0)
	// One that is quicker.
	spec := t.spec("exit 0")
	spec.Timeout = caisson.Duration(time.Hour)
	t.start(spec).success()
}

func stopAgainstTimeout(t *T) {
	spec := t.spec("ignore 15 ; say ready ; hold")
	spec.Timeout = caisson.Duration(time.Hour)
	b := t.start(spec)
	b.says("ready")
	b.stop(engine.Stop{Reason: caisson.ReasonCancelled})
	b.expect(caisson.ReasonCancelled, 0, sigKill)

	b = t.listening("trap 15 ; say ready ; await 15 ; say told ; hold", func(spec *engine.Spec) { spec.Grace = caisson.Duration(time.Hour) })
	b.says("told")
	b.stop(engine.Stop{Reason: caisson.ReasonCancelled})
	b.expect(caisson.ReasonTimeout, 0, sigKill)
}

// hiders are ways to start a process that stays. Each locks a file of its own.
func hiders() []string {
	return []string{
		"spawn lock /work/lock0 , say held 0 , hold ;",
		"spawn -q -s ignore 1 2 15 , lock /work/lock1 , hold ;",
		// An orphan in a session of its own: the child that started it ends.
		"spawn -q -s spawn -q -s ignore 1 2 15 ,, lock /work/lock2 ,, hold , exit 0 ;",
		"spawn -s lock /work/lock3 , say held 3 , raise 19 , hold ;",
	}
}

func stopTree(t *T) {
	for _, ending := range []func(b *box){
		func(b *box) { b.stop(engine.Stop{Reason: caisson.ReasonKilled}) },
		func(b *box) { t.ok(b.process.Signal(t.ctx, sigUsr1), "Signal") },
		func(b *box) { t.destroy(b.Sandbox) },
	} {
		b := t.launch("trap 10 ; " + strings.Join(hiders(), " ") + " say ready ; await 10 ; exit 0")
		b.says("ready")
		b.says("held 0")
		b.says("held 3")
		locks := []string{"lock0", "lock1", "lock2", "lock3"}
		for _, name := range locks {
			t.eventually(name+" is locked", func() bool {
				held, err := locked(filepath.Join(b.spec.Work, name))
				return err == nil && held
			})
		}
		ending(b)
		b.wait()
		for _, name := range locks {
			if held, err := locked(filepath.Join(b.spec.Work, name)); held || err != nil {
				t.Errorf("a process of the program holds %s after the end (error %v)", name, err)
			}
		}
	}
}

func stopHalted(t *T) {
	b := t.launch("say ready ; raise 19 ; hold")
	b.says("ready")
	b.stop(engine.Stop{Reason: caisson.ReasonKilled})
	b.expect(caisson.ReasonKilled, 0, sigKill)

	// A signal that waits is taken when it goes on.
	b = t.launch("trap 15 ; say ready ; await 15 ; exit 3")
	b.says("ready")
	t.ok(b.process.Signal(t.ctx, sigStop), "Signal")
	t.ok(b.process.Signal(t.ctx, sigTerm), "Signal")
	t.ok(b.process.Signal(t.ctx, sigCont), "Signal")
	b.expect(caisson.ReasonExited, 3, 0)
}

func destroyRunning(t *T) {
	b := t.launch("ignore 15 ; say ready ; hold")
	b.says("ready")
	waiters := make(chan caisson.Exit, 8)
	for range cap(waiters) {
		go func() {
			exit, err := b.process.Wait(t.ctx)
			t.kindOK(err, "Wait")
			waiters <- exit
		}()
	}
	parallel(4, func(int) { t.destroy(b.Sandbox) })
	for range cap(waiters) {
		if exit := <-waiters; exit.Reason != caisson.ReasonAborted {
			t.Errorf("a waiter got %+v, want reason aborted", exit)
		}
	}
	_, err := b.Start(t.ctx)
	t.kind(err, "Start after Destroy", caisson.ErrAborted)
	_, err = b.Process(t.ctx)
	t.kind(err, "Process after Destroy", caisson.ErrAborted)
	t.kind(b.process.Signal(t.ctx, sigTerm), "Signal after Destroy", caisson.ErrAborted)
	t.kind(b.process.Stop(t.ctx, engine.Stop{Reason: caisson.ReasonKilled}), "Stop after Destroy", caisson.ErrAborted)
}

func destroyEnded(t *T) {
	b, exit := t.run("exit 21")
	t.destroy(b.Sandbox)
	if again := b.wait(); !same(again, exit) {
		t.Errorf("Wait = %+v after Destroy, before it was %+v", again, exit)
	}
}

func stopInterleavings(t *T) {
	for range t.times(1000) {
		b := t.launch("trap 15 ; await 15 ; exit 1")
		acts := []func() error{
			func() error { return b.process.Stop(t.ctx, engine.Stop{Reason: caisson.ReasonKilled}) },
			func() error {
				return b.process.Stop(t.ctx, engine.Stop{Reason: caisson.ReasonStopped, Grace: caisson.Duration(time.Minute)})
			},
			func() error { return b.process.Signal(t.ctx, sigTerm) },
			func() error { return b.Destroy(t.ctx) },
			func() error { return t.execAndClose(b.Sandbox) },
		}
		rand.Shuffle(len(acts), func(i, j int) { acts[i], acts[j] = acts[j], acts[i] })
		exits := make([]caisson.Exit, 2)
		parallel(len(acts)+len(exits), func(i int) {
			if i < len(exits) {
				exit, err := b.process.Wait(t.ctx)
				t.kindOK(err, "Wait")
				exits[i] = exit
				return
			}
			time.Sleep(time.Duration(rand.Int64N(int64(3 * time.Millisecond))))
			err := acts[i-len(exits)]()
			if err != nil && !errors.Is(err, caisson.ErrEnded) && !errors.Is(err, caisson.ErrAborted) {
				t.Errorf("one of the calls = %v, want nil, ErrEnded or ErrAborted", err)
			}
		})
		if !same(exits[0], exits[1]) || exits[0].Reason == "" || exits[0].Reason == caisson.ReasonLost {
			t.Errorf("two waiters got %+v and %+v", exits[0], exits[1])
		}
		t.destroy(b.Sandbox)
	}
}

// execAndClose runs a program in the sandbox, where the engine can.
func (t *T) execAndClose(sb engine.Sandbox) error {
	execer, ok := sb.(engine.Execer)
	if !ok {
		return nil
	}
	session, err := execer.Exec(t.ctx, &engine.ExecSpec{Args: t.argv("exit 0")})
	if err != nil {
		return err
	}
	_, err = session.Wait(t.ctx)
	return errors.Join(err, session.Close())
}
