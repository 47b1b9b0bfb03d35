package mem

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/atomicfile"
)

// mainEnded sees to everything that follows the main program's end. It runs in
// that program's goroutine, when nothing of the program runs any more.
func (b *box) mainEnded(p *Proc) {
	b.mu.Lock()
	b.ended = true
	exit := b.judge(p)
	for other := range b.procs {
		if other.session != nil {
			other.kill(sigKill)
		}
	}
	if b.usage.timer != nil {
		b.usage.timer.Stop()
	}
	if b.killTimer != nil {
		b.killTimer.Stop()
	}
	b.broadcast()
	if b.keeps() {
		b.settle()
	} else {
		b.linger()
	}
	kept := b.keeps()
	b.mu.Unlock()

	b.closeGateway()
	if !kept {
		b.closeScreen()
	}
	if err := b.log.close(); err != nil && exit.Message == "" {
		exit.Message = "log: " + err.Error()
	}
	// Without the record the end is known to this process only, and lost with
	// it.
	if data, err := json.Marshal(&exit); err == nil {
		_ = atomicfile.Write(filepath.Join(b.spec.Dir, exitFile), data, 0o600)
	}
	b.verdict = exit
	b.beginKeep()
	close(b.done)
	b.tellNobody()
}

// judge says how the program ended. mu is held.
func (b *box) judge(p *Proc) caisson.Exit {
	exit := caisson.Exit{
		Reason:    caisson.ReasonExited,
		Code:      p.code,
		Signal:    p.signal,
		Message:   p.message,
		OOMKills:  b.usage.oomKills,
		StartedAt: b.usage.start.Round(0),
		EndedAt:   time.Now().Round(0),
		Usage: caisson.Usage{
			Wall:       caisson.Duration(time.Since(b.usage.start)),
			CPU:        caisson.Duration(b.usage.cpu),
			PeakMemory: b.usage.peak,
		},
	}
	failed := exit.Code != 0 || exit.Signal != 0
	switch {
	case b.forced != nil:
		exit.Reason, exit.Code, exit.Signal = b.forced.Reason, b.forced.Code, b.forced.Signal
		exit.Message, exit.OOMKills = b.forced.Message, b.forced.OOMKills
	case b.reason != "":
		exit.Reason = b.reason
	case failed && exit.OOMKills > 0:
		exit.Reason = caisson.ReasonOOM
		exit.Message = "the memory limit of " + b.spec.Limits.Memory.String() + " was reached"
	case exit.Signal != 0:
		exit.Reason = caisson.ReasonSignaled
	}
	return exit
}

// linger waits for what the program left behind: as long as Spec.Linger for
// processes that hold its output, and not at all for others. mu is held, but
// not while it waits.
func (b *box) linger() {
	over := time.NewTimer(b.spec.Linger.Std())
	defer over.Stop()
	killed := false
	for len(b.procs) > 0 {
		holding := false
		for p := range b.procs {
			holding = holding || p.session == nil && p.holdsOutput()
		}
		if !holding || b.spec.Linger <= 0 || killed {
			b.killAll()
			killed = true
		}
		changed := b.changed
		b.mu.Unlock()
		select {
		case <-changed:
		case <-over.C:
			killed = true
		}
		b.mu.Lock()
	}
}

// tellNobody starts Spec.OnExit if nobody is there to see the program's end.
func (b *box) tellNobody() {
	b.mu.Lock()
	argv, env := b.spec.OnExit, b.spec.OnExitEnv
	tell := len(argv) > 0 && len(b.owners) == 0 && !b.destroyed && !b.aborted()
	if tell {
		b.spec.OnExit = nil // once
	}
	b.mu.Unlock()
	if !tell {
		return
	}
	if b.onExit != nil {
		b.onExit(b.spec.ID, argv, env)
		return
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = env
	if cmd.Start() == nil {
		// It is reaped whenever it ends, and what it does is its own affair.
		go func() { _ = cmd.Wait() }()
	}
}
