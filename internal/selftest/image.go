//go:build unix

package selftest

import "github.com/caissonrun/caisson/engine/attack"

// imageData returns the attacks on the store of images.
func imageData() []attack.Attack { return nil }
