package enginetest

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

func keepCases() []Case {
	needs := []string{"exec", "keep"}
	return []Case{
		{
			Name: "keep/enter", Rules: []int{69, 70}, Needs: needs,
			Rule: "a sandbox that is kept is entered after its program's end, as often as wanted, and everything is as the program left it",
			body: keepEnter,
		},
		{
			Name: "keep/same-as-main", Rules: []int{23, 69}, Needs: needs,
			Rule: "after the end an exec has the program's user, groups, rights, environment, folder and limits",
			body: keepSame,
		},
		{
			Name: "keep/halted", Rules: []int{70}, Needs: needs,
			Rule: "what the program has left behind is halted after its end, and ends with the sandbox",
			body: keepHalted,
		},
		{
			Name: "keep/end-first", Rules: []int{40, 70}, Needs: needs,
			Rule: "the program's end is told and durable as without Keep, and it can't be stopped, signalled or paused any more",
			body: keepEndFirst,
		},
		{
			Name: "keep/whatever-end", Rules: []int{45, 70}, Needs: needs,
			Rule: "a sandbox is kept however its program ended: killed, out of time, or never executed",
			body: keepWhateverEnd,
		},
		{
			Name: "keep/beside", Rules: []int{59, 67, 70}, Needs: needs,
			Rule: "an exec that is there when the program ends is ended with it, is told so, and can be repeated at once",
			body: keepBeside,
		},
		{
			Name: "keep/over", Rules: []int{67, 70}, Needs: needs,
			Rule: "when the time is over execs end and are told why, and Exec is ErrEnded; the exit and the files stay",
			body: keepOver,
		},
		{
			Name: "keep/destroy", Rules: []int{67, 70}, Needs: needs,
			Rule: "Destroy ends what is kept at once, with execs in it",
			body: keepDestroy,
		},
		{
			Name: "keep/many", Rules: []int{66, 70}, Needs: needs,
			Rule: "50 execs at once run in a sandbox that is kept",
			body: keepMany,
		},
		{
			Name: "keep/terminal", Rules: []int{62, 68, 70}, Needs: append([]string{"terminal"}, needs...),
			Rule: "a terminal in a sandbox that is kept has its size, its changes and its keys",
			body: keepTerminal,
		},
		{
			Name: "keep/recover", Rules: []int{70, 120}, Needs: needs,
			Rule: "a sandbox that is kept is entered by other processes, also after a crash of the first",
			body: keepRecover,
		},
		{
			Name: "keep/lost", Rules: []int{70, 122}, Needs: needs, wants: []facility{lose},
			Rule: "where what kept a sandbox is lost, Exec is ErrEnded, and the exit stays",
			body: keepLost,
		},
	}
}

// keptSpec returns a spec whose sandbox is kept.
func (t *T) keptSpec(keep time.Duration, args ...string) *engine.Spec {
	spec := t.spec(args...)
	spec.Keep = caisson.Duration(keep)
	return spec
}

// refusesExec checks that nothing can be started.
func (b *box) refusesExec(when string, kinds ...caisson.Kind) error {
	s, err := b.Sandbox.(engine.Execer).Exec(b.t.ctx, &engine.ExecSpec{Args: b.t.argv("exit 0")})
	if err == nil {
		s.Close()
	}
	b.t.kind(err, "Exec "+when, kinds...)
	return err
}

// idles starts an exec that ends only if it is killed.
func (b *box) idles() *session {
	s := b.exec("ignore 1 15 ; say idle ; hold")
	s.reads("idle")
	return s
}

// endedWith checks that an exec ended because something else did, and was told.
func (s *session) endedWith(what string) {
	if exit := s.wait(); exit.Reason != caisson.ReasonAborted || exit.Message == "" {
		s.t.Errorf("an exec ended with %+v at %s, want reason aborted and a message", exit, what)
	}
	if _, err := io.ReadAll(s.Stdout()); err != nil {
		s.t.Errorf("the end of its output = %v", err)
	}
}

func keepEnter(t *T) {
	b := t.start(t.keptSpec(time.Hour, "write /work/f x ; write /tmp/g y ; exit 3"))
	b.expect(caisson.ReasonExited, 3, 0)
	for n := range 3 {
		out, _, exit := b.exec("read", "/work/f", ";", "append", "/work/f", fmt.Sprint(n), ";", "exit", "4").finish()
		if want := "x012"[:n+1]; out != want || exit.Code != 4 || exit.Reason != caisson.ReasonExited {
			t.Errorf("exec %d printed %q and ended with %+v, want %q and 4", n, out, exit, want)
		}
	}
	if !t.h.HostPaths {
		if out, _, _ := b.exec("read /tmp/g").finish(); out != "y" {
			t.Errorf("/tmp/g has %q, want y", out)
		}
	}
	if t.features.Script {
		s := b.execSpec(&engine.ExecSpec{})
		_, err := io.WriteString(s.Stdin(), "exit 9\n")
		t.ok(err, "writing stdin")
		t.ok(s.Stdin().Close(), "closing stdin")
		s.expect(caisson.ReasonExited, 9, 0)
	}
	b.exec("raise 9").expect(caisson.ReasonSignaled, 0, sigKill)
	if got := b.stdout() + b.stderr(); got != "" {
		t.Errorf("the program's log has %q: an exec's output does not belong there", got)
	}
	b.expect(caisson.ReasonExited, 3, 0)
	if t.features.Files {
		if found := t.archive(b.Sandbox, "work/f"); found["f"] != "x012" {
			t.Errorf("the files of the sandbox are %v", found)
		}
	}
	if t.features.Stats {
		_, err := b.Sandbox.(engine.StatsReader).Stats(t.ctx)
		t.ok(err, "Stats")
	}
}

func keepSame(t *T) {
	spec := t.keptSpec(time.Hour, "report")
	spec.Env, spec.Workdir = map[string]string{"MINE": "1"}, "/tmp"
	if t.features.Limits.Files {
		spec.Limits.Files = 123
	}
	b := t.start(spec)
	main := b.facts()
	out, _, _ := b.exec("report").finish()
	exec := t.facts(out)
	slices.Sort(main.Env)
	slices.Sort(exec.Env)
	for what, equal := range map[string]bool{
		"user": main.UID == exec.UID && main.GID == exec.GID, "groups": slices.Equal(main.Groups, exec.Groups),
		"capabilities": maps.Equal(main.Caps, exec.Caps), "no_new_privs": main.NoNewPrivs == exec.NoNewPrivs,
		"seccomp": main.Seccomp == exec.Seccomp, "environment": slices.Equal(main.Env, exec.Env),
		"folder": main.Dir == exec.Dir, "limits": maps.Equal(main.Limits, exec.Limits),
	} {
		if !equal {
			t.Errorf("%s: the program had %+v, the exec has %+v", what, main, exec)
		}
	}
}

func keepHalted(t *T) {
	b := t.start(t.keptSpec(time.Hour, "spawn -q grow /work/n ; sleep 100ms ; exit 0"))
	b.success()
	size := func() string {
		out, _, _ := b.exec("sum /work/n").finish()
		return out
	}
	before := size()
	time.Sleep(100 * time.Millisecond)
	if after := size(); after != before {
		t.Errorf("what the program left behind wrote on: %q, then %q", before, after)
	}
}

func keepEndFirst(t *T) {
	b := t.start(t.keptSpec(time.Hour, "exit 3"))
	for range 2 {
		b.expect(caisson.ReasonExited, 3, 0)
	}
	t.kind(b.process.Signal(t.ctx, sigTerm), "Signal", caisson.ErrEnded)
	t.kind(b.process.Stop(t.ctx, engine.Stop{Reason: caisson.ReasonKilled}), "Stop", caisson.ErrEnded)
	if p, ok := b.Sandbox.(engine.Pauser); ok {
		t.kind(p.Pause(t.ctx), "Pause", caisson.ErrEnded)
	}
	_, err := b.Start(t.ctx)
	t.kind(err, "Start", caisson.ErrExists)
	b.exec("exit 4").expect(caisson.ReasonExited, 4, 0)
}

func keepWhateverEnd(t *T) {
	enter := func(b *box) {
		if out, _, _ := b.exec("say here").finish(); out != "here\n" {
			t.Errorf("an exec after %+v printed %q", b.wait(), out)
		}
	}
	b := t.start(t.keptSpec(time.Hour, "ignore 15 ; say ready ; hold"))
	b.says("ready")
	b.stop(engine.Stop{Reason: caisson.ReasonKilled})
	b.expect(caisson.ReasonKilled, 0, sigKill)
	enter(b)

	spec := t.keptSpec(time.Hour, "ignore 15 ; hold")
	spec.Timeout, spec.Grace = caisson.Duration(100*time.Millisecond), caisson.Duration(50*time.Millisecond)
	b = t.start(spec)
	if exit := b.wait(); exit.Reason != caisson.ReasonTimeout {
		t.Errorf("Wait = %+v, want reason timeout", exit)
	}
	enter(b)

	spec = t.keptSpec(time.Hour, "exit 0")
	if spec.Image == "" {
		spec.Args = []string{"/work/absent"}
		b = t.start(spec)
		b.expect(caisson.ReasonExited, 127, 0)
		enter(b)
	}
}

func keepBeside(t *T) {
	b := t.start(t.keptSpec(time.Hour, "trap 15 ; say ready ; await 15 ; exit 0"))
	b.says("ready")
	s := b.idles()
	b.stop(engine.Stop{Reason: caisson.ReasonStopped, Grace: caisson.Duration(time.Minute)})
	// It may come while the end is made durable, and waits for that.
	again := b.execWhen()
	b.expect(caisson.ReasonStopped, 0, 0)
	s.endedWith("the program's end")
	if again != nil {
		again.Close()
	}
	b.exec("exit 4").expect(caisson.ReasonExited, 4, 0)
}

// execWhen starts an exec at a time at which it may be refused for now.
func (b *box) execWhen() engine.Session {
	s, err := b.Sandbox.(engine.Execer).Exec(b.t.ctx, &engine.ExecSpec{Args: b.t.argv("hold")})
	if err != nil {
		return nil
	}
	return s
}

func keepOver(t *T) {
	spec := t.keptSpec(time.Second, "write /work/f x ; spawn -q ignore 15 , hold ; exit 3")
	b := t.start(spec)
	b.expect(caisson.ReasonExited, 3, 0)
	s := b.idles()
	s.endedWith("the end of the time")
	t.eventually("the time is over for Exec, too", func() bool {
		s := b.execWhen()
		if s != nil {
			s.Close()
		}
		return s == nil
	})
	b.refusesExec("when the time is over", caisson.ErrEnded)
	b.expect(caisson.ReasonExited, 3, 0)
	if t.features.Files {
		if found := t.archive(b.Sandbox, "work/f"); found["f"] != "x" {
			t.Errorf("the files of the sandbox are %v", found)
		}
	}
	t.destroy(b.Sandbox)
	b.refusesExec("after Destroy", caisson.ErrAborted)
}

func keepDestroy(t *T) {
	b := t.start(t.keptSpec(time.Hour, "spawn -q ignore 15 , hold ; exit 3"))
	b.expect(caisson.ReasonExited, 3, 0)
	s := b.idles()
	t.destroy(b.Sandbox)
	s.endedWith("Destroy")
	b.refusesExec("after Destroy", caisson.ErrAborted)
	b.expect(caisson.ReasonExited, 3, 0)
}

func keepMany(t *T) {
	b := t.start(t.keptSpec(time.Hour, "exit 3"))
	b.expect(caisson.ReasonExited, 3, 0)
	b.manyExecs(50)
}

func keepTerminal(t *T) {
	b := t.start(t.keptSpec(time.Hour, "exit 3"))
	b.expect(caisson.ReasonExited, 3, 0)
	s := b.terminal(engine.Size{Cols: 132, Rows: 43}, "tty ; resize 100 30 ; say now ; hold")
	s.reads("tty 132 43")
	t.ok(s.Resize(t.ctx, engine.Size{Cols: 100, Rows: 30}), "Resize")
	s.reads("now")
	_, err := io.WriteString(s.Stdin(), "\x03")
	t.ok(err, "typing")
	s.expect(caisson.ReasonSignaled, 0, sigInt)
}

func keepRecover(t *T) {
	t.alone()
	b := t.start(t.keptSpec(time.Hour, "write /work/f x ; exit 3"))
	b.expect(caisson.ReasonExited, 3, 0)
	t.restart()
	again := t.found(b)
	again.expect(caisson.ReasonExited, 3, 0)
	if out, _, _ := again.exec("read /work/f").finish(); out != "x" {
		t.Errorf("an exec after Recover printed %q, want x", out)
	}
	t.destroy(again.Sandbox)
}

func keepLost(t *T) {
	t.alone()
	b := t.start(t.keptSpec(time.Hour, "write /work/f x ; exit 3"))
	b.expect(caisson.ReasonExited, 3, 0)
	t.lose(b.spec)
	t.restart()
	again := t.found(b)
	again.expect(caisson.ReasonExited, 3, 0)
	s, err := again.Sandbox.(engine.Execer).Exec(t.ctx, &engine.ExecSpec{Args: t.argv("read /work/f")})
	if err != nil {
		t.kind(err, "Exec", caisson.ErrEnded)
	} else if out, _, _ := (&session{t, s}).finish(); !strings.Contains(out, "x") {
		t.Errorf("an exec in what is kept by another now printed %q, want x", out)
	}
	if s != nil {
		s.Close()
	}
	t.destroy(again.Sandbox)
}
