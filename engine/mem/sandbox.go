package mem

import (
	"context"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// A Sandbox is one engine's view of a box.
type Sandbox struct {
	engine.UnimplementedSandbox
	engine *Engine
	box    *box
}

var (
	_ engine.Sandbox = (*Sandbox)(nil)
	_ engine.Process = (*Process)(nil)
)

// ID implements engine.Sandbox.
func (s *Sandbox) ID() string { return s.box.spec.ID }

// Start implements engine.Sandbox.
func (s *Sandbox) Start(ctx context.Context) (engine.Process, error) {
	if err := s.engine.enter(ctx, caisson.OpStart, s.box); err != nil {
		return nil, err
	}
	s.box.own(s.engine)
	if err := s.box.start(); err != nil {
		return nil, err
	}
	return &Process{engine: s.engine, box: s.box}, nil
}

// Process implements engine.Sandbox.
func (s *Sandbox) Process(ctx context.Context) (engine.Process, error) {
	if err := s.engine.enter(ctx, caisson.OpStart, s.box); err != nil {
		return nil, err
	}
	if err := s.box.checkStarted(); err != nil {
		return nil, err
	}
	return &Process{engine: s.engine, box: s.box}, nil
}

// Destroy implements engine.Sandbox.
func (s *Sandbox) Destroy(ctx context.Context) error {
	if err := s.engine.enter(ctx, caisson.OpDestroy, s.box); err != nil {
		return err
	}
	return s.box.destroy(ctx)
}

// A Process is one engine's view of a box's main program.
type Process struct {
	engine.UnimplementedProcess
	engine *Engine
	box    *box
}

// Wait implements engine.Process.
func (p *Process) Wait(ctx context.Context) (caisson.Exit, error) {
	if err := p.engine.enter(ctx, caisson.OpWait, p.box); err != nil {
		return caisson.Exit{}, err
	}
	p.box.own(p.engine)
	select {
	case <-p.box.done:
		return p.box.verdict, nil
	case <-ctx.Done():
		return caisson.Exit{}, ctx.Err()
	}
}

// Signal implements engine.Process.
func (p *Process) Signal(ctx context.Context, signal int) error {
	if err := p.engine.enter(ctx, caisson.OpSignal, p.box); err != nil {
		return err
	}
	if !engine.ValidSignal(signal) {
		return failure(caisson.OpSignal, p.box, caisson.ErrInvalid, "no such signal")
	}
	return p.box.signal(signal)
}

// Stop implements engine.Process.
func (p *Process) Stop(ctx context.Context, stop engine.Stop) error {
	if err := p.engine.enter(ctx, caisson.OpSignal, p.box); err != nil {
		return err
	}
	return p.box.stop(stop)
}
