package app_test

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/app"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/mem"
	"github.com/caissonrun/caisson/executor"
	"github.com/caissonrun/caisson/mount"
	"github.com/caissonrun/caisson/mount/tmpfs"
	"github.com/caissonrun/caisson/stage"
	"github.com/caissonrun/caisson/stage/text"
)

// load returns a configuration that nothing on this host has a say in.
func load(t *testing.T) *app.Config {
	t.Helper()
	dir := t.TempDir()
	cfg, err := app.LoadConfig(&app.ConfigOptions{
		Environ: []string{"CAISSON_STATE=" + filepath.Join(dir, "state"), "CAISSON_RUNTIME=" + filepath.Join(dir, "run")},
		Dir:     dir, System: dir,
	})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestEmbedding does what a program that embeds Caisson does, with an engine
// of its own.
func TestEmbedding(t *testing.T) {
	a, err := app.New(load(t), &app.Options{
		Engines: []engine.Engine{mem.New(nil)},
		Keeper:  []string{"/nonexistent"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if !slices.Contains(a.Engines, "mem") || !slices.Contains(a.Engines, "native") {
		t.Errorf("engines = %q, want mem beside Caisson's own", a.Engines)
	}
	ctx := t.Context()
	task := &caisson.Task{
		Engine:  "mem",
		Program: caisson.Program{Cmd: []string{"sh", "-c", "cat in/x; exit 3"}},
		Inputs:  []caisson.Input{{Text: "hello\n", To: "in/x"}},
	}
	id, err := a.Executor.Submit(ctx, task, &executor.Submission{BaseDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Executor.Attend(ctx, id, false); err != nil {
		t.Fatal(err)
	}
	result, err := a.Executor.Wait(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if result.Status != 3 {
		t.Errorf("status = %d, want 3: %+v", result.Status, result)
	}
	var out []byte
	err = a.Executor.Logs(ctx, id, executor.LogOptions{}, func(r executor.LogRecord) error {
		out = append(out, r.Data...)
		return nil
	})
	if err != nil || string(out) != "hello\n" {
		t.Errorf("log = %q, %v, want hello", out, err)
	}
}

func TestDuplicates(t *testing.T) {
	for name, opts := range map[string]*app.Options{
		"Engine": {Engines: []engine.Engine{mem.New(&mem.Options{Name: "native"})}},
		"Mount":  {Mounters: []mount.Mounter{tmpfs.New()}},
		"Scheme": {Stagers: []stage.Stager{text.New()}},
	} {
		t.Run(name, func(t *testing.T) {
			opts.Keeper = []string{"/nonexistent"}
			a, err := app.New(load(t), opts)
			if err == nil {
				a.Close()
			}
			if !errors.Is(err, caisson.ErrExists) {
				t.Errorf("New = %v, want exists", err)
			}
		})
	}
}
