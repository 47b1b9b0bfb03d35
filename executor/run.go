//go:build unix

package executor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/crash"
	"github.com/caissonrun/caisson/internal/lockfile"
	"github.com/caissonrun/caisson/internal/safefs"
)

// waitTries is how often an outcome that an engine could not tell is asked for
// again.
const waitTries = 5

// runStep takes a step from where it is to its end and logs that. It reports
// whether the program runs on by itself.
func (a *attendant) runStep(ctx context.Context, st *step) (leave bool, err error) {
	if err := a.serveRunning(ctx); err != nil {
		return false, err
	}
	exit, leave, err := a.tryStep(ctx, st)
	var open undecided
	switch {
	case leave:
		return true, nil
	case ctx.Err() != nil:
		return false, ctx.Err()
	case errors.As(err, &open):
		return false, err
	}
	return false, a.exited(ctx, st, exit, err)
}

// exited logs how a step ended and, unless its sandbox is to be kept, destroys
// it. An error that is left of the sandbox waits for the attempt's end.
func (a *attendant) exited(ctx context.Context, st *step, exit *caisson.Exit, err error) error {
	a.unserve(a.folder(st))
	if err := a.noteBlocked(); err != nil {
		return err
	}
	ev := &caisson.Event{Type: caisson.EventExited, Step: st.name, Exit: exit, Error: failure(err)}
	if st.kind == kindMain {
		ev.State = caisson.StateEnding
	}
	if exit != nil {
		a.took = append(a.took, caisson.Phase{Name: "run " + st.label(), Took: exit.Usage.Wall})
	}
	crash.Point(crash.ExitedBefore)
	if err := a.append(ev, false); err != nil {
		return err
	}
	crash.Point(crash.ExitedAfter)
	if a.record.Task.Keep > 0 && st.kind != kindFinally && !a.undeciding(st) {
		return nil
	}
	crash.Point(crash.RetrievedBefore)
	if err := a.dispose(ctx, a.folder(st)); err != nil {
		a.log.Warn("destroy", "err", err)
	}
	crash.Point(crash.RetrievedAfter)
	return nil
}

// undeciding reports whether a step that is over can't be the one whose sandbox
// is kept: it did what it should beside the main program.
func (a *attendant) undeciding(st *step) bool {
	return (st.kind == kindPre || st.kind == kindPost) && a.view().succeeded(st, a.h.steps[st.name])
}

// tryStep creates the step's sandbox, or finds it, starts the program, or finds
// it, and waits for its end. An exit with an error means that the program ended
// and its files could not be had.
func (a *attendant) tryStep(ctx context.Context, st *step) (exit *caisson.Exit, leave bool, err error) {
	fresh := !a.h.steps[st.name].running()
	var sb engine.Sandbox
	if fresh {
		sb, err = a.create(ctx, st)
	} else {
		sb, err = a.recover(ctx, st)
	}
	if err != nil || sb == nil {
		return a.unmade(ctx, st, err)
	}
	if fresh {
		if err := a.serve(ctx, st, sb); err != nil {
			return nil, false, err
		}
	}
	p, exit, err := a.start(ctx, st, sb, fresh)
	if p == nil {
		return exit, false, err
	}
	exit, leave, err = a.wait(ctx, st, sb, p)
	if err != nil || leave {
		return exit, leave, err
	}
	if err := a.retrieve(ctx, st, sb); err != nil {
		return exit, false, err
	}
	if err := a.judge(exit); err != nil {
		return nil, false, err
	}
	return exit, false, nil
}

// judge returns what an operator's own program has failed in, if that is not
// the task's failure.
func (a *attendant) judge(exit *caisson.Exit) error {
	j, ok := a.engine.engine.(engine.Judge)
	if !ok {
		return nil
	}
	err := a.x.guard(caisson.OpWait, func() error { return j.Judge(*exit) })
	if caisson.KindOf(err) == caisson.ErrUnavailable {
		a.engine.doubt(a.x)
	}
	return err
}

// unmade returns how a step ended that has no sandbox: by err, or because it
// was asked to end, or because its sandbox is gone.
func (a *attendant) unmade(ctx context.Context, st *step, err error) (*caisson.Exit, bool, error) {
	var open undecided
	if errors.As(err, &open) || ctx.Err() != nil {
		return nil, false, err
	}
	if lookErr := a.look(); lookErr != nil {
		return nil, false, undecided{lookErr}
	}
	if asked := a.view().askedOf(st.kind); len(asked) > 0 {
		exit := exitAsked(asked)
		return &exit, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	return &caisson.Exit{Reason: caisson.ReasonLost, Message: "its sandbox is gone"}, false, nil
}

// create makes the step's sandbox and logs that its program may start. Whatever
// an earlier try has left is destroyed first: no program has run in it.
func (a *attendant) create(ctx context.Context, st *step) (engine.Sandbox, error) {
	applies := func(v *view) bool { return len(v.askedOf(st.kind)) > 0 }
	var sb engine.Sandbox
	var folder, from string
	err := a.interruptible(ctx, applies, func(ctx context.Context) (err error) {
		if err := a.ensurePlaces(ctx); err != nil {
			return err
		}
		if err := a.ensureNetwork(ctx); err != nil {
			return err
		}
		if st.kind == kindMain {
			if err := a.sidecarsReady(ctx); err != nil {
				return err
			}
		}
		if a.waiting && st.kind == kindMain {
			if sb, folder, err = a.assign(ctx, st); err == nil {
				from = fromPool
				return nil
			}
			// Another one is made, as ever, once this one is destroyed.
			a.log.Warn("claim", "pool", a.record.Pool, "err", err)
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		if folder, err = a.makeStepFolder(ctx, st); err != nil {
			return err
		}
		sb, err = a.make(ctx, st, folder)
		return err
	})
	if err != nil {
		return nil, err
	}
	a.live[folder] = sb
	if from == "" {
		from = a.origin(ctx, sb)
	}
	crash.Point(crash.CreatedBefore)
	if err := a.append(&caisson.Event{Type: caisson.EventCreated, Step: st.name, Sandbox: sb.ID(), Message: from}, true); err != nil {
		return nil, errors.Join(err, a.dispose(ctx, folder))
	}
	crash.Point(crash.CreatedAfter)
	return sb, nil
}

// make has the engine make the step's sandbox, with the document's files in it.
func (a *attendant) make(ctx context.Context, st *step, folder string) (sb engine.Sandbox, err error) {
	b := a.blueprint()
	if err := a.writeFiles(ctx, b, st); err != nil {
		return nil, err
	}
	if err := a.writeTrust(b); err != nil {
		return nil, err
	}
	spec, err := b.spec(st, folder)
	if err != nil {
		return nil, err
	}
	if err := a.giveRoot(ctx, st, folder, spec); err != nil {
		return nil, err
	}
	if err := a.giveMachine(st, folder, spec); err != nil {
		return nil, err
	}
	goesOn := a.record.Fork.goesOn(st)
	if goesOn {
		spec.Snapshot = a.task.Fork()
	}
	defer a.clock(string(caisson.OpCreate))()
	sb, err = a.createShared(ctx, spec)
	if spec.Keep > 0 && errors.Is(err, caisson.ErrUnsupported) {
		// The task's options may choose a sandbox that ends with its program:
		// then its files alone are kept.
		spec.Keep = 0
		sb, err = a.createShared(ctx, spec)
	}
	if err != nil {
		switch caisson.KindOf(err) {
		// Unsupported is what the engine said at first that it could do.
		case caisson.ErrUnknown, caisson.ErrUnavailable, caisson.ErrInternal, caisson.ErrUnsupported:
			a.engine.doubt(a.x)
		}
		return nil, err
	}
	if goesOn {
		return sb, nil // all that it was given is in it
	}
	if err := a.give(ctx, sb); err != nil {
		a.live[folder] = sb
		return nil, errors.Join(err, a.dispose(ctx, folder))
	}
	return sb, nil
}

// makeStepFolder makes the folder of a step's sandbox, and its /tmp. What earlier
// tries have left is destroyed, or else waits for the attempt's end.
func (a *attendant) makeStepFolder(ctx context.Context, st *step) (folder string, err error) {
	crash.Point(crash.StepBefore)
	for try := 1; ; try++ {
		folder = tryFolder(st.name, try)
		err := os.Mkdir(a.attempt().Step(folder), 0o700)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrExist) {
			return "", safefs.Sorted(caisson.OpCreate, a.attempt().Step(folder), err)
		}
		// Its folder stays, so that nobody else takes the name.
		if err := a.destroy(ctx, folder); err != nil {
			a.log.Warn("what an earlier try left", "err", err)
		}
	}
	if a.record.Sharing.Work {
		err = a.makeTmp(ctx, a.attempt().Tmp(folder))
	}
	crash.Point(crash.StepAfter)
	return folder, err
}

// makeTmp makes a folder to be /tmp, in place of one that is there.
func (a *attendant) makeTmp(ctx context.Context, dir string) error {
	err := makeOwned(dir, 0o777|os.ModeSticky, a.record.Owner)
	if !errors.Is(err, caisson.ErrExists) {
		return err
	}
	if err := a.removeAll(ctx, dir); err != nil {
		return err
	}
	return makeOwned(dir, 0o777|os.ModeSticky, a.record.Owner)
}

// createShared calls Create while nobody looks for orphans.
func (a *attendant) createShared(ctx context.Context, spec *engine.Spec) (sb engine.Sandbox, err error) {
	lock, err := lockfile.AcquireShared(ctx, a.x.folder.SweepLock())
	if err != nil {
		return nil, safefs.Sorted(caisson.OpCreate, a.x.folder.SweepLock(), err)
	}
	defer lock.Release()
	limited, cancel := context.WithTimeout(ctx, a.x.limits.create)
	defer cancel()
	err = a.x.guard(caisson.OpCreate, func() (err error) {
		sb, err = a.engine.engine.Create(limited, spec)
		return err
	})
	return sb, overtime(ctx, err, caisson.OpCreate, a.x.limits.create)
}

// overtime turns the end of our own time limit into an error that says so.
func overtime(ctx context.Context, err error, op caisson.Op, limit time.Duration) error {
	if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		return &caisson.Error{Op: op, Kind: caisson.ErrUnavailable, Err: fmt.Errorf("the engine did not answer within %v", limit)}
	}
	return err
}

// recover finds a sandbox that an earlier attendant made, or returns nil where
// there is none any more.
func (a *attendant) recover(ctx context.Context, st *step) (sb engine.Sandbox, err error) {
	folder := a.folder(st)
	if sb := a.live[folder]; sb != nil {
		return sb, nil
	}
	limited, cancel := context.WithTimeout(ctx, a.x.limits.call)
	defer cancel()
	err = a.x.guard(caisson.OpRecover, func() (err error) {
		sb, err = a.engine.engine.Recover(limited, a.attempt().Step(folder))
		return err
	})
	if errors.Is(err, caisson.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		// What became of the program is not known, and must not be decided.
		return nil, undecided{fmt.Errorf("step %s: %w", st.name, overtime(ctx, err, caisson.OpRecover, a.x.limits.call))}
	}
	a.live[folder] = sb
	return sb, nil
}

// start returns the step's process: the one that runs or has run, or a new one
// unless somebody has asked for the end before. Without a process there is an
// exit or an error.
func (a *attendant) start(ctx context.Context, st *step, sb engine.Sandbox, fresh bool) (p engine.Process, exit *caisson.Exit, err error) {
	if !fresh {
		limited, cancel := context.WithTimeout(ctx, a.x.limits.call)
		defer cancel()
		p, err = a.process(limited, sb)
	}
	if readyErr := a.makeReady(ctx, st, sb); readyErr != nil {
		if fresh || errors.Is(err, caisson.ErrNotFound) {
			return nil, nil, readyErr
		}
		a.log.Warn("ready", "err", readyErr) // it runs, or has ended
	}
	if fresh || errors.Is(err, caisson.ErrNotFound) {
		if err := a.look(); err != nil {
			return nil, nil, undecided{err}
		}
		if asked := a.view().askedOf(st.kind); len(asked) > 0 {
			exit := exitAsked(asked)
			return nil, &exit, nil
		}
		p, err = a.startNew(ctx, st, sb)
	}
	if errors.Is(err, caisson.ErrAborted) {
		why := err.Error()
		exit, _, err := a.unmade(ctx, st, nil)
		if exit != nil && exit.Reason == caisson.ReasonLost {
			exit.Message = why
		}
		return nil, exit, err
	}
	if err != nil {
		return nil, nil, err
	}
	return p, nil, nil
}

func (a *attendant) process(ctx context.Context, sb engine.Sandbox) (p engine.Process, err error) {
	err = a.x.guard(caisson.OpStart, func() (err error) {
		p, err = sb.Process(ctx)
		return err
	})
	return p, err
}

// startNew starts the program. Who asks for its end before it runs ends the
// starting; whether it runs nevertheless is then seen.
func (a *attendant) startNew(ctx context.Context, st *step, sb engine.Sandbox) (p engine.Process, err error) {
	stop := a.clock(string(caisson.OpStart))
	applies := func(v *view) bool { return len(v.askedOf(st.kind)) > 0 }
	err = a.interruptible(ctx, applies, func(ctx context.Context) error {
		limited, cancel := context.WithTimeout(ctx, a.x.limits.start)
		defer cancel()
		err := a.x.guard(caisson.OpStart, func() (err error) {
			p, err = startOnce(limited, sb)
			return err
		})
		return overtime(ctx, err, caisson.OpStart, a.x.limits.start)
	})
	stop()
	if errors.Is(err, context.Canceled) && ctx.Err() == nil {
		limited, cancel := context.WithTimeout(ctx, a.x.limits.call)
		defer cancel()
		if p, err = a.process(limited, sb); errors.Is(err, caisson.ErrNotFound) {
			err = &caisson.Error{Op: caisson.OpStart, Kind: caisson.ErrAborted, Err: errors.New("it was asked to end")}
		}
	}
	if err != nil {
		return nil, err
	}
	crash.Point(crash.StartedBefore)
	ev := &caisson.Event{Type: caisson.EventStarted, Step: st.name}
	if st.kind != kindFinally {
		ev.State = caisson.StateRunning
	}
	if err := a.append(ev, false); err != nil {
		return nil, err
	}
	crash.Point(crash.StartedAfter)
	if st.kind == kindMain && a.h.attempt == 1 {
		a.x.refill(a.record.Pool)
	}
	return p, nil
}

// startPoll is how often startOnce looks.
const startPoll = 5 * time.Millisecond

// startOnce starts the program, or returns the one whose start an attendant had
// asked for that was killed: for a moment that is neither there nor to come.
func startOnce(ctx context.Context, sb engine.Sandbox) (engine.Process, error) {
	for {
		p, err := sb.Start(ctx)
		if !errors.Is(err, caisson.ErrExists) {
			return p, err
		}
		p, err = sb.Process(ctx)
		if !errors.Is(err, caisson.ErrNotFound) {
			return p, err
		}
		if err := pauseFor(ctx, nil, startPoll); err != nil {
			return nil, err
		}
	}
}

// mayLeave reports whether the step's end will start another attendant, and
// nothing on this host must serve it until then.
func (a *attendant) mayLeave() bool {
	return a.detach && len(a.x.opts.Attend) > 0 && !a.record.gated()
}

// wait waits for the program's end, and sees to it that it ends when somebody
// asks for that.
func (a *attendant) wait(ctx context.Context, st *step, sb engine.Sandbox, p engine.Process) (exit *caisson.Exit, leave bool, err error) {
	waiting, cancel := context.WithCancel(ctx)
	answer := make(chan error, 1)
	got := new(caisson.Exit)
	go func() { answer <- a.waitFor(waiting, p, got) }()
	joined := false
	defer func() {
		cancel()
		if !joined {
			<-answer
		}
	}()

	end := time.Now().Add(a.x.limits.stay)
	if !a.h.steps[st.name].started {
		end = time.Now().Add(a.x.limits.staySure)
	}
	obeyed := 0
	for {
		news := a.x.hub.wait(a.task.ID)
		if err := a.look(); err != nil {
			return nil, false, undecided{err}
		}
		if asked := a.view().askedOf(st.kind); len(asked) > obeyed {
			obeyed = a.obey(ctx, sb, asked, obeyed)
		}
		if err := a.watchProgress(st); err != nil {
			return nil, false, err
		}
		if err := a.noteBlocked(); err != nil {
			return nil, false, err
		}
		next := pollEvery
		if a.mayLeave() {
			next = min(next, max(time.Until(end), time.Millisecond))
		}
		timer := time.NewTimer(next)
		select {
		case err := <-answer:
			joined = true
			timer.Stop()
			if err != nil {
				return a.unknown(ctx, st, err)
			}
			return got, false, nil
		case <-ctx.Done():
			timer.Stop()
			return nil, false, ctx.Err()
		case <-news:
		case <-timer.C:
		}
		timer.Stop()
		if a.mayLeave() && time.Now().After(end) && obeyed == len(a.view().askedOf(st.kind)) {
			return nil, true, nil
		}
	}
}

// waitFor waits for the exit. An engine that can't tell it is asked again: its
// daemon may be starting anew.
func (a *attendant) waitFor(ctx context.Context, p engine.Process, exit *caisson.Exit) error {
	pause := 100 * time.Millisecond
	for try := 1; ; try++ {
		err := a.x.guard(caisson.OpWait, func() (err error) {
			*exit, err = p.Wait(ctx)
			return err
		})
		if err == nil || ctx.Err() != nil || try == waitTries || !caisson.KindOf(err).Retryable() {
			return err
		}
		if pauseFor(ctx, nil, pause) != nil {
			return ctx.Err()
		}
		pause *= 2
	}
}

// unknown decides a step whose end the engine can't tell: once its sandbox is
// destroyed nothing of it runs any more, and it is lost. Before that nothing is
// decided.
func (a *attendant) unknown(ctx context.Context, st *step, err error) (*caisson.Exit, bool, error) {
	if ctx.Err() != nil {
		return nil, false, ctx.Err()
	}
	if destroyErr := a.dispose(ctx, a.folder(st)); destroyErr != nil {
		return nil, false, undecided{errors.Join(err, destroyErr)}
	}
	return &caisson.Exit{Reason: caisson.ReasonLost, Message: err.Error()}, false, err
}

// obey passes on what was asked for since the last time, and returns how much
// was passed on.
func (a *attendant) obey(ctx context.Context, sb engine.Sandbox, asked []request, obeyed int) int {
	limited, cancel := context.WithTimeout(ctx, a.x.limits.call)
	defer cancel()
	for _, r := range asked[obeyed:] {
		err := a.x.end(limited, sb, r.Stop)
		switch caisson.KindOf(err) {
		case caisson.ErrEnded, caisson.ErrAborted, caisson.ErrNotFound:
			err = nil
		}
		if err != nil {
			a.log.Warn("stop", "err", err)
			return obeyed // the next look tries again
		}
		obeyed++
	}
	return obeyed
}
