package kept

import (
	"context"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// Stats implements engine.StatsReader.
func (m measured) Stats(ctx context.Context) (engine.Stats, error) { return m.stats(ctx) }

func (s *sandbox) stats(ctx context.Context) (engine.Stats, error) {
	if err := s.alive(caisson.OpStats); err != nil {
		return engine.Stats{}, err
	}
	if s.keeper() == nil {
		return engine.Stats{}, s.lostBefore(caisson.OpStats)
	}
	st, err := s.keeper().Stats(ctx)
	if err != nil {
		return engine.Stats{}, s.said(caisson.OpStats, err)
	}
	return engine.Stats{
		Time: time.Now(), CPU: caisson.Duration(st.CPU), Memory: st.Memory, PeakMemory: st.PeakMemory,
		PIDs: st.PIDs, OOMKills: st.OOMKills, Throttled: caisson.Duration(st.Throttled),
	}, nil
}

// Pause implements engine.Pauser.
func (p pausable) Pause(ctx context.Context) error { return p.pause(ctx) }

// Resume implements engine.Pauser.
func (p pausable) Resume(ctx context.Context) error { return p.resume(ctx) }

func (s *sandbox) pause(ctx context.Context) error {
	return (&process{s}).tell(ctx, func() error { return s.keeper().Pause(ctx) })
}

func (s *sandbox) resume(ctx context.Context) error {
	return (&process{s}).tell(ctx, func() error { return s.keeper().Resume(ctx) })
}
