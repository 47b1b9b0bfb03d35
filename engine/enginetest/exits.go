package enginetest

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/caissonrun/caisson"
)

func exitCases() []Case {
	return []Case{
		{
			Name: "exit/codes", Rules: []int{36},
			Rule: "an exit code arrives exactly, with reason exited",
			body: exitCodes,
		},
		{
			Name: "exit/signals", Rules: []int{37},
			Rule: "death by a signal that Caisson did not send is reported as that signal", wants: []facility{system},
			body: exitSignals,
		},
		{
			Name: "exit/wait-repeats", Rules: []int{40},
			Rule: "any number of callers wait at any time, and all get the same Exit, also after Destroy", wants: []facility{system},
			body: waitRepeats,
		},
		{
			Name: "exit/wait-cancelled", Rules: []int{41, 53},
			Rule: "a waiter whose context ends returns alone with the context's error, and the program runs on", wants: []facility{system},
			body: waitCancelled,
		},
		{
			Name: "exit/usage", Rules: []int{42},
			Rule: "wall and processor time are there and plausible", wants: []facility{system},
			body: exitUsage,
		},
		{
			Name: "exit/before-wait", Rules: []int{43},
			Rule: "a program that ends before Start returns, or long before Wait, has its true Exit",
			body: exitBeforeWait,
		},
		{
			Name: "exit/signal", Rules: []int{45},
			Rule: "Signal reaches the program itself; a number that is no signal is ErrInvalid; after the end it is ErrEnded", wants: []facility{system},
			body: signalProgram,
		},
		{
			Name: "exit/status", Rules: []int{36, 37},
			Rule: "a signal that Signal sent ends the program by reason signaled",
			body: exitBySignal,
		},
	}
}

func exitCodes(t *T) {
	for _, code := range some(t, []int{0, 1, 2, 42, 126, 127, 128, 137, 255}) {
		b, _ := t.run("exit", strconv.Itoa(code))
		b.expect(caisson.ReasonExited, code, 0)
	}
}

func exitSignals(t *T) {
	for _, n := range some(t, []int{sigHup, sigInt, sigAbrt, sigKill, sigUsr1, sigSegv, sigPipe, sigTerm}) {
		b, _ := t.run("raise", strconv.Itoa(n))
		b.expect(caisson.ReasonSignaled, 0, n)
	}
	b, _ := t.run("exit 0")
	b.success()
}

func waitRepeats(t *T) {
	b := t.launch("trap 15 ; say ready ; await 15 ; exit 11")
	const callers = 32
	exits := make([]caisson.Exit, callers)
	waiting := make(chan struct{})
	go func() {
		<-waiting
		b.says("ready")
		t.kindOK(b.process.Signal(t.ctx, sigTerm), "Signal")
	}()
	parallel(callers, func(i int) {
		if i == 0 {
			close(waiting)
		}
		exit, err := b.process.Wait(t.ctx)
		t.kindOK(err, "Wait")
		exits[i] = exit
	})
	t.destroy(b.Sandbox)
	last, err := b.process.Wait(t.ctx)
	t.ok(err, "Wait after Destroy")
	for _, exit := range append(exits, last) {
		if !same(exit, exits[0]) || exit.Code != 11 {
			t.Errorf("one Wait gave %+v, another %+v", exits[0], exit)
		}
	}
}

// same reports whether two Exits are one: times by what they mean.
func same(a, b caisson.Exit) bool {
	times := a.StartedAt.Equal(b.StartedAt) && a.EndedAt.Equal(b.EndedAt)
	a.StartedAt, a.EndedAt, b.StartedAt, b.EndedAt = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	return times && a == b
}

// kindOK is ok for goroutines that are not the case's own.
func (t *T) kindOK(err error, call string) {
	if err != nil {
		t.Errorf("%s = %v, want no error", call, err)
	}
}

func waitCancelled(t *T) {
	b := t.launch("trap 15 ; say ready ; await 15 ; exit 12")
	other := make(chan caisson.Exit, 1)
	go func() {
		exit, err := b.process.Wait(t.ctx)
		t.kindOK(err, "the other Wait")
		other <- exit
	}()
	b.says("ready")
	ctx, cancel := context.WithTimeout(t.ctx, 20*time.Millisecond)
	defer cancel()
	if exit, err := b.process.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait = %+v, %v, want context.DeadlineExceeded", exit, err)
	}
	t.ok(b.process.Signal(t.ctx, sigTerm), "Signal")
	if exit := <-other; exit.Code != 12 {
		t.Errorf("the other waiter got %+v, want code 12", exit)
	}
}

func exitUsage(t *T) {
	const cpu, wall = 300 * time.Millisecond, 200 * time.Millisecond
	b, exit := t.run("spin", cpu.String(), ";", "sleep", wall.String())
	b.success()
	if got := exit.Usage.Wall.Std(); got < wall || got > defaultDeadline {
		t.Errorf("wall time is %v, the program slept for %v", got, wall)
	}
	if got := exit.Usage.CPU.Std(); got < cpu*9/10 || got > 100*cpu {
		t.Errorf("processor time is %v, the program used %v", got, cpu)
	}
	if exit.StartedAt.IsZero() || exit.EndedAt.Sub(exit.StartedAt) < wall {
		t.Errorf("the program ran from %v to %v", exit.StartedAt, exit.EndedAt)
	}
}

func exitBeforeWait(t *T) {
	for range t.times(100) {
		b := t.launch("exit 13")
		b.expect(caisson.ReasonExited, 13, 0)
		t.destroy(b.Sandbox)
	}
	b := t.launch("say ready ; exit 14")
	b.says("ready")
	t.eventually("Signal is ErrEnded", func() bool {
		return errors.Is(b.process.Signal(t.ctx, sigWinch), caisson.ErrEnded)
	})
	b.expect(caisson.ReasonExited, 14, 0)
}

func signalProgram(t *T) {
	b := t.launch("trap", "10", ";", "spawn", "-q", "trap", "10", ",", "await", "10", ",", "write", "/work/child", "x", ";",
		"say", "ready", ";", "await", "10", ";", "say", "got it", ";", "exit", "15")
	b.says("ready")
	for _, n := range []int{0, -1, 65, 1000} {
		t.kind(b.process.Signal(t.ctx, n), "Signal of no signal", caisson.ErrInvalid)
	}
	t.ok(b.process.Signal(t.ctx, sigUsr1), "Signal")
	b.expect(caisson.ReasonExited, 15, 0)
	t.kind(b.process.Signal(t.ctx, sigUsr1), "Signal after the end", caisson.ErrEnded)
	t.destroy(b.Sandbox)
	t.kind(b.process.Signal(t.ctx, sigUsr1), "Signal after Destroy", caisson.ErrAborted, caisson.ErrEnded)
}

func exitBySignal(t *T) {
	for _, n := range []int{sigTerm, sigKill, sigHup} {
		b := t.launch("say ready ; hold")
		b.says("ready")
		t.ok(b.process.Signal(t.ctx, n), "Signal")
		if exit := b.expect(caisson.ReasonSignaled, 0, n); exit.Status() != 128+n {
			t.Errorf("Status = %d, want %d", exit.Status(), 128+n)
		}
	}
}
