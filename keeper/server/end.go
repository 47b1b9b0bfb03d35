//go:build unix

package server

import (
	"errors"
	"strconv"
	"syscall"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/keeper/internal/wire"
)

// killPatience is how long after a kill the program's end is waited for: a
// process may be stuck in the kernel.
const killPatience = 30 * time.Second

// A stopping is a stop under way.
type stopping struct {
	reason   caisson.Reason
	late     bool // asked for after the program's end: only what it left behind is hurried
	deadline time.Time
	timer    *time.Timer // kills at the deadline
}

// stopProgram begins a stop, or makes the one under way quicker.
func (k *keeper) stopProgram(reason caisson.Reason, signal int, grace time.Duration) error {
	if grace <= 0 && k.killRunning(reason) {
		return nil
	}
	// A start that is under way comes first.
	k.spawning.Lock()
	k.mu.Lock()
	switch {
	case k.phase < running:
		k.mu.Unlock()
		k.spawning.Unlock()
		return errNotStarted(caisson.OpSignal)
	case k.phase == ended:
		k.mu.Unlock()
		k.spawning.Unlock()
		return errEnded(caisson.OpSignal)
	}
	quicker := k.hasten(reason, grace)
	proc, paused, runs := k.main, k.paused, k.phase == running
	k.mu.Unlock()
	k.spawning.Unlock()

	if !quicker || !runs || grace <= 0 {
		return nil
	}
	if paused {
		// Halted, it could not answer the signal.
		k.freeze(false)
	}
	if signal == 0 {
		signal = k.stopSignal()
	}
	// A program that has ended meanwhile is stopped as well.
	if err := signalProc(proc, signal); caisson.KindOf(err) == caisson.ErrInvalid {
		return err
	}
	return nil
}

// killRunning begins to kill the program if it runs, and tells whether it does.
// It does not wait for an exec that is being started: that one can be halted by
// the program, and what ends it then is this kill.
func (k *keeper) killRunning(reason caisson.Reason) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.phase != running {
		return false
	}
	k.hasten(reason, 0)
	return true
}

// hasten sets the time of the kill, unless it is set to an earlier one. The
// caller holds mu.
func (k *keeper) hasten(reason caisson.Reason, grace time.Duration) (quicker bool) {
	deadline := time.Now().Add(grace)
	if k.stop == nil {
		k.stop = &stopping{reason: reason, late: k.phase > running, deadline: deadline}
		k.stop.timer = time.AfterFunc(grace, k.timeToKill)
		return true
	}
	if !deadline.Before(k.stop.deadline) {
		return false
	}
	k.stop.deadline = deadline
	k.stop.timer.Reset(grace)
	return true
}

func (k *keeper) stopSignal() int {
	if k.spec.StopSignal != 0 {
		return k.spec.StopSignal
	}
	return int(syscall.SIGTERM)
}

// timeUp is called when the timeout is over.
func (k *keeper) timeUp() {
	k.stopProgram(caisson.ReasonTimeout, 0, k.spec.Grace.Std())
}

// timeToKill is called when the grace of a stop is over.
func (k *keeper) timeToKill() {
	k.mu.Lock()
	select {
	case <-k.hurry:
	default:
		close(k.hurry)
	}
	k.mu.Unlock()
	k.killAll()
}

// killAll kills everything in the sandbox and reports what can't be killed.
func (k *keeper) killAll() error {
	done := make(chan error, 1)
	go func() {
		k.killing.Lock()
		defer k.killing.Unlock()
		done <- k.use(func() error { return k.box.Kill() })
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(killPatience):
		return failure(caisson.OpSignal, caisson.ErrInternal, "processes do not die: they are stuck in the kernel")
	}
}

// linger returns how long those that the program left behind may hold its
// output. A program that was made to end has had its time, and nobody wants to
// wait for the rest of it.
func (k *keeper) linger() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stop != nil {
		return 0
	}
	return k.spec.Linger.Std()
}

// supervise sees the program to its end.
func (k *keeper) supervise(proc *isolate.Proc) {
	exit := caisson.Exit{StartedAt: k.began}
	k.awaitMain(proc, &exit)
	exit.Usage.Wall = caisson.Duration(time.Since(k.began))
	exit.EndedAt = time.Now()
	k.leave()

	// Those that the program left behind may hold its output for a while.
	linger := time.NewTimer(k.linger())
	select {
	case <-k.output.ended:
	case <-linger.C:
	case <-k.hurry:
	}
	linger.Stop()
	if err := k.settle(); err != nil {
		note(&exit, err.Error())
	}
	drainErr := k.drain()
	if drainErr != nil {
		note(&exit, drainErr.Error())
	}
	k.output.finish()

	k.account(&exit)
	if errors.Is(drainErr, ErrLost) && exit.Reason == caisson.ReasonSignaled {
		exit.Reason, exit.Signal = caisson.ReasonLost, 0
	}
	k.conclude(&exit)
}

// awaitMain waits for the program. One that does not die is given up.
func (k *keeper) awaitMain(proc *isolate.Proc, exit *caisson.Exit) {
	select {
	case <-proc.Done():
	case <-k.hurry:
		select {
		case <-proc.Done():
		case <-time.After(killPatience):
			exit.Signal = int(syscall.SIGKILL)
			note(exit, "the program does not die: it is stuck in the kernel")
			return
		}
	}
	exit.Code, exit.Signal, _ = proc.Wait()
}

// leave begins the time after the program's end: nothing is started any more.
func (k *keeper) leave() {
	k.spawning.Lock()
	defer k.spawning.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.phase = leaving
	k.keep.from = time.Now()
	if k.timeout != nil {
		k.timeout.Stop()
	}
}

// account finds out what the sandbox has used, and why the program ended.
func (k *keeper) account(exit *caisson.Exit) {
	usage := isolate.Stats{CPU: -1, Memory: -1, PeakMemory: -1, PIDs: -1, OOMKills: -1, Throttled: -1}
	k.use(func() error {
		if s, err := k.box.Stats(); err == nil {
			usage = s
		}
		return nil
	})
	exit.Usage.CPU = caisson.Duration(max(usage.CPU, 0))
	exit.Usage.PeakMemory = max(usage.PeakMemory, 0)
	exit.OOMKills = int(max(usage.OOMKills, 0))

	k.mu.Lock()
	defer k.mu.Unlock()
	k.usage = usage
	if k.stop != nil {
		k.stop.timer.Stop()
	}
	failed := exit.Code != 0 || exit.Signal != 0
	switch {
	case k.stop != nil && !k.stop.late:
		// Whatever came of it, it was asked for first.
		exit.Reason = k.stop.reason
	case exit.OOMKills > 0 && failed && (exit.Signal == 0 || exit.Signal == int(syscall.SIGKILL)):
		exit.Reason = caisson.ReasonOOM
		note(exit, "the memory limit"+k.memoryLimit()+" was reached")
	case exit.Signal != 0:
		exit.Reason = caisson.ReasonSignaled
	default:
		exit.Reason = caisson.ReasonExited
	}
	if exit.Reason == caisson.ReasonTimeout {
		note(exit, "the time limit of "+k.spec.Timeout.String()+" was reached")
	}
}

func (k *keeper) memoryLimit() string {
	if k.spec.Box.Cgroup == nil || k.spec.Box.Cgroup.Memory == 0 {
		return ""
	}
	return " of " + k.spec.Box.Cgroup.Memory.String()
}

// conclude makes the log and then the exit durable, and tells everyone.
func (k *keeper) conclude(exit *caisson.Exit) {
	k.shut()
	err := k.output.close()
	lost, why := k.output.log.Lost()
	// That the log can't tell of losses either is no other news than they are.
	if err != nil && (lost == 0 || !errors.Is(err, why)) {
		note(exit, "log: "+err.Error())
	}
	if lost > 0 {
		note(exit, strconv.FormatInt(lost, 10)+" bytes of output were lost: "+why.Error())
	}
	if err := k.files.writeExit(exit); err != nil {
		// It is told while this keeper lives, and lost with it.
		note(exit, "the exit could not be stored: "+err.Error())
	}

	k.mu.Lock()
	k.phase, k.exit, k.paused = ended, exit, false
	k.next.busy = true
	k.beginKeep()
	for c := range k.conns {
		c.tellExit(exit)
	}
	close(k.over)
	k.mu.Unlock()

	if k.spec.Box.None {
		// Without isolation a box counts every child of this process as the
		// program's, so it has to be gone before OnExit is one.
		if k.closeBox() == nil {
			stopAdopting()
		}
	}
	k.mu.Lock()
	k.next.busy = false
	k.follow()
	k.mu.Unlock()
	k.trimLater()
}

// failToExec ends a program that never ran.
func (k *keeper) failToExec(err *isolate.ExecError) {
	now := time.Now()
	exit := &caisson.Exit{
		Reason: caisson.ReasonExited, Code: err.Code, Message: wire.Cut(err.Error()), StartedAt: now, EndedAt: now,
	}
	k.leave()
	k.output.finish()
	k.account(exit)
	k.conclude(exit)
}

// note adds a sentence to the exit's message.
func note(exit *caisson.Exit, text string) {
	if exit.Message != "" {
		text = exit.Message + "; " + text
	}
	exit.Message = wire.Cut(text)
}
