//go:build unix

package executor

import (
	"errors"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// A task is paused and resumed by whoever asks, as often as that is; one that has
// ended can't be.
func TestPauseTask(t *testing.T) {
	r := newRig(t)
	r.attend = true
	p := r.process()
	id := p.submit(sh("hold"))
	wait := p.attendAsync(id, false)
	r.reached(id, caisson.EventStarted, "main")
	q := r.process()
	for range 2 {
		if err := q.Pause(t.Context(), id); err != nil {
			t.Fatalf("Pause = %v", err)
		}
	}
	for range 2 {
		if err := q.Resume(t.Context(), id); err != nil {
			t.Fatalf("Resume = %v", err)
		}
	}
	if err := q.Pause(t.Context(), id); err != nil {
		t.Fatalf("Pause = %v", err)
	}
	if err := q.Stop(t.Context(), id, engine.Stop{Reason: caisson.ReasonKilled}); err != nil {
		t.Fatalf("Stop = %v", err)
	}
	if got := wait(); got.Success {
		t.Errorf("result = %+v, want that it was killed", got)
	}
	for _, do := range []func() error{
		func() error { return q.Pause(t.Context(), id) }, func() error { return q.Resume(t.Context(), id) },
	} {
		if err := do(); !errors.Is(err, caisson.ErrEnded) {
			t.Errorf("after the end = %v, want ErrEnded", err)
		}
	}
	r.clean()
}

// What the engine can't do is refused by name.
func TestPauseUnsupported(t *testing.T) {
	r := newRig(t)
	r.features = func(f *engine.Features) { f.Pause = false }
	p := r.process()
	id := p.submit(sh("hold"))
	wait := p.attendAsync(id, false)
	r.reached(id, caisson.EventStarted, "main")
	if err := p.Pause(t.Context(), id); !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("Pause = %v, want ErrUnsupported", err)
	}
	if err := p.Stop(t.Context(), id, engine.Stop{Reason: caisson.ReasonKilled}); err != nil {
		t.Fatal(err)
	}
	wait()
	r.clean()
}
