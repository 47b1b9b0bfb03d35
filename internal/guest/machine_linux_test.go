package guest_test

import (
	"testing"

	"github.com/caissonrun/caisson/internal/machine/machinetest"
)

// TestMachine does in a real machine what the engine does.
func TestMachine(t *testing.T) {
	if testing.Short() {
		t.Skip("it boots a guest")
	}
	g := machinetest.Boot(t, nil)
	info, err := g.Client.Info(testContext(t))
	t.Logf("%+v %v\n%s", info, err, g.Console())
}
