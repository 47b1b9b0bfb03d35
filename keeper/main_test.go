//go:build linux

package keeper_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/keeper"
	"github.com/caissonrun/caisson/keeper/keepertest"
	"github.com/caissonrun/caisson/keeper/server"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// command starts the real keeper, built for these tests.
var command keeper.Command

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == attendantArg {
		os.Exit(attend(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == doerArg {
		os.Exit(server.MainWith(os.Args[2:], map[string]server.Opener{doerKind: openDoer}))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "keeper-test-")
	if err == nil {
		// Programs of other users have to reach it.
		err = os.Chmod(dir, 0o755)
	}
	if err == nil {
		command, err = keepertest.Build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	return m.Run()
}

// needRoot skips what an ordinary user can't do.
func needRoot(t *testing.T, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: " + why)
	}
}

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

// A kept is a sandbox with a keeper, in a test.
type kept struct {
	*keeper.Client
	t    *testing.T
	spec *keeper.Spec
}

// spec returns the spec of a shell script without isolation.
func spec(t *testing.T, script string) *keeper.Spec {
	t.Helper()
	dir := t.TempDir()
	state, sockets := filepath.Join(dir, "state"), filepath.Join(dir, "run")
	for _, d := range []string{state, sockets} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return &keeper.Spec{
		ID:     "test",
		Dir:    state,
		Socket: filepath.Join(sockets, "keeper.sock"),
		Log:    filepath.Join(state, "log"),
		Box:    &isolate.Spec{ID: "test", None: true},
		Program: isolate.Program{
			Args: []string{"/bin/sh", "-c", script},
			Env:  []string{"PATH=/usr/bin:/bin", "LANG=C"},
			Dir:  dir,
		},
	}
}

func launch(t *testing.T, s *keeper.Spec) *kept {
	t.Helper()
	return launchBy(t, command, s)
}

// launchBy is launch by a keeper of another program.
func launchBy(t *testing.T, command keeper.Command, s *keeper.Spec) *kept {
	t.Helper()
	c, err := keeper.Launch(context.Background(), command, s)
	if err != nil {
		t.Fatalf("Launch: %v", err)
	}
	k := &kept{c, t, s}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if c, err := keeper.Dial(ctx, s.Dir); err == nil {
			if err := c.Destroy(ctx); err != nil {
				t.Errorf("Destroy at the end: %v", err)
			}
			c.Close()
		}
		k.Close()
	})
	return k
}

// start launches and starts a script.
func start(t *testing.T, s *keeper.Spec) *kept {
	t.Helper()
	k := launch(t, s)
	if err := k.Start(k.ctx()); err != nil {
		t.Fatalf("Start: %v", err)
	}
	return k
}

// ctx returns a context for one call.
func (k *kept) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	k.t.Cleanup(cancel)
	return ctx
}

func (k *kept) wait() caisson.Exit {
	k.t.Helper()
	exit, err := k.Wait(k.ctx())
	if err != nil {
		k.t.Fatalf("Wait: %v", err)
	}
	return exit
}

// log returns what the log has of each stream.
func (k *kept) log() map[tasklog.Stream]string {
	k.t.Helper()
	r, err := tasklog.Open(k.spec.Log, 0)
	if err != nil {
		k.t.Fatal(err)
	}
	defer r.Close()
	streams := map[tasklog.Stream]*strings.Builder{tasklog.Stdout: {}, tasklog.Stderr: {}, tasklog.System: {}}
	for {
		rec, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			k.t.Fatal(err)
		}
		streams[rec.Stream].Write(rec.Data)
	}
	text := map[tasklog.Stream]string{}
	for s, b := range streams {
		text[s] = b.String()
	}
	return text
}

// eventually waits until ok reports true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// path returns a path in the folder that the script runs in.
func (k *kept) path(name string) string { return filepath.Join(k.spec.Program.Dir, name) }

func (k *kept) awaitFile(name string) string {
	k.t.Helper()
	var data []byte
	eventually(k.t, "file "+name, func() bool {
		var err error
		data, err = os.ReadFile(k.path(name))
		return err == nil && strings.HasSuffix(string(data), "\n")
	})
	return strings.TrimSpace(string(data))
}

func wantKind(t *testing.T, what string, err error, kind caisson.Kind) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("%s = %v, want %v", what, err, kind)
	}
}

// gone reports whether no process has this pid, or only a dead one.
func gone(pid string) bool {
	data, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	return strings.HasPrefix(rest, "Z") || strings.HasPrefix(rest, "X")
}
