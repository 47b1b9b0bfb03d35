//go:build !unix

package qmp

import (
	"context"
	"errors"
	"os"

	"github.com/caissonrun/caisson"
)

// SendFile gives QEMU a file, which can't be done here.
func (c *Client) SendFile(context.Context, string, *os.File) error {
	return &caisson.Error{Item: "qemu", Kind: caisson.ErrUnsupported, Err: errors.New("files can't be sent on this system")}
}
