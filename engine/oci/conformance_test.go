//go:build unix

package oci_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/enginetest"
	"github.com/caissonrun/caisson/engine/oci"
	"github.com/caissonrun/caisson/internal/network/networktest"
	"github.com/caissonrun/caisson/internal/slowtest"
)

// harness is an engine's harness for the conformance suite: programs run in an
// overlay on one root that all sandboxes share.
func harness(t *testing.T, opts oci.Options) enginetest.Harness {
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
		Inside:  inside, RootFS: newRoot(t),
		Lose:    lose,
		Folders: []string{opts.Runtime},
	}
}

func TestConformance(t *testing.T) {
	opts := oci.Options{AllowHostNetwork: true}
	if os.Geteuid() == 0 {
		opts.CNIConfigDir, _ = networktest.Bridges(t)
	}
	h := harness(t, opts)
	h.Label = "oci builtin"
	if os.Geteuid() == 0 {
		h.Networks = []string{"lan", "store"}
		h.Require = []string{
			"rootfs", "overlay", "limits.cpus", "limits.memory", "limits.pids", "limits.disk", "limits.log", "limits.files",
			"networks.none", "networks.default", "networks.named", "networks.shared", "ports", "mounts.bind", "mounts.tmpfs", "user", "secrets", "exec", "terminal", "files", "stats", "pause", "gateway", "networks.allow",
			"isolation:" + engine.FilteredSyscalls, "isolation:" + engine.IsolatedUserID,
		}
	} else {
		h.Label = "oci builtin, ordinary user"
		h.Require = []string{"rootfs", "overlay", "gateway", "networks.allow"}
		h.Groups, h.Without = slowtest.Groups("lifecycle", "limits", "root")
	}
	enginetest.Run(t, h)
}
