//go:build unix

package executor

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/internal/crash"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/internal/state"
)

const (
	requestVersion = 1
	requestSuffix  = ".json"
	// maxRequests bounds how many are kept: who asks more often than that is
	// told that it was asked for already.
	maxRequests = 100
)

// A request is a file in a task's control folder: somebody asks for its end.
type request struct {
	Version int       `json:"version"`
	At      time.Time `json:"at"`
	// Seq is the last event that was there when it was asked for: a request is
	// about finally steps only if they had begun.
	Seq  int64       `json:"seq"`
	Stop engine.Stop `json:"stop"`

	name string // of the file: requests are sorted by it
}

// aborts reports whether the sandbox is to be destroyed.
func (r *request) aborts() bool { return r.Stop.Reason == caisson.ReasonAborted }

// writeRequest makes the request durable. Its name sorts by time.
func writeRequest(t state.Task, r *request) error {
	name := fmt.Sprintf("%019d-%s%s", r.At.UnixNano(), rand.Text(), requestSuffix)
	crash.Point(crash.ControlBefore)
	if err := writeJSON(filepath.Join(t.Control(), name), r); err != nil {
		return err
	}
	crash.Point(crash.ControlAfter)
	return nil
}

// readRequests adds to those that are known what was asked for since.
func readRequests(t state.Task, known []request) ([]request, error) {
	entries, err := os.ReadDir(t.Control())
	if errors.Is(err, fs.ErrNotExist) || (err == nil && len(entries) == len(known)) {
		return known, nil
	}
	if err != nil {
		return known, safefs.Sorted(caisson.OpState, t.Control(), err)
	}
	for _, e := range entries {
		isKnown := func(r request) bool { return r.name == e.Name() }
		if atomicfile.IsTemp(e.Name()) || !strings.HasSuffix(e.Name(), requestSuffix) || slices.ContainsFunc(known, isKnown) {
			continue
		}
		r := request{name: e.Name()}
		path := filepath.Join(t.Control(), e.Name())
		if err := readJSON(path, &r); err != nil {
			return known, stateError(path, caisson.ErrInvalid, err)
		}
		if r.Version > requestVersion {
			return known, stateError(path, caisson.ErrUnsupported, errors.New("written by a newer program"))
		}
		known = append(known, r)
	}
	slices.SortStableFunc(known, func(a, b request) int { return cmp.Compare(a.name, b.name) })
	return known, nil
}

// askedOf returns the requests that are about steps of the kind.
func (v *view) askedOf(k kind) []request {
	if k != kindFinally {
		return v.asked
	}
	if v.h.finally == 0 {
		return nil
	}
	var list []request
	for _, r := range v.asked {
		if r.Seq >= v.h.finally {
			list = append(list, r)
		}
	}
	return list
}

// decisive returns the request that decides the reason: the first one, unless a
// later one aborts.
func decisive(asked []request) *request {
	for i := range asked {
		if asked[i].aborts() {
			return &asked[i]
		}
	}
	return &asked[0]
}

// exitAsked is how a step ends that was asked to before its program could run.
func exitAsked(asked []request) caisson.Exit {
	return caisson.Exit{Reason: decisive(asked).Stop.Reason, Message: "before the program had run"}
}

// aborted reports whether an abort was asked for while it could still undo
// something: before outputs were staged and finally steps begun.
func (v *view) aborted() bool {
	for _, r := range v.asked {
		if r.aborts() && v.h.out == nil && !v.composed() && (v.h.finally == 0 || r.Seq < v.h.finally) {
			return true
		}
	}
	return false
}

// Stop has the task end, durably: also if nobody attends to it right now. With
// ReasonAborted the sandbox is destroyed at once and the attempt does not
// count: nothing is staged out. Finally steps run after every kind of stop; one
// that is asked for while they run ends them, too. Of several stops the first
// decides the reason, unless a later one aborts.
//
// Errors: ErrEnded if it has ended; ErrNotFound; ErrInvalid if the reason is
// none that can be asked for.
func (x *Executor) Stop(ctx context.Context, id string, stop engine.Stop) error {
	switch stop.Reason {
	case caisson.ReasonStopped, caisson.ReasonKilled, caisson.ReasonAborted, caisson.ReasonCancelled, caisson.ReasonPolicy:
	default:
		return invalid("reason", fmt.Errorf("%q can't be asked for", stop.Reason))
	}
	return x.stop(ctx, id, stop)
}

// stop is Stop for every reason, such as that the time of the task is up that
// this one is a part of.
func (x *Executor) stop(ctx context.Context, id string, stop engine.Stop) error {
	t, err := x.find(id)
	if err != nil {
		return err
	}
	if ended, err := state.Exists(t.Result()); ended {
		return taskEnded(t.ID)
	} else if err != nil {
		return safefs.Sorted(caisson.OpState, t.Result(), err)
	}
	events, _, err := state.ReadJournal(t.Journal(), 0)
	if err != nil {
		return err
	}
	h := newHistory(events)
	asked := x.now()
	if err := x.ask(t, h, stop); err != nil {
		if ended, _ := state.Exists(t.Result()); ended {
			return taskEnded(t.ID) // and put away, meanwhile
		}
		return err
	}
	x.hub.wake(t.ID)
	x.stopNow(ctx, t, h, stop, asked)

	// Whoever attends to the task sees the request; if nobody does, somebody has
	// to, but for a program whose keeper starts an attendant when it ends.
	if x.attended(t) || x.runs(ctx, t, h) {
		return nil
	}
	return x.spawn(t.ID)
}

func (x *Executor) ask(t state.Task, h *history, stop engine.Stop) error {
	if err := os.Mkdir(t.Control(), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return safefs.Sorted(caisson.OpState, t.Control(), err)
	}
	entries, err := os.ReadDir(t.Control())
	if err != nil {
		return safefs.Sorted(caisson.OpState, t.Control(), err)
	}
	if len(entries) >= maxRequests {
		return nil
	}
	return writeRequest(t, &request{Version: requestVersion, At: x.now(), Seq: h.last, Stop: stop})
}

// stopNow stops the program that runs, or the children of a composite task, without waiting for an attendant to do
// it. Errors do not matter: the request is durable, and whoever attends to the
// task sees to it.
func (x *Executor) stopNow(ctx context.Context, t state.Task, h *history, stop engine.Stop, asked time.Time) {
	if len(h.children) > 0 {
		for _, p := range h.children {
			x.stopPart(ctx, x.folder.Task(p.id), []request{{At: asked, Stop: stop}})
		}
		return
	}
	name := h.current()
	if name == "" || kindOf(name) == kindSidecar {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, x.limits.call)
	defer cancel()
	sb, err := x.sandbox(ctx, t, h, name)
	if err == nil {
		err = x.end(ctx, sb, stop)
	}
	if err != nil {
		x.log.Debug("stop", "task", t.ID, "err", err)
	}
}

// end has a sandbox's program end as it was asked for.
func (x *Executor) end(ctx context.Context, sb engine.Sandbox, stop engine.Stop) error {
	return x.guard(caisson.OpSignal, func() error {
		if stop.Reason == caisson.ReasonAborted {
			return sb.Destroy(ctx)
		}
		p, err := sb.Process(ctx)
		if err != nil {
			return err
		}
		return p.Stop(ctx, stop)
	})
}
