package mem_test

import (
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/enginetest"
	"github.com/caissonrun/caisson/engine/mem"
	"github.com/caissonrun/caisson/engine/mem/inside"
	"github.com/caissonrun/caisson/internal/slowtest"
)

func TestConformance(t *testing.T) {
	world := mem.NewWorld()
	h := harness(world, mem.Options{MaxSandboxes: 20}, enginetest.BuildInside(t))
	h.Groups, h.Without = slowtest.Groups(
		"construction", "lifecycle", "environment", "secrets", "log", "exit", "stop", "exec", "terminal", "mounts",
		"network", "displays", "files", "archive", "warm", "keep", "recover", "isolation", "refusals",
	)
	enginetest.Run(t, h)
}

// harness gives the suite engines of one world.
func harness(world *mem.World, opts mem.Options, program string) enginetest.Harness {
	opts.World = world
	opts.Programs = map[string]mem.Program{"inside": inside.Program}
	other := opts
	other.Installation = "other"
	return enginetest.Harness{
		New:     func(testing.TB) engine.Engine { return mem.New(&opts) },
		Other:   func(testing.TB) engine.Engine { return mem.New(&other) },
		Inside:  program,
		Program: func(spec *engine.Spec, args []string) { spec.Args = append([]string{"inside"}, args...) },
		Lose: func(_ testing.TB, spec *engine.Spec) {
			world.End(spec.ID, caisson.Exit{Reason: caisson.ReasonLost})
		},
		Resources: func(testing.TB) []string { return world.Live() },
		Require:   []string{"exec", "terminal", "files", "stats", "pause", "limits.memory", "secrets"},
	}
}
