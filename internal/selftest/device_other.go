//go:build unix && !linux

package selftest

import (
	"errors"

	"github.com/caissonrun/caisson/engine/attack"
)

// makeDevice is only needed where there are sandboxes with images.
func makeDevice(string, *attack.File) error { return errors.ErrUnsupported }
