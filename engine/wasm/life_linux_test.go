package wasm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/wasm"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// loop is a module whose _start is a loop without end that calls nothing.
var loop = []byte{
	0x00, 'a', 's', 'm', 0x01, 0x00, 0x00, 0x00,
	0x01, 0x04, 0x01, 0x60, 0x00, 0x00, // type () -> ()
	0x03, 0x02, 0x01, 0x00, // one function
	0x07, 0x0a, 0x01, 0x06, '_', 's', 't', 'a', 'r', 't', 0x00, 0x00,
	0x0a, 0x09, 0x01, 0x07, 0x00, 0x03, 0x40, 0x0c, 0x00, 0x0b, 0x0b, // loop br 0 end end
}

// imports is a module that imports a function that nobody has.
var imports = []byte{
	0x00, 'a', 's', 'm', 0x01, 0x00, 0x00, 0x00,
	0x01, 0x04, 0x01, 0x60, 0x00, 0x00,
	0x02, 0x0c, 0x01, 0x03, 'e', 'n', 'v', 0x04, 'e', 'v', 'i', 'l', 0x00, 0x00,
	0x07, 0x0a, 0x01, 0x06, '_', 's', 't', 'a', 'r', 't', 0x00, 0x00,
}

// file makes a module's file.
func file(t testing.TB, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "module.wasm")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// spec is that of a module with folders of its own.
func spec(t testing.TB, module, args string) *engine.Spec {
	t.Helper()
	base := t.TempDir()
	s := &engine.Spec{
		ID: fmt.Sprintf("t%x", time.Now().UnixNano()), Dir: filepath.Join(base, "dir"), Log: filepath.Join(base, "log"),
		Work: filepath.Join(base, "work"), WorkOwner: engine.Owner{UID: os.Getuid(), GID: os.Getgid()}, Step: "main",
		Module: module, Args: strings.Fields(args),
	}
	for _, dir := range []string{s.Dir, s.Work} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() == 0 {
		s.WorkOwner = engine.Owner{UID: 1000, GID: 1000}
		if err := os.Chown(s.Work, 1000, 1000); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// start starts a sandbox that is destroyed after the test.
func start(t testing.TB, e *wasm.Engine, s *engine.Spec) engine.Process {
	t.Helper()
	sandbox, err := e.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sandbox.Destroy(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	p, err := sandbox.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func wait(t testing.TB, p engine.Process) caisson.Exit {
	t.Helper()
	exit, err := p.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return exit
}

// output is what a program has printed.
func output(t testing.TB, s *engine.Spec) string {
	t.Helper()
	var out bytes.Buffer
	err := tasklog.Follow(t.Context(), s.Log, 0, func() bool { return true }, func(r tasklog.Record) error {
		out.Write(r.Data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestModule(t *testing.T) {
	e := newEngine(t, options(t))
	s := spec(t, inside(t), "say hello ; write made here ; exit 7")
	if exit := wait(t, start(t, e, s)); exit.Reason != caisson.ReasonExited || exit.Code != 7 {
		t.Errorf("exit %+v, %s", exit, output(t, s))
	}
	if got := output(t, s); got != "hello\n" {
		t.Errorf("output %q", got)
	}
	if data, err := os.ReadFile(filepath.Join(s.Work, "made")); string(data) != "here" {
		t.Errorf("a relative path: %q, %v", data, err)
	}
	info, err := os.Stat(filepath.Join(s.Work, "made"))
	if err != nil || int(info.Sys().(*syscall.Stat_t).Uid) != s.WorkOwner.UID {
		t.Errorf("the file is %+v, %v, want it to be user %d's", info, err, s.WorkOwner.UID)
	}
}

// TestBusyLoop holds that the time limit ends what never calls anything.
func TestBusyLoop(t *testing.T) {
	e := newEngine(t, options(t))
	s := spec(t, file(t, loop), "")
	s.Timeout = caisson.Duration(200 * time.Millisecond)
	if exit := wait(t, start(t, e, s)); exit.Reason != caisson.ReasonTimeout || exit.Usage.Wall.Std() > 10*time.Second {
		t.Errorf("exit %+v", exit)
	}
	p := start(t, e, spec(t, file(t, loop), ""))
	if err := p.Stop(t.Context(), engine.Stop{Reason: caisson.ReasonKilled}); err != nil {
		t.Fatal(err)
	}
	if exit := wait(t, p); exit.Reason != caisson.ReasonKilled || exit.Signal != 9 {
		t.Errorf("exit %+v", exit)
	}
}

// TestLinks holds that nothing leads out of what a module sees.
func TestLinks(t *testing.T) {
	e := newEngine(t, options(t))
	s := spec(t, inside(t), strings.Join([]string{
		"try read /work/file", "try read /work/up", "try read /work/dir/passwd", "try write /work/file x", "try read /etc/passwd",
		"try read /work/../etc/passwd", "try symlink /etc/passwd /work/own", "try read /work/own", "try read /work/pipe",
		"try symlink plain /work/inner", "read /work/inner",
	}, " ; "))
	for link, target := range map[string]string{"file": "/etc/passwd", "up": "../../../../../../etc/passwd", "dir": "/etc"} {
		if err := os.Symlink(target, filepath.Join(s.Work, link)); err != nil {
			t.Fatal(err)
		}
	}
	plain := filepath.Join(s.Work, "plain")
	if err := errors.Join(os.WriteFile(plain, []byte("inside"), 0o644), mkfifo(filepath.Join(s.Work, "pipe"))); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	exit := wait(t, start(t, e, s))
	got := output(t, s)
	if exit.Code != 0 || strings.Contains(got, "root:") || !strings.HasSuffix(got, "inside") {
		t.Errorf("exit %+v, output %q", exit, got)
	}
	for _, line := range strings.Split(strings.TrimSpace(got), "\n") {
		if strings.HasPrefix(line, "read ok") || strings.HasPrefix(line, "write ok") {
			t.Errorf("%s", line)
		}
	}
	if after, err := os.ReadFile("/etc/passwd"); err != nil || !bytes.Equal(before, after) {
		t.Error("the host's file has changed")
	}
}

// TestMemory holds that a module that wants more than it may ends as oom.
func TestMemory(t *testing.T) {
	e := newEngine(t, options(t))
	s := spec(t, inside(t), "alloc 512m ; exit 0")
	s.Limits.Memory = 64 * caisson.MiB
	if exit := wait(t, start(t, e, s)); exit.Reason != caisson.ReasonOOM || !strings.Contains(exit.Message, "64") {
		t.Errorf("exit %+v", exit)
	}
}

// TestLost holds that a module ends with its keeper, and that a new engine says
// so.
func TestLost(t *testing.T) {
	opts := options(t)
	e := newEngine(t, opts)
	s := spec(t, file(t, loop), "")
	start(t, e, s)
	killKeeper(t, s)
	again := newEngine(t, opts)
	found, err := again.Recover(t.Context(), s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	p, err := found.Process(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if exit := wait(t, p); exit.Reason != caisson.ReasonLost {
		t.Errorf("exit %+v", exit)
	}
}

// TestRecover holds that a module that runs is found by a new engine.
func TestRecover(t *testing.T) {
	opts := options(t)
	s := spec(t, file(t, loop), "")
	start(t, newEngine(t, opts), s)
	found, err := newEngine(t, opts).Recover(t.Context(), s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	p, err := found.Process(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(t.Context(), engine.Stop{Reason: caisson.ReasonStopped, Grace: caisson.Duration(time.Second)}); err != nil {
		t.Fatal(err)
	}
	if exit := wait(t, p); exit.Reason != caisson.ReasonStopped || exit.Signal != 15 {
		t.Errorf("exit %+v", exit)
	}
}

// TestRefused holds what of a module is refused before anything runs.
func TestRefused(t *testing.T) {
	e := newEngine(t, options(t))
	for name, c := range map[string]struct {
		module string
		kind   caisson.Kind
		says   string
	}{
		"NotWasm":   {file(t, []byte("#!/bin/sh\n")), caisson.ErrInvalid, "not WebAssembly"},
		"Cut":       {file(t, loop[:len(loop)-4]), caisson.ErrInvalid, "module"},
		"Component": {file(t, []byte{0, 'a', 's', 'm', 0x0d, 0, 1, 0}), caisson.ErrInvalid, "component"},
		"Import":    {file(t, imports), caisson.ErrInvalid, `"evil"`},
		"Library":   {file(t, loop[:8]), caisson.ErrInvalid, "_start"},
		"Absent":    {"/nonexistent/module.wasm", caisson.ErrNotFound, "/nonexistent"},
		"URL":       {"https://example.com/module.wasm", caisson.ErrUnsupported, "https://example.com"},
	} {
		t.Run(name, func(t *testing.T) {
			s := spec(t, c.module, "")
			_, err := e.Create(t.Context(), s)
			if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("Create = %v, want one line of kind %v about %q", err, c.kind, c.says)
			}
			if entries, err := os.ReadDir(s.Dir); err != nil || len(entries) > 0 {
				t.Errorf("left: %v, %v", entries, err)
			}
		})
	}
}

// TestCache holds that compiled code is used again, and never what is not what
// was stored.
func TestCache(t *testing.T) {
	opts := options(t)
	opts.Cache = filepath.Join(t.TempDir(), "cache")
	e := newEngine(t, opts)
	module := inside(t)
	run := func() {
		t.Helper()
		s := spec(t, module, "exit 0")
		if exit := wait(t, start(t, e, s)); exit.Status() != 0 {
			t.Fatalf("exit %+v", exit)
		}
	}
	code := func() (string, os.FileInfo) {
		t.Helper()
		found, err := filepath.Glob(filepath.Join(opts.Cache, "*", "wazero-*", "*"))
		if err != nil || len(found) != 1 {
			t.Fatalf("the cache has %v, %v", found, err)
		}
		info, err := os.Stat(found[0])
		if err != nil {
			t.Fatal(err)
		}
		return found[0], info
	}
	run()
	path, first := code()
	run()
	if _, second := code(); !os.SameFile(first, second) {
		t.Error("the second run has compiled again")
	}

	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	poisoned := bytes.Clone(data)
	for i := len(poisoned) / 2; i < len(poisoned)/2+4096; i++ {
		poisoned[i] = 0xcc
	}
	if err := os.WriteFile(path, poisoned, 0o600); err != nil {
		t.Fatal(err)
	}
	run()
	if healed, err := os.ReadFile(path); err != nil || bytes.Equal(healed, poisoned) {
		t.Errorf("what was poisoned is still there: %v", err)
	}

	if err := os.Chmod(opts.Cache, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Create(t.Context(), spec(t, module, "exit 0")); !errors.Is(err, caisson.ErrDenied) {
		t.Errorf("a folder that everybody can write to: %v, want denied", err)
	}
}
