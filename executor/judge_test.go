//go:build unix

package executor

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// A judging engine blames itself for exits of status 3, and for those of status
// 4 until it is probed again.
type judging struct {
	engine.Engine
	probes *atomic.Int64
}

func (j judging) Probe(ctx context.Context) (engine.Features, error) {
	j.probes.Add(1)
	return j.Engine.Probe(ctx)
}

func (j judging) Judge(exit caisson.Exit) error {
	switch exit.Code {
	case 3:
		return &caisson.Error{Op: caisson.OpWait, Kind: caisson.ErrInternal, Err: errors.New("ours")}
	case 4:
		return &caisson.Error{Op: caisson.OpWait, Kind: caisson.ErrUnavailable, Err: errors.New("fatal")}
	}
	return nil
}

// What an engine takes the blame for is an error and no exit of the task's; after
// one that is fatal the engine is probed before it gets another task.
func TestJudge(t *testing.T) {
	r := newRig(t)
	var probes atomic.Int64
	r.wrap = func(e engine.Engine) engine.Engine { return judging{e, &probes} }
	p := r.process()
	for _, c := range []struct {
		script string
		status int
		kind   caisson.Kind
		again  bool // the next task has the engine probed
	}{
		{"exit 1", 1, caisson.ErrUnknown, false},
		{"exit 3", 125, caisson.ErrInternal, false},
		{"exit 4", 125, caisson.ErrUnavailable, true},
		{"exit 0", 0, caisson.ErrUnknown, false},
	} {
		result := p.run(&caisson.Task{Program: caisson.Program{Run: c.script}})
		kind := caisson.ErrUnknown
		if result.Error != nil {
			kind = result.Error.Kind
		}
		if result.Status != c.status || kind != c.kind {
			t.Errorf("%s: status %d, error %+v; want %d, %v", c.script, result.Status, result.Error, c.status, c.kind)
		}
		before := probes.Load()
		p.run(&caisson.Task{Program: caisson.Program{Run: "exit 0"}})
		if again := probes.Load() > before; again != c.again {
			t.Errorf("after %s the engine was probed: %v, want %v", c.script, again, c.again)
		}
	}
}

// An engine that runs programs refuses a task of options alone, before it finds
// fault with what is not meant for it.
func TestOptionsAlone(t *testing.T) {
	r := newRig(t)
	p := r.process()
	_, err := p.Submit(t.Context(), &caisson.Task{Options: []byte(`{"file": "x"}`)}, &Submission{})
	if !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("Submit = %v, want unsupported", err)
	}
}
