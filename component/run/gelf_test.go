//go:build unix

package run_test

import (
	"strings"
	"testing"

	"github.com/caissonrun/caisson/engine/mem"
)

// TestGELFRefused holds that a component that logs by GELF does not run where
// nothing can listen for it.
func TestGELFRefused(t *testing.T) {
	r := newRig(t)
	r.define("test.gelf", `{"logging": {"type": "gelf"}}`, func(*mem.Proc) int {
		t.Error("it was run")
		return 0
	})
	r.config("test.gelf", "")
	got := r.run(nil)
	if got.Status == 0 || got.doc.Error == nil || !strings.Contains(got.doc.Error.Message, "GELF") {
		t.Errorf("status %d, %+v, want that nothing can listen for GELF", got.Status, got.doc.Error)
	}
}
