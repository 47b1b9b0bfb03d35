package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/app"
	"github.com/caissonrun/caisson/executor"
)

// A bench is a Caisson with a state folder of its own, wired in this process:
// what an embedding program has, without the start of a command.
type bench struct {
	dir     string
	caisson string // the built command
	app     *app.App
	size    int64 // of the components' table and the gateways' file, in bytes

	containers *containers // made by the first part that needs them
}

func newBench() (*bench, error) {
	command, err := filepath.Abs("bin/caisson")
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(command); err != nil {
		return nil, fmt.Errorf("%w: run make build first", err)
	}
	dir, err := os.MkdirTemp("", "caisson-bench-")
	if err != nil {
		return nil, err
	}
	b := &bench{dir: dir, caisson: command}
	settings := "[engine.native]\nallow_none = true\n[engine.oci]\nallow_runtimes = true\n" +
		"prefer = [\"crun\", \"runc\", \"runsc\", \"builtin\"]\n"
	if host := os.Getenv("CAISSON_TEST_DOCKER"); host != "" {
		settings += fmt.Sprintf("[engine.docker]\nhost = %q\n", host)
	}
	if registry := os.Getenv("CAISSON_TEST_REGISTRY"); registry != "" {
		settings += fmt.Sprintf("[image]\nhttp = [%q]\n", registry)
	}
	settings += fmt.Sprintf("[warm.%s]\nengine = \"qemu\"\nimage = %q\nmemory = %q\n", machinePool, b.smallImage(), savedMemory)
	if err := os.WriteFile(b.config(), []byte(settings), 0o600); err != nil {
		return nil, err
	}
	if b.app, err = b.open(); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return b, nil
}

// open wires a Caisson on the bench's state folder.
func (b *bench) open() (*app.App, error) {
	cfg, err := app.LoadConfig(&app.ConfigOptions{File: b.config()})
	if err != nil {
		return nil, err
	}
	cfg.State = b.state()
	return app.New(cfg, &app.Options{Attend: []string{b.caisson, "--config", b.config(), "--state", b.state(), "attend"}})
}

// smallImage is the name of the small image in the registry, or else the archive.
func (b *bench) smallImage() string {
	if registry := os.Getenv("CAISSON_TEST_REGISTRY"); registry != "" {
		return registry + "/" + small
	}
	return "docker-archive:" + b.archive()
}

func (b *bench) archive() string { return filepath.Join(b.dir, "busybox.tar") }

func (b *bench) config() string { return filepath.Join(b.dir, "caisson.toml") }
func (b *bench) state() string  { return filepath.Join(b.dir, "state") }

// close removes every task, whatever state it is in, and the folder.
func (b *bench) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := b.clear(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
	}
	b.app.Close()
	os.RemoveAll(b.dir)
}

// submit makes a task durable.
func (b *bench) submit(ctx context.Context, task *caisson.Task, detached bool) (string, error) {
	return b.app.Executor.Submit(ctx, task, &executor.Submission{BaseDir: b.dir, Trusted: true, Detached: detached})
}

// run runs a task to its end, and wants it to succeed.
func (b *bench) run(ctx context.Context, task *caisson.Task) (*caisson.Result, error) {
	id, err := b.submit(ctx, task, false)
	if err != nil {
		return nil, err
	}
	if err := b.app.Executor.Attend(ctx, id, false); err != nil {
		return nil, err
	}
	result, err := b.app.Executor.Wait(ctx, id)
	if err != nil {
		return nil, err
	}
	if !result.Success {
		return nil, fmt.Errorf("task %s: status %d: %s%s", id, result.Status, result.Exit.Message, failure(result))
	}
	return result, nil
}

func failure(r *caisson.Result) string {
	if r.Error == nil {
		return ""
	}
	return r.Error.Message
}

// command runs the built command on the bench's state folder.
func (b *bench) command(args ...string) ([]byte, error) {
	cmd := exec.Command(b.caisson, append([]string{"--config", b.config(), "--state", b.state()}, args...)...)
	cmd.Stderr = os.Stderr
	return cmd.Output()
}

func argv(args ...string) *caisson.Task {
	return &caisson.Task{Program: caisson.Program{Cmd: args}}
}

func withoutIsolation(task *caisson.Task) *caisson.Task {
	task.Options = json.RawMessage(`{"isolation":"none"}`)
	return task
}

// start measures a task of /bin/true from its submission to its durable
// result, in this warm process.
func (b *bench) start(ctx context.Context) ([]row, error) {
	bwrap := strings.Fields("bwrap --unshare-all --die-with-parent --ro-bind /usr /usr --symlink usr/bin /bin " +
		"--symlink usr/lib /lib --symlink usr/lib64 /lib64 --proc /proc --dev /dev --tmpfs /tmp /bin/true")
	phases := map[string]samples{}
	all, err := inTurn(100,
		func() error {
			result, err := b.run(ctx, argv("/bin/true"))
			if err == nil {
				for _, p := range result.Phases {
					phases[p.Name] = append(phases[p.Name], p.Took.Std())
				}
			}
			return err
		},
		func() error { _, err := b.run(ctx, withoutIsolation(argv("/bin/true"))); return err },
		func() error { return exec.CommandContext(ctx, bwrap[0], bwrap[1:]...).Run() },
		func() error { return exec.CommandContext(ctx, "/bin/true").Run() },
	)
	if err != nil {
		return nil, err
	}
	full, none, peer, plain := all[0], all[1], all[2], all[3]
	rows := []row{
		{"native, full isolation, /bin/true", full.String(), "bwrap, all namespaces: " + peer.String(), ratio(full, peer), "1.43 (8 ms where bwrap takes 5.6)"},
		{"native, full isolation, /bin/true", full.String(), "fork+exec: " + plain.String(), ratio(full, plain), "-"},
		{"native, no isolation, /bin/true", none.String(), "fork+exec: " + plain.String(), ratio(none, plain), "3"},
	}
	for _, name := range slices.Sorted(maps.Keys(phases)) {
		rows = append(rows, row{"  of the first: " + name, phases[name].String(), "-", "-", "-"})
	}
	return rows, nil
}
