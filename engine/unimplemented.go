package engine

import (
	"context"
	"errors"

	"github.com/caissonrun/caisson"
)

// UnimplementedEngine answers ErrUnsupported to every method of Engine but
// Close and Sweep, which find nothing to do. Embed it, so that a method added
// to Engine later does not break the engine. It has no optional methods: a
// type assertion would then promise what nobody implements.
type UnimplementedEngine struct{}

var _ Engine = UnimplementedEngine{}

// Name returns "unimplemented".
func (UnimplementedEngine) Name() string { return "unimplemented" }

// Probe returns Features that are not usable.
func (UnimplementedEngine) Probe(context.Context) (Features, error) { return Features{}, nil }

// Create implements Engine.
func (UnimplementedEngine) Create(context.Context, *Spec) (Sandbox, error) {
	return nil, unimplemented(caisson.OpCreate)
}

// Recover implements Engine.
func (UnimplementedEngine) Recover(context.Context, string) (Sandbox, error) {
	return nil, unimplemented(caisson.OpRecover)
}

// Sweep implements Engine.
func (UnimplementedEngine) Sweep(context.Context, []string) ([]string, error) { return nil, nil }

// Close implements Engine.
func (UnimplementedEngine) Close() error { return nil }

// UnimplementedSandbox answers ErrUnsupported to every method of Sandbox but
// Destroy, which finds nothing to do. See UnimplementedEngine.
type UnimplementedSandbox struct{}

var _ Sandbox = UnimplementedSandbox{}

// ID returns "".
func (UnimplementedSandbox) ID() string { return "" }

// Start implements Sandbox.
func (UnimplementedSandbox) Start(context.Context) (Process, error) {
	return nil, unimplemented(caisson.OpStart)
}

// Process implements Sandbox.
func (UnimplementedSandbox) Process(context.Context) (Process, error) {
	return nil, unimplemented(caisson.OpStart)
}

// Destroy implements Sandbox.
func (UnimplementedSandbox) Destroy(context.Context) error { return nil }

// UnimplementedProcess answers ErrUnsupported to every method of Process. See
// UnimplementedEngine.
type UnimplementedProcess struct{}

var _ Process = UnimplementedProcess{}

// Wait implements Process.
func (UnimplementedProcess) Wait(context.Context) (caisson.Exit, error) {
	return caisson.Exit{}, unimplemented(caisson.OpWait)
}

// Signal implements Process.
func (UnimplementedProcess) Signal(context.Context, int) error {
	return unimplemented(caisson.OpSignal)
}

// Stop implements Process.
func (UnimplementedProcess) Stop(context.Context, Stop) error {
	return unimplemented(caisson.OpSignal)
}

func unimplemented(op caisson.Op) error {
	return &caisson.Error{Op: op, Kind: caisson.ErrUnsupported, Err: errors.New("this engine does not implement it")}
}
