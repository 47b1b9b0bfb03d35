//go:build unix

package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/state"
)

// What the event of a sandbox that was made says of what it began with.
const (
	fromSaved = "from a saved state"
	wasSaved  = "its state was saved"
	fromPool  = "from a warm pool"
)

// origin says what a sandbox began with, if that is worth it.
func (a *attendant) origin(ctx context.Context, sb engine.Sandbox) string {
	o, ok := sb.(engine.Originator)
	if !ok {
		return ""
	}
	limited, cancel := context.WithTimeout(ctx, a.x.limits.call)
	defer cancel()
	var from engine.Origin
	err := a.x.guard(caisson.OpCreate, func() (err error) {
		from, err = o.Origin(limited)
		return err
	})
	switch {
	case err != nil:
		a.log.Debug("origin", "err", err)
		return ""
	case from.From:
		return fromSaved
	case from.Saved:
		return wasSaved
	case from.Why != "":
		return "booted: " + from.Why
	}
	return ""
}

// SaveState has the state of a sandbox saved that would be made for the task, before
// anything of the task runs, so that all like it begin there. The task's own program
// runs once; what it ends in does not matter, and nothing is left of the task. It
// reports whether there was a state already.
//
// Errors: those of Submit; ErrUnavailable with the reason if it could not be saved.
func (x *Executor) SaveState(ctx context.Context, task *caisson.Task, sub *Submission) (there bool, err error) {
	own := *task
	options := map[string]json.RawMessage{}
	if len(task.Options) > 0 {
		if err := json.Unmarshal(task.Options, &options); err != nil {
			return false, invalid("options", err)
		}
	}
	options["snapshot"] = json.RawMessage("true")
	if own.Options, err = json.Marshal(options); err != nil {
		return false, err
	}
	if own.Engine == "" {
		own.Engine = x.saver()
	}
	id, err := x.Submit(ctx, &own, sub)
	if err != nil {
		return false, err
	}
	defer func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), x.limits.destroy)
		defer cancel()
		err = errors.Join(err, x.Remove(clean, id, true))
	}()
	if err := x.Attend(ctx, id, false); err != nil {
		return false, err
	}
	return x.savedBy(id)
}

// saver is the name of the first engine that saves states; empty: there is none.
func (x *Executor) saver() string {
	for _, p := range x.engines {
		if _, ok := p.engine.(engine.Saver); ok {
			return p.engine.Name()
		}
	}
	return ""
}

// savedBy reads what became of the state of a task that has ended.
func (x *Executor) savedBy(id string) (there bool, err error) {
	t := x.folder.Task(id)
	events, _, err := state.ReadJournal(t.Journal(), 0)
	if err != nil {
		return false, err
	}
	why := "its engine saves no states"
	for _, ev := range events {
		switch {
		case ev.Type == caisson.EventCreated && ev.Step == string(kindMain) && ev.Message == fromSaved:
			return true, nil
		case ev.Type == caisson.EventCreated && ev.Step == string(kindMain) && ev.Message == wasSaved:
			return false, nil
		case ev.Type == caisson.EventCreated && ev.Message != "":
			why = ev.Message
		case ev.Error != nil:
			why = ev.Error.Message
		}
	}
	return false, &caisson.Error{Op: caisson.OpCreate, Item: "saved state", Kind: caisson.ErrUnavailable, Err: errors.New(why)}
}

// SavedStates lists what engines have saved of sandboxes in which nothing of a task
// had run.
func (x *Executor) SavedStates(ctx context.Context) ([]engine.SavedState, error) {
	list := []engine.SavedState{}
	for _, p := range x.engines {
		if s, ok := p.engine.(engine.Saver); ok {
			some, err := s.SavedStates(ctx)
			if err != nil {
				return nil, at("engine "+p.engine.Name(), err)
			}
			list = append(list, some...)
		}
	}
	return list, nil
}

// RemoveSavedState removes a saved state by its key. Errors: ErrNotFound.
func (x *Executor) RemoveSavedState(ctx context.Context, key string) error {
	err := error(&caisson.Error{Item: fmt.Sprintf("saved state %q", key), Kind: caisson.ErrNotFound, Err: errors.New("there is no such state")})
	for _, p := range x.engines {
		if s, ok := p.engine.(engine.Saver); ok {
			if err = s.RemoveState(ctx, key); err == nil || !errors.Is(err, caisson.ErrNotFound) {
				return err
			}
		}
	}
	return err
}
