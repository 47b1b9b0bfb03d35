//go:build unix && !linux

package docker

import (
	"context"
	"errors"

	"github.com/caissonrun/caisson/engine"
)

func probeGateway() *engine.Gateway { return nil }

// tryGateway is never called: guests need Linux.
func tryGateway(context.Context, engine.Sandbox) error { return errors.ErrUnsupported }
