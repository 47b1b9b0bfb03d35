//go:build unix

package native_test

import (
	"testing"

	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/enginetest"
	"github.com/caissonrun/caisson/engine/native"
	"github.com/caissonrun/caisson/internal/slowtest"
)

// Without isolation what is declared holds all the same, and the rest is
// refused.
func TestConformanceWithoutIsolation(t *testing.T) {
	h := harness(t, native.Options{Isolation: native.None})
	h.Label = "native, isolation none"
	h.HostPaths = true
	h.Program = func(spec *engine.Spec, args []string) { spec.Args = append([]string{h.Inside}, args...) }
	h.Groups, h.Without = slowtest.Groups("lifecycle")
	enginetest.Run(t, h)
}
