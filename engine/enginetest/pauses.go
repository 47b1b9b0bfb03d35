package enginetest

import (
	"context"
	"fmt"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

func pauseCases() []Case {
	needs := []string{"pause"}
	return []Case{
		{
			Name: "pause/halts", Needs: needs, Rules: []int{4},
			Rule: "nothing runs in a paused sandbox, and everything goes on where it was afterwards",
			body: pauseHalts,
		},
		{
			Name: "pause/kill", Needs: needs, Rules: []int{51},
			Rule: "a paused sandbox can be stopped, timed out and destroyed",
			body: pauseKill,
		},
		{
			Name: "pause/exec", Needs: append(needs, "exec"), Rules: []int{70},
			Rule: "an exec in a paused sandbox is bounded by its context, or runs when it goes on",
			body: pauseExec,
		},
		{
			Name: "pause/too-late", Needs: needs, Rules: []int{4},
			Rule: "Pause and Resume after the end are ErrEnded, after Destroy ErrAborted",
			body: pauseTooLate,
		},
	}
}

func pauseHalts(t *T) {
	b := t.launch("spawn tick ; tick")
	pauser := b.Sandbox.(engine.Pauser)
	ticks := func() int { return len(b.stdout()) }
	t.eventually("the program ticks", func() bool { return ticks() > 10 })
	for range 3 {
		for range 2 {
			t.ok(pauser.Pause(t.ctx), "Pause")
		}
		// What was on its way to the log arrives.
		before := ticks()
		t.eventually("the output stands still", func() bool {
			last := before
			time.Sleep(50 * time.Millisecond)
			before = ticks()
			return before == last
		})
		time.Sleep(100 * time.Millisecond)
		if after := ticks(); after != before {
			t.Errorf("a paused program printed %d bytes", after-before)
		}
		for range 2 {
			t.ok(pauser.Resume(t.ctx), "Resume")
		}
		t.eventually("the program ticks again", func() bool { return ticks() > before })
	}
	b.stop(engine.Stop{Reason: caisson.ReasonKilled})
	b.expect(caisson.ReasonKilled, 0, sigKill)
}

func pauseKill(t *T) {
	b := t.launch("ignore 15 ; say ready ; hold")
	b.says("ready")
	t.ok(b.Sandbox.(engine.Pauser).Pause(t.ctx), "Pause")
	b.stop(engine.Stop{Reason: caisson.ReasonStopped, Grace: caisson.Duration(50 * time.Millisecond)})
	b.expect(caisson.ReasonStopped, 0, sigKill)

	spec := t.spec("ignore 15 ; say ready ; hold")
	spec.Timeout, spec.Grace = caisson.Duration(t.slower*time.Second), caisson.Duration(50*time.Millisecond)
	b = t.start(spec)
	b.says("ready")
	t.ok(b.Sandbox.(engine.Pauser).Pause(t.ctx), "Pause")
	b.expect(caisson.ReasonTimeout, 0, sigKill)

	b = t.holding()
	t.ok(b.Sandbox.(engine.Pauser).Pause(t.ctx), "Pause")
	t.destroy(b.Sandbox)
	if exit := b.wait(); exit.Reason != caisson.ReasonAborted {
		t.Errorf("Wait = %+v, want reason aborted", exit)
	}
}

func pauseExec(t *T) {
	b := t.holding()
	pauser := b.Sandbox.(engine.Pauser)
	t.ok(pauser.Pause(t.ctx), "Pause")
	ctx, cancel := context.WithTimeout(t.ctx, 200*time.Millisecond)
	defer cancel()
	s, err := b.Sandbox.(engine.Execer).Exec(ctx, &engine.ExecSpec{Args: t.argv("exit 3")})
	if err == nil {
		defer s.Close()
		if exit, err := s.Wait(ctx); err == nil && (exit.Reason != caisson.ReasonExited || exit.Code != 3) {
			t.Errorf("an exec in a paused sandbox ended with %+v", exit)
		}
	}
	t.ok(pauser.Resume(t.ctx), "Resume")
	b.exec("exit 4").expect(caisson.ReasonExited, 4, 0)
	if err == nil {
		if exit, err := s.Wait(t.ctx); err != nil || exit.Code != 3 {
			t.Errorf("after Resume the exec ended with %+v, %v", exit, err)
		}
	}
}

func pauseTooLate(t *T) {
	b, _ := t.run("exit 0")
	pauser := b.Sandbox.(engine.Pauser)
	for i, kinds := range [][]caisson.Kind{{caisson.ErrEnded}, {caisson.ErrAborted}} {
		t.kind(pauser.Pause(t.ctx), fmt.Sprint("Pause too late, ", i), kinds...)
		t.kind(pauser.Resume(t.ctx), fmt.Sprint("Resume too late, ", i), kinds...)
		t.destroy(b.Sandbox)
	}
}
