//go:build unix

package executor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/state"
)

// settleTime is how long a program that is to be kept runs before somebody is
// let in beside it. One that ends at once would take him with it: he is let in
// to what it has left instead.
const settleTime = 250 * time.Millisecond

// keepable reports whether a step's sandbox may be the one that is kept: that of
// a step that decides what the task ends in.
func keepable(k kind) bool { return k == kindPre || k == kindMain || k == kindPost }

// entered finds the sandbox that programs can be started in: that of the program
// that runs, or the one that is kept after the end. A task that is to be kept
// and has neither yet is waited for: there will be one.
//
// Errors: as running.
func (x *Executor) entered(ctx context.Context, id string) (engine.Sandbox, error) {
	t, err := x.find(id)
	if err != nil {
		return nil, err
	}
	looked := time.Now()
	for {
		news := x.hub.wait(t.ID)
		w, err := x.open(t.ID)
		if err != nil {
			return nil, err
		}
		if w.record.Task.Keep == 0 || w.record.composite() {
			sb, err := x.running(ctx, t.ID)
			return sb, hintKeep(err)
		}
		ended, err := state.Exists(w.task.Result())
		switch {
		case err != nil:
			return nil, err
		case ended:
			return x.keptSandbox(ctx, w)
		case w.h.settled(x.now()):
			return x.running(ctx, t.ID)
		}
		if time.Since(looked) > lookAgain {
			if err := x.lookAfter(ctx, w.task); err != nil {
				x.log.Warn("look after", "task", w.task.ID, "err", err)
			}
			looked = time.Now()
		}
		if err := pauseFor(ctx, news, pollEvery/2); err != nil {
			return nil, err
		}
	}
}

// runningOrKept is entered for who does not wait.
func (x *Executor) runningOrKept(ctx context.Context, id string) (engine.Sandbox, error) {
	w, err := x.open(id)
	if err != nil {
		return nil, err
	}
	ended, err := state.Exists(w.task.Result())
	if err == nil && ended && w.record.Task.Keep > 0 && !w.record.composite() {
		return x.keptSandbox(ctx, w)
	}
	return x.running(ctx, id)
}

// hintKeep says what would have helped who comes too late.
func hintKeep(err error) error {
	if !errors.Is(err, caisson.ErrEnded) {
		return err
	}
	return fmt.Errorf("%w; with --keep 10m it can be entered after its end", err)
}

// settled reports whether a program runs, and has done so for a moment.
func (h *history) settled(now time.Time) bool {
	name := h.current()
	if name == "" || !h.steps[name].started {
		return false
	}
	began := h.steps[name].began
	return now.Sub(began) > settleTime || now.Before(began)
}

// readKeep reads what is kept of an ended task; nil: nothing.
func readKeep(t state.Task) (*keeping, error) {
	k := new(keeping)
	if err := readJSON(t.Keep(), k); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, stateError(t.Keep(), caisson.ErrInvalid, err)
	}
	return k, nil
}

// keptSandbox finds the sandbox of an ended task that is kept.
//
// Errors: ErrEnded where there is none, with the reason.
func (x *Executor) keptSandbox(ctx context.Context, w *window) (engine.Sandbox, error) {
	no := func(why string) (engine.Sandbox, error) {
		return nil, &caisson.Error{Item: "task " + w.task.ID, Kind: caisson.ErrEnded, Err: errors.New("it has ended, and " + why)}
	}
	k, err := readKeep(w.task)
	switch {
	case err != nil:
		return nil, err
	case k == nil || !x.now().Before(k.Until):
		return no("the time that its sandbox was kept for is over")
	case k.Step == "":
		return no("its files alone are kept, not its sandbox: see caisson cp")
	}
	sb, err := x.sandbox(ctx, w.task, w.h, k.Step)
	if errors.Is(err, caisson.ErrNotFound) {
		return no("nothing is left of its sandbox")
	}
	return sb, err
}

// keptUntil is until when the sandbox or the files of an ended task are kept;
// zero: they are not.
func (x *Executor) keptUntil(t state.Task) time.Time {
	k, err := readKeep(t)
	if err != nil || k == nil || !x.now().Before(k.Until) {
		return time.Time{}
	}
	return k.Until
}
