//go:build !linux

package kept

import (
	"context"
	"errors"

	"github.com/caissonrun/caisson/engine"
)

// GatewayToTry returns nil: sandboxes with a network of their own need Linux.
func GatewayToTry() *engine.Gateway { return nil }

// TryGateway returns an error.
func TryGateway(context.Context, engine.Sandbox) error {
	return Unsupported("gateway", errors.New("it needs Linux"))
}
