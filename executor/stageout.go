//go:build unix

package executor

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/crash"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/stage"
)

// stageOut takes the outputs out whose time it is, and logs which. Of several
// that fail none keeps the others from being stored.
func (a *attendant) stageOut(ctx context.Context, out *outcome) error {
	ev := &caisson.Event{Type: caisson.EventStagedOut, State: caisson.StateEnding}
	err := a.interruptible(ctx, (*view).aborted, func(ctx context.Context) error {
		return a.storeAll(ctx, out, ev)
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := a.look(); err != nil {
		return undecided{err}
	}
	if a.view().aborted() {
		return nil // the next action knows
	}
	ev.Error = failure(err)
	crash.Point(crash.StagedOutBefore)
	if err := a.append(ev, len(ev.Outputs) > 0); err != nil {
		return err
	}
	crash.Point(crash.StagedOutAfter)
	return nil
}

func (a *attendant) storeAll(ctx context.Context, out *outcome, ev *caisson.Event) error {
	work, err := safefs.Open(a.attempt().Work(), nil)
	if err != nil {
		return safefs.Sorted(caisson.OpStageOut, "work folder", err)
	}
	defer work.Close()
	var errs []error
	if ev.Output, err = a.readOutput(work); err != nil {
		errs = append(errs, err)
	}
	if len(a.record.Task.Outputs) > 0 {
		defer a.clock(string(caisson.OpStageOut))()
	}
	for i := range a.record.Task.Outputs {
		o := &a.record.Task.Outputs[i]
		if !due(o.When, out.success) {
			continue
		}
		stored, err := a.store(ctx, o, work)
		ev.Outputs = append(ev.Outputs, stored...)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("outputs[%d]: %w", i, err))
		}
	}
	return errors.Join(errs...)
}

// due reports whether something happens after an end of that kind.
func due(when caisson.When, success bool) bool {
	switch when {
	case caisson.WhenAlways:
		return true
	case caisson.WhenFailure:
		return !success
	}
	return success
}

// store stores what one output matches. What is refused of it does not keep
// the rest from being stored.
func (a *attendant) store(ctx context.Context, o *caisson.Output, work *safefs.Root) ([]caisson.OutputFile, error) {
	s, err := a.x.storer(o)
	if err != nil {
		return nil, err
	}
	files, refused := stage.Collect(ctx, work, o)
	files = slices.DeleteFunc(files, func(f stage.File) bool { return isHidden(f.Path) })
	if len(files) == 0 {
		if refused == nil && !o.Optional {
			refused = &caisson.Error{Op: caisson.OpStageOut, Item: o.Path, Kind: caisson.ErrNotFound, Err: errors.New("nothing matches")}
		}
		return nil, refused
	}
	var stored []caisson.OutputFile
	err = a.x.guard(caisson.OpStageOut, func() (err error) {
		stored, err = s.Store(ctx, o, files, stageEnv(a.record, a.secrets))
		return err
	})
	return stored, errors.Join(refused, err)
}

// isHidden reports whether a path of the work folder is Caisson's own.
func isHidden(path string) bool { return path == outputFile || path == progressFile }
