//go:build unix

package qemu

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caissonrun/caisson/internal/isolate"
)

// Kill implements server.Box. A guest that does not end its programs is ended.
func (b *box) Kill() error {
	if b.gone() != nil {
		return nil
	}
	b.hurry()
	ctx, cancel := within(b.killTime)
	defer cancel()
	err := b.wake(ctx)
	if err == nil {
		err = b.agent.Kill(ctx)
	}
	if err == nil {
		return nil
	}
	switch {
	case b.agent.Err() != nil:
		// The machine ends, or is ended by whoever watches it.
	case ctx.Err() != nil:
		b.end(fmt.Sprintf("the guest has not ended its programs within %v, so the machine was ended%s", b.killTime, b.halted()))
	default:
		b.end("the guest can't end its programs, so the machine was ended: " + cause(err).Error())
	}
	select {
	case <-b.over:
	case <-time.After(partTime + endTime):
	}
	return nil
}

// hurry has nobody wait for output that nobody reads.
func (b *box) hurry() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for p := range b.programs {
		p.hurry()
	}
}

// Freeze implements server.Box: it halts the machine as a whole, or lets it go on.
func (b *box) Freeze(on bool) error {
	if err := b.gone(); err != nil {
		return err
	}
	if !on {
		return b.step("resume", b.wake)
	}
	// Nobody can ask the guest while it is halted.
	_, _ = b.Stats()
	return b.step("pause", func(ctx context.Context) error {
		if err := b.qmp.Pause(ctx); err != nil {
			return err
		}
		b.setPaused(true)
		return nil
	})
}

// wake lets the processors of a machine that is paused go on.
func (b *box) wake(ctx context.Context) error {
	if !b.isPaused() {
		return nil
	}
	if err := b.qmp.Continue(ctx); err != nil {
		return err
	}
	b.setPaused(false)
	// The guest's clock has stood still. One with a system of its own may not let it
	// be set, and sees to it.
	if err := b.agent.SetClock(ctx, time.Now()); ctx.Err() != nil {
		return err
	}
	return nil
}

func (b *box) isPaused() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.paused
}

func (b *box) setPaused(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.paused = on
}

// Halt implements server.Halter.
func (b *box) Halt() error {
	if b.gone() != nil {
		// Nothing runs any more.
		return nil
	}
	return b.step("halt", b.agent.Halt)
}

// Stats implements server.Box. What a guest uses is what its programs do; while it
// can't be asked, the last that it has told counts.
func (b *box) Stats() (isolate.Stats, error) {
	host, err := b.qemu.Stats()
	if err != nil {
		host = isolate.Stats{CPU: -1, Memory: -1, PeakMemory: -1, PIDs: -1, OOMKills: -1, Throttled: -1}
	}
	b.mu.Lock()
	usage, told, ask := b.usage, b.told, !b.paused && b.lost == nil && !b.closing
	b.mu.Unlock()
	if ask {
		ctx, cancel := within(b.callTime)
		defer cancel()
		now, err := b.agent.Stats(ctx)
		if err != nil && b.gone() == nil {
			return now, b.said("stats", err)
		}
		if err == nil {
			usage, told = now, true
			b.mu.Lock()
			b.usage, b.told = now, true
			b.mu.Unlock()
		}
	}
	if !told {
		// What QEMU was killed for is no limit of the task's.
		host.OOMKills = min(host.OOMKills, 0)
		return host, err
	}
	usage.OOMKills = max(usage.OOMKills, 0)
	usage.Throttled = host.Throttled
	if b.gone() != nil {
		// Whatever was killed before, the program has ended with its machine.
		usage.OOMKills = 0
	}
	return usage, nil
}

// Drain implements server.Drainer: it returns when what the program has printed is
// passed on.
func (b *box) Drain() error {
	b.mu.Lock()
	main := b.main
	b.mu.Unlock()
	if main == nil {
		return nil
	}
	if main.lost.Load() {
		select {
		case <-b.over:
		case <-time.After(partTime + endTime):
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.lost
	}
	main.flush()
	return nil
}

// Close implements server.Box: it ends the machine.
func (b *box) Close() error {
	b.mu.Lock()
	b.closing = true
	b.mu.Unlock()
	b.hurry()
	var err error
	if b.gate != nil {
		err = b.gate.Close()
	}
	if b.qemu != nil {
		err = errors.Join(err, b.qemu.Close())
	}
	if b.net != nil {
		err = errors.Join(err, b.net.Close())
	}
	closeFiles(b.asked)
	b.answers.Wait()
	if b.agent != nil {
		err = errors.Join(err, b.agent.Close())
	}
	if b.qmp != nil {
		err = errors.Join(err, b.qmp.Close())
	}
	if b.console != nil && err == nil {
		<-b.console.done
	}
	if b.agent != nil && err == nil {
		<-b.over
	}
	return err
}
