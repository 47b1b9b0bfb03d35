//go:build !linux

package enginetest

import (
	"testing"

	"github.com/caissonrun/caisson/engine"
)

// lose has the harness kill what keeps a sandbox.
func (t *T) lose(spec *engine.Spec) { t.h.Lose(t.tb, spec) }

// reap has nothing to do without adopt.
func (t *T) reap() {}

// adopt does nothing: only Linux lets a process be given its descendants.
func adopt(testing.TB) func() { return func() {} }

// system adds nothing: other systems tell nothing without privileges.
func (s *suite) system(snapshot) {}
