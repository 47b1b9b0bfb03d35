package wasm_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// leb writes a number as WebAssembly does.
func leb(n uint64) []byte {
	var out []byte
	for {
		b := byte(n & 0x7f)
		if n >>= 7; n == 0 {
			return append(out, b)
		}
		out = append(out, b|0x80)
	}
}

// section is one of a module, by its number. What is in it is counted.
func section(id byte, parts ...[]byte) []byte {
	body := bytes.Join(parts, nil)
	return append(append([]byte{id}, leb(uint64(len(body)))...), body...)
}

// names of what is in modules.
const (
	typeSection, importSection, functionSection, tableSection, memorySection = 1, 2, 3, 4, 5
	exportSection, startSection, codeSection                                 = 7, 8, 10
)

// nothing is () -> ().
var nothing = []byte{0x60, 0, 0}

// wasi imports a function of WASI, as type 0.
func wasi(name string) []byte {
	const module = "wasi_snapshot_preview1"
	return section(importSection, []byte{1, byte(len(module))}, []byte(module), []byte{byte(len(name))}, []byte(name), []byte{0, 0})
}

// pages is a memory of so many pages.
func pages(n uint64) []byte { return section(memorySection, []byte{1, 0}, leb(n)) }

// command is a module with one function of its own, of the last type, which is
// _start. Body begins with its locals.
func command(types [][]byte, imports int, body []byte, more ...[]byte) []byte {
	all := [][]byte{{0, 'a', 's', 'm', 1, 0, 0, 0}, section(typeSection, append([][]byte{leb(uint64(len(types)))}, types...)...)}
	var later [][]byte
	for _, s := range more {
		if s[0] == importSection {
			all = append(all, s)
			continue
		}
		later = append(later, s)
	}
	all = append(all, section(functionSection, []byte{1, byte(len(types) - 1)}))
	for _, s := range later {
		if s[0] < exportSection {
			all = append(all, s)
		}
	}
	all = append(all, section(exportSection, []byte{1, 6}, []byte("_start"), []byte{0, byte(imports)}))
	for _, s := range later {
		if s[0] > exportSection {
			all = append(all, s)
		}
	}
	return bytes.Join(append(all, section(codeSection, []byte{1}, leb(uint64(len(body))), body)), nil)
}

// TestHostile holds that no module takes more than it may, and that its end is
// told.
func TestHostile(t *testing.T) {
	e := newEngine(t, options(t))
	only := [][]byte{nothing}
	two := [][]byte{{0x60, 2, 0x7f, 0x7f, 1, 0x7f}, nothing}
	four := [][]byte{{0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f}, nothing}
	for name, c := range map[string]struct {
		module  []byte
		timeout time.Duration
		reason  caisson.Reason
		says    string // in the log, or the exit
	}{
		"Recursion":   {module: command(only, 0, []byte{0, 0x10, 0, 0x0b}), reason: caisson.ReasonSignaled, says: "stack overflow"},
		"Unreachable": {module: command(only, 0, []byte{0, 0x00, 0x0b}), reason: caisson.ReasonSignaled, says: "unreachable"},
		"Start":       {module: command(only, 0, []byte{0, 0x00, 0x0b}, section(startSection, []byte{0})), reason: caisson.ReasonSignaled, says: "unreachable"},
		// loop: memory.grow 1; drop; br
		"Grow": {
			module:  command(only, 0, []byte{0, 0x03, 0x40, 0x41, 1, 0x40, 0, 0x1a, 0x0c, 0, 0x0b, 0x0b}, pages(1)),
			timeout: time.Second, reason: caisson.ReasonTimeout,
		},
		// loop: memory.fill of all; br
		"Fill": {
			module: command(only, 0, []byte{0, 0x03, 0x40, 0x41, 0, 0x41, 1, 0x41, 0x80, 0x80, 0x80, 0x20, 0xfc, 0x0b, 0, 0x0c, 0, 0x0b, 0x0b},
				pages(1024)),
			timeout: time.Second, reason: caisson.ReasonTimeout,
		},
		// poll_oneoff(0, 64, 1, 128) of a clock, a day from now
		"Sleep": {
			module: command(four, 1, []byte{
				0, 0x41, 24, 0x42, 0x80, 0x80, 0xac, 0xad, 0xe3, 0xad, 0xe8, 0x13, 0x37, 3, 0, // i64.store 24: nanoseconds
				0x41, 16, 0x41, 1, 0x36, 2, 0, // the monotonic clock
				0x41, 0, 0x41, 0xc0, 0, 0x41, 1, 0x41, 0x80, 1, 0x10, 0, 0x1a, 0x0b,
			}, wasi("poll_oneoff"), pages(1)),
			timeout: time.Second, reason: caisson.ReasonTimeout,
		},
		// loop: random_get of all; br
		"Random": {
			module: command(two, 1, []byte{0, 0x03, 0x40, 0x41, 0, 0x41, 0x80, 0x80, 0x80, 0x20, 0x10, 0, 0x1a, 0x0c, 0, 0x0b, 0x0b},
				wasi("random_get"), pages(1024)),
			timeout: time.Second, reason: caisson.ReasonTimeout,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := spec(t, file(t, c.module), "")
			s.Timeout = caisson.Duration(c.timeout)
			s.Limits.Memory = 64 * caisson.MiB
			exit := wait(t, start(t, e, s))
			if said := output(t, s) + exit.Message; exit.Reason != c.reason || !strings.Contains(said, c.says) || strings.Count(said, "\n") > 1 {
				t.Errorf("exit %+v, output %q", exit, output(t, s))
			}
			if exit.Usage.Wall.Std() > 20*time.Second {
				t.Errorf("it took %v", exit.Usage.Wall)
			}
		})
	}
}

// TestBombs holds that a module which is too much is refused, in one line, and
// that the next one runs.
func TestBombs(t *testing.T) {
	opts := options(t)
	opts.Cache = filepath.Join(t.TempDir(), "cache")
	opts.Patience = caisson.Duration(3 * time.Second)
	e := newEngine(t, opts)
	only := [][]byte{nothing}
	deep := append(bytes.Repeat([]byte{0x02, 0x40}, 1<<20), bytes.Repeat([]byte{0x0b}, 1<<20)...)
	for name, c := range map[string]struct {
		module []byte
		says   string
	}{
		"Locals":    {command(only, 0, append(append([]byte{1}, leb(0xfffffff0)...), 0x7e, 0x0b)), "locals"},
		"Table":     {command(only, 0, []byte{0, 0x0b}, section(tableSection, []byte{1, 0x70, 0}, leb(0xffffffff))), "table"},
		"Types":     {append([]byte{0, 'a', 's', 'm', 1, 0, 0, 0}, section(typeSection, leb(0xffffffff))...), "entries"},
		"Functions": {append(command(only, 0, []byte{0, 0x0b})[:14], section(functionSection, leb(0xffffffff))...), "entries"},
		"Cut":       {loop[:len(loop)-3], "cut off"},
		"Number":    {append([]byte{0, 'a', 's', 'm', 1, 0, 0, 0, 1}, bytes.Repeat([]byte{0xff}, 20)...), "number"},
		"Nested":    {command(only, 0, append(append([]byte{0}, deep...), 0x0b)), "longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			s := spec(t, file(t, c.module), "")
			_, err := e.Create(t.Context(), s)
			if !errors.Is(err, caisson.ErrInvalid) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("Create = %v, want one line of kind invalid about %q", err, c.says)
			}
			if entries, err := os.ReadDir(s.Dir); err != nil || len(entries) > 0 {
				t.Errorf("left: %v, %v", entries, err)
			}
		})
	}
	s := spec(t, file(t, command(only, 0, []byte{0, 0x0b}, pages(65536))), "")
	s.Limits.Memory = 64 * caisson.MiB
	if _, err := e.Create(t.Context(), s); !errors.Is(err, caisson.ErrInvalid) || !strings.Contains(err.Error(), "limits.memory") {
		t.Errorf("a memory of 4 GiB: %v", err)
	}
	// The next one runs.
	if exit := wait(t, start(t, e, spec(t, file(t, command(only, 0, []byte{0, 0x0b})), ""))); exit.Status() != 0 {
		t.Errorf("the next one: %+v", exit)
	}
	if list, err := filepath.Glob(filepath.Join(opts.Cache, "tmp-*")); err != nil || len(list) > 0 {
		t.Errorf("left in the cache: %v, %v", list, err)
	}
}

// TestCPUs holds that a module's processor time is bounded where the engine says
// so, and refused elsewhere.
func TestCPUs(t *testing.T) {
	e := newEngine(t, options(t))
	f, err := e.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := spec(t, file(t, loop), "")
	s.Limits.CPUs, s.Timeout = 100, caisson.Duration(2*time.Second)
	if !f.Limits.CPUs {
		if _, err := e.Create(t.Context(), s); !errors.Is(err, caisson.ErrUnsupported) || !strings.Contains(err.Error(), "limits.cpus") {
			t.Errorf("Create = %v, want it to refuse limits.cpus", err)
		}
		return
	}
	exit := wait(t, start(t, e, s))
	if exit.Reason != caisson.ReasonTimeout || exit.Usage.CPU.Std() > exit.Usage.Wall.Std()/2 {
		t.Errorf("exit %+v, want a tenth of a processor", exit)
	}
}

// TestOnce holds that a secret that is there once is read once.
func TestOnce(t *testing.T) {
	e := newEngine(t, options(t))
	s := spec(t, inside(t), "list /run/secrets ; try read /run/secrets/once ; try read /run/secrets/once ; read /run/secrets/twice ; read /run/secrets/twice")
	s.Secrets = []engine.Secret{
		{Name: "once", Value: []byte("only-one-time"), As: caisson.SecretFile, Once: true},
		{Name: "twice", Value: []byte("again"), As: caisson.SecretFile},
	}
	exit := wait(t, start(t, e, s))
	got := output(t, s)
	if exit.Status() != 0 || strings.Count(got, "read ok") != 1 || !strings.Contains(got, "ENOENT") {
		t.Errorf("exit %+v, output %q", exit, got)
	}
}
