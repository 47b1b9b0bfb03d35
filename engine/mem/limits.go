package mem

import (
	"context"
	"syscall"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// usage is what a box has used. Guarded by box.mu.
type usage struct {
	start     time.Time
	timer     *time.Timer // Spec.Timeout
	memory    int64
	peak      caisson.Bytes
	pids      int64
	cpu       time.Duration
	throttled time.Duration
	oomKills  int
	cpuFree   time.Time // when processor time is to be had again, under a limit
}

// spinSlice is how much processor time Spin takes at once.
const spinSlice = time.Millisecond

// Alloc uses n more bytes of memory until the process ends. Over the memory
// limit the process is killed.
func (p *Proc) Alloc(n int64) error {
	p.checkpoint()
	p.box.mu.Lock()
	p.box.charge(p, n)
	p.box.mu.Unlock()
	p.checkpoint()
	return nil
}

// charge adds to what p uses. mu is held.
func (b *box) charge(p *Proc, n int64) {
	if limit := int64(b.spec.Limits.Memory); limit > 0 && b.usage.memory+n > limit {
		if p.killedBy == 0 {
			b.usage.oomKills++
			b.usage.peak = b.spec.Limits.Memory
			p.kill(sigKill)
		}
		return
	}
	p.memory += n
	b.usage.memory += n
	b.usage.peak = max(b.usage.peak, caisson.Bytes(b.usage.memory))
}

// Spin uses processor time for d. Under a limit that takes longer.
func (p *Proc) Spin(d time.Duration) {
	for used := time.Duration(0); used < d; used += spinSlice {
		p.checkpoint()
		slice := min(spinSlice, d-used)
		p.Sleep(p.box.schedule(slice))
	}
}

// schedule takes processor time and returns how long that takes.
func (b *box) schedule(slice time.Duration) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.usage.cpu += slice
	cpus := b.spec.Limits.CPUs
	if cpus == 0 {
		return slice
	}
	now := time.Now()
	if b.usage.cpuFree.Before(now) {
		b.usage.cpuFree = now
	}
	b.usage.cpuFree = b.usage.cpuFree.Add(slice * 1000 / time.Duration(cpus))
	wait := max(slice, b.usage.cpuFree.Sub(now))
	b.usage.throttled += wait - slice
	return wait
}

// Stats implements engine.StatsReader.
func (s statsReader) Stats(ctx context.Context) (engine.Stats, error) {
	if err := s.engine.enter(ctx, caisson.OpStats, s.box); err != nil {
		return engine.Stats{}, err
	}
	b := s.box
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.destroyed || b.aborted() {
		return engine.Stats{}, b.gone(caisson.OpStats)
	}
	return engine.Stats{
		Time:       time.Now(),
		CPU:        caisson.Duration(b.usage.cpu),
		Memory:     caisson.Bytes(b.usage.memory),
		PeakMemory: b.usage.peak,
		PIDs:       int64(len(b.procs)),
		OOMKills:   int64(b.usage.oomKills),
		Throttled:  caisson.Duration(b.usage.throttled),
	}, nil
}

// Pause implements engine.Pauser.
func (s pauser) Pause(ctx context.Context) error { return s.pause(ctx, true) }

// Resume implements engine.Pauser.
func (s pauser) Resume(ctx context.Context) error { return s.pause(ctx, false) }

func (s pauser) pause(ctx context.Context, on bool) error {
	if err := s.engine.enter(ctx, caisson.OpSignal, s.box); err != nil {
		return err
	}
	b := s.box
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.over(caisson.OpSignal); err != nil {
		return err
	}
	b.paused = on
	b.broadcast()
	return nil
}

// openFile counts a file that p opens.
func (p *Proc) openFile() error {
	const standard = 3 // descriptors that every process has
	if most := p.box.spec.Limits.Files; most > 0 && p.files.Load()+standard >= most {
		return syscall.EMFILE
	}
	p.files.Add(1)
	return nil
}
