//go:build !linux

package gelf

import (
	"errors"

	"github.com/caissonrun/caisson"
)

// ListenIn listens in a network namespace, which only Linux has. Errors:
// ErrUnsupported.
func ListenIn(string, string, Options) (*Listener, error) {
	err := errors.New("only Linux has network namespaces")
	return nil, &caisson.Error{Op: caisson.OpStart, Item: "gelf", Kind: caisson.ErrUnsupported, Err: err}
}
