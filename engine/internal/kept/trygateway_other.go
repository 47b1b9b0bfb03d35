//go:build !linux

package kept

import (
	"context"
	"errors"

	"github.com/caissonrun/caisson/engine"
)

// TryGateway returns an error.
func TryGateway(context.Context, engine.Sandbox) error {
	return Unsupported("gateway", errors.New("it needs Linux"))
}
