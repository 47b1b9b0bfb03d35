//go:build unix

package server

import (
	"os"
	"syscall"
	"time"
)

const (
	// followTries is how often OnExit is started in all.
	followTries = 5
	// followDelay is the pause before the second time if the spec has none.
	followDelay = time.Second
)

// following is what is known about OnExit. It is guarded by the keeper's mutex.
type following struct {
	tries int  // starts so far
	busy  bool // it runs, or waits for its next start: there are never two
	done  bool // it has succeeded, and left the sandbox to be kept
}

// follow has OnExit started if the time has come: the exit is durable and
// nobody owns what follows. It is called whenever one of these may have become
// true. The caller holds mu.
func (k *keeper) follow() {
	if k.phase != ended || k.owners > 0 || k.doomed || k.next.busy {
		return
	}
	none, tired := len(k.spec.OnExit) == 0, k.next.tries == followTries
	if none && !k.keep.over || k.keep.on && (tired || k.next.done) {
		return // for now, where the sandbox is kept
	}
	k.next.busy = true
	if none || tired {
		go k.giveUp()
		return
	}
	go k.runNext(k.pauseBefore(k.next.tries))
}

func (k *keeper) pauseBefore(try int) time.Duration {
	if try == 0 {
		return 0
	}
	delay := k.spec.OnExitDelay.Std()
	if delay == 0 {
		delay = followDelay
	}
	return delay << (try - 1)
}

// runNext starts OnExit after a pause and waits for its end.
func (k *keeper) runNext(pause time.Duration) {
	time.Sleep(pause)
	done := k.stillWanted() && k.runOnExit()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.next.busy, k.next.done = false, done && k.keep.on
	k.follow()
}

// stillWanted counts a start, unless somebody owns what follows by now.
func (k *keeper) stillWanted() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.owners > 0 || k.doomed {
		return false
	}
	k.next.tries++
	return true
}

// runOnExit runs OnExit, detached: in a session of its own, with nothing of
// the keeper's. It reports whether that has succeeded; one that can't be started
// has not.
func (k *keeper) runOnExit() bool {
	argv := k.spec.OnExit
	var process *os.Process
	err := k.oom.lowered(func() (err error) {
		process, err = os.StartProcess(argv[0], argv, &os.ProcAttr{
			Dir:   "/",
			Env:   append([]string{}, k.spec.OnExitEnv...),
			Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}, // all of them the null device
			Sys:   &syscall.SysProcAttr{Setsid: true},
		})
		return err
	})
	if err != nil {
		return false
	}
	state, err := process.Wait()
	return err == nil && state.Success()
}
