//go:build !unix

package machine

import (
	"net"
	"os"

	"github.com/caissonrun/caisson"
)

// Pair can't be had here.
func Pair() (net.Conn, *os.File, error) { return nil, nil, caisson.ErrUnsupported }
