package oci_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/oci"
	"github.com/caissonrun/caisson/internal/cgroup"
)

// rootOnly is for tests with OCI runtimes.
func rootOnly(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can have an OCI runtime make sandboxes")
	}
}

// fakeRuntime is a program that says it is a runtime, and then does what its
// script says.
func fakeRuntime(t *testing.T, name, version, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	text := fmt.Sprintf("#!/bin/sh\n[ \"$1\" != --version ] || { echo '%s'; exit 0; }\n%s\n", version, script)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// why is what features say about one that is missing.
func why(f *engine.Features, what string) string {
	for _, m := range f.Missing {
		if m.What == what {
			return m.Why + "; " + m.Do
		}
	}
	return ""
}

func TestPreference(t *testing.T) {
	rootOnly(t)
	broken := fakeRuntime(t, "broken", "runc version 1.99.0", "echo no such thing here >&2; exit 3")
	silent := fakeRuntime(t, "silent", "", "exit 0")
	e := newEngine(t, oci.Options{Use: "none-of-these", Prefer: nil})
	if f, err := e.Probe(t.Context()); err != nil || f.Usable || !strings.Contains(why(&f, "runtime none-of-these"), "not installed") {
		t.Errorf("Probe without a runtime = usable %v, %v, %+v", f.Usable, err, f.Missing)
	}
	opts := oci.Options{Prefer: []string{"/no/such/runtime", broken, silent, "crun", oci.Builtin}, Runtime: filepath.Join(t.TempDir(), "run"), Keeper: theKeeper}
	e, err := oci.New(&opts)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	// Without a probe the first two are found out when a sandbox is made.
	root := newRoot(t)
	if exit, out := run(t, e, newSpec(t, root, "echo ran")); exit.Status() != 0 || out != "ran\n" {
		t.Errorf("%s %q", exit.Message, out)
	}
	f, err := e.Probe(t.Context())
	if err != nil || !f.Usable || !strings.HasPrefix(f.Version, "crun 1.") {
		t.Fatalf("Probe = usable %v, version %q, %v", f.Usable, f.Version, err)
	}
	if !strings.Contains(why(&f, "runtime "+broken), `"no such thing here"`) || why(&f, "runtime /no/such/runtime") == "" || why(&f, "runtime "+silent) == "" {
		t.Errorf("missing: %+v", f.Missing)
	}
}

func TestChoice(t *testing.T) {
	rootOnly(t)
	root := newRoot(t)
	spec := func(runtime string) *engine.Spec {
		s := newSpec(t, root, "echo ran")
		s.Options, _ = json.Marshal(map[string]any{"runtime": runtime})
		return s
	}
	closed := newEngine(t, oci.Options{Use: "crun", Prefer: []string{"runc"}})
	if box, err := closed.Create(t.Context(), spec("runc")); !errors.Is(err, caisson.ErrDenied) {
		t.Errorf("Create with a runtime that the operator keeps = %v, %v, want ErrDenied", box, err)
	}
	if exit, _ := run(t, closed, spec("crun")); exit.Status() != 0 {
		t.Errorf("the one that is used anyway: %s", exit.Message)
	}
	open := newEngine(t, oci.Options{Use: "crun", Prefer: []string{"runc", "none-of-these"}, AllowRuntimes: true})
	if exit, _ := run(t, open, spec("runc")); exit.Status() != 0 {
		t.Errorf("another one: %s", exit.Message)
	}
	if box, err := open.Create(t.Context(), spec("none-of-these")); !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("Create with one that is not installed = %v, %v, want ErrUnsupported", box, err)
	}
	for _, name := range []string{"/bin/sh", "runsc", "../crun", oci.Builtin} {
		if box, err := open.Create(t.Context(), spec(name)); !errors.Is(err, caisson.ErrDenied) {
			t.Errorf("Create with runtime %q = %v, %v, want ErrDenied", name, box, err)
		}
	}
}

func TestFloors(t *testing.T) {
	rootOnly(t)
	old := fakeRuntime(t, "old", "runc version 1.1.5", `exec runc "$@"`)
	f, err := newEngine(t, oci.Options{Use: old}).Probe(t.Context())
	if err != nil || !strings.Contains(why(&f, "runtime "+old+" without known escapes"), "CVE-2024-21626") && f.Usable {
		t.Errorf("Probe = %+v, %v", f.Missing, err)
	}
	f, err = newEngine(t, oci.Options{Use: old, EnforceFloors: true}).Probe(t.Context())
	if err != nil || f.Usable || !strings.Contains(why(&f, "runtime "+old), "CVE-2024-21626") {
		t.Errorf("Probe with floors enforced = usable %v, %+v, %v", f.Usable, f.Missing, err)
	}
}

// TestHangingRuntime has one that never answers: it is ended with everything that
// it started, and told by name.
func TestHangingRuntime(t *testing.T) {
	rootOnly(t)
	mark := fmt.Sprintf("4%d", os.Getpid())
	slow := fakeRuntime(t, "slow", "crun version 1.99.0", "sleep "+mark+" & sleep "+mark)
	f, err := newEngine(t, oci.Options{Use: slow, Installation: mark}).Probe(t.Context())
	if err != nil || f.Usable || why(&f, "runtime "+slow) == "" {
		t.Errorf("Probe = usable %v, %+v, %v", f.Usable, f.Missing, err)
	}
	if out, err := exec.Command("pgrep", "-f", "sleep "+mark).Output(); err == nil {
		t.Errorf("of the runtime live on: %s", out)
	}
	if left, err := cgroup.List("caissonoci-" + mark + "-"); err != nil || len(left) > 0 {
		t.Errorf("control groups left: %v, %v", left, err)
	}
}

// TestOtherRuntimes has runtimes by path that nobody knows: one that has runc's
// command line with all its flags, one without runc's own, and one that can't do
// what is asked of it.
func TestOtherRuntimes(t *testing.T) {
	rootOnly(t)
	other := func(name, more, script string) string {
		return fakeRuntime(t, name, "acme version 2.1.0", "[ \"$1\" != --help ] || { echo 'acme [--root DIR] "+more+"'; exit 0; }\n"+script)
	}
	root := newRoot(t)
	for _, path := range []string{
		other("like-runc", "[--rootless BOOL]", `exec runc "$@"`),
		other("plain", "", `[ "$1" = --root ] || { echo "unknown flag $1" >&2; exit 1; }; exec runc --rootless=true "$@"`),
	} {
		e := newEngine(t, oci.Options{Use: path})
		f, err := e.Probe(t.Context())
		if err != nil || !f.Usable || !strings.HasPrefix(f.Version, path+" 2.1.0") {
			t.Errorf("Probe with %s = usable %v, version %q, %+v, %v", path, f.Usable, f.Version, f.Missing, err)
			continue
		}
		if exit, out := run(t, e, newSpec(t, root, "echo ran")); exit.Status() != 0 || out != "ran\n" {
			t.Errorf("%s: %s %q", path, exit.Message, out)
		}
	}
	machine := other("machine", "", `echo "no --preserve-fds here" >&2; exit 2`)
	f, err := newEngine(t, oci.Options{Use: machine}).Probe(t.Context())
	if err != nil || f.Usable || !strings.Contains(why(&f, "runtime "+machine), "no --preserve-fds here") {
		t.Errorf("Probe with %s = usable %v, %+v, %v", machine, f.Usable, f.Missing, err)
	}
}

func TestRuntimeLog(t *testing.T) {
	rootOnly(t)
	s := newSpec(t, newRoot(t), "true")
	s.Options = []byte(`{"debug": true}`)
	if exit, _ := run(t, newEngine(t, oci.Options{Use: "runc"}), s); exit.Status() != 0 {
		t.Fatal(exit.Message)
	}
	if data, err := os.ReadFile(filepath.Join(s.Dir, "runtime.log")); err != nil || !strings.Contains(string(data), "level=debug") {
		t.Errorf("the runtime's log: %.200q, %v", data, err)
	}
}
