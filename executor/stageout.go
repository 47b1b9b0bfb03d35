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
	// What ended the program is no reason not to store what it made; a kill
	// that comes now is.
	known := len(a.view().asked)
	killed := func(v *view) bool {
		newer := v.asked[min(known, len(v.asked)):]
		return slices.ContainsFunc(newer, func(r request) bool { return r.Stop.Grace <= 0 })
	}
	ended := func(v *view) bool { return v.aborted() || killed(v) }
	err := a.interruptible(ctx, ended, func(ctx context.Context) error {
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
	if err != nil && killed(a.view()) {
		err = &caisson.Error{Op: caisson.OpStageOut, Kind: caisson.ErrAborted, Err: errors.New("a kill was asked for")}
	}
	ev.Error = failure(err)
	if err := a.redactNames(ev); err != nil {
		return err
	}
	crash.Point(crash.StagedOutBefore)
	if err := a.append(ev, len(ev.Outputs) > 0); err != nil {
		return err
	}
	crash.Point(crash.StagedOutAfter)
	return nil
}

// redactNames takes secrets out of what the task chose: names of outputs, and
// messages that tell them.
func (a *attendant) redactNames(ev *caisson.Event) error {
	var texts []*string
	for i := range ev.Outputs {
		texts = append(texts, &ev.Outputs[i].Path, &ev.Outputs[i].To)
	}
	if ev.Error != nil {
		texts = append(texts, &ev.Error.Message)
	}
	return a.redact(texts...)
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
	shipments, err := a.collect(ctx, out, work)
	errs = append(errs, err)
	for _, sh := range shipments {
		stored, err := a.store(ctx, &sh)
		ev.Outputs = append(ev.Outputs, stored...)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			errs = append(errs, at(fmt.Sprintf("outputs[%d]", sh.index), err))
		}
	}
	return errors.Join(errs...)
}

// A shipment is the files that one output matches.
type shipment struct {
	index  int // of the output
	output *caisson.Output
	files  []stage.File
}

// collect lists what is to be stored. What is refused of it does not keep the
// rest from being stored, but for files that would lie over each other: then
// nothing is.
func (a *attendant) collect(ctx context.Context, out *outcome, work *safefs.Root) ([]shipment, error) {
	var list []shipment
	var outs []*caisson.Output
	var files [][]stage.File
	var errs []error
	for i := range a.record.Task.Outputs {
		o := &a.record.Task.Outputs[i]
		if !due(o.When, out.success) {
			continue
		}
		matched, err := stage.Collect(ctx, work, o)
		matched = slices.DeleteFunc(matched, func(f stage.File) bool { return isHidden(f.Path) })
		if len(matched) == 0 && err == nil && !o.Optional {
			err = &caisson.Error{Op: caisson.OpStageOut, Item: o.Path, Kind: caisson.ErrNotFound, Err: errors.New("nothing matches")}
		}
		if err != nil {
			errs = append(errs, at(fmt.Sprintf("outputs[%d]", i), err))
		}
		if len(matched) > 0 {
			list = append(list, shipment{i, o, matched})
			outs, files = append(outs, o), append(files, matched)
		}
	}
	if err := stage.CheckDestinations(outs, files); err != nil {
		return nil, errors.Join(append(errs, err)...)
	}
	return list, errors.Join(errs...)
}

func (a *attendant) store(ctx context.Context, sh *shipment) (stored []caisson.OutputFile, err error) {
	s, err := a.x.storer(sh.output)
	if err != nil {
		return nil, err
	}
	err = a.x.guard(caisson.OpStageOut, func() (err error) {
		env := stageEnv(a.record, a.secrets)
		env.Token = fmt.Sprintf("%s-%d-%d", a.task.ID, a.h.attempt, sh.index)
		stored, err = s.Store(ctx, sh.output, sh.files, env)
		return err
	})
	return stored, err
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

// isHidden reports whether a path of the work folder is Caisson's own.
func isHidden(path string) bool { return path == outputFile || path == progressFile }
