package mem

import (
	"context"
	"time"

	"github.com/caissonrun/caisson"
)

// A keeping is the time after the program's end in which a box can be entered.
// It is guarded by box.mu.
type keeping struct {
	on    bool
	over  bool // it was on
	timer *time.Timer
}

const (
	mainIsOver = "the program has ended"
	keepIsOver = "the time that the sandbox was kept for is over"
)

// settle is linger for a box that is kept: what the program has left behind is
// halted, and execs end. mu is held, but not while it waits.
func (b *box) settle() {
	over := time.NewTimer(b.spec.Linger.Std())
	defer over.Stop()
	late := b.spec.Linger <= 0 || b.reason != ""
	for {
		beside, holding := false, false
		for p := range b.procs {
			beside = beside || p.session != nil
			holding = holding || p.holdsOutput()
		}
		if !beside && (!holding || late) {
			break
		}
		changed := b.changed
		b.mu.Unlock()
		select {
		case <-changed:
		case <-over.C:
			late = true
		}
		b.mu.Lock()
	}
	for p := range b.procs {
		p.halted = true
	}
	b.paused = false
}

// keeps reports whether the box stays after the program's end. mu is held.
func (b *box) keeps() bool { return b.spec.Keep > 0 && b.forced == nil }

// beginKeep begins the time.
func (b *box) beginKeep() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.keeps() && !b.destroyed {
		b.keep.on = true
		b.keep.timer = time.AfterFunc(b.spec.Keep.Std(), b.endKeep)
	}
}

// endKeep is the end of the time, or comes before that of the box.
func (b *box) endKeep() {
	if b.stopKeep() {
		b.closeScreen()
	}
}

// stopKeep reports whether it was on.
func (b *box) stopKeep() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.keep.on {
		return false
	}
	b.keep.on, b.keep.over = false, true
	b.keep.timer.Stop()
	b.killAll()
	return true
}

// awaitKeep waits, after the program's end, until the box can be entered again.
func (b *box) awaitKeep(ctx context.Context) error {
	b.mu.Lock()
	wait := b.ended && b.keeps()
	b.mu.Unlock()
	if !wait {
		return nil
	}
	select {
	case <-b.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// mayExec tells whether a program can be started beside the main one, or after
// it. mu is held.
func (b *box) mayExec() (late bool, err error) {
	switch {
	case b.destroyed || !b.keep.on && !b.keep.over:
		return false, b.over(caisson.OpExec)
	case b.keep.over:
		return false, failure(caisson.OpExec, b, caisson.ErrEnded, mainIsOver+", and "+keepIsOver)
	}
	return true, nil
}

// awaitEmpty waits until nothing of the box runs.
func (b *box) awaitEmpty(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.procs) > 0 {
		changed := b.changed
		b.mu.Unlock()
		select {
		case <-changed:
			b.mu.Lock()
		case <-ctx.Done():
			b.mu.Lock()
			return ctx.Err()
		}
	}
	return nil
}
