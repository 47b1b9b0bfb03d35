package mem_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/mem"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// newSpec returns a spec with folders of its own.
func newSpec(t *testing.T, args ...string) *engine.Spec {
	t.Helper()
	dir := t.TempDir()
	spec := &engine.Spec{
		ID: "test-1-main", Dir: filepath.Join(dir, "dir"), Log: filepath.Join(dir, "log"),
		Work: filepath.Join(dir, "work"), Args: args,
	}
	for _, d := range []string{spec.Dir, spec.Work} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return spec
}

// within returns a context that is more than enough for any test.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// startSpec starts a sandbox and has it destroyed after the test.
func startSpec(t *testing.T, e *mem.Engine, spec *engine.Spec) (engine.Sandbox, engine.Process) {
	t.Helper()
	sb, err := e.Create(within(t), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sb.Destroy(context.Background()); err != nil {
			t.Errorf("Destroy = %v", err)
		}
	})
	p, err := sb.Start(within(t))
	if err != nil {
		t.Fatal(err)
	}
	return sb, p
}

// runSpec runs a sandbox to its end and returns the exit and stdout.
func runSpec(t *testing.T, e *mem.Engine, spec *engine.Spec) (caisson.Exit, string) {
	t.Helper()
	_, p := startSpec(t, e, spec)
	exit, err := p.Wait(within(t))
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	err = tasklog.Follow(within(t), spec.Log, 0, func() bool { return true }, func(r tasklog.Record) error {
		if r.Stream == tasklog.Stdout {
			out = append(out, r.Data...)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return exit, string(out)
}

func TestShell(t *testing.T) {
	for _, test := range []struct {
		script, out string
		code        int
	}{
		{"echo a b; echo 'c  d' \"e $X\"", "a b\nc  d e 1\n", 0},
		{"false || echo no && echo yes; exit 3; echo never", "no\nyes\n", 3},
		{"write f hello\ncat f > g; echo more >> g\ncat g", "hello\nmore\n", 0},
		{"Y=2; echo $Y${X}; false; echo $?", "21\n1\n", 0},
		{"mkdir d && cd d && pwd; ls /work # comment\nnosuch; exit $?", "/work/d\nd\n", 127},
		{"signal TERM; echo $?", "143\n", 0},
		{"sleep 10ms & echo first", "first\n", 0},
		{"echo \\$X 'a\"b' \"\\\"\" $ ${NONE}x > f; cat f", "$X a\"b \" $ x\n", 0},
		{"echo >", "", 2},
		{"cd /nowhere || exit 4", "", 4},
		{"export Z=1; echo $Z; env > /tmp/e; : && true", "1\n", 0},
	} {
		spec := newSpec(t)
		spec.Args, spec.Run, spec.Env = nil, test.script, map[string]string{"X": "1"}
		exit, out := runSpec(t, mem.New(nil), spec)
		if out != test.out || exit.Code != test.code {
			t.Errorf("%q = %q, code %d, want %q, %d (%+v)", test.script, out, exit.Code, test.out, test.code, exit)
		}
	}
}

func TestBuiltins(t *testing.T) {
	for _, test := range []struct {
		args []string
		want caisson.Exit
		out  string
	}{
		{[]string{"true"}, caisson.Exit{Reason: caisson.ReasonExited}, ""},
		{[]string{"/bin/false"}, caisson.Exit{Reason: caisson.ReasonExited, Code: 1}, ""},
		{[]string{"exit", "42"}, caisson.Exit{Reason: caisson.ReasonExited, Code: 42}, ""},
		{[]string{"exit", "x"}, caisson.Exit{Reason: caisson.ReasonExited, Code: 1}, ""},
		{[]string{"echo", "-n", "a", "b"}, caisson.Exit{Reason: caisson.ReasonExited}, "a b"},
		{[]string{"signal", "SEGV"}, caisson.Exit{Reason: caisson.ReasonSignaled, Signal: 11}, ""},
		{[]string{"oom"}, caisson.Exit{Reason: caisson.ReasonOOM, Signal: 9, OOMKills: 1}, ""},
		{[]string{"fork", "100"}, caisson.Exit{Reason: caisson.ReasonExited, Code: 1}, ""},
		{[]string{"crash"}, caisson.Exit{Reason: caisson.ReasonSignaled, Signal: 6}, ""},
		{[]string{"nothing"}, caisson.Exit{Reason: caisson.ReasonExited, Code: 127}, ""},
	} {
		spec := newSpec(t, test.args...)
		spec.Limits = caisson.Limits{Memory: caisson.MiB, PIDs: 10}
		e := mem.New(&mem.Options{Programs: map[string]mem.Program{"crash": func(*mem.Proc) int { panic("crash") }}})
		exit, out := runSpec(t, e, spec)
		got := caisson.Exit{Reason: exit.Reason, Code: exit.Code, Signal: exit.Signal, OOMKills: exit.OOMKills}
		if got != test.want || out != test.out {
			t.Errorf("%q ended with %+v and %q, want %+v and %q", test.args, exit, out, test.want, test.out)
		}
	}
}

// What an engine in another process finds.
func TestRecoverInAnotherWorld(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want caisson.Reason
		code int
	}{
		"Ended": {[]string{"exit", "5"}, caisson.ReasonExited, 5}, "Running": {[]string{"hold"}, caisson.ReasonLost, 0},
	} {
		t.Run(name, func(t *testing.T) {
			spec := newSpec(t, test.args...)
			_, p := startSpec(t, mem.New(nil), spec)
			if test.want == caisson.ReasonExited {
				if _, err := p.Wait(within(t)); err != nil {
					t.Fatal(err)
				}
			}
			sb, err := mem.New(nil).Recover(within(t), spec.Dir)
			if err != nil {
				t.Fatal(err)
			}
			found, err := sb.Process(within(t))
			if err != nil {
				t.Fatal(err)
			}
			exit, err := found.Wait(within(t))
			if err != nil || exit.Reason != test.want || exit.Code != test.code {
				t.Errorf("Wait = %+v, %v, want %s", exit, err, test.want)
			}
			if err := sb.Destroy(within(t)); err != nil {
				t.Errorf("Destroy = %v", err)
			}
		})
	}
}

// A program that watches its context ends although it calls nothing.
func TestKillEndsAProgramThatWaits(t *testing.T) {
	entered := make(chan struct{})
	e := mem.New(&mem.Options{Programs: map[string]mem.Program{"wait": func(p *mem.Proc) int {
		close(entered)
		<-p.Context().Done()
		return 0
	}}})
	_, p := startSpec(t, e, newSpec(t, "wait"))
	<-entered
	if err := p.Stop(within(t), engine.Stop{Reason: caisson.ReasonKilled}); err != nil {
		t.Fatal(err)
	}
	if exit, err := p.Wait(within(t)); err != nil || exit.Reason != caisson.ReasonKilled {
		t.Errorf("Wait = %+v, %v, want reason killed", exit, err)
	}
}
