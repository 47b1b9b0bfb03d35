package script

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"sync"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// A sandbox wraps a Sandbox of the runner's and leaves out what would let a
// task do more than the operator's program does. It tells what that has said.
type sandbox struct {
	engine.Sandbox
	dir string // Spec.Dir
	log string // Spec.Log; empty where it is not known

	mu   sync.Mutex
	exit *caisson.Exit // once somebody has asked
}

// wrap returns a sandbox with those of the runner's optional interfaces that
// are harmless: what it uses, and pauses.
func wrap(inner engine.Sandbox, dir string) engine.Sandbox {
	s := &sandbox{Sandbox: inner, dir: dir}
	var r record
	// Without the record there is no message, and nothing else is missing.
	if data, err := os.ReadFile(filepath.Join(dir, recordFile)); err == nil && json.Unmarshal(data, &r) == nil {
		s.log = r.Log
	}
	stats, measured := inner.(engine.StatsReader)
	pauser, pausable := inner.(engine.Pauser)
	switch {
	case measured && pausable:
		return struct {
			*sandbox
			engine.StatsReader
			engine.Pauser
		}{s, stats, pauser}
	case measured:
		return struct {
			*sandbox
			engine.StatsReader
		}{s, stats}
	case pausable:
		return struct {
			*sandbox
			engine.Pauser
		}{s, pauser}
	}
	return s
}

// Start implements engine.Sandbox.
func (s *sandbox) Start(ctx context.Context) (engine.Process, error) {
	return s.process(s.Sandbox.Start(ctx))
}

// Process implements engine.Sandbox.
func (s *sandbox) Process(ctx context.Context) (engine.Process, error) {
	return s.process(s.Sandbox.Process(ctx))
}

// process wraps what the runner has returned.
func (s *sandbox) process(inner engine.Process, err error) (engine.Process, error) {
	if err != nil {
		return nil, err
	}
	return &process{Process: inner, s: s}, nil
}

// Destroy implements engine.Sandbox.
func (s *sandbox) Destroy(ctx context.Context) error {
	if err := s.Sandbox.Destroy(ctx); err != nil {
		return err
	}
	return remove(filepath.Join(s.dir, recordFile))
}

// A process wraps a Process of the runner's and gives its exit a message.
type process struct {
	engine.Process
	s *sandbox
}

var _ engine.Locator = (*process)(nil)

// Wait implements engine.Process.
func (p *process) Wait(ctx context.Context) (caisson.Exit, error) {
	exit, err := p.Process.Wait(ctx)
	if err != nil {
		return exit, err
	}
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	// The log may go away; all callers get the same.
	if p.s.exit == nil {
		explain(&exit, p.s.log)
		p.s.exit = &exit
	}
	return *p.s.exit, nil
}

// PID implements engine.Locator.
func (p *process) PID(ctx context.Context) (int, error) {
	if l, ok := p.Process.(engine.Locator); ok {
		return l.PID(ctx)
	}
	return 0, nil
}
