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
		ID: "test-" + filepath.Base(filepath.Dir(dir))[:0] + "1", Dir: filepath.Join(dir, "dir"), Log: filepath.Join(dir, "log"),
		Work: filepath.Join(dir, "work"), Args: args,
	}
	for _, d := range []string{spec.Dir, spec.Work} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return spec
}

// runSpec runs a sandbox to its end and returns the exit and stdout.
func runSpec(t *testing.T, e *mem.Engine, spec *engine.Spec) (caisson.Exit, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	sb, err := e.Create(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	defer sb.Destroy(context.Background())
	p, err := sb.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	exit, err := p.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	err = tasklog.Follow(ctx, spec.Log, 0, func() bool { return true }, func(r tasklog.Record) error {
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
	} {
		spec := newSpec(t)
		spec.Run, spec.Env = test.script, map[string]string{"X": "1"}
		exit, out := runSpec(t, mem.New(nil), spec)
		if out != test.out || exit.Code != test.code {
			t.Errorf("%q = %q, code %d, want %q, %d (%+v)", test.script, out, exit.Code, test.out, test.code, exit)
		}
	}
}
