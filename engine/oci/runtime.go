package oci

import (
	"fmt"

	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/isolate"
)

// runtimeFor returns the runtime that makes a sandbox; nil is builtin.
func (e *Engine) runtimeFor(_ *found, c *choice) (*isolate.Runtime, error) {
	for _, name := range []string{c.Runtime, e.opts.Use} {
		if name != "" && name != Builtin {
			return nil, kept.Unsupported("runtime", fmt.Errorf("%q: there is only %s", name, Builtin))
		}
	}
	return nil, nil
}
