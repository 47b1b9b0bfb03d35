//go:build unix

package server

import (
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/keeper/internal/wire"
)

// destroy ends the program, the sandbox and then the keeper. It calls answer
// when nothing is left, before it says so to everyone else. It can be called
// again where it failed.
func (k *keeper) destroy(answer func()) error {
	k.destroying.Lock()
	defer k.destroying.Unlock()
	k.mu.Lock()
	k.doomed = true
	k.mu.Unlock()
	if k.isGone() {
		answer()
		return nil
	}
	k.abort()
	k.dismiss("its sandbox was removed")
	if err := k.closeBox(); err != nil {
		return err
	}
	// In this order a client that comes meanwhile finds no keeper, or one whose
	// socket is closed.
	k.files.remove()
	k.listener.Close()
	answer()
	k.mu.Lock()
	for c := range k.conns {
		c.send(&wire.Reply{Gone: true})
	}
	k.mu.Unlock()
	close(k.quit)
	return nil
}

// isGone reports whether the keeper is about to end. The caller holds
// destroying.
func (k *keeper) isGone() bool {
	select {
	case <-k.quit:
		return true
	default:
		return false
	}
}

// abort ends a program that runs, and waits for its exit.
func (k *keeper) abort() {
	k.killRunning(caisson.ReasonAborted)
	// Where a start is under way, it has happened or is refused after this.
	k.spawning.Lock()
	k.mu.Lock()
	runs := k.phase == running || k.phase == leaving
	if runs {
		k.hasten(caisson.ReasonAborted, 0)
	}
	k.mu.Unlock()
	k.spawning.Unlock()
	if runs {
		<-k.over
	}
}

// closeBox closes the box once nobody uses it.
func (k *keeper) closeBox() error {
	k.using.Lock()
	defer k.using.Unlock()
	if k.box == nil {
		return nil
	}
	k.once.close()
	if err := k.box.Close(); err != nil {
		return err
	}
	k.box = nil
	return nil
}

// How often and with what pauses a keeper that nobody wants tries to remove
// its sandbox.
const (
	giveUpTries = 5
	giveUpPause = time.Second
)

// giveUp destroys the sandbox with nobody asking. Where that fails the keeper
// ends all the same, and with it everything that runs in the sandbox.
func (k *keeper) giveUp() {
	for range giveUpTries {
		if err := k.destroy(func() {}); err == nil {
			return
		}
		time.Sleep(giveUpPause)
	}
	k.destroying.Lock()
	defer k.destroying.Unlock()
	if !k.isGone() {
		k.files.remove()
		k.listener.Close()
		close(k.quit)
	}
}
