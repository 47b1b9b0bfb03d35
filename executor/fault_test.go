//go:build unix

package executor

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/mem"
)

// What goes wrong with a call.
type wrong string

const (
	wrongError  wrong = "error"  // it returns one
	wrongCancel wrong = "cancel" // it hangs, and the task is taken back
	wrongPanic  wrong = "panic"
	wrongSlow   wrong = "slow"  // it takes longer
	wrongHang   wrong = "hang"  // it does not return before its context ends
	wrongCrash  wrong = "crash" // the attendant is killed in it
)

// A fault is a row of the matrix: what goes wrong where, and what the task ends
// in.
type fault struct {
	op     caisson.Op
	wrong  wrong
	status int
	reason caisson.Reason
	kind   caisson.Kind
	leaves bool // something that the next command removes
}

var faultMatrix = []fault{
	{op: caisson.OpStageIn, wrong: wrongError, status: 125, kind: caisson.ErrDenied},
	{op: caisson.OpStageIn, wrong: wrongCancel, status: 143, reason: "cancelled"},
	{op: caisson.OpStageIn, wrong: wrongPanic, status: 125, kind: caisson.ErrInternal},
	{op: caisson.OpStageIn, wrong: wrongSlow, reason: "exited"},
	{op: caisson.OpStageIn, wrong: wrongCrash, reason: "exited"},
	{op: caisson.OpMount, wrong: wrongError, status: 125, kind: caisson.ErrDenied},
	{op: caisson.OpMount, wrong: wrongCancel, status: 143, reason: "cancelled"},
	{op: caisson.OpMount, wrong: wrongPanic, status: 125, kind: caisson.ErrInternal},
	{op: caisson.OpMount, wrong: wrongSlow, reason: "exited"},
	{op: caisson.OpMount, wrong: wrongCrash, reason: "exited"},
	{op: caisson.OpPrepare, wrong: wrongError, reason: "exited"},
	{op: caisson.OpPrepare, wrong: wrongCancel, status: 143, reason: "cancelled"},
	{op: caisson.OpPrepare, wrong: wrongPanic, reason: "exited"},
	{op: caisson.OpPrepare, wrong: wrongSlow, reason: "exited"},
	{op: caisson.OpPrepare, wrong: wrongCrash, reason: "exited"},
	{op: caisson.OpCreate, wrong: wrongError, status: 125, kind: caisson.ErrDenied},
	{op: caisson.OpCreate, wrong: wrongCancel, status: 143, reason: "cancelled"},
	{op: caisson.OpCreate, wrong: wrongPanic, status: 125, kind: caisson.ErrInternal},
	{op: caisson.OpCreate, wrong: wrongSlow, reason: "exited"},
	{op: caisson.OpCreate, wrong: wrongHang, status: 125, kind: caisson.ErrUnavailable},
	{op: caisson.OpCreate, wrong: wrongCrash, reason: "exited"},
	{op: caisson.OpStart, wrong: wrongError, status: 125, kind: caisson.ErrDenied},
	{op: caisson.OpStart, wrong: wrongCancel, status: 143, reason: "cancelled"},
	{op: caisson.OpStart, wrong: wrongPanic, status: 125, kind: caisson.ErrInternal},
	{op: caisson.OpStart, wrong: wrongSlow, reason: "exited"},
	{op: caisson.OpStart, wrong: wrongHang, status: 125, kind: caisson.ErrUnavailable},
	{op: caisson.OpStart, wrong: wrongCrash, reason: "exited"},
	{op: caisson.OpWait, wrong: wrongError, status: 125, reason: "lost", kind: caisson.ErrDenied},
	{op: caisson.OpWait, wrong: wrongPanic, status: 125, reason: "lost", kind: caisson.ErrInternal},
	{op: caisson.OpWait, wrong: wrongSlow, reason: "exited"},
	{op: caisson.OpWait, wrong: wrongCrash, reason: "exited"},
	{op: caisson.OpStageOut, wrong: wrongError, status: 125, reason: "exited", kind: caisson.ErrDenied},
	{op: caisson.OpStageOut, wrong: wrongCancel, status: 137, reason: "aborted"},
	{op: caisson.OpStageOut, wrong: wrongPanic, status: 125, reason: "exited", kind: caisson.ErrInternal},
	{op: caisson.OpStageOut, wrong: wrongSlow, reason: "exited"},
	{op: caisson.OpStageOut, wrong: wrongCrash, reason: "exited"},
	{op: caisson.OpDestroy, wrong: wrongError, reason: "exited", leaves: true},
	{op: caisson.OpDestroy, wrong: wrongPanic, reason: "exited", leaves: true},
	{op: caisson.OpDestroy, wrong: wrongSlow, reason: "exited"},
	{op: caisson.OpDestroy, wrong: wrongHang, reason: "exited", leaves: true},
	{op: caisson.OpDestroy, wrong: wrongCrash, reason: "exited"},
}

// TestFaults runs one task of every phase with each fault, and checks what it
// ends in, that finally steps run, that mounts go after the sandboxes and in
// order, and that nothing is left, neither after the end nor after the next
// command.
func TestFaults(t *testing.T) {
	for _, c := range faultMatrix {
		t.Run(string(c.op)+" "+string(c.wrong), func(t *testing.T) {
			r := newRig(t)
			m := &mischief{fault: c, rig: r, hit: make(chan struct{}, 1)}
			m.arm()
			p := r.process()
			id := p.submit(everyPhase(r))
			m.attend(p, id)

			got := r.result(id)
			if got.Status != c.status || got.Success != (c.status == 0) || got.Exit.Reason != c.reason {
				t.Errorf("result = status %d, reason %q, want %d, %q; error %+v", got.Status, got.Exit.Reason, c.status, c.reason, got.Error)
			}
			if (got.Error != nil) != (c.kind != 0) || (got.Error != nil && got.Error.Kind != c.kind) {
				t.Errorf("error = %+v, want kind %v", got.Error, c.kind)
			}
			if !strings.Contains(r.words(id), "created:finally-0") {
				t.Errorf("finally did not run: %s", r.words(id))
			}
			m.disarm()
			if c.leaves {
				if live := r.world.Live(); len(live) == 0 {
					t.Errorf("nothing was left, although Destroy failed")
				}
				if err := r.process().Recover(t.Context()); err != nil {
					t.Errorf("Recover = %v", err)
				}
			}
			m.checkOrder()
			r.clean()
		})
	}
}

func everyPhase(r *rig) *caisson.Task {
	r.store.files["in"] = "x"
	task := sh("write a 1")
	task.Inputs = []caisson.Input{{From: "test:in", To: "in"}}
	task.Outputs = []caisson.Output{{Path: "a", To: "test:x/"}}
	task.Mounts = []caisson.Mount{{Type: "test", Target: "/m"}, {Type: "test", Target: "/n"}}
	task.Finally = step1("true")
	return task
}

// mischief makes one fault happen, once unless the fault is one that stays.
type mischief struct {
	fault fault
	rig   *rig
	done  atomic.Bool
	off   atomic.Bool
	hit   chan struct{} // told when it has struck
}

// strikes reports whether the fault happens now.
func (m *mischief) strikes(op caisson.Op, id string) bool {
	if op != m.fault.op || m.off.Load() || strings.HasSuffix(id, "finally-0") {
		return false
	}
	stays := m.fault.op == caisson.OpDestroy || m.fault.op == caisson.OpWait && m.fault.wrong == wrongError
	if m.done.Swap(true) && !stays {
		return false
	}
	select {
	case m.hit <- struct{}{}:
	default:
	}
	return true
}

// errFault is what a call that fails returns.
var errFault = &caisson.Error{Op: "fault", Kind: caisson.ErrDenied}

func (m *mischief) arm() {
	m.rig.limits.create, m.rig.limits.start, m.rig.limits.destroy = 200*time.Millisecond, 200*time.Millisecond, 200*time.Millisecond
	m.rig.faults.set(func(op caisson.Op, id string) mem.Fault {
		if !m.strikes(op, id) {
			return mem.Fault{}
		}
		switch m.fault.wrong {
		case wrongError:
			return mem.Fault{Err: errFault}
		case wrongPanic:
			return mem.Fault{Panic: "fault"}
		case wrongSlow:
			return mem.Fault{Delay: 30 * time.Millisecond}
		}
		return mem.Fault{Hang: true}
	})
	m.rig.store.fault = m.call
	m.rig.mounts.fault = m.call
	if m.fault.op == caisson.OpPrepare {
		m.rig.wrap = func(e engine.Engine) engine.Engine { return preparing{e, m} }
	}
}

// call is what a stager, a mounter and Prepare do.
func (m *mischief) call(ctx context.Context, op caisson.Op) error {
	if !m.strikes(op, "") {
		return nil
	}
	switch m.fault.wrong {
	case wrongError:
		return errFault
	case wrongPanic:
		panic("fault")
	case wrongSlow:
		return pauseFor(ctx, nil, 30*time.Millisecond)
	}
	<-ctx.Done()
	return ctx.Err()
}

func (m *mischief) disarm() { m.off.Store(true) }

// attend attends to the task until it has ended, whatever happens on the way.
func (m *mischief) attend(p *process, id string) {
	t := m.rig.t
	t.Helper()
	ctx, kill := context.WithCancel(t.Context())
	defer kill()
	finished := make(chan error, 1)
	go func() { finished <- p.Attend(ctx, id, false) }()
	select {
	case <-m.hit:
	case <-time.After(10 * time.Second):
		t.Fatal("the fault did not happen")
	}
	switch m.fault.wrong {
	case wrongCancel:
		reason := caisson.ReasonCancelled
		if m.fault.op == caisson.OpStageOut {
			reason = caisson.ReasonAborted
		}
		stop := engine.Stop{Reason: reason}
		if reason == caisson.ReasonCancelled {
			stop.Grace = 1
		}
		if err := p.Stop(t.Context(), id, stop); err != nil {
			t.Errorf("Stop = %v", err)
		}
	case wrongCrash:
		kill()
		if err := <-finished; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("Attend = %v, want Canceled", err)
		}
		p.die()
		m.disarm()
		if err := m.rig.process().Attend(t.Context(), id, false); err != nil {
			t.Errorf("second Attend = %v", err)
		}
		return
	}
	select {
	case err := <-finished:
		if err != nil {
			t.Errorf("Attend = %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("Attend does not return")
	}
}

// checkOrder checks that mounts are released in the reverse order of their
// making.
func (m *mischief) checkOrder() {
	var held []string
	for _, line := range m.rig.mounts.log {
		what, target, _ := strings.Cut(line, " ")
		if what == "mount" {
			held = append(held, target)
			continue
		}
		if n := len(held); n > 0 && held[n-1] == target {
			held = held[:n-1]
		} else if n > 0 {
			m.rig.t.Errorf("released %s before %s", target, held[n-1])
		}
	}
	if diff := cmp.Diff([]string(nil), held, cmp.Transformer("", func(s []string) string { return strings.Join(s, " ") })); diff != "" {
		m.rig.t.Errorf("still mounted: %s", diff)
	}
}

// preparing wraps an engine and has it prepare.
type preparing struct {
	engine.Engine
	m *mischief
}

func (p preparing) Prepare(ctx context.Context, spec *engine.Spec) error {
	return p.m.call(ctx, caisson.OpPrepare)
}
