//go:build unix

package native_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/enginetest"
	"github.com/caissonrun/caisson/engine/native"
	"github.com/caissonrun/caisson/internal/slowtest"
)

// insidePath names the variable with the path of a built inside program, see
// TestOrdinaryUser.
const insidePath = "CAISSON_TEST_INSIDE"

// harness is an engine's harness for the conformance suite.
func harness(t *testing.T, opts native.Options) enginetest.Harness {
	enginetest.ReapOrphans(t)
	opts.Runtime = filepath.Join(t.TempDir(), "run")
	engineOf := func(installation string) func(testing.TB) engine.Engine {
		return func(t testing.TB) engine.Engine {
			mine := opts
			mine.Installation = installation
			return newEngine(t, mine)
		}
	}
	inside := os.Getenv(insidePath)
	if inside == "" {
		inside = enginetest.BuildInside(t)
	}
	// Sweeping looks at the whole host: another run of these tests at the same
	// time must be another installation.
	one := fmt.Sprintf("test%d", os.Getpid())
	return enginetest.Harness{
		New: engineOf(one), Other: engineOf(one + "x"),
		Restart: func(t testing.TB, _ engine.Engine) engine.Engine { return engineOf(one)(t) },
		Inside:  inside,
		Lose:    lose,
		Folders: []string{opts.Runtime},
	}
}

func TestConformance(t *testing.T) {
	h := harness(t, native.Options{AllowHostNetwork: true})
	if os.Geteuid() == 0 {
		h.Require = []string{
			"limits.cpus", "limits.memory", "limits.pids", "limits.disk", "limits.log", "limits.files", "networks.none",
			"mounts.bind", "mounts.tmpfs", "user", "secrets", "exec", "terminal", "files", "stats", "pause", "gateway", "networks.allow",
			"isolation:" + engine.FilteredSyscalls, "isolation:" + engine.IsolatedUserID,
		}
	} else {
		h.Label = "native, ordinary user"
		h.Require = []string{"gateway", "networks.allow"}
		h.Groups, h.Without = slowtest.Groups("lifecycle", "recover", "isolation", "limits")
	}
	enginetest.Run(t, h)
}
