package kept

import (
	"context"

	"github.com/caissonrun/caisson"
)

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
