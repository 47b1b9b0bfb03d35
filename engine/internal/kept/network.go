package kept

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

var _ engine.NetworkLocator = (*sandbox)(nil)

// NetworkNamespace implements engine.NetworkLocator.
func (s *sandbox) NetworkNamespace(ctx context.Context) (string, error) {
	if err := s.alive(caisson.OpStart); err != nil {
		return "", err
	}
	if !s.rec.Inside {
		return "", Unsupported("network", errors.New("this sandbox has none of its own that could be entered from outside"))
	}
	if s.keeper() == nil {
		return "", s.lostBefore(caisson.OpStart)
	}
	status, err := s.keeper().Status(ctx)
	switch {
	case err != nil:
		return "", s.said(caisson.OpStart, err)
	case status.Exit != nil:
		return "", &caisson.Error{Op: caisson.OpStart, Item: s.id, Kind: caisson.ErrEnded, Err: errors.New("its program has ended")}
	case status.BoxPID == 0:
		return "", &caisson.Error{Op: caisson.OpStart, Item: s.id, Kind: caisson.ErrUnavailable, Err: fmt.Errorf("its keeper does not tell where it is")}
	}
	return "/proc/" + strconv.Itoa(status.BoxPID) + "/ns/net", nil
}
