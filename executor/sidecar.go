//go:build unix

package executor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// Defaults of a sidecar's probe, and the time that one try may take.
const (
	probeInterval = time.Second
	probeTimeout  = time.Minute
	probeTry      = 10 * time.Second
)

// checkProbe refuses a probe that could never succeed.
func checkProbe(st *step, task *caisson.Task, f *engine.Features) error {
	p := st.probe
	if p == nil || st.kind != kindSidecar {
		return nil
	}
	refuse := func(why string) error {
		return &caisson.Error{Op: caisson.OpValidate, Item: "probe", Kind: caisson.ErrUnsupported, Err: errors.New(why)}
	}
	switch {
	case len(p.Cmd) > 0 && !f.Exec:
		return refuse("this engine can't run a program in a live sandbox; use http or port")
	case len(p.Cmd) == 0 && task.Network.Mode != caisson.NetworkHost && !sharesNetwork(f, task):
		return refuse("this engine's sandboxes can be reached from the host only with network: host; use cmd")
	}
	return nil
}

// runSidecar starts a sidecar, or finds it. Nobody waits for its end: main's
// does.
func (a *attendant) runSidecar(ctx context.Context, st *step) error {
	if err := a.serveRunning(ctx); err != nil {
		return err
	}
	var sb engine.Sandbox
	var err error
	fresh := !a.h.steps[st.name].running()
	if fresh {
		sb, err = a.create(ctx, st)
	} else {
		sb, err = a.recover(ctx, st)
	}
	var exit *caisson.Exit
	if err == nil && sb != nil && fresh {
		err = a.serve(ctx, st, sb)
	}
	if err != nil || sb == nil {
		exit, _, err = a.unmade(ctx, st, err)
	} else {
		var p engine.Process
		if p, exit, err = a.start(ctx, st, sb, fresh); p != nil {
			return a.knowStarted(st)
		}
	}
	var open undecided
	if errors.As(err, &open) || ctx.Err() != nil {
		return errors.Join(err, ctx.Err())
	}
	return a.exited(ctx, st, exit, err)
}

// knowStarted logs that a step's program runs, if an attendant was killed
// between starting it and saying so.
func (a *attendant) knowStarted(st *step) error {
	if a.h.steps[st.name].started {
		return nil
	}
	return a.append(&caisson.Event{Type: caisson.EventStarted, Step: st.name, State: caisson.StateRunning}, false)
}

// sidecarsReady waits until every sidecar's probe has succeeded once.
func (a *attendant) sidecarsReady(ctx context.Context) error {
	for _, st := range a.steps[kindSidecar] {
		if st.probe == nil {
			continue
		}
		if err := a.ready(ctx, &st); err != nil {
			return stepError(&st, err)
		}
	}
	return nil
}

func (a *attendant) ready(ctx context.Context, st *step) error {
	defer a.clock("probe " + st.label())()
	sb, err := a.recover(ctx, st)
	if err != nil {
		return err
	}
	if sb == nil {
		return &caisson.Error{Op: caisson.OpStart, Kind: caisson.ErrAborted, Err: errors.New("its sandbox is gone")}
	}
	interval, timeout := st.probe.Interval.Std(), st.probe.Timeout.Std()
	if interval <= 0 {
		interval = probeInterval
	}
	if timeout <= 0 {
		timeout = probeTimeout
	}
	end := time.Now().Add(timeout)
	for {
		tryCtx, cancel := context.WithTimeout(ctx, min(probeTry, timeout))
		err := a.probe(tryCtx, sb, st)
		cancel()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, caisson.ErrEnded), errors.Is(err, caisson.ErrAborted):
			return &caisson.Error{Op: caisson.OpStart, Kind: caisson.ErrEnded, Err: errors.New("it ended before it was ready; see its log")}
		case !time.Now().Before(end):
			return &caisson.Error{Op: caisson.OpStart, Kind: caisson.ErrUnavailable, Err: fmt.Errorf("not ready within %v: %w", timeout, err)}
		}
		if err := pauseFor(ctx, nil, min(interval, max(time.Until(end), time.Millisecond))); err != nil {
			return err
		}
	}
}

// probe tries once whether a sidecar is ready.
func (a *attendant) probe(ctx context.Context, sb engine.Sandbox, st *step) error {
	p := st.probe
	if len(p.Cmd) > 0 {
		return a.probeCmd(ctx, sb, p.Cmd)
	}
	port := strconv.Itoa(p.Port)
	if p.HTTP == "" {
		conn, err := a.dial(ctx, st, port)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	url := "http://" + net.JoinHostPort("localhost", port) + "/" + strings.TrimPrefix(p.HTTP, "/")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	// A transport of its own: nothing of the host's proxy settings applies, and
	// no connection outlives the probe. A redirect is an answer.
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return a.dial(ctx, st, port)
		},
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		return fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return nil
}

func (a *attendant) probeCmd(ctx context.Context, sb engine.Sandbox, args []string) error {
	execer, ok := sb.(engine.Execer)
	if !ok {
		return errors.New("this engine can't run a program in a live sandbox")
	}
	return a.x.guard(caisson.OpExec, func() error {
		session, err := execer.Exec(ctx, &engine.ExecSpec{Args: args})
		if err != nil {
			return err
		}
		defer session.Close()
		if err := session.Stdin().Close(); err != nil {
			return err
		}
		drained := make(chan struct{}, 2)
		for _, r := range []func() error{
			func() error { return discard(session.Stdout()) },
			func() error { return discard(session.Stderr()) },
		} {
			go func() { _ = r(); drained <- struct{}{} }()
		}
		exit, err := session.Wait(ctx)
		if closeErr := session.Close(); err == nil {
			err = closeErr
		}
		<-drained
		<-drained
		if err == nil && (exit.Reason != caisson.ReasonExited || exit.Code != 0) {
			err = fmt.Errorf("%q exited with %d", args[0], exit.Status())
		}
		return err
	})
}

// stopSidecar ends a sidecar and logs how it ended.
func (a *attendant) stopSidecar(ctx context.Context, st *step) error {
	exit, err := a.endSidecar(ctx, st)
	var open undecided
	if errors.As(err, &open) || ctx.Err() != nil {
		return errors.Join(err, ctx.Err())
	}
	return a.exited(ctx, st, exit, err)
}

func (a *attendant) endSidecar(ctx context.Context, st *step) (*caisson.Exit, error) {
	sb, err := a.recover(ctx, st)
	if err != nil {
		return nil, err
	}
	gone := &caisson.Exit{Reason: caisson.ReasonLost, Message: "its sandbox is gone"}
	if sb == nil {
		return gone, nil
	}
	grace := graceOf(a.record.Task)
	limited, cancel := context.WithTimeout(ctx, 2*grace.Std()+a.x.limits.call)
	defer cancel()
	p, err := a.process(limited, sb)
	if errors.Is(err, caisson.ErrNotFound) || errors.Is(err, caisson.ErrAborted) {
		return gone, nil // it was never started
	}
	if err != nil {
		return nil, err
	}
	err = a.x.end(limited, sb, engine.Stop{Reason: caisson.ReasonStopped, Grace: grace})
	if err != nil && !errors.Is(err, caisson.ErrEnded) && !errors.Is(err, caisson.ErrAborted) {
		return nil, err
	}
	exit := new(caisson.Exit)
	err = a.waitFor(limited, p, exit)
	if err != nil {
		return nil, overtime(ctx, err, caisson.OpWait, 2*grace.Std()+a.x.limits.call)
	}
	return exit, nil
}
