//go:build linux

package wasm_test

import (
	"testing"

	"github.com/caissonrun/caisson/engine"
)

// TestProbe holds that the engine works wherever it builds.
func TestProbe(t *testing.T) {
	f, err := newEngine(t, options(t)).Probe(t.Context())
	if err != nil || !f.Usable || !f.Module {
		t.Fatalf("Probe = %+v, %v", f, err)
	}
	if err := f.Check(&engine.Spec{Module: "/x", Args: []string{"a"}}); err != nil {
		t.Errorf("the arguments of a module: %v", err)
	}
	if f.Check(&engine.Spec{Args: []string{"a"}}) == nil {
		t.Error("commands are accepted")
	}
}
