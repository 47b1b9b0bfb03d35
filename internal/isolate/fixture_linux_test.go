package isolate_test

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson/internal/isolate"
)

func TestMain(m *testing.M) {
	if isolate.IsInit() {
		isolate.Main()
	}
	if len(os.Args) > 1 && os.Args[1] == "helper" {
		os.Exit(helper(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == "parent" {
		parent(os.Args[2:])
	}
	if len(os.Args) > 1 && os.Args[1] == "unified" {
		unified(os.Args[2:])
	}
	code := m.Run()
	if path, err := static(); err == nil && strings.Contains(path, "isolate-static-") {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// firstID is the first of the host ids that sandboxes get here.
const firstID = 1879048192

// rootless reports whether the tests run as an ordinary user.
func rootless() bool { return os.Geteuid() != 0 }

// needRoot is for tests of what only root can do.
func needRoot(t *testing.T) {
	t.Helper()
	if rootless() {
		t.Skip("needs root")
	}
}

// self is this test binary, by a path without links.
func self(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// static is the test binary for use inside, where there are no libraries. Under
// the race detector this one needs some, and another is built.
var static = sync.OnceValues(func() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	f, err := elf.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if libraries, err := f.ImportedLibraries(); err != nil || len(libraries) == 0 {
		return path, err
	}
	dir, err := os.MkdirTemp("", "isolate-static-")
	if err != nil {
		return "", err
	}
	os.Chmod(dir, 0o755)
	path = filepath.Join(dir, "isolate.test")
	cmd := exec.Command("go", "test", "-c", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the static helper: %w: %s", err, out)
	}
	return path, nil
})

// inside is the path of the binary for use inside.
func inside(t testing.TB) string {
	t.Helper()
	path, err := static()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// baseSpec is a sandbox that holds the helper and nothing else.
func baseSpec(t testing.TB) *isolate.Spec {
	s := &isolate.Spec{
		ID:      "isolate-test",
		UIDs:    []isolate.IDMap{{Inside: 0, Host: firstID, Size: 1}, {Inside: 1000, Host: firstID + 1, Size: 1}},
		GIDs:    []isolate.IDMap{{Inside: 0, Host: firstID, Size: 1}, {Inside: 1000, Host: firstID + 1, Size: 1}},
		User:    &isolate.User{UID: 1000, GID: 1000},
		Seccomp: true,
		Mounts:  []isolate.Mount{{Type: isolate.Bind, Source: inside(t), Target: "/bin/helper", ReadOnly: true}},
		Runtime: runtimeOf(os.Getenv(runtimeVariable)),
	}
	if rootless() {
		s.UIDs = []isolate.IDMap{{Inside: 1000, Host: os.Getuid(), Size: 1}}
		s.GIDs = []isolate.IDMap{{Inside: 1000, Host: os.Getgid(), Size: 1}}
	}
	return s
}

// begin starts a box that is closed with the test, and checks that nothing is
// left then.
func begin(t *testing.T, spec *isolate.Spec) *isolate.Box {
	t.Helper()
	watch(t)
	box, err := isolate.Start(spec)
	if err != nil {
		t.Fatalf("Start = %v", err)
	}
	t.Cleanup(func() {
		if err := box.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
	return box
}

// state is what sandboxes could leave behind.
type state struct {
	mounts, fds, children, goroutines int
	cgroups                           string
}

func look(t *testing.T) state {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	s := state{mounts: bytes.Count(mounts, []byte("\n")), fds: len(fds), goroutines: runtime.NumGoroutine()}
	s.children = len(children(os.Getpid()))
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/caisson/isolate-test-*")
	more, _ := filepath.Glob("/sys/fs/cgroup/caisson/isolate-test-*")
	s.cgroups = fmt.Sprint(groups, more)
	return s
}

// children returns the children of all threads of a process.
func children(pid int) (all []string) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, name := range files {
		text, _ := os.ReadFile(name)
		all = append(all, strings.Fields(string(text))...)
	}
	return all
}

// watch fails the test if its end leaves anything that was not there before.
func watch(t *testing.T) {
	t.Helper()
	before := look(t)
	t.Cleanup(func() {
		var after state
		ok := poll(func() bool {
			after = look(t)
			return after.mounts <= before.mounts && after.fds <= before.fds && after.children <= before.children &&
				after.goroutines <= before.goroutines && after.cgroups == before.cgroups
		})
		if !ok {
			t.Errorf("left behind: before %+v, after %+v", before, after)
		}
	})
}

// poll waits until f is true, or a while is over.
func poll(f func() bool) bool {
	deadline := time.Now().Add(10 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(2 * time.Millisecond)
	}
	return true
}

// A run is a program in a box with its output.
type run struct {
	*isolate.Proc
	out, err *bytes.Buffer
	read     chan struct{} // both are complete
	lines    io.Reader     // instead of out, for those who read while it runs
}

// spawn starts the helper with its output collected.
func spawn(t *testing.T, box *isolate.Box, args ...string) *run {
	t.Helper()
	return spawnProgram(t, box, &isolate.Program{Args: append([]string{"/bin/helper", "helper"}, args...)})
}

func spawnProgram(t *testing.T, box *isolate.Box, p *isolate.Program) *run {
	t.Helper()
	r, err := trySpawn(t, box, p)
	if err != nil {
		t.Fatalf("Spawn(%q) = %v", p.Args, err)
	}
	return r
}

func trySpawn(t *testing.T, box *isolate.Box, p *isolate.Program) (*run, error) {
	t.Helper()
	outRead, outWrite, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	errRead, errWrite, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	proc, err := box.Spawn(p, nil, outWrite, errWrite)
	outWrite.Close()
	errWrite.Close()
	r := &run{Proc: proc, out: new(bytes.Buffer), err: new(bytes.Buffer), read: make(chan struct{})}
	lines, feed := io.Pipe()
	r.lines = lines
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(r.err, errRead)
		errRead.Close()
	}()
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := outRead.Read(buf)
			r.out.Write(buf[:n])
			if err != nil {
				break
			}
			if !strings.Contains(strings.Join(p.Args, " "), "counter") && bytes.Contains(buf[:n], []byte("ready")) {
				feed.Close()
			}
		}
		outRead.Close()
		feed.Close()
		<-done
		close(r.read)
	}()
	return r, err
}

// ready waits until the helper has said so.
func (r *run) ready(t *testing.T) {
	t.Helper()
	if n, err := r.lines.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatal("the helper did not get ready")
	}
}

// output waits for the end, which must be with code 0, and returns what was
// printed.
func (r *run) output(t *testing.T) string {
	t.Helper()
	code, signal, err := r.Wait()
	<-r.read
	if code != 0 || signal != 0 || err != nil {
		t.Fatalf("Wait = %d, %d, %v, want 0, 0, nil; it printed %q and %q", code, signal, err, r.out, r.err)
	}
	return r.out.String()
}

// reportOf returns what the helper finds out in the box.
func reportOf(t *testing.T, box *isolate.Box) report {
	t.Helper()
	var r report
	out := spawn(t, box, "report").output(t)
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("report %q: %v", out, err)
	}
	return r
}

// unified hides the hierarchies of version 1 and becomes the tests.
func unified(args []string) {
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	for line := range strings.Lines(string(mounts)) {
		if err == nil && strings.Contains(line, " - cgroup ") {
			err = unix.Unmount(strings.Fields(line)[4], unix.MNT_DETACH)
		}
	}
	if err == nil {
		err = unix.Exec("/proc/self/exe", append([]string{os.Args[0]}, args...), os.Environ())
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// capable reports whether this process has a capability: not every root has
// all.
func capable(n int) bool {
	data := [2]unix.CapUserData{}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	return unix.Capget(&header, &data[0]) == nil && data[n/32].Effective&(1<<(n%32)) != 0
}

// gone reports whether a process is dead or a zombie.
func gone(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || text[bytes.LastIndexByte(text, ')')+2] == 'Z'
}

// parent holds a box until it is killed, and prints the pids.
func parent(args []string) {
	spec := &isolate.Spec{ID: "parent", None: true}
	path, _ := os.Executable()
	program := &isolate.Program{Args: []string{path, "helper", "hold"}}
	if args[0] == "sandbox" {
		path = args[1]
		spec = &isolate.Spec{
			ID:      "parent",
			UIDs:    []isolate.IDMap{{Inside: 0, Host: firstID, Size: 2}},
			GIDs:    []isolate.IDMap{{Inside: 0, Host: firstID, Size: 2}},
			Mounts:  []isolate.Mount{{Type: isolate.Bind, Source: path, Target: "/bin/helper"}},
			Runtime: runtimeOf(os.Getenv(runtimeVariable)),
		}
		if rootless() {
			spec.UIDs = []isolate.IDMap{{Inside: 0, Host: os.Getuid(), Size: 1}}
			spec.GIDs = []isolate.IDMap{{Inside: 0, Host: os.Getgid(), Size: 1}}
		}
		program = &isolate.Program{Args: []string{"/bin/helper", "helper", "tree"}}
	}
	box, err := isolate.Start(spec)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	read, write, _ := os.Pipe()
	p, err := box.Spawn(program, nil, write, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var said []byte
	for buf := make([]byte, 100); !bytes.Contains(said, []byte("ready")); {
		n, _ := read.Read(buf)
		said = append(said, buf[:n]...)
	}
	fmt.Println(box.PID(), p.PID)
	time.Sleep(time.Hour)
}
