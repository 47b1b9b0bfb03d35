//go:build unix && !linux

package server

import (
	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/keeper/internal/wire"
)

// onceFiles are files that can be read once; there are none here.
type onceFiles struct{}

func serveOnce(_ Box, list []wire.Once) (*onceFiles, error) {
	if len(list) == 0 {
		return nil, nil
	}
	return nil, failure(caisson.OpCreate, caisson.ErrUnsupported, "files that are gone after their first read need Linux")
}

func (*onceFiles) close() {}
