//go:build linux

package qemu

import (
	"os"
	"testing"

	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/keeper"
	"github.com/caissonrun/caisson/keeper/server"
)

// TestMain lets this program be a keeper and a sandbox's init, as the main binary is
// both, and a QEMU that is none.
func TestMain(m *testing.M) {
	if isolate.IsInit() {
		isolate.Main()
	}
	if len(os.Args) > 1 && os.Args[1] == keeper.Subcommand {
		os.Exit(server.MainWith(os.Args[2:], map[string]server.Opener{Kind: OpenBox}))
	}
	if len(os.Args) > 1 && os.Args[1] == fakeWord {
		os.Exit(fakeMain(os.Args[2:]))
	}
	os.Exit(m.Run())
}
