//go:build unix

package server

import (
	"errors"
	"time"
)

// A keeping is the time, once the program's end is durable, in which others can still be
// started in the sandbox: wire.Spec.Keep. It is guarded by the keeper's mutex.
type keeping struct {
	from  time.Time // the program's end
	on    bool
	over  bool // it was on
	timer *time.Timer
}

const (
	mainHasEnded = "the program that it ran beside has ended"
	keepIsOver   = "the time that its sandbox was kept for is over"
	keepHasCome  = "the task's program has ended; what is left of it is halted now, exec again to look at it"
)

// partingTime is how long those whose programs are ended have to be told why.
const partingTime = time.Second

// settle sees to what the program has left behind: it is killed, or, where the
// sandbox is kept, halted. Whoever is beside the program goes with it.
func (k *keeper) settle() error {
	if k.spec.Keep <= 0 {
		return k.killAll()
	}
	k.endSessions(keepHasCome)
	err := k.use(func() error {
		if h, ok := k.box.(Halter); ok {
			return h.Halt()
		}
		return nil
	})
	if err == nil {
		return nil
	}
	// Nothing may run on after the program's end.
	return errors.Join(err, k.killAll())
}

// beginKeep begins the time. The caller holds mu.
func (k *keeper) beginKeep() {
	if k.spec.Keep <= 0 || k.doomed {
		return
	}
	k.keep.on = true
	k.keep.timer = time.AfterFunc(k.spec.Keep.Std(), k.endKeep)
}

// awaitKeep waits, after the program's end, until that is durable and the
// sandbox can be entered again.
func (k *keeper) awaitKeep() {
	k.mu.Lock()
	wait := k.phase == leaving && k.spec.Keep > 0
	k.mu.Unlock()
	if !wait {
		return
	}
	select {
	case <-k.over:
	case <-k.quit:
	}
}

// endKeep is called when the time is over: from then on everything is as if the
// program had ended just now, without Keep.
func (k *keeper) endKeep() {
	k.dismiss(keepIsOver)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.next.tries, k.next.done = 0, false
	k.follow()
}

// dismiss ends the keeping, if it is on, with all that runs in the sandbox, and
// tells those why whose programs these are.
func (k *keeper) dismiss(why string) {
	k.mu.Lock()
	on := k.keep.on
	if on {
		k.keep.on, k.keep.over = false, true
		k.keep.timer.Stop()
	}
	k.mu.Unlock()
	if !on {
		return
	}
	k.endSessions(why)
	_ = k.killAll()
	// One that was being started meanwhile is killed as well; it may have been
	// halted by another, so it is waited for after the first kill only.
	k.spawning.Lock()
	k.endSessions(why)
	k.spawning.Unlock()
	_ = k.killAll()
	k.awaitSessions()
}

// endSessions kills the programs that were started beside the main one.
func (k *keeper) endSessions(why string) {
	k.mu.Lock()
	var all []*session
	for s := range k.sessions {
		all = append(all, s)
	}
	k.mu.Unlock()
	for _, s := range all {
		s.end(why)
	}
}

// awaitSessions waits until all are told of their programs' end.
func (k *keeper) awaitSessions() {
	for deadline := time.Now().Add(partingTime); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		k.mu.Lock()
		left := len(k.sessions)
		k.mu.Unlock()
		if left == 0 {
			return
		}
	}
}

// end kills the program with what it has started, for a reason that its client
// is told.
func (s *session) end(why string) {
	s.mu.Lock()
	if s.ended == "" {
		s.ended = why
	}
	s.mu.Unlock()
	s.kill()
}
