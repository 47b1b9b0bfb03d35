package kept

import (
	"context"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// OpOrigin is the request by which a box tells what it began with: an engine.Origin.
const OpOrigin = "origin"

// OpSnapshot is the request by which a box writes what the sandbox is to a folder:
// see engine.Snapshotter.
const OpSnapshot = "snapshot"

// A SnapshotRequest is what OpSnapshot is told.
type SnapshotRequest struct {
	Dir string `json:"dir"`
}

// Snapshot implements engine.Snapshotter.
func (c copyable) Snapshot(ctx context.Context, dir string) error {
	return (&process{c.sandbox}).tell(ctx, func() error {
		_, err := c.keeper().Do(ctx, OpSnapshot, &SnapshotRequest{Dir: dir}, nil)
		return c.said(caisson.OpFiles, err)
	})
}

// Origin implements engine.Originator.
func (c copyable) Origin(ctx context.Context) (o engine.Origin, err error) {
	err = (&process{c.sandbox}).tell(ctx, func() error {
		_, err := c.keeper().Do(ctx, OpOrigin, nil, &o)
		return err
	})
	return o, err
}
