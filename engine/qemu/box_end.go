//go:build unix

package qemu

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/machine/qmp"
	"github.com/caissonrun/caisson/keeper/server"
)

const (
	// partTime is how long QEMU may take to end by itself once the agent has gone.
	partTime = 3 * time.Second
	// maxEvent bounds what is kept of an event's reason.
	maxEvent = 64
)

// An event is why QEMU says that the machine has ended.
type event struct{ name, reason string }

// note is called for each of QEMU's events. Those of an end are kept, the last
// before others: a panic is followed by a shutdown.
func (b *box) note(e qmp.Event) {
	if e.Name != "SHUTDOWN" && e.Name != "GUEST_PANICKED" {
		return
	}
	var data struct {
		Reason string `json:"reason"`
	}
	_ = json.Unmarshal(e.Data, &data)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last.name == "" {
		b.last = event{e.Name, data.Reason[:min(len(data.Reason), maxEvent)]}
	}
}

// watch sees the machine to its end. Where the agent can't be talked to any more,
// nothing in the guest can be ended but by ending the guest.
func (b *box) watch() {
	defer close(b.over)
	select {
	case <-b.proc.Done():
	case <-b.agent.Done():
		select {
		case <-b.proc.Done():
		case <-time.After(partTime):
			b.end("the machine was ended because " + cause(b.agent.Err()).Error())
			<-b.proc.Done()
		}
	}
	select {
	case <-b.console.done:
	case <-time.After(partTime):
	}
	why := b.why()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closing {
		b.lost = &lostError{why}
	}
}

// end ends the machine, for a reason that others are told.
func (b *box) end(why string) {
	b.mu.Lock()
	b.killed = why
	b.mu.Unlock()
	_ = b.qemu.Kill()
}

// A lostError says that a machine has ended, with what ran in it.
type lostError struct{ why string }

// Error implements error.
func (e *lostError) Error() string { return e.why }

// Is implements errors.Is.
func (e *lostError) Is(err error) bool { return err == server.ErrLost || err == caisson.ErrUnavailable }

// gone returns why the machine has ended; nil while it has not.
func (b *box) gone() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closing:
		return &caisson.Error{Kind: caisson.ErrAborted, Err: errors.New("the sandbox is over")}
	case b.lost != nil:
		return &caisson.Error{Item: "machine", Kind: caisson.ErrEnded, Err: b.lost}
	}
	return nil
}

// why says what has ended a machine whose QEMU has ended.
func (b *box) why() string {
	b.mu.Lock()
	killed, last := b.killed, b.last
	b.mu.Unlock()
	code, signal, _ := b.proc.Wait()
	panics := b.console.panicked()
	switch {
	case killed != "":
		return killed
	case b.starved():
		return "QEMU was killed because it had used up the memory that its machine may have on this host"
	case panics != "" && last.reason != "guest-shutdown":
		return "the guest's kernel has panicked: " + panics
	case last.name == "GUEST_PANICKED" || last.reason == "guest-panic":
		return "the guest's kernel has panicked"
	case last.reason == "guest-reset":
		return "the guest has restarted itself, and that ends its machine"
	case last.reason == "guest-shutdown":
		return "the guest has switched itself off"
	case signal != 0:
		return fmt.Sprintf("QEMU was killed by signal %d (%v) from outside of Caisson", signal, syscall.Signal(signal))
	case last.reason == "host-signal":
		return "QEMU was ended by a signal from outside of Caisson"
	case code != 0:
		return fmt.Sprintf("QEMU has ended with status %d: %s", code, cmp.Or(b.console.said(), "without a word"))
	}
	return "the guest has switched itself off"
}

// starved reports whether the host's limit has killed QEMU.
func (b *box) starved() bool {
	stats, err := b.qemu.Stats()
	return err == nil && stats.OOMKills > 0
}

// cause is the inner part of an error that is shown with words of its own.
func cause(err error) error {
	var e *caisson.Error
	if errors.As(err, &e) && e.Err != nil {
		return e.Err
	}
	return err
}

// whyNot says why no agent answers in a machine that was started, in words that the
// reader can act on.
func (b *box) whyNot(ctx context.Context, err error) error {
	switch unsupported := caisson.KindOf(err) == caisson.ErrUnsupported; {
	case unsupported && b.proc != nil && b.spec.Guest.Root == "":
		return boot(caisson.ErrUnsupported, "%w; build the machine's image anew with this caisson's vm build", cause(err))
	case unsupported, b.proc == nil:
		return err
	}
	select {
	case <-b.proc.Done():
	case <-ctx.Done():
		// Its end is a reason for that, too.
		select {
		case <-b.proc.Done():
		default:
			return b.tooLate(err)
		}
	case <-time.After(partTime):
		return boot(caisson.ErrUnavailable, "%w; its last words: %s", cause(err), b.lastWords())
	}
	select {
	case <-b.console.done:
	case <-time.After(partTime):
	}
	return boot(caisson.ErrUnavailable, "%s; its last words: %s", b.why(), b.lastWords())
}

// tooLate says that patience has ended.
func (b *box) tooLate(err error) error {
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if b.qmp == nil {
		return boot(caisson.ErrUnavailable, "QEMU has not answered within %v%s; its last words: %s", b.patience(), b.halted(), b.lastWords())
	}
	how := "a slow host needs more patience, or the kernel lacks what a guest needs (virtio, serial port)"
	if b.spec.Guest.Root == "" {
		how = "the machine's image must start caisson-guest when it boots, as those of caisson vm build do"
	}
	return boot(caisson.ErrUnavailable, "no agent has answered within %v: %s%s; its last words: %s", b.patience(), how, b.halted(), b.lastWords())
}

func (b *box) lastWords() string { return strconv.Quote(cmp.Or(b.console.words(), "none")) }

// boot is an error about a guest that does not come up.
func boot(kind caisson.Kind, format string, args ...any) error {
	return &caisson.Error{Op: caisson.OpCreate, Item: "guest", Kind: kind, Err: fmt.Errorf(format, args...)}
}

// said is an error of the agent's, or of QEMU's, with what is known of why.
func (b *box) said(what string, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return &caisson.Error{
			Item: what, Kind: caisson.ErrUnavailable, Err: fmt.Errorf("the guest has not answered in time%s", b.halted()),
		}
	}
	if b.agent.Err() != nil {
		// Why is known in a moment.
		select {
		case <-b.over:
		case <-time.After(partTime + endTime):
		}
	}
	if gone := b.gone(); gone != nil && caisson.KindOf(err) == caisson.ErrUnavailable {
		return gone
	}
	if caisson.KindOf(err) == caisson.ErrUnknown {
		return fmt.Errorf("%s: %w", what, err)
	}
	return err
}

// halted says that somebody has halted QEMU, if so.
func (b *box) halted() string {
	if !stopped(b.proc.PID) {
		return ""
	}
	return fmt.Sprintf(": QEMU, process %d, was stopped by a signal; kill -CONT %d lets it go on", b.proc.PID, b.proc.PID)
}

// stopped reports whether a process of this host's was halted by a signal, where that
// can be known.
func stopped(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	// The name may have anything in it, and ends with the last parenthesis.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	return len(fields) > 0 && fields[0] == "T"
}
