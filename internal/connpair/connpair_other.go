//go:build !unix

// Package connpair makes connections that nothing listens for, where they can be
// handed to other processes.
package connpair

import (
	"net"
	"os"

	"github.com/caissonrun/caisson"
)

// New can't be had here.
func New() (ours net.Conn, theirs *os.File, err error) { return nil, nil, caisson.ErrUnsupported }
