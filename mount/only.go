package mount

import (
	"context"
	"slices"
)

// A Restricted mounter serves the sandboxes of some engines only. A task that
// needs it runs in one of those, and there may be other mounters of the same
// type for other engines. A Mounter that is not Restricted serves all.
type Restricted interface {
	// Engines returns the engines' names, at least one. It never changes.
	Engines() []string
}

// Only restricts a mounter to engines, at least one.
func Only(m Mounter, engines ...string) Mounter {
	r := restricted{Mounter: m, engines: slices.Clone(engines)}
	if s, ok := m.(Sweeper); ok {
		return &restrictedSweeper{r, s}
	}
	return &r
}

// restricted wraps a Mounter and names the engines that it serves.
type restricted struct {
	Mounter
	engines []string
}

// Engines implements Restricted.
func (r *restricted) Engines() []string { return slices.Clone(r.engines) }

// restrictedSweeper is restricted for a Mounter that is a Sweeper too.
type restrictedSweeper struct {
	restricted
	sweeper Sweeper
}

// Sweep implements Sweeper.
func (r *restrictedSweeper) Sweep(ctx context.Context, live func(task string, attempt int) bool) error {
	return r.sweeper.Sweep(ctx, live)
}
