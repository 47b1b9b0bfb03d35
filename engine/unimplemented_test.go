package engine_test

import (
	"errors"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

func TestUnimplemented(t *testing.T) {
	ctx := t.Context()
	var e engine.UnimplementedEngine
	var s engine.UnimplementedSandbox
	var p engine.UnimplementedProcess
	_, create := e.Create(ctx, nil)
	_, find := e.Recover(ctx, "")
	_, start := s.Start(ctx)
	_, process := s.Process(ctx)
	_, wait := p.Wait(ctx)
	for call, err := range map[string]error{
		"Create": create, "Recover": find, "Start": start, "Process": process, "Wait": wait,
		"Signal": p.Signal(ctx, 1), "Stop": p.Stop(ctx, engine.Stop{}),
	} {
		if !errors.Is(err, caisson.ErrUnsupported) {
			t.Errorf("%s = %v, want ErrUnsupported", call, err)
		}
	}
	if f, err := e.Probe(ctx); f.Usable || err != nil {
		t.Errorf("Probe = %+v, %v, want nothing usable", f, err)
	}
	removed, err := e.Sweep(ctx, nil)
	if removed != nil || err != nil || s.Destroy(ctx) != nil || e.Close() != nil {
		t.Errorf("there is nothing to undo: %v, %v", removed, err)
	}
}

// They promise nothing optional.
func TestUnimplementedIsNotOptional(t *testing.T) {
	var s any = engine.UnimplementedSandbox{}
	_, exec := s.(engine.Execer)
	_, files := s.(engine.Filer)
	_, stats := s.(engine.StatsReader)
	_, pause := s.(engine.Pauser)
	if exec || files || stats || pause {
		t.Errorf("UnimplementedSandbox has optional methods")
	}
}
