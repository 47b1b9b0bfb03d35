//go:build unix

package native_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/native"
	"github.com/caissonrun/caisson/keeper"
	"github.com/caissonrun/caisson/keeper/keepertest"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// keeperPath names the variable with the path of a built keeper, see
// TestOrdinaryUser.
const keeperPath = "CAISSON_TEST_KEEPER"

// theKeeper is built once, by TestMain.
var theKeeper keeper.Command

func TestMain(m *testing.M) {
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	if path := os.Getenv(keeperPath); path != "" {
		theKeeper = keeper.Command{path}
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "native-test-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = os.Chmod(dir, 0o755)
	}
	if err == nil {
		theKeeper, err = keepertest.Build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// newEngine returns an engine with a runtime folder of its own, unless opts
// has one.
func newEngine(t testing.TB, opts native.Options) *native.Engine {
	t.Helper()
	if opts.Runtime == "" {
		opts.Runtime = filepath.Join(t.TempDir(), "run")
	}
	if opts.Keeper == nil {
		opts.Keeper = theKeeper
	}
	e, err := native.New(&opts)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

var boxes atomic.Int64

// newSpec returns a spec for a shell script.
func newSpec(t testing.TB, script string) *engine.Spec {
	t.Helper()
	base := t.TempDir()
	s := &engine.Spec{
		ID:  fmt.Sprintf("nt%d-%d", os.Getpid(), boxes.Add(1)),
		Dir: filepath.Join(base, "dir"), Log: filepath.Join(base, "log"), Work: filepath.Join(base, "work"),
		Run:       script,
		WorkOwner: engine.Owner{UID: os.Getuid(), GID: os.Getgid()},
	}
	if err := errors.Join(os.Mkdir(s.Dir, 0o700), os.Mkdir(s.Work, 0o755)); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		s.WorkOwner = engine.Owner{UID: 1000, GID: 1000}
		if err := os.Chown(s.Work, 1000, 1000); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// create makes a sandbox that is destroyed after the test.
func create(t testing.TB, e engine.Engine, s *engine.Spec) engine.Sandbox {
	t.Helper()
	box, err := e.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := box.Destroy(context.Background()); err != nil {
			t.Errorf("Destroy = %v", err)
		}
	})
	return box
}

func start(t testing.TB, box engine.Sandbox) engine.Process {
	t.Helper()
	p, err := box.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func wait(t testing.TB, p engine.Process) caisson.Exit {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	exit, err := p.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return exit
}

// run runs a spec to its end and returns what it printed.
func run(t testing.TB, e engine.Engine, s *engine.Spec) (caisson.Exit, string) {
	t.Helper()
	exit := wait(t, start(t, create(t, e, s)))
	return exit, output(t, s)
}

// output returns what a program has printed up to now.
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

// lose kills the keeper of a sandbox.
func lose(t testing.TB, spec *engine.Spec) {
	t.Helper()
	client, err := keeper.Dial(context.Background(), spec.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	status, err := client.Status(context.Background())
	if err == nil {
		err = unix.Kill(status.PID, unix.SIGKILL)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// eventually polls until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// noTrace makes sure that nothing is left in a runtime folder, and no handle.
func noTrace(t testing.TB, runtime string, s *engine.Spec) {
	t.Helper()
	if entries, err := os.ReadDir(runtime); err != nil || len(entries) > 0 {
		t.Errorf("left in the runtime folder: %v, %v", entries, err)
	}
	if _, err := os.Lstat(filepath.Join(s.Dir, engine.HandleFile)); !os.IsNotExist(err) {
		t.Errorf("the handle is left: %v", err)
	}
}

func TestProbe(t *testing.T) {
	runtime := filepath.Join(t.TempDir(), "run")
	e := newEngine(t, native.Options{Runtime: runtime})
	f, err := e.Probe(t.Context())
	if err != nil || !f.Usable {
		t.Fatalf("Probe = %+v, %v", f.Missing, err)
	}
	if f.PrivateDisk == (os.Geteuid() == 0) {
		t.Errorf("private disk = %v as user %d; missing %+v", f.PrivateDisk, os.Geteuid(), f.Missing)
	}
	if entries, err := os.ReadDir(runtime); err != nil || len(entries) > 0 {
		t.Errorf("Probe left %v, %v", entries, err)
	}
}

func TestProbeSaysWhatIsMissing(t *testing.T) {
	for _, command := range []string{"/does/not/exist", "/bin/false"} {
		e := newEngine(t, native.Options{Keeper: keeper.Command{command}})
		f, err := e.Probe(t.Context())
		if err != nil || f.Usable || len(f.Missing) == 0 || !strings.Contains(f.Missing[0].Why, "keeper") {
			t.Errorf("Probe with keeper %s = usable %v, %+v, %v", command, f.Usable, f.Missing, err)
		}
		if _, err := e.Create(t.Context(), newSpec(t, "true")); !errors.Is(err, caisson.ErrUnsupported) {
			t.Errorf("Create = %v, want ErrUnsupported", err)
		}
	}
}

func TestClose(t *testing.T) {
	e := newEngine(t, native.Options{})
	for range 2 {
		if err := e.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	}
	_, probe := e.Probe(t.Context())
	_, create := e.Create(t.Context(), newSpec(t, "true"))
	_, recover := e.Recover(t.Context(), t.TempDir())
	_, sweep := e.Sweep(t.Context(), nil)
	for _, err := range []error{probe, create, recover, sweep} {
		if !errors.Is(err, caisson.ErrUnavailable) {
			t.Errorf("after Close: %v, want ErrUnavailable", err)
		}
	}
}

func TestWithoutIsolation(t *testing.T) {
	e := newEngine(t, native.Options{AllowNone: true})
	s := newSpec(t, `pwd; echo "$CAISSON_WORK $CAISSON_OUTPUT $HOME"; id -u; env | grep -c '^GO'; echo x >made`)
	s.Options, s.Workdir = []byte(`{"isolation":"none"}`), "/work/sub"
	s.Env = map[string]string{"CAISSON_OUTPUT": "/work/.out"}
	sub := filepath.Join(s.Work, "sub")
	if err := os.Mkdir(sub, 0o777); err != nil {
		t.Fatal(err)
	}
	exit, out := run(t, e, s)
	want := fmt.Sprintf("%s\n%s %s/.out %s\n%d\n0\n", sub, s.Work, s.Work, s.Work, os.Geteuid())
	if exit.Status() != 0 || out != want {
		t.Errorf("exit %+v, output %q, want %q", exit, out, want)
	}
	if _, err := os.Stat(filepath.Join(sub, "made")); err != nil {
		t.Error(err)
	}
	refused := newEngine(t, native.Options{})
	if _, err := refused.Create(t.Context(), s); !errors.Is(err, caisson.ErrDenied) {
		t.Errorf("Create where it is not permitted = %v, want ErrDenied", err)
	}
	if _, files := create(t, e, func() *engine.Spec {
		s := newSpec(t, "true")
		s.Options = []byte(`{"isolation":"none"}`)
		return s
	}()).(engine.Filer); files {
		t.Error("a sandbox without isolation shows the host's files as its own")
	}
}
