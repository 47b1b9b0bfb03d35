package mem_test

import (
	"errors"
	"syscall"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/enginetest"
	"github.com/caissonrun/caisson/engine/enginetest/inside/act"
	"github.com/caissonrun/caisson/engine/mem"
)

func TestConformance(t *testing.T) {
	world := mem.NewWorld()
	enginetest.Run(t, harness(world, mem.Options{MaxSandboxes: 20}, enginetest.BuildInside(t)))
}

// harness gives the suite engines of one world.
func harness(world *mem.World, opts mem.Options, inside string) enginetest.Harness {
	opts.World = world
	opts.Programs = map[string]mem.Program{"inside": observe}
	other := opts
	other.Installation = "other"
	return enginetest.Harness{
		New:     func(testing.TB) engine.Engine { return mem.New(&opts) },
		Other:   func(testing.TB) engine.Engine { return mem.New(&other) },
		Inside:  inside,
		Program: func(spec *engine.Spec, args []string) { spec.Args = append([]string{"inside"}, args...) },
		Lose: func(_ testing.TB, spec *engine.Spec) {
			world.End(spec.ID, caisson.Exit{Reason: caisson.ReasonLost})
		},
		Resources: func(testing.TB) []string { return world.Live() },
		Require:   []string{"exec", "terminal", "files", "stats", "pause", "limits.memory", "secrets"},
	}
}

// observe is the inside program.
func observe(p *mem.Proc) int { return act.Run(&observer{p}, p.Args()[1:]) }

// An observer is the act.World of a program in mem.
type observer struct{ *mem.Proc }

var _ act.World = (*observer)(nil)

func (o *observer) Spawn(opts act.SpawnOptions, args []string) (act.Child, error) {
	child, err := o.Proc.Spawn(opts.Quiet, append([]string{o.Args()[0]}, args...)...)
	if err != nil {
		return nil, err
	}
	return &descendant{o.Proc, child}, nil
}

type descendant struct{ parent, child *mem.Proc }

func (d *descendant) Wait() error {
	if code, signal := d.parent.Wait(d.child); code != 0 || signal != 0 {
		return errors.New("the child failed")
	}
	return nil
}

// Connect finds nobody: mem has no network.
func (o *observer) Connect(string, string) error {
	o.Sleep(0)
	return syscall.ENETUNREACH
}

// Loopback works, as far as anybody can tell.
func (o *observer) Loopback() error { return nil }

// Attempt is denied: a Go function has no way to try.
func (o *observer) Attempt(string) error { return syscall.EPERM }

func (o *observer) Facts() (*act.Facts, error) {
	return &act.Facts{
		PID: o.PID(), Args: o.Args(), Env: o.Environ(), Dir: o.Getwd(), Hostname: o.Hostname(),
		FDs: map[int]string{0: "stdin", 1: "stdout", 2: "stderr"},
	}, nil
}
