package cli_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/caissonrun/caisson/internal/slowtest"
)

// patience is how long a script waits for something that takes no time.
const patience = 60 * time.Second

// binDir is what buildOnce made, if it was called.
var binDir string

// buildOnce builds the real program, once for all tests.
var buildOnce = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "caisson-bin-")
	if err != nil {
		return "", err
	}
	binDir = dir
	// Tests that drop privileges run it too.
	if err := os.Chmod(dir, 0o755); err != nil {
		return dir, err
	}
	return dir, build(dir)
})

// build builds the program with its keeper inside, as make does, but whatever
// keeper was built in the checkout before.
func build(dir string) error {
	const keeper = "caisson-keeper"
	if err := goBuild("-o", filepath.Join(dir, keeper), module+"/cmd/"+keeper); err != nil {
		return err
	}
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		return err
	}
	inside, err := buildInside(dir)
	if err != nil {
		return err
	}
	embedded := filepath.Join(root, "keeper", "embedded", keeper+"-"+runtime.GOOS+"-"+runtime.GOARCH)
	attacker := filepath.Join(root, "internal", "selftest", "embedded", "caisson-inside-"+runtime.GOOS+"-"+runtime.GOARCH+".gz")
	replace := map[string]string{embedded: filepath.Join(dir, keeper), attacker: inside}
	// What boots no guest needs no agent that works. Where one was built it is that.
	agent := filepath.Join(root, "internal", "guest", "embed", "embedded", "caisson-guest-"+runtime.GOOS+"-"+runtime.GOARCH+".gz")
	if _, err := os.Stat(agent); err != nil {
		replace[agent] = inside
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": replace})
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, overlay, 0o600); err != nil {
		return err
	}
	return goBuild("-overlay", path, "-o", filepath.Join(dir, "caisson"), module+"/cmd/caisson")
}

// buildInside builds the program that selftest runs in sandboxes, compressed.
func buildInside(dir string) (string, error) {
	plain := filepath.Join(dir, "inside")
	if err := goBuild("-o", plain, module+"/engine/enginetest/inside"); err != nil {
		return "", err
	}
	data, err := os.ReadFile(plain)
	if err != nil {
		return "", err
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(data); err != nil {
		return "", err
	}
	return plain + ".gz", errors.Join(w.Close(), os.Remove(plain), os.WriteFile(plain+".gz", packed.Bytes(), 0o644))
}

const module = "github.com/caissonrun/caisson"

func goBuild(args ...string) error {
	cmd := exec.Command("go", append([]string{"build", "-buildvcs=false", "-ldflags=-s -w"}, args...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

func TestMain(m *testing.M) {
	status := m.Run()
	if binDir != "" {
		os.RemoveAll(binDir)
	}
	os.Exit(status)
}

// program returns the folder of the real program.
func program(t *testing.T) string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("the sandboxes of these tests need Linux")
	}
	dir, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestScripts drives the real program. Besides testscript's own commands there
// are:
//
//	status N CMD...     runs CMD, which must exit with N
//	eventually CMD...   runs CMD again until it exits with 0
//	setenv NAME FILE    sets a variable to a file's (or stdout's) trimmed contents
//	lines N FILE        the file has N lines
//	processes N WORD    N processes have WORD in their command line
//	tmpfs DIR SIZE      mounts a small file system, until the script's end
//	served DIR          serves a folder by http; WEB is its URL
//	viewer ADDRESS SIZE COLOUR N    N VNC viewers see a screen of the inside program's
//	picture FILE SIZE COLOUR        the PNG file shows one
//	artifact REF FILE   pushes a WebAssembly module; REGISTRY is the registry
//
// Whatever happens, a script's tasks are removed at its end, and then nothing
// of it may be left on the host.
func TestScripts(t *testing.T) {
	bin := program(t)
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", bin+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("HOME", env.WorkDir)
			return prepare(t, env)
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "root":
				return os.Geteuid() == 0, nil
			case "slow":
				return slowtest.Wanted(), nil
			case "memory":
				return limits(t, bin, "memory"), nil
			case "pause":
				return pauses(t, bin), nil
			}
			return false, fmt.Errorf("no such condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status":     cmdStatus,
			"eventually": cmdEventually,
			"setenv":     cmdSetenv,
			"lines":      cmdLines,
			"processes":  cmdProcesses,
			"tmpfs":      cmdTmpfs,
			"served":     cmdServed,
			"artifact":   cmdArtifact,
			"viewer":     cmdViewer,
			"picture":    cmdPicture,
		},
	})
}

// prepare gives a script a state folder of its own and, at its end, checks
// that nothing is left of it.
func prepare(t *testing.T, env *testscript.Env) error {
	state := filepath.Join(env.WorkDir, "state")
	env.Setenv("CAISSON_STATE", state)
	// Sockets have short paths, so the runtime folder can't be in WORK.
	runtimeDir, err := os.MkdirTemp("", "caisson-run-")
	if err != nil {
		return err
	}
	env.Setenv("CAISSON_RUNTIME", runtimeDir)
	name, dir, _ := strings.Cut(noKernel, "=")
	env.Setenv(name, dir)
	vars := append([]string{}, env.Vars...)
	env.Defer(func() {
		defer os.RemoveAll(runtimeDir)
		for _, left := range leftovers(state, env.Getenv("PATH"), vars) {
			env.T().Log("left behind: ", left)
			defer env.T().FailNow()
		}
	})
	return nil
}

// leftovers removes all tasks of a state folder and returns what is there
// after that.
func leftovers(state, path string, vars []string) []string {
	caisson := func(args ...string) (string, error) {
		cmd := exec.Command(filepath.Join(strings.Split(path, string(os.PathListSeparator))[0], "caisson"), args...)
		cmd.Env = vars
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if _, err := os.Stat(filepath.Join(state, "tasks")); err != nil {
		return nil
	}
	var left []string
	ids, err := caisson("ps", "-a", "-q")
	if err != nil {
		// Scripts may leave a state folder that this program refuses.
		return processesWith(state)
	}
	if list := strings.Fields(ids); len(list) > 0 {
		if out, err := caisson(append([]string{"rm", "--force"}, list...)...); err != nil {
			left = append(left, "rm --force: "+out)
		}
	}
	deadline := time.Now().Add(patience)
	for {
		now := append(processesWith(state), mountsBelow(state)...)
		tasks, _ := filepath.Glob(filepath.Join(state, "tasks", "*"))
		now = append(now, tasks...)
		if len(now) == 0 || time.Now().After(deadline) {
			return append(left, now...)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// processesWith returns the command lines of processes that have word in it.
func processesWith(word string) []string {
	var found []string
	list, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range list {
		if filepath.Base(filepath.Dir(path)) == strconv.Itoa(os.Getpid()) {
			continue
		}
		data, err := os.ReadFile(path)
		if line := strings.ReplaceAll(string(data), "\x00", " "); err == nil && strings.Contains(line, word) {
			found = append(found, "process "+line)
		}
	}
	return found
}

func mountsBelow(dir string) []string {
	var found []string
	data, _ := os.ReadFile("/proc/self/mountinfo")
	for _, line := range strings.Split(string(data), "\n") {
		if strings.Contains(line, dir) {
			found = append(found, "mount "+line)
		}
	}
	return found
}

// noKernel has engine qemu find none. Where this host has a kernel for guests, a new
// state folder would cost the boots of a probe: a test that wants machines says of what.
const noKernel = "CAISSON_ENGINE_QEMU_KERNEL_ROOT=/nonexistent"

// limits reports whether a limit can be enforced on this host.
func limits(t *testing.T, bin, name string) bool {
	cmd := exec.Command(filepath.Join(bin, "caisson"), "--state", t.TempDir(), "run", "--limit", name+"=256m", "--", "true")
	cmd.Env = append(os.Environ(), noKernel)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Logf("no %s limit here: %s", name, out)
	}
	return err == nil
}

// pauses reports whether engine native can halt a sandbox here. Root always can.
func pauses(t *testing.T, bin string) bool {
	out, err := exec.Command(filepath.Join(bin, "caisson"), "--state", t.TempDir(), "engines", "native").Output()
	return err == nil && regexp.MustCompile(`while it runs.*\bpause\b`).Match(out) || os.Geteuid() == 0
}

func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N CMD...")
	}
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit status %d, want %s", got, args[0])
	}
}

func cmdEventually(ts *testscript.TestScript, neg bool, args []string) {
	deadline := time.Now().Add(patience)
	for {
		err := ts.Exec(args[0], args[1:]...)
		if (err == nil) != neg {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("never: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func cmdSetenv(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: setenv NAME FILE")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[1])))
}

func cmdLines(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: lines N FILE")
	}
	if got := strings.Count(ts.ReadFile(args[1]), "\n"); strconv.Itoa(got) != args[0] {
		ts.Fatalf("%s has %d lines, want %s", args[1], got, args[0])
	}
}

// cmdProcesses waits until as many processes as wanted are there: ends are
// not seen by whoever did not start them.
func cmdProcesses(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: processes N WORD")
	}
	deadline := time.Now().Add(patience)
	for {
		found := processesWith(args[1])
		if strconv.Itoa(len(found)) == args[0] {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%d processes with %q, want %s: %q", len(found), args[1], args[0], found)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func cmdTmpfs(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: tmpfs DIR SIZE")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	ts.Check(ts.Exec("mount", "-t", "tmpfs", "-o", "size="+args[1], "caisson-test", dir))
	ts.Defer(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			ts.Logf("umount %s: %v: %s", dir, err, out)
		}
	})
}
