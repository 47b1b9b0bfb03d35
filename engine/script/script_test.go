//go:build unix

package script_test

import (
	"context"
	"encoding/json"
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
	"github.com/caissonrun/caisson/engine/enginetest"
	"github.com/caissonrun/caisson/engine/native"
	"github.com/caissonrun/caisson/engine/script"
	"github.com/caissonrun/caisson/internal/slowtest"
	"github.com/caissonrun/caisson/keeper"
	"github.com/caissonrun/caisson/keeper/keepertest"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// theKeeper is built once, by TestMain.
var theKeeper keeper.Command

// obey is the argument with which this test's program is the operator's: it
// runs what the payload says.
const obey = "obey-payload"

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == obey {
		obeyPayload()
	}
	os.Exit(testMain(m))
}

// obeyPayload becomes the program that the payload names the arguments of.
func obeyPayload() {
	var payload struct{ Args []string }
	if err := json.NewDecoder(os.Stdin).Decode(&payload); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	const program = "/script/inside"
	err := unix.Exec(program, append([]string{program}, payload.Args...), os.Environ())
	fmt.Fprintln(os.Stderr, err)
	os.Exit(4)
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "script-test-")
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

// newEngine returns an engine whose program native runs.
func newEngine(t testing.TB, opts script.Options, in native.Options) *script.Engine {
	t.Helper()
	in.Name, in.Keeper = script.Name, theKeeper
	in.IDBase, in.IDCount = 1946222592, 65536
	if in.Runtime == "" {
		in.Runtime = filepath.Join(t.TempDir(), "run")
	}
	in.AllowHostNetwork = opts.Network == caisson.NetworkHost
	inner, err := native.New(&in)
	if err != nil {
		t.Fatal(err)
	}
	opts.In, opts.Bare = inner, in.Isolation == native.None
	e, err := script.New(&opts)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// file writes a file that everybody may read and run, and returns its path.
func file(t testing.TB, name, contents string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(contents), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// anything is a schema.
const anything = `{"type": "object"}`

// operator returns an engine whose program is a shell script.
func operator(t testing.TB, text string) *script.Engine {
	t.Helper()
	e := newEngine(t, script.Options{
		Program: []string{file(t, "program", "#!/bin/sh\n"+text+"\n")}, Schema: file(t, "schema.json", anything),
	}, native.Options{})
	t.Cleanup(func() { e.Close() })
	return e
}

var boxes atomic.Int64

// newSpec returns a spec of options.
func newSpec(t testing.TB, options string) *engine.Spec {
	t.Helper()
	base := t.TempDir()
	owner := engine.Owner{UID: os.Getuid(), GID: os.Getgid()}
	if os.Geteuid() == 0 {
		owner = engine.Owner{UID: 1000, GID: 1000}
	}
	spec := &engine.Spec{
		ID: fmt.Sprintf("st%d-%d", os.Getpid(), boxes.Add(1)), Dir: filepath.Join(base, "dir"), Log: filepath.Join(base, "log"),
		Work: filepath.Join(base, "work"), WorkOwner: owner, Options: json.RawMessage(options),
	}
	for _, dir := range []string{spec.Dir, spec.Work} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(spec.Work, owner.UID, owner.GID); err != nil {
		t.Fatal(err)
	}
	return spec
}

// start starts a sandbox, which ends with the test.
func start(t testing.TB, e *script.Engine, spec *engine.Spec) (engine.Sandbox, engine.Process) {
	t.Helper()
	sb, err := e.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sb.Destroy(context.Background()); err != nil {
			t.Errorf("Destroy: %v", err)
		}
	})
	p, err := sb.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return sb, p
}

// run runs a task to its end.
func run(t testing.TB, e *script.Engine, spec *engine.Spec) caisson.Exit {
	t.Helper()
	_, p := start(t, e, spec)
	exit, err := p.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return exit
}

// said returns what a program has printed to its standard output.
func said(t testing.TB, log string) string {
	t.Helper()
	var out strings.Builder
	err := tasklog.Follow(t.Context(), log, 0, func() bool { return true }, func(r tasklog.Record) error {
		if r.Stream == tasklog.Stdout {
			out.Write(r.Data)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestConformance(t *testing.T) {
	enginetest.ReapOrphans(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	inside, runtime := enginetest.BuildInside(t), filepath.Join(t.TempDir(), "run")
	opts := script.Options{
		Program: []string{self, obey}, Files: []string{inside},
		Schema: file(t, "schema.json", `{"type": "object", "required": ["args"],
			"properties": {"args": {"type": "array", "items": {"type": "string"}}}, "additionalProperties": false}`),
	}
	engineOf := func(installation string) func(testing.TB) engine.Engine {
		return func(t testing.TB) engine.Engine {
			return newEngine(t, opts, native.Options{Installation: installation, Runtime: runtime})
		}
	}
	one, label := fmt.Sprintf("stest%d", os.Getpid()), ""
	if os.Geteuid() != 0 {
		label = "script, ordinary user"
	}
	groups, without := slowtest.Groups("lifecycle")
	enginetest.Run(t, enginetest.Harness{
		Groups: groups, Without: without,
		Label: label,
		New:   engineOf(one), Other: engineOf(one + "x"),
		Restart: func(t testing.TB, _ engine.Engine) engine.Engine { return engineOf(one)(t) },
		Program: func(spec *engine.Spec, args []string) {
			data, err := json.Marshal(map[string]any{"args": args})
			if err != nil {
				t.Fatal(err)
			}
			spec.Options = data
		},
		Folders: []string{runtime},
		Require: []string{"options", "limits.log", "networks.none"},
	})
}

// Everything that is wrong with options shows when the engine is made.
func TestErrOptions(t *testing.T) {
	in, err := native.New(&native.Options{Name: script.Name, Runtime: "/run/x", Keeper: keeper.Command{"x"}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = script.New(&script.Options{
		In: in, Program: []string{"sign"}, Files: []string{"x", "/a/y", "/b/y"}, Secrets: map[string]string{"k": "../k"}, Network: "all",
	})
	if !errors.Is(err, caisson.ErrInvalid) {
		t.Fatalf("New = %v, want invalid", err)
	}
	for _, want := range []string{`program: "sign"`, "schema: ", `files: "x"`, `two are called "y"`, "secrets.k: ", `network: "all"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("New = %v, want %s in it", err, want)
		}
	}
}

// An engine without a program, or with one that does not work, says so and is
// not usable.
func TestUnusable(t *testing.T) {
	schema, program := file(t, "schema.json", anything), file(t, "program", "#!/bin/sh\n[ \"$1\" != --check ] || { echo no key >&2; exit 4; }\n")
	plain := file(t, "plain", "x")
	if err := os.Chmod(plain, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		opts script.Options
		want string
	}{
		"NoProgram":     {script.Options{}, "none is configured"},
		"NoSuchProgram": {script.Options{Program: []string{"/nowhere/sign"}, Schema: schema}, "is not there; build or install it"},
		"NotExecutable": {script.Options{Program: []string{plain}, Schema: schema}, "not an executable"},
		"NoSchema":      {script.Options{Program: []string{program}, Schema: "/nowhere/s.json"}, "no such file"},
		"SchemaNotJSON": {script.Options{Program: []string{program}, Schema: file(t, "s", "{")}, "schema"},
		"SchemaBroken":  {script.Options{Program: []string{program}, Schema: file(t, "s", `{"type": "objekt"}`)}, "schema"},
		"SchemaOutside": {script.Options{Program: []string{program}, Schema: file(t, "s", `{"$ref": "file:///etc/hostname"}`)}, "schema"},
		"Check":         {script.Options{Program: []string{program}, Schema: schema, Check: []string{"--check"}}, "status 4: no key"},
		"NoSecret": {script.Options{
			Program: []string{program}, Schema: schema, Check: []string{"-"}, Secrets: map[string]string{"key": "/nowhere/key"},
		}, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, c.opts, native.Options{})
			defer e.Close()
			f, err := e.Probe(t.Context())
			if err != nil || f.Usable || len(f.Missing) == 0 || !strings.Contains(f.Missing[0].Why, c.want) {
				t.Errorf("Probe = usable %v, missing %v, %v; want %q", f.Usable, f.Missing[:1], err, c.want)
			}
		})
	}
}

// A payload is checked by the whole schema, `required` too, when the sandbox is
// made, and reaches the program as the schema saw it.
func TestPayload(t *testing.T) {
	e := newEngine(t, script.Options{
		Program: []string{file(t, "program", "#!/bin/sh\ncat\n")},
		Schema: file(t, "schema.json", `{"type": "object", "required": ["file"], "additionalProperties": false,
			"properties": {"file": {"type": "string"}, "n": {"type": "number"}}}`),
	}, native.Options{})
	defer e.Close()
	for payload, want := range map[string]string{
		`{}`:                        "missing property 'file'",
		`{"n": 1}`:                  "missing property 'file'",
		`{"file": 1}`:               "file: got number, want string",
		`{"file": "a", "x": 1}`:     "additional properties 'x'",
		`[]`:                        "got array, want object",
		`{"file": "a"} {"file": 1}`: "invalid",
		`{`:                         "",
	} {
		spec := newSpec(t, payload)
		_, err := e.Create(t.Context(), spec)
		if !errors.Is(err, caisson.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("Create with %s = %v, want invalid: %s", payload, err, want)
		}
		left, _ := os.ReadDir(spec.Dir)
		work, _ := os.ReadDir(spec.Work)
		if len(left)+len(work) != 0 {
			t.Errorf("Create with %s left %v %v", payload, left, work)
		}
	}
	spec := newSpec(t, `{"file": "a\u0000<é>", "n": 1.50, "file": "b"}`)
	if exit := run(t, e, spec); exit.Status() != 0 {
		t.Errorf("exit %+v", exit)
	}
	if got := said(t, spec.Log); got != `{"file":"b","n":1.50}` {
		t.Errorf("the program was given %s", got)
	}
}

// A program need not read its payload, and a large one arrives whole.
func TestLargePayload(t *testing.T) {
	large := `{"x":"` + strings.Repeat("x", 3<<20) + `"}`
	spec := newSpec(t, large)
	if exit := run(t, operator(t, "wc -c"), spec); exit.Status() != 0 {
		t.Errorf("exit %+v", exit)
	}
	if got := strings.TrimSpace(said(t, spec.Log)); got != fmt.Sprint(len(large)) {
		t.Errorf("the program was given %s bytes, want %d", got, len(large))
	}
	if exit := run(t, operator(t, "exit 0"), newSpec(t, large)); exit.Status() != 0 {
		t.Errorf("unread: exit %+v", exit)
	}
}

// What the program's statuses mean, and its messages.
func TestStatuses(t *testing.T) {
	for _, c := range []struct {
		script  string
		message string
		judged  caisson.Kind
	}{
		{"echo fine >&2; exit 0", "", caisson.ErrUnknown},
		{"echo one >&2; echo no such file >&2; exit 1", "no such file", caisson.ErrUnknown},
		{"echo file is empty >&2; exit 2", "malformed payload: file is empty", caisson.ErrUnknown},
		{"exit 2", "malformed payload", caisson.ErrUnknown},
		{"echo busy >&2; exit 3", "busy", caisson.ErrInternal},
		{"echo key is gone >&2; exit 4", "key is gone", caisson.ErrUnavailable},
		{"exit 5", "", caisson.ErrUnavailable},
		{"exit 255", "", caisson.ErrUnavailable},
		{"kill -SEGV $$", "", caisson.ErrInternal},
		{`printf 'a\033[2Jb\377\n\n' >&2; exit 1`, "a\uFFFD[2Jb\uFFFD", caisson.ErrUnknown},
		{`head -c 100000 /dev/zero | tr '\0' x >&2; exit 1`, strings.Repeat("x", 1<<10), caisson.ErrUnknown},
	} {
		e := operator(t, c.script)
		exit := run(t, e, newSpec(t, `{}`))
		if exit.Message != c.message {
			t.Errorf("%s: message %q, want %q", c.script, exit.Message, c.message)
		}
		err := e.Judge(exit)
		if caisson.KindOf(err) != c.judged || (err == nil) != (c.judged == caisson.ErrUnknown) {
			t.Errorf("%s: Judge = %v, want %v", c.script, err, c.judged)
		}
		if err != nil && !strings.Contains(err.Error(), c.message) {
			t.Errorf("%s: Judge = %v, want %q in it", c.script, err, c.message)
		}
	}
}

// Killing, stopping and the time limit end the task, and are never fatal: not
// even if the program ends with a fatal status then.
func TestEnded(t *testing.T) {
	e := operator(t, `trap 'exit 4' TERM
echo ready
while :; do sleep 0.05; done`)
	stops := map[string]*engine.Stop{
		"Kill":    {Reason: caisson.ReasonKilled},
		"Stop":    {Reason: caisson.ReasonStopped, Grace: caisson.Duration(10 * time.Second)},
		"Timeout": nil,
	}
	for name, stop := range stops {
		t.Run(name, func(t *testing.T) {
			spec := newSpec(t, `{}`)
			want := caisson.ReasonTimeout
			if stop == nil {
				spec.Timeout, spec.Grace = caisson.Duration(time.Second), caisson.Duration(10*time.Second)
			} else {
				want = stop.Reason
			}
			_, p := start(t, e, spec)
			for said(t, spec.Log) == "" {
				time.Sleep(5 * time.Millisecond)
			}
			if stop != nil {
				if err := p.Stop(t.Context(), *stop); err != nil {
					t.Fatal(err)
				}
			}
			exit, err := p.Wait(t.Context())
			if err != nil || exit.Reason != want {
				t.Errorf("Wait = %+v, %v; want %s", exit, err, want)
			}
			if err := e.Judge(exit); err != nil {
				t.Errorf("Judge = %v, want nil", err)
			}
		})
	}
	if exit := run(t, operator(t, "exit 0"), newSpec(t, `{}`)); exit.Status() != 0 {
		t.Errorf("the next task: %+v", exit)
	}
}

// An orphan that holds the program's output does not hold up the end of the task:
// this one would for a day.
func TestOrphan(t *testing.T) {
	if exit := run(t, operator(t, "(trap '' TERM HUP; sleep 86400) & exit 0"), newSpec(t, `{}`)); exit.Status() != 0 {
		t.Errorf("exit %+v", exit)
	}
}

// The folder for artifacts is there, and is the program's; what the task has
// put in its place leads nowhere.
func TestArtifacts(t *testing.T) {
	e := operator(t, `[ "$PWD" = /work ] && echo made >"$CAISSON_ARTIFACTS/a" && ln -s /etc/passwd artifacts/link`)
	spec := newSpec(t, `{}`)
	if exit := run(t, e, spec); exit.Status() != 0 {
		t.Fatalf("exit %+v", exit)
	}
	if data, err := os.ReadFile(filepath.Join(spec.Work, "artifacts/a")); err != nil || string(data) != "made\n" {
		t.Errorf("artifacts/a: %q, %v", data, err)
	}
	outside := t.TempDir()
	for name, plant := range map[string]func(path string) error{
		"Link": func(path string) error { return os.Symlink(outside, path) },
		"File": func(path string) error { return os.WriteFile(path, nil, 0o644) },
	} {
		spec := newSpec(t, `{}`)
		if err := plant(filepath.Join(spec.Work, "artifacts")); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Create(t.Context(), spec); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("%s: Create = %v, want invalid", name, err)
		}
	}
	spec = newSpec(t, `{}`)
	if err := errors.Join(os.Mkdir(filepath.Join(spec.Work, "artifacts"), 0o777), os.Chmod(filepath.Join(spec.Work, "artifacts"), 0o777)); err != nil {
		t.Fatal(err)
	}
	if exit := run(t, e, spec); exit.Status() != 0 {
		t.Errorf("with a folder that an input has made: %+v", exit)
	}
}

// The operator's secrets are the program's, and not in the log; nothing in the
// sandbox can be reached from outside.
func TestSecrets(t *testing.T) {
	const value = "a-very-secret-value"
	e := newEngine(t, script.Options{
		Program: []string{file(t, "program", "#!/bin/sh\ncat /run/secrets/key /script/settings; env\n")},
		Schema:  file(t, "schema.json", anything), Files: []string{file(t, "settings", "set\n")},
		Secrets: map[string]string{"key": file(t, "key", value)},
	}, native.Options{})
	defer e.Close()
	spec := newSpec(t, `{}`)
	sb, p := start(t, e, spec)
	if exit, err := p.Wait(t.Context()); err != nil || exit.Status() != 0 {
		t.Fatalf("Wait = %+v, %v", exit, err)
	}
	out := said(t, spec.Log)
	if strings.Contains(out, value) || !strings.Contains(out, "set\n") || !strings.Contains(out, "CAISSON_ARTIFACTS=/work/artifacts\n") {
		t.Errorf("the program said %q", out)
	}
	if _, ok := sb.(engine.Execer); ok {
		t.Error("a task can run programs beside the operator's")
	}
	if _, ok := sb.(engine.Filer); ok {
		t.Error("a task can read the operator's files")
	}
}

// What would be a say in how the program runs is refused, by its name.
func TestRefused(t *testing.T) {
	e := operator(t, "exit 0")
	for field, ask := range map[string]func(*engine.Spec){
		"cmd":        func(s *engine.Spec) { s.Args = []string{"id"} },
		"run":        func(s *engine.Spec) { s.Run = "id" },
		"image":      func(s *engine.Spec) { s.Image = "busybox" },
		"module":     func(s *engine.Spec) { s.Module = "x.wasm" },
		"machine":    func(s *engine.Spec) { s.Machine = &caisson.Machine{} },
		"LD_PRELOAD": func(s *engine.Spec) { s.Env = map[string]string{"LD_PRELOAD": "/work/x.so"} },
		"workdir":    func(s *engine.Spec) { s.Workdir = "/tmp" },
		"user":       func(s *engine.Spec) { s.User = "0" },
		"input":      func(s *engine.Spec) { s.Input = []byte("x") },
		"mounts":     func(s *engine.Spec) { s.Mounts = []engine.Mount{{Type: engine.MountTmpfs, Target: "/script"}} },
		"secrets":    func(s *engine.Spec) { s.Secrets = []engine.Secret{{Name: "PATH", As: caisson.SecretEnv}} },
		"network":    func(s *engine.Spec) { s.Network.Mode = caisson.NetworkHost },
	} {
		spec := newSpec(t, `{}`)
		ask(spec)
		_, err := e.Create(t.Context(), spec)
		if !errors.Is(err, caisson.ErrUnsupported) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: Create = %v, want unsupported by that name", field, err)
		}
	}
}

// Another process finds the task as it is, with its message.
func TestRecovered(t *testing.T) {
	runtime := filepath.Join(t.TempDir(), "run")
	opts := script.Options{
		Program: []string{file(t, "program", "#!/bin/sh\nsleep 0.3; echo why >&2; exit 2\n")}, Schema: file(t, "schema.json", anything),
	}
	e, other := newEngine(t, opts, native.Options{Runtime: runtime}), newEngine(t, opts, native.Options{Runtime: runtime})
	defer other.Close()
	spec := newSpec(t, `{}`)
	start(t, e, spec)
	sb, err := other.Recover(t.Context(), spec.Dir)
	if err != nil {
		t.Fatal(err)
	}
	p, err := sb.Process(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	exit, err := p.Wait(t.Context())
	if err != nil || exit.Code != 2 || exit.Message != "malformed payload: why" {
		t.Errorf("Wait = %+v, %v", exit, err)
	}
}

// Without isolation the program is a plain process of the host, with the
// payload all the same.
func TestBare(t *testing.T) {
	e := newEngine(t, script.Options{
		Program: []string{file(t, "program", "#!/bin/sh\ncat; echo x >\"$CAISSON_ARTIFACTS/a\"\n")}, Schema: file(t, "schema.json", anything),
	}, native.Options{Isolation: native.None})
	defer e.Close()
	spec := newSpec(t, `{"a":1}`)
	if exit := run(t, e, spec); exit.Status() != 0 {
		t.Fatalf("exit %+v", exit)
	}
	if got := said(t, spec.Log); got != `{"a":1}` {
		t.Errorf("the program was given %s", got)
	}
	if _, err := os.Stat(filepath.Join(spec.Work, "artifacts/a")); err != nil {
		t.Error(err)
	}
}
