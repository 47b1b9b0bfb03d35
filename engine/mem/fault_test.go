package mem_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/mem"
)

var errFault = errors.New("ordered")

// call makes the call of an operation, on a sandbox that runs "hold" where
// there must be one.
func call(t *testing.T, ctx context.Context, e *mem.Engine, op caisson.Op, spec *engine.Spec) error {
	create := func() engine.Sandbox {
		sb, err := e.Create(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		return sb
	}
	start := func() (engine.Sandbox, engine.Process) {
		sb := create()
		p, err := sb.Start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return sb, p
	}
	switch op {
	case caisson.OpProbe:
		_, err := e.Probe(ctx)
		return err
	case caisson.OpCreate:
		_, err := e.Create(ctx, spec)
		return err
	case caisson.OpSweep:
		_, err := e.Sweep(ctx, nil)
		return err
	case caisson.OpStart:
		_, err := create().Start(ctx)
		return err
	case caisson.OpRecover:
		create()
		_, err := e.Recover(ctx, spec.Dir)
		return err
	case caisson.OpDestroy:
		return create().Destroy(ctx)
	case caisson.OpSignal:
		_, p := start()
		return p.Signal(ctx, 28)
	case caisson.OpExec:
		sb, _ := start()
		s, err := sb.(engine.Execer).Exec(ctx, &engine.ExecSpec{Args: []string{"true"}})
		if err == nil {
			err = s.Close()
		}
		return err
	case caisson.OpFiles:
		sb, _ := start()
		return sb.(engine.Filer).Tar(ctx, "work", io.Discard)
	case caisson.OpStats:
		sb, _ := start()
		_, err := sb.(engine.StatsReader).Stats(ctx)
		return err
	case caisson.OpWait:
		_, p := start()
		_, err := p.Wait(ctx)
		return err
	}
	t.Fatalf("no call for %q", op)
	return nil
}

// ops are all operations that a fault can be ordered for.
var ops = []caisson.Op{
	caisson.OpProbe, caisson.OpCreate, caisson.OpSweep, caisson.OpStart, caisson.OpRecover, caisson.OpDestroy,
	caisson.OpSignal, caisson.OpExec, caisson.OpFiles, caisson.OpStats, caisson.OpWait,
}

// faulty returns an engine with a fault at one operation, once it is armed.
func faulty(t *testing.T, op caisson.Op, fault mem.Fault) (e *mem.Engine) {
	world := mem.NewWorld()
	e = mem.New(&mem.Options{World: world, Fault: func(at caisson.Op, _ string) mem.Fault {
		if at == op {
			return fault
		}
		return mem.Fault{}
	}})
	t.Cleanup(func() {
		if _, err := mem.New(&mem.Options{World: world}).Sweep(context.Background(), nil); err != nil {
			t.Errorf("Sweep = %v", err)
		}
	})
	return e
}

func TestFaultErr(t *testing.T) {
	for _, op := range ops {
		e := faulty(t, op, mem.Fault{Err: errFault})
		if err := call(t, within(t), e, op, newSpec(t, "hold")); !errors.Is(err, errFault) {
			t.Errorf("%s = %v, want the error that was ordered", op, err)
		}
	}
}

func TestFaultHang(t *testing.T) {
	for _, op := range ops {
		e := faulty(t, op, mem.Fault{Hang: true})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if err := call(t, ctx, e, op, newSpec(t, "hold")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s = %v, want it to hang until its context ends", op, err)
		}
		cancel()
	}
}

func TestFaultDelay(t *testing.T) {
	const delay = 20 * time.Millisecond
	for _, op := range ops[:len(ops)-1] {
		e := faulty(t, op, mem.Fault{Delay: delay})
		begin := time.Now()
		if err := call(t, within(t), e, op, newSpec(t, "hold")); err != nil || time.Since(begin) < delay {
			t.Errorf("%s = %v after %v, want nil and the delay", op, err, time.Since(begin))
		}
	}
}

func TestFaultPanic(t *testing.T) {
	for _, op := range ops {
		func() {
			defer func() {
				if p := recover(); p != "ordered" {
					t.Errorf("%s panics with %v, want what was ordered", op, p)
				}
			}()
			e := faulty(t, op, mem.Fault{Panic: "ordered"})
			_ = call(t, within(t), e, op, newSpec(t, "hold"))
		}()
	}
}

func TestFaultExit(t *testing.T) {
	for _, want := range []caisson.Exit{
		{Reason: caisson.ReasonLost}, {Reason: caisson.ReasonOOM, Signal: 9, OOMKills: 2}, {Reason: caisson.ReasonSignaled, Signal: 11, Message: "crash"},
	} {
		for _, op := range []caisson.Op{caisson.OpCreate, caisson.OpStart, caisson.OpWait} {
			spec := newSpec(t, "hold")
			_, p := startSpec(t, faulty(t, op, mem.Fault{Exit: &want}), spec)
			exit, err := p.Wait(within(t))
			if err != nil || exit.Reason != want.Reason || exit.Signal != want.Signal || exit.OOMKills != want.OOMKills || exit.Message != want.Message {
				t.Errorf("at %s: Wait = %+v, %v, want %+v", op, exit, err, want)
			}
		}
	}
}

func TestWorldEnd(t *testing.T) {
	world := mem.NewWorld()
	_, p := startSpec(t, mem.New(&mem.Options{World: world}), newSpec(t, "hold"))
	if world.End("other", caisson.Exit{}) || !world.End("test-1-main", caisson.Exit{Reason: caisson.ReasonLost}) {
		t.Errorf("End does not tell whether there is a sandbox")
	}
	if exit, err := p.Wait(within(t)); err != nil || exit.Reason != caisson.ReasonLost {
		t.Errorf("Wait = %+v, %v, want reason lost", exit, err)
	}
}

// What Features takes away is refused, and the interface is gone.
func TestFeaturesTakenAway(t *testing.T) {
	e := mem.New(&mem.Options{Features: func(f *engine.Features) {
		f.Limits.Memory, f.Exec, f.Files, f.Stats, f.Pause = false, false, false, false, false
	}})
	spec := newSpec(t, "hold")
	spec.Limits.Memory = caisson.MiB
	if _, err := e.Create(within(t), spec); !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("Create = %v, want ErrUnsupported", err)
	}
	spec.Limits.Memory = 0
	sb, _ := startSpec(t, e, spec)
	_, exec := sb.(engine.Execer)
	_, files := sb.(engine.Filer)
	_, stats := sb.(engine.StatsReader)
	_, pause := sb.(engine.Pauser)
	if exec || files || stats || pause {
		t.Errorf("the sandbox has interfaces that are not declared: %v %v %v %v", exec, files, stats, pause)
	}
}

// compose has a type for each set of interfaces.
func TestEverySetOfInterfaces(t *testing.T) {
	for set := range 16 {
		want := [4]bool{set&1 != 0, set&2 != 0, set&4 != 0, set&8 != 0}
		e := mem.New(&mem.Options{Features: func(f *engine.Features) {
			f.Exec, f.Files, f.Stats, f.Pause = want[0], want[1], want[2], want[3]
		}})
		sb, err := e.Create(within(t), newSpec(t, "hold"))
		if err != nil {
			t.Fatal(err)
		}
		_, exec := sb.(engine.Execer)
		_, files := sb.(engine.Filer)
		_, stats := sb.(engine.StatsReader)
		_, pause := sb.(engine.Pauser)
		if got := [4]bool{exec, files, stats, pause}; got != want {
			t.Errorf("exec, files, stats, pause: the sandbox has %v, want %v", got, want)
		}
		if err := sb.Destroy(within(t)); err != nil {
			t.Error(err)
		}
	}
}

func TestOnExitCallback(t *testing.T) {
	told := make(chan string, 4)
	world := mem.NewWorld()
	e := mem.New(&mem.Options{World: world, OnExit: func(id string, argv, env []string) { told <- id + argv[0] + env[0] }})
	spec := newSpec(t, "sleep", "20ms")
	spec.OnExit, spec.OnExitEnv = []string{"x"}, []string{"A=1"}
	if _, err := e.Create(within(t), spec); err != nil {
		t.Fatal(err)
	}
	sb, err := e.Recover(within(t), spec.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sb.Start(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-told:
		if got != "test-1-mainxA=1" {
			t.Errorf("OnExit was called for %q", got)
		}
	case <-within(t).Done():
		t.Fatal("OnExit was not called")
	}
	if len(told) > 0 {
		t.Errorf("OnExit was called twice")
	}
	// mem keeps what it ran until somebody destroys it.
	var data bytes.Buffer
	if err := sb.(engine.Filer).Tar(within(t), "work", &data); !errors.Is(err, caisson.ErrUnavailable) {
		t.Errorf("Tar by a closed engine = %v, want ErrUnavailable", err)
	}
	if removed, err := mem.New(&mem.Options{World: world}).Sweep(within(t), nil); err != nil || len(removed) != 1 {
		t.Errorf("Sweep = %v, %v, want the one sandbox", removed, err)
	}
}
