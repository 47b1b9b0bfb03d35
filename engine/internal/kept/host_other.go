//go:build !linux

package kept

import (
	"runtime"

	"github.com/caissonrun/caisson/internal/cgroup"
	"github.com/caissonrun/caisson/internal/disk"
)

// Examine finds that there is nothing of what full isolation is made of.
func Examine(string, bool) Support {
	const why = "this system has no control groups"
	return Support{
		Version: runtime.GOOS,
		Cgroup: cgroup.Support{Missing: []cgroup.Missing{
			{What: "cpu limit", Why: why},
			{What: "memory limit", Why: why},
			{What: "process limit", Why: why},
			{What: "stats", Why: why},
			{What: "pause", Why: why},
		}},
		Disk: disk.Probe(""),
	}
}

// Mapped reports that there are no ids to give here.
func (r Range) Mapped() bool { return false }

// Marker is the variable that tells which sandbox a process is of.
const Marker = "CAISSON_SANDBOX"

// KillOrphans can't find them here.
func KillOrphans(string) error { return nil }

func canIdmap(string) bool { return true }

func fsType(string) (int64, error) { return 0, nil }

func endGroup(string) error { return nil }

func killGroup(string) error { return nil }

func groups(string) ([]string, error) { return nil, nil }

func asUser(_, _ int, f func() error) error { return f() }
