//go:build unix

package native_test

import (
	"os"
	"testing"

	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/enginetest"
	"github.com/caissonrun/caisson/engine/native"
)

// Without isolation what is declared holds all the same, and the rest is
// refused.
func TestConformanceWithoutIsolation(t *testing.T) {
	h := harness(t, native.Options{Isolation: native.None})
	h.Label = "native, isolation none"
	h.HostPaths = true
	h.Program = func(spec *engine.Spec, args []string) { spec.Args = append([]string{h.Inside}, args...) }
	if os.Geteuid() != 0 && os.Getenv("CAISSON_TEST_FULL") == "" {
		// scripts/test-user runs the rest; `go test ./...` is to be quick.
		h.Groups = []string{"lifecycle", "exit", "stop", "recover"}
	}
	enginetest.Run(t, h)
}
