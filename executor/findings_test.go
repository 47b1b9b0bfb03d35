//go:build unix

package executor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/mem"
)

// A probed engine counts its probes, and fails them to order.
type probed struct {
	engine.Engine
	probes   int
	err      error
	unusable bool
}

func (p *probed) Probe(ctx context.Context) (engine.Features, error) {
	p.probes++
	if p.err != nil {
		return engine.Features{}, p.err
	}
	f, err := p.Engine.Probe(ctx)
	f.Usable = f.Usable && !p.unusable
	return f, err
}

// A program is one of several processes on the same state folder.
type program struct {
	*Executor
	engine *probed
}

// programs returns a function that starts another process.
func programs(t *testing.T) (start func(fingerprint string) *program, file string) {
	dir := t.TempDir()
	start = func(fingerprint string) *program {
		e := &probed{Engine: mem.New(nil)}
		x, err := New(&Options{
			State: filepath.Join(dir, "state"), Runtime: filepath.Join(dir, "run"),
			Engines: []engine.Engine{e}, Fingerprint: fingerprint,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { x.Close(); e.Close() })
		return &program{x, e}
	}
	return start, filepath.Join(start("").runtime, findingsDir, "mem.json")
}

// look asks p what its engine can do and checks how often it was probed.
func (p *program) look(t *testing.T, fresh bool, want int) engine.Features {
	t.Helper()
	f, _ := p.engines[0].look(t.Context(), p.Executor, fresh)
	if p.engine.probes != want {
		t.Errorf("probed %d times, want %d", p.engine.probes, want)
	}
	return f
}

func TestFindings(t *testing.T) {
	start, _ := programs(t)
	want := start("a").look(t, false, 1)
	if got := start("a").look(t, false, 0); got.Usable != want.Usable || got.Exec != want.Exec || got.Limits != want.Limits {
		t.Errorf("remembered %+v, want %+v", got, want)
	}
	start("a").look(t, true, 1)  // caisson engines
	start("b").look(t, false, 1) // another configuration
	start("").look(t, false, 1)  // nobody said what it depends on
}

// TestFindingsDistrusted holds what is not believed.
func TestFindingsDistrusted(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, file string){
		"Old": func(t *testing.T, file string) {
			edit(t, file, func(f *finding) { f.At = time.Now().Add(-probeAge) })
		},
		"OfTheFuture": func(t *testing.T, file string) {
			edit(t, file, func(f *finding) { f.At = time.Now().Add(time.Hour) })
		},
		"OtherHost": func(t *testing.T, file string) {
			edit(t, file, func(f *finding) { f.Under = "x" })
		},
		"Damaged": func(t *testing.T, file string) {
			if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"WritableByOthers": func(t *testing.T, file string) {
			if err := os.Chmod(file, 0o666); err != nil {
				t.Fatal(err)
			}
		},
		"FolderOfOthers": func(t *testing.T, file string) {
			if err := os.Chmod(filepath.Dir(file), 0o777); err != nil {
				t.Fatal(err)
			}
		},
		"Link": func(t *testing.T, file string) {
			if err := errors.Join(os.Rename(file, file+"x"), os.Symlink(file+"x", file)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			start, file := programs(t)
			start("a").look(t, false, 1)
			spoil(t, file)
			start("a").look(t, false, 1)
		})
	}
}

// TestFindingsOfOthers holds that root believes nobody else.
func TestFindingsOfOthers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give a file to another user")
	}
	start, file := programs(t)
	start("a").look(t, false, 1)
	if err := os.Chown(file, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	start("a").look(t, false, 1)
}

// TestFindingsFailed holds that a probe which failed is tried again, and that
// one which fails takes back what was found before.
func TestFindingsFailed(t *testing.T) {
	start, _ := programs(t)
	start("a").look(t, false, 1)
	broken := start("a")
	broken.engine.err = errors.New("broken")
	broken.look(t, true, 1)
	unusable := start("a")
	unusable.engine.unusable = true
	unusable.look(t, false, 1)
	start("a").look(t, false, 1)

	doubting := start("a")
	doubting.look(t, false, 0)
	doubting.engines[0].doubt(doubting.Executor)
	start("a").look(t, false, 1)
}

// edit changes what is remembered.
func edit(t *testing.T, file string, change func(*finding)) {
	t.Helper()
	var f finding
	if err := readJSON(file, &f); err != nil {
		t.Fatal(err)
	}
	change(&f)
	if err := writeJSON(file, &f); err != nil {
		t.Fatal(err)
	}
}

// refusing is an engine that can't do what it said, as where a daemon has ended
// since.
type refusing struct{ engine.Engine }

func (refusing) Create(context.Context, *engine.Spec) (engine.Sandbox, error) {
	return nil, &caisson.Error{Op: caisson.OpCreate, Kind: caisson.ErrUnsupported, Err: errors.New("the daemon is gone")}
}

// TestFindingsRefuted holds that an engine which refuses what it could do is
// probed again, by every process.
func TestFindingsRefuted(t *testing.T) {
	start, _ := programs(t)
	first := start("a")
	first.engine.Engine = refusing{first.engine.Engine}
	id, err := first.Submit(t.Context(), sh("true"), &Submission{BaseDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Attend(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	if result, err := first.Wait(t.Context(), id); err != nil || result.Status != 125 {
		t.Errorf("Wait = %+v, %v, want status 125", result, err)
	}
	start("a").look(t, false, 1)
}
