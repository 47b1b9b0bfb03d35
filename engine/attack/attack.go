// Package attack holds attacks on engines as plain functions over package
// engine: programs that run as the task, or inputs that it makes, each with
// the fact that must hold on the host afterwards. The conformance suite and
// `caisson selftest` both try them.
//
// Every attack is made to be tried on a machine that is in use: where it is
// not held it shows that a thing could be done, and does no harm. Attack.Bound
// says why.
package attack

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"time"
)

// An Attack is one thing that a hostile task tries.
type Attack struct {
	// ID is a letter for the group and the number in the list of attacks, see
	// enginetest.Attacks: A1. Several attacks may share one.
	ID string
	// Name is the attack's own: it never changes.
	Name string
	// Tries says what is tried.
	Tries string
	// CVE are the weaknesses of other programs that it stands for.
	CVE []string
	// Needs are features without which it can't be tried, in the words of
	// engine.Features.Has. That an engine does not claim to isolate is no reason
	// to leave an attack out: the answer is then that it is not held.
	Needs []string
	// Bound says what keeps the host from harm where the attack is not held.
	Bound string
	// Host says why this host can't show it, or "". Nil: every host can.
	Host func() string

	// Run tries it.
	Run func(t *Trial)
}

// A Status is how an attack came out.
type Status string

// The statuses.
const (
	Held          Status = "held"
	NotHeld       Status = "not held"
	NotApplicable Status = "not applicable" // it can't be tried here
	Untried       Status = "could not run"  // it could be tried, and the trial itself failed
)

// An Outcome is what came of one attack.
type Outcome struct {
	Status Status   `json:"status"`
	Why    []string `json:"why,omitempty"`
}

// All returns every attack, in the order of their ids.
func All() []Attack {
	return slices.Concat(
		escapes(),
		workdirs(),
		images(),
		privileges(),
		sockets(),
		gateways(),
		users(),
		execs(),
		archives(),
		files(),
		exhaustions(),
		endings(),
	)
}

// Find returns the attack of a name. It panics if there is none: names are
// constants of programs.
func Find(name string) Attack {
	for _, a := range All() {
		if a.Name == name {
			return a
		}
	}
	panic("caisson: bug: there is no attack " + name)
}

const (
	// limit is more than any attack takes on a slow, busy machine.
	limit = 2 * time.Minute
	// leaving is how long the destroying of what an attack has made may take.
	leaving = 30 * time.Second
)

// Try tries an attack in a place. ctx bounds it together with a limit of its
// own. What it has made is gone when Try returns.
func Try(ctx context.Context, a *Attack, place *Place) Outcome {
	for _, need := range a.Needs {
		if has, known := place.Features.Has(need); !known {
			return Outcome{Untried, []string{fmt.Sprintf("%q is no feature", need)}}
		} else if !has {
			return Outcome{NotApplicable, []string{"the engine has no " + need + " here"}}
		}
	}
	if a.Host != nil {
		if why := a.Host(); why != "" {
			return Outcome{NotApplicable, []string{why}}
		}
	}
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	t := &Trial{Place: place, ctx: bounded}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer t.clean()
		defer t.rescue()
		a.Run(t)
	}()
	select {
	case <-done:
	case <-time.After(limit + 2*leaving):
		t.Errorf("it did not end within %v", limit+2*leaving)
	}
	if ctx.Err() != nil {
		return Outcome{Untried, []string{ctx.Err().Error()}}
	}
	return t.outcome()
}

// rescue makes a failure of a panic.
func (t *Trial) rescue() {
	if p := recover(); p != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.untried = append(t.untried, fmt.Sprintf("panic: %v\n%s", p, debug.Stack()))
	}
}

// clean calls the cleanups, the last first.
func (t *Trial) clean() {
	for {
		t.mu.Lock()
		n := len(t.cleanups)
		if n == 0 {
			t.mu.Unlock()
			return
		}
		f := t.cleanups[n-1]
		t.cleanups = t.cleanups[:n-1]
		t.mu.Unlock()
		f()
	}
}

// outcome says what came of it. What was not held counts more than what could
// not be tried: a trial may fail because an attack worked.
func (t *Trial) outcome() Outcome {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case len(t.failures) > 0:
		return Outcome{NotHeld, slices.Clone(t.failures)}
	case len(t.untried) > 0:
		return Outcome{Untried, slices.Clone(t.untried)}
	case len(t.inapplicable) > 0:
		return Outcome{NotApplicable, slices.Clone(t.inapplicable)}
	}
	return Outcome{Status: Held}
}
