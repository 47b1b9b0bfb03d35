package enginetest

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/enginetest/inside/act"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// A box is a sandbox whose program was started.
type box struct {
	t    *T
	spec *engine.Spec
	engine.Sandbox
	process engine.Process
}

// launch creates and starts a sandbox that runs the inside program with args.
func (t *T) launch(args ...string) *box { return t.start(t.spec(args...)) }

// start creates and starts a sandbox.
func (t *T) start(spec *engine.Spec) *box {
	b := &box{t: t, spec: spec, Sandbox: t.create(spec)}
	var err error
	b.process, err = b.Start(t.ctx)
	t.ok(err, "Start")
	return b
}

// startUnless creates and starts a sandbox, or returns nil where the engine
// may refuse it, and does so with an error of one of the kinds.
func (t *T) startUnless(spec *engine.Spec, kinds ...caisson.Kind) *box {
	sb, err := t.engine.Create(t.ctx, spec)
	if err != nil {
		t.kind(err, "Create", kinds...)
		return nil
	}
	t.after(func() { t.discard(spec.Dir, sb) })
	b := &box{t: t, spec: spec, Sandbox: sb}
	b.process, err = sb.Start(t.ctx)
	t.ok(err, "Start")
	return b
}

// run runs a sandbox to its end.
func (t *T) run(args ...string) (*box, caisson.Exit) {
	b := t.launch(args...)
	return b, b.wait()
}

// wait returns how the program ended.
func (b *box) wait() caisson.Exit {
	exit, err := b.process.Wait(b.t.ctx)
	b.t.ok(err, "Wait")
	return exit
}

// expect checks how the program ended.
func (b *box) expect(reason caisson.Reason, code, signal int) caisson.Exit {
	exit := b.wait()
	if exit.Reason != reason || exit.Code != code || exit.Signal != signal {
		b.t.Errorf("Wait = %s, code %d, signal %d (%s), want %s, %d, %d; stderr: %.300s",
			exit.Reason, exit.Code, exit.Signal, exit.Message, reason, code, signal, b.stderr())
	}
	return exit
}

// success checks that the program ended with code 0.
func (b *box) success() caisson.Exit { return b.expect(caisson.ReasonExited, 0, 0) }

// stop asks for the program's end.
func (b *box) stop(stop engine.Stop) {
	b.t.ok(b.process.Stop(b.t.ctx, stop), "Stop")
}

// records returns the log as it is now.
func (b *box) records() []tasklog.Record {
	var all []tasklog.Record
	err := tasklog.Follow(context.WithoutCancel(b.t.ctx), b.spec.Log, 0, func() bool { return true },
		func(r tasklog.Record) error {
			all = append(all, r)
			return nil
		})
	if err != nil && !errors.Is(err, caisson.ErrNotFound) {
		b.t.Errorf("reading the log: %v", err)
	}
	return all
}

// output returns the bytes of one stream of the log as it is now.
func (b *box) output(stream tasklog.Stream) string {
	var out strings.Builder
	for _, r := range b.records() {
		if r.Stream == stream {
			out.Write(r.Data)
		}
	}
	return out.String()
}

func (b *box) stdout() string { return b.output(tasklog.Stdout) }
func (b *box) stderr() string { return b.output(tasklog.Stderr) }

// says waits until the program has printed a line.
func (b *box) says(line string) {
	b.t.eventually("the program says "+line, func() bool {
		for _, l := range lines(b.stdout()) {
			if l == line {
				return true
			}
		}
		return false
	})
}

// facts returns what the program's report says.
func (b *box) facts() *act.Facts {
	b.success()
	return b.t.facts(b.stdout())
}

// facts reads a report.
func (t *T) facts(report string) *act.Facts {
	f := new(act.Facts)
	if err := json.Unmarshal([]byte(report), f); err != nil {
		t.Fatalf("the inside program's report: %v: %.200q", err, report)
	}
	return f
}

// variable returns a variable of a report's environment.
func variable(f *act.Facts, name string) (string, bool) {
	for _, kv := range f.Env {
		if n, value, _ := strings.Cut(kv, "="); n == name {
			return value, true
		}
	}
	return "", false
}
