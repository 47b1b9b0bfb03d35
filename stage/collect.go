package stage

import (
	"context"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/safefs"
)

// Collect lists the files of the work folder that out.Path matches, in order,
// folders with all that is below them.
//
// Nothing that the task made is followed or waited for. Both returns can be
// set: what can be had is listed although something else is refused.
//
// Errors: ErrInvalid if the pattern is bad, out.MaxSize is passed, or the
// pattern names something that is no file, folder or link; ErrNotFound if
// nothing matches and the output is not optional; ErrDenied for a link that
// leads out of what matched, and for what can't be read.
func Collect(ctx context.Context, work *safefs.Root, out *caisson.Output) ([]File, error) {
	panic("todo")
}

// Overlaps reports whether the output glob pattern may match to, a path that an
// input is staged to, or something below or above it.
func Overlaps(pattern, to string) bool { panic("todo") }
