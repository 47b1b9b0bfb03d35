package app_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
		Environ: []string{
			"CAISSON_STATE=" + filepath.Join(dir, "state"), "CAISSON_RUNTIME=" + filepath.Join(dir, "run"),
			"CAISSON_ENGINE_QEMU_KERNEL_ROOT=" + filepath.Join(dir, "none"),
		},
		Dir: dir, System: dir,
	})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// greeter is a staging scheme of an embedding program: greet:NAME.
type greeter struct{}

func (greeter) Schemes() []string { return []string{"greet"} }

func (greeter) CheckInput(*caisson.Input, *stage.Env) error { return nil }

func (greeter) Fetch(_ context.Context, in *caisson.Input, work *os.Root, _ *stage.Env) (*stage.Fetched, error) {
	text := strings.Replace(in.From, "greet:", "hello ", 1) + "\n"
	return &stage.Fetched{Bytes: int64(len(text))}, work.WriteFile(in.To, []byte(text), 0o644)
}

// shelf is a type of mount of an embedding program.
type shelf struct{ dir string }

func (shelf) Type() string { return "shelf" }

func (shelf) Check(m caisson.Mount, _ mount.Env) error { return mount.CheckTarget(m) }

func (s shelf) Mount(_ context.Context, req *mount.Request) (*mount.Place, error) {
	place := mount.NewPlace(req)
	place.Source = s.dir
	return place, req.Save(place)
}

func (shelf) Release(context.Context, *mount.Place) error { return nil }

// TestEmbedding does what a program that embeds Caisson does, with an engine, a
// type of mount and a staging scheme of its own.
func TestEmbedding(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "book"), []byte("once upon a time\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	a, err := app.New(load(t), &app.Options{
		Engines:  []engine.Engine{mem.New(nil)},
		Mounters: []mount.Mounter{mount.Only(shelf{dir}, "mem")},
		Stagers:  []stage.Stager{greeter{}},
		Keeper:   []string{"/nonexistent"},
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
		Program: caisson.Program{Cmd: []string{"sh", "-c", "cat x /shelf/book; exit 3"}},
		Inputs:  []caisson.Input{{From: "greet:you", To: "x"}},
		Mounts:  []caisson.Mount{{Type: "shelf", Target: "/shelf"}},
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
	if err != nil || string(out) != "hello you\nonce upon a time\n" {
		t.Errorf("log = %q, %v, want the greeting and the book", out, err)
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
