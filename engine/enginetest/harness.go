package enginetest

import (
	"testing"

	"github.com/caissonrun/caisson/engine"
)

// A Harness is how the suite gets an engine, and what it must know about it.
// Only New is required.
type Harness struct {
	// Label names the engine in results where its name does not tell enough,
	// such as "native, ordinary user". Empty: the engine's name.
	Label string
	// New returns an engine of the installation under test. Several may be
	// open at once. The suite closes them.
	New func(t testing.TB) engine.Engine
	// Restart returns the engine that a new process would have after the one
	// that had old was killed. Nil: old is closed, and New called.
	Restart func(t testing.TB, old engine.Engine) engine.Engine
	// Other returns an engine of another installation on the same host. Nil:
	// cases that need one are not applicable.
	Other func(t testing.TB) engine.Engine

	// Inside is the path on the host of the program that observes sandboxes
	// from within: see BuildInside. It may be empty where Program is set.
	Inside string
	// Program has spec run the inside program with args. Nil: Inside is bound
	// into the sandbox read-only.
	Program func(spec *engine.Spec, args []string)

	// RootFS is a folder that is the unpacked root of an image, for engines that
	// take one: every sandbox has it below an overlay, or a copy where the
	// engine has no overlays. Its files are as an image's are on disk, and no
	// case changes it. Engines with Features.Disk get a disk of it. Empty: sandboxes
	// have none.
	RootFS string

	// Slow says that making a sandbox takes seconds, as booting a machine does:
	// everything may take ten times as long, and cases do what they repeat only
	// twice.
	Slow bool

	// HostPaths says that programs see the host's own files: the work folder is
	// at Spec.Work, not at caisson.WorkDir, there is no /tmp of their own, and
	// their files belong to the user that they run as.
	HostPaths bool

	// Lose kills what keeps the sandbox of spec (its keeper, its monitor), as a
	// crash would. Nil: cases that need it are not applicable.
	Lose func(t testing.TB, spec *engine.Spec)

	// Networks are the names of two networks that sandboxes can be attached to,
	// both of which publish ports on the host. Empty: cases that need them are
	// not applicable.
	Networks []string

	// Folders are where the engine keeps files of its own, such as sockets and
	// locks. What is in them is compared before and after every case.
	Folders []string
	// Resources lists, by name, everything else that the engine makes on the
	// host, such as containers and networks. It is compared too. Nil: nothing.
	Resources func(t testing.TB) []string

	// Groups are the topics that are checked, such as "lifecycle", where there
	// is no time for all. Empty: all.
	Groups []string
	// Without says why the other groups are left out: they are skipped for that
	// reason. Empty: they do not show.
	Without string

	// Require names features that must be declared, such as "exec" or
	// "limits.memory". On a host where one is missing the suite fails.
	Require []string
}
