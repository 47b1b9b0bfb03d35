package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	wazerosys "github.com/tetratelabs/wazero/sys"

	"github.com/caissonrun/caisson"
)

// alone is the argument by which this program runs a module by wazero and
// nothing else: what follows are the module, a folder for compiled code, and the
// folder that the module sees.
const alone = "run-module"

// modules measures a task of a WebAssembly module, the word count of
// examples/wasm, against wazero alone in a process of its own: with nothing
// compiled, and with compiled code on disk.
func (b *bench) modules(ctx context.Context) ([]row, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	module, cache := filepath.Join(b.dir, "wordcount.wasm"), filepath.Join(b.dir, "compiled")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", module, "./examples/wasm")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=wasip1", "GOARCH=wasm")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the module: %w: %s", err, out)
	}
	text, err := filepath.Abs("examples/data/alice.txt")
	if err != nil {
		return nil, err
	}
	peer := func() error {
		return exec.CommandContext(ctx, self, alone, module, cache, filepath.Dir(text)).Run()
	}
	task := func() error {
		_, err := b.run(ctx, &caisson.Task{
			Engine: "wasm", Module: module, Program: caisson.Program{Cmd: []string{"/text/alice.txt", "3"}},
			Mounts: []caisson.Mount{{Type: "bind", Source: filepath.Dir(text), Target: "/text", ReadOnly: true}},
		})
		return err
	}
	forget := func() error {
		return errors.Join(os.RemoveAll(cache), os.RemoveAll(filepath.Join(b.state(), "wasm")))
	}
	colds, err := inTurn(5, forget, task, peer)
	if err != nil {
		return nil, err
	}
	warm, err := inTurn(50, task, peer)
	if err != nil {
		return nil, err
	}
	return []row{
		{"wasm task, nothing compiled", colds[1].String(), "wazero alone: " + colds[2].String(), ratio(colds[1], colds[2]), "-"},
		{"wasm task, compiled code on disk", warm[0].String(), "wazero alone: " + warm[1].String(), ratio(warm[0], warm[1]), "1.5"},
	}, nil
}

// runModule is what modules measures against.
func runModule(ctx context.Context, module, cache, dir string) error {
	data, err := os.ReadFile(module)
	if err != nil {
		return err
	}
	compiled, err := wazero.NewCompilationCacheWithDir(cache)
	if err != nil {
		return err
	}
	defer compiled.Close(ctx)
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCompilationCache(compiled).WithCloseOnContextDone(true))
	defer r.Close(ctx)
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, r); err != nil {
		return err
	}
	_, err = r.InstantiateWithConfig(ctx, data, wazero.NewModuleConfig().WithStdout(os.Stdout).WithStderr(os.Stderr).
		WithArgs("wordcount", "/text/alice.txt", "3").WithFSConfig(wazero.NewFSConfig().WithReadOnlyDirMount(dir, "/text")))
	var exit *wazerosys.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 0 {
		return nil
	}
	return err
}
