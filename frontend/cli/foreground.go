package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/executor"
)

// foreground submits a task and attends to it in this process, with its output
// coming out here, until it has ended.
func (r *run) foreground(ctx context.Context, host *Host, task *caisson.Task, sub *executor.Submission) error {
	// From here on a signal is for the task. A broken pipe is an error of the
	// write, not this program's death, so that the task can be ended.
	signals := make(chan os.Signal, 8)
	notifyEnd(signals)
	signal.Notify(signals, syscall.SIGPIPE)
	defer signal.Stop(signals)

	id, err := host.Executor.Submit(ctx, task, sub)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ender := &ender{
		id: id, host: host, grace: graceOf(task),
		say:   r.sayOnTerminal,
		leave: func(sig syscall.Signal) { cancel(interrupted{sig}) },
	}
	var owned sync.WaitGroup
	stopped := make(chan struct{})
	owned.Go(func() { ender.onSignals(ctx, signals, stopped) })
	shown := make(chan error, 1)
	owned.Go(func() { shown <- r.show(ctx, host, id, func() { ender.end(ctx) }) })

	result, err := r.result(ctx, host, id)
	if err == nil {
		err = <-shown
	}
	close(stopped)
	cancel(nil)
	owned.Wait()
	r.progress.clear()
	if err != nil {
		return orInterrupted(ctx, err)
	}
	if r.ran != nil {
		return r.ran(result)
	}
	return r.ended(result)
}

// result attends to the task and returns its result. Where another process
// was quicker to attend to it, it is waited for.
func (r *run) result(ctx context.Context, host *Host, id string) (*caisson.Result, error) {
	if err := host.Executor.Attend(ctx, id, false); err != nil && !errors.Is(err, caisson.ErrExists) {
		return nil, err
	}
	return host.Executor.Wait(ctx, id)
}

// show prints the task's output, or its events, until it has ended. Once
// nobody reads what is printed, broken is called and the rest is dropped.
func (r *run) show(ctx context.Context, host *Host, id string, broken func()) error {
	sink := &sink{broken: broken}
	logs := func(write func(executor.LogRecord) error) error {
		return host.Executor.Logs(ctx, id, executor.LogOptions{Follow: true}, func(rec executor.LogRecord) error {
			return sink.write(func() error {
				r.progress.clear()
				return write(rec)
			})
		})
	}
	if !r.json {
		out := newOutput(r.caller.Stdout, r.caller.Stderr)
		if r.quiet {
			out.stdout, out.stderr = io.Discard, io.Discard
		}
		return logs(out.write)
	}
	events := &eventPrinter{w: r.caller.Stdout}
	var owned sync.WaitGroup
	defer owned.Wait()
	logged := make(chan error, 1)
	owned.Go(func() {
		logged <- logs(func(rec executor.LogRecord) error { return events.print(outputEvent(id, rec)) })
	})
	return host.Executor.Events(ctx, id, true, func(e caisson.Event) error {
		if e.Type == caisson.EventEnded {
			// The end is the last line, after all output.
			if err := <-logged; err != nil {
				return err
			}
		}
		return sink.write(func() error { return events.print(e) })
	})
}

// A sink takes writes one at a time. When nobody reads any more it calls
// broken, once, and swallows this write and all that follow.
type sink struct {
	broken func()

	mu   sync.Mutex
	drop bool
}

func (s *sink) write(do func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drop {
		return nil
	}
	err := do()
	if errors.Is(err, syscall.EPIPE) {
		s.drop = true
		s.broken()
		return nil
	}
	return err
}

// sayOnTerminal tells a person at a terminal what a key has done.
func (r *run) sayOnTerminal(text string) {
	if isTerminal(file(r.caller.Stderr)) {
		r.progress.clear()
		fmt.Fprintf(r.caller.Stderr, "caisson: %s\n", text)
	}
}

// An ender ends a task for the person who runs it: the first time with grace,
// the second time at once, the third time it leaves it alone.
type ender struct {
	id    string
	host  *Host
	grace caisson.Duration
	say   func(text string)
	leave func(sig syscall.Signal)

	mu    sync.Mutex
	times int
}

// sameAsk is how soon after another a signal of a program is taken for the
// same one: timeout(1) sends its own twice, to the process and to its group.
const sameAsk = 2 * time.Second

func (e *ender) onSignals(ctx context.Context, signals <-chan os.Signal, stopped <-chan struct{}) {
	var last time.Time
	for {
		select {
		case <-stopped:
			return
		case sig := <-signals:
			again := sig != os.Interrupt && time.Since(last) < sameAsk
			if sig == syscall.SIGPIPE || again {
				continue
			}
			last = time.Now()
			if e.end(ctx) > 2 {
				e.leave(sig.(syscall.Signal))
				return
			}
		}
	}
}

// end asks for the task's end and returns how often that has been asked for.
// An error is no news: the task has ended already, or its end shows.
func (e *ender) end(ctx context.Context) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.times++
	stop := engine.Stop{Reason: caisson.ReasonCancelled, Grace: e.grace}
	switch e.times {
	case 1:
		e.say("stopping; ^C again to kill")
	case 2:
		stop.Grace = 0
		e.say("killing")
	default:
		return e.times
	}
	if err := e.host.Executor.Stop(ctx, e.id, stop); err != nil && !errors.Is(err, caisson.ErrEnded) {
		e.say(oneLine(err.Error()))
	}
	return e.times
}

// graceOf returns how long a task has between its stop signal and the kill.
func graceOf(task *caisson.Task) caisson.Duration {
	if task != nil && task.Grace > 0 {
		return task.Grace
	}
	return caisson.DefaultGrace
}
