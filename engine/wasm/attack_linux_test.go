package wasm_test

import (
	"testing"

	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/attack"
)

// TestAttacks tries what `caisson selftest` tries.
func TestAttacks(t *testing.T) {
	e := newEngine(t, options(t))
	f, err := e.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range attack.Modules() {
		t.Run(a.Name, func(t *testing.T) {
			place := &attack.Place{
				Engine: e, Features: &f, Dir: t.TempDir(),
				Spec: func(...string) *engine.Spec { return spec(t, "", "") },
			}
			if outcome := attack.Try(t.Context(), &a, place); outcome.Status != attack.Held {
				t.Errorf("%s: %v", outcome.Status, outcome.Why)
			}
		})
	}
}
