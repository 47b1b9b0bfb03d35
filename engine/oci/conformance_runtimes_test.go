//go:build unix

package oci_test

import (
	"os"
	"testing"

	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/enginetest"
	"github.com/caissonrun/caisson/engine/oci"
	"github.com/caissonrun/caisson/internal/network/networktest"
)

// strong is what every runtime must have as root.
var strong = []string{
	"rootfs", "overlay", "limits.cpus", "limits.memory", "limits.pids", "limits.disk", "limits.log", "limits.files",
	"networks.none", "networks.default", "networks.named", "networks.shared", "ports", "mounts.bind", "mounts.tmpfs", "user", "secrets", "exec", "terminal", "files", "stats", "pause", "gateway", "networks.allow",
	"isolation:" + engine.FilteredSyscalls, "isolation:" + engine.IsolatedUserID,
}

// conformance runs the suite with one runtime, which root must have.
func conformance(t *testing.T, runtime string, require []string) {
	if os.Geteuid() != 0 {
		t.Skip("only root can have an OCI runtime make sandboxes")
	}
	networks, _ := networktest.Bridges(t)
	h := harness(t, oci.Options{AllowHostNetwork: true, Use: runtime, CNIConfigDir: networks})
	h.Label, h.Require, h.Networks = "oci "+runtime, require, []string{"lan", "store"}
	enginetest.Run(t, h)
}

func TestConformanceCrun(t *testing.T) { conformance(t, "crun", strong) }

func TestConformanceRunc(t *testing.T) { conformance(t, "runc", strong) }

// TestConformanceRunsc requires less: gVisor's kernel takes part in no network of
// others, its own processes would be counted as the task's, and files have the
// ids on the host that they have inside.
func TestConformanceRunsc(t *testing.T) {
	conformance(t, "runsc", []string{
		"rootfs", "overlay", "limits.cpus", "limits.memory", "limits.disk", "limits.log", "limits.files",
		"networks.none", "mounts.bind", "mounts.tmpfs", "user", "secrets", "exec", "terminal", "files", "stats", "pause",
		"isolation:" + engine.FilteredSyscalls,
	})
}
