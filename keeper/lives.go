//go:build unix

package keeper

import "github.com/caissonrun/caisson/keeper/internal/wire"

// Lives reports whether there is a keeper of the sandbox whose Spec.Dir is dir.
// It asks the system, not the keeper, and never waits.
func Lives(dir string) bool {
	record, err := readRecord(dir)
	return err == nil && wire.Lives(record)
}
