package kept

import (
	"context"
	"errors"
	"fmt"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/keeper"
)

// A process is the main program of a sandbox.
type process struct{ s *sandbox }

var (
	_ engine.Process = (*process)(nil)
	_ engine.Locator = (*process)(nil)
)

// Wait implements engine.Process.
func (p *process) Wait(ctx context.Context) (caisson.Exit, error) {
	s := p.s
	if exit := s.known(); exit != nil {
		return *exit, nil
	}
	exit, err := s.awaitExit(ctx)
	if err != nil {
		return caisson.Exit{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// Whoever was first decides, so that all callers get the same.
	if s.exit == nil {
		s.exit = &exit
	}
	return *s.exit, nil
}

// known returns the exit if it was read before.
func (s *sandbox) known() *caisson.Exit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.exit
}

// awaitExit asks the keeper. If the keeper is lost, so is the program, unless
// its exit was durable before.
func (s *sandbox) awaitExit(ctx context.Context) (caisson.Exit, error) {
	if s.keeper() == nil {
		return s.lost()
	}
	// Who waits sees to what follows, as Create and Start do. An error of a
	// keeper that is gone shows again below.
	_ = s.keeper().Own(ctx)
	exit, err := s.keeper().Wait(ctx)
	switch {
	case err == nil:
		return exit, nil
	case ctx.Err() != nil:
		return caisson.Exit{}, said(caisson.OpWait, s.id, ctx.Err())
	case errors.Is(err, caisson.ErrAborted), s.alive(caisson.OpWait) != nil:
		return caisson.Exit{Reason: caisson.ReasonAborted}, nil
	case s.gone(ctx, err):
		if s.revived(ctx) {
			return s.awaitExit(ctx)
		}
		return s.lost()
	}
	return caisson.Exit{}, said(caisson.OpWait, s.id, err)
}

// lost returns the recorded exit of a program whose keeper is gone, or that it
// is lost. Either way nothing of it runs any more.
func (s *sandbox) lost() (caisson.Exit, error) {
	if err := s.b.ended(s.id, s.rec); err != nil {
		return caisson.Exit{}, said(caisson.OpWait, s.id, err)
	}
	exit, err := keeper.ReadExit(s.dir)
	switch {
	case err == nil:
		return exit, nil
	case errors.Is(err, caisson.ErrNotFound):
		return caisson.Exit{Reason: caisson.ReasonLost, Message: "the keeper was killed, or the host was restarted"}, nil
	}
	return caisson.Exit{}, said(caisson.OpWait, s.id, err)
}

// PID implements engine.Locator.
func (p *process) PID(ctx context.Context) (pid int, err error) {
	err = p.tell(ctx, func() error {
		status, err := p.s.keeper().Status(ctx)
		pid = status.MainPID
		return err
	})
	return pid, err
}

// Signal implements engine.Process.
func (p *process) Signal(ctx context.Context, signal int) error {
	if !engine.ValidSignal(signal) {
		return &caisson.Error{
			Op: caisson.OpSignal, Item: p.s.id, Kind: caisson.ErrInvalid, Err: fmt.Errorf("%d is no signal", signal),
		}
	}
	return p.tell(ctx, func() error { return p.s.keeper().Signal(ctx, signal) })
}

// Stop implements engine.Process.
func (p *process) Stop(ctx context.Context, stop engine.Stop) error {
	return p.tell(ctx, func() error {
		return p.s.keeper().Stop(ctx, stop.Reason, stop.Signal, stop.Grace.Std())
	})
}

// tell tells the keeper something about a program that must still run.
func (p *process) tell(ctx context.Context, f func() error) error {
	s := p.s
	if err := s.alive(caisson.OpSignal); err != nil {
		return err
	}
	if s.keeper() == nil {
		return ended(caisson.OpSignal, s.id)
	}
	err := f()
	if err != nil && s.gone(ctx, err) && s.revived(ctx) {
		err = f()
	}
	if err != nil && s.gone(ctx, err) {
		return ended(caisson.OpSignal, s.id)
	}
	return s.said(caisson.OpSignal, err)
}
