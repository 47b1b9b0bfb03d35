package enginetest

import (
	"testing"

	"github.com/caissonrun/caisson/engine"
)

// A Harness is how the suite gets an engine and what it must know about it.
// Only New is required.
type Harness struct {
	// New returns an engine of a fresh installation. The suite closes it.
	New func(t testing.TB) engine.Engine
	// Restart returns the engine that another process of the same installation
	// would have after the one that had old is gone. Nil: old is closed and
	// the cases of recovery are not applicable.
	Restart func(t testing.TB, old engine.Engine) engine.Engine
	// Other returns an engine of another installation on the same host. Nil:
	// cases that need one are not applicable.
	Other func(t testing.TB) engine.Engine

	// Inside is the path on the host of the static program that observes the
	// sandbox from within: see BuildInside.
	Inside string
	// Program has spec run the inside program with args. Nil: Inside is bound
	// read-only into the sandbox, or copied to the work folder where the
	// engine has no binds.
	Program func(spec *engine.Spec, args []string)

	// Lose kills what keeps the sandbox of spec (its keeper, its monitor) as a
	// crash would. Nil: cases that need it are not applicable.
	Lose func(t testing.TB, spec *engine.Spec)

	// Folders are where the engine keeps files of its own, such as sockets and
	// locks: what is in them before and after every case is compared.
	Folders []string
	// Resources lists, by name, everything else that the engine makes on the
	// host (containers, networks, cgroups). Compared too. Nil: nothing.
	Resources func(t testing.TB) []string

	// Require names the features that must be declared, such as "exec" or
	// "limits.memory": a host where one is missing fails.
	Require []string
}
