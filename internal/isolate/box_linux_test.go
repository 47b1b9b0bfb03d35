package isolate_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
)

// TestRootless runs all other tests again as an ordinary user.
func TestRootless(t *testing.T) {
	needRoot(t)
	dir, err := os.MkdirTemp("", "isolate-rootless-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o1777); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "isolate.test")
	data, err := os.ReadFile(inside(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(binary, data, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-test.v", "-test.timeout=5m")
	cmd.Dir = dir
	cmd.Env = []string{"TMPDIR=" + dir, "PATH=/usr/bin:/bin", "HOME=" + dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 31234, Gid: 31234}}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestInside")) {
		t.Errorf("as an ordinary user: %v\n%s", err, out)
	}
}

func TestInside(t *testing.T) {
	spec := baseSpec(t)
	spec.Hostname = "chamber"
	spec.Files = 64
	if !rootless() {
		spec.GIDs = append(spec.GIDs, isolate.IDMap{Inside: 50, Host: firstID + 7, Size: 1})
		spec.User.Groups = []int{50}
	}
	box := begin(t, spec)
	proc := spawnProgram(t, box, &isolate.Program{
		Args: []string{"helper", "helper", "report"}, Dir: "/bin", Env: []string{"PATH=/nowhere:/bin", "A=b"},
	})
	var r report
	if err := json.Unmarshal([]byte(proc.output(t)), &r); err != nil {
		t.Fatal(err)
	}

	if r.UID != 1000 || r.GID != 1000 {
		t.Errorf("runs as %d:%d, want 1000:1000", r.UID, r.GID)
	}
	if !rootless() && !slices.Equal(r.Groups, []int{50}) {
		t.Errorf("groups %v, want 50 alone", r.Groups)
	}
	for _, key := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		if strings.Trim(r.Status[key], "0") != "" {
			t.Errorf("%s is %s, want none", key, r.Status[key])
		}
	}
	for key, want := range map[string]string{
		"NoNewPrivs": "1", "Seccomp": "2", "Umask": "0022", "TracerPid": "0",
		"SigBlk": "0000000000000000", "SigIgn": "0000000000000000",
	} {
		if r.Status[key] != want {
			t.Errorf("%s is %s, want %s", key, r.Status[key], want)
		}
	}
	if !slices.Equal(r.FDs, []string{"0", "1", "2"}) {
		t.Errorf("open descriptors %v, want 0 to 2", r.FDs)
	}
	if !slices.Equal(r.Env, []string{"PATH=/nowhere:/bin", "A=b"}) {
		t.Errorf("environment %q, want what was given alone", r.Env)
	}
	if r.Dir != "/bin" || r.Hostname != "chamber" || !r.Session {
		t.Errorf("dir %q, hostname %q, session leader %v", r.Dir, r.Hostname, r.Session)
	}
	if !slices.Equal(r.Root, []string{"bin", "dev", "proc"}) {
		t.Errorf("the root holds %v, want bin, dev and proc alone", r.Root)
	}
	if !slices.Equal(r.Interfaces, []string{"lo"}) {
		t.Errorf("network devices %v, want lo alone", r.Interfaces)
	}
	if len(r.PIDs) != 2 || r.PIDs[0] != 1 {
		t.Errorf("processes %v, want pid 1 and the helper", r.PIDs)
	}
	if r.Files.Max != 64 || r.Core.Max != 0 {
		t.Errorf("limits: files %v, core %v, want 64 and 0", r.Files, r.Core)
	}
	for line := range strings.Lines(r.Mounts) {
		if target := strings.Fields(line)[4]; target != "/" && target != "/bin/helper" &&
			!strings.HasPrefix(target, "/dev") && !strings.HasPrefix(target, "/proc") {
			t.Errorf("unexpected mount: %s", line)
		}
	}
	// Of a program that has ended there may be none.
	running := spawn(t, box, "hold")
	if box.PID() <= 1 || running.PID <= 1 || running.PID == box.PID() {
		t.Errorf("pids on the host: init %d, program %d", box.PID(), running.PID)
	}
}

func TestHostIsOutOfReach(t *testing.T) {
	flag := filepath.Join(t.TempDir(), "flag")
	if err := os.WriteFile(flag, []byte("secret"), 0o666); err != nil {
		t.Fatal(err)
	}
	box := begin(t, baseSpec(t))
	if out := spawn(t, box, "host", flag).output(t); out != "" {
		t.Errorf("of the host could be reached:\n%s", out)
	}
	out := spawn(t, box, "cat", "/proc/1/cmdline", "/proc/sys/kernel/core_pattern", "/proc/kcore", "/proc/keys", "/proc/interrupts").output(t)
	if !strings.Contains(out, `init\x00"`) {
		t.Errorf("pid 1 is not init: %s", out)
	}
	for _, name := range []string{"/proc/keys", "/proc/interrupts"} {
		if !strings.Contains(out, name+`: read ""`) {
			t.Errorf("%s is not hidden: %s", name, out)
		}
	}
	for _, name := range []string{"/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/kernel/hostname", "/dev/new", "/new", "/bin/new"} {
		r := spawn(t, box, "write", name)
		if code, _, _ := r.Wait(); code == 0 {
			t.Errorf("%s can be written", name)
		}
		<-r.read
	}
}

// TestDescriptors has the caller hold descriptors that are not closed on exec.
func TestDescriptors(t *testing.T) {
	dir := t.TempDir()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD, 200)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(high)
	box := begin(t, baseSpec(t))
	if r := reportOf(t, box); !slices.Equal(r.FDs, []string{"0", "1", "2"}) {
		t.Errorf("open descriptors %v, want 0 to 2", r.FDs)
	}
	for n := range 256 {
		for _, at := range []string{"/proc/self/fd/%d", "/proc/self/fd/%d/..", "/proc/1/fd/%d", "/proc/thread-self/fd/%d"} {
			p := &isolate.Program{Args: []string{"/bin/helper", "helper", "report"}, Dir: fmt.Sprintf(at, n)}
			r, err := trySpawn(t, box, p)
			if err == nil {
				t.Errorf("working directory %s: it ran: %s", p.Dir, r.output(t))
			}
			<-r.read
			var x *isolate.ExecError
			if !errors.As(err, &x) || x.Code != 126 {
				t.Fatalf("working directory %s: %v, want an ExecError with code 126", p.Dir, err)
			}
		}
	}
}

// TestMoreDescriptors holds that a program gets those that it is started with,
// in order, and nothing else.
func TestMoreDescriptors(t *testing.T) {
	spec := baseSpec(t)
	spec.Mounts = append(spec.Mounts, isolate.Mount{Type: isolate.Bind, Source: "/usr/bin/busybox", Target: "/bin/busybox", ReadOnly: true})
	box := begin(t, spec)
	var ends, more []*os.File
	for range isolate.MaxMore {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		ends, more = append(ends, r), append(more, w)
	}
	var script strings.Builder
	for i := range more {
		fmt.Fprintf(&script, "echo pipe %d >&%d; ", i, 3+i)
	}
	p := &isolate.Program{Args: []string{"/bin/busybox", "sh", "-c", script.String() + "/bin/busybox ls /proc/self/fd | /bin/busybox wc -l"}}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	proc, err := box.SpawnWith(p, nil, in, in, more)
	in.Close()
	for _, w := range more {
		w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range ends {
		if text, err := io.ReadAll(r); string(text) != fmt.Sprintf("pipe %d\n", i) || err != nil {
			t.Errorf("descriptor %d has %q, %v", 3+i, text, err)
		}
	}
	text, err := io.ReadAll(out)
	// One more is the folder that ls reads.
	if want := fmt.Sprintf("%d\n", 3+isolate.MaxMore+1); string(text) != want || err != nil {
		t.Errorf("there are %q descriptors, %v, want %q", text, err, want)
	}
	if code, signal, err := proc.Wait(); code != 0 || signal != 0 || err != nil {
		t.Errorf("it ended with %d, %d, %v", code, signal, err)
	}
	if _, err := box.SpawnWith(p, nil, nil, nil, make([]*os.File, isolate.MaxMore+1)); !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("SpawnWith(one more) = %v, want ErrUnsupported", err)
	}
}

func TestExecErrors(t *testing.T) {
	spec := baseSpec(t)
	spec.Entries = []isolate.Entry{
		{Path: "/x/plain", Contents: []byte("#!/bin/helper\n"), Mode: 0o644},
		{Path: "/x/lost", Contents: []byte("#!/no/such/interpreter -x\n"), Mode: 0o755},
		{Path: "/x/text", Contents: []byte("neither fish nor fowl"), Mode: 0o755},
		{Path: "/x/link", Link: "nowhere"},
		{Path: "/y", Dir: true, Mode: 0o700},
	}
	box := begin(t, spec)
	path := []string{"PATH=/x:/bin"}
	for name, test := range map[string]struct {
		p    isolate.Program
		code int
		text string
	}{
		"NotFound":         {isolate.Program{Args: []string{"/no/such"}}, 127, "command not found"},
		"NotInPath":        {isolate.Program{Args: []string{"such"}, Env: path}, 127, "command not found"},
		"DanglingLink":     {isolate.Program{Args: []string{"/x/link"}}, 127, "command not found"},
		"FileAsFolder":     {isolate.Program{Args: []string{"/x/plain/x"}}, 127, "command not found"},
		"NoInterpreter":    {isolate.Program{Args: []string{"lost"}, Env: path}, 127, "interpreter"},
		"NotExecutable":    {isolate.Program{Args: []string{"/x/plain"}}, 126, "permission denied"},
		"NotExecutableToo": {isolate.Program{Args: []string{"plain"}, Env: path}, 126, "permission denied"},
		"Folder":           {isolate.Program{Args: []string{"/x"}}, 126, "permission denied"},
		"Format":           {isolate.Program{Args: []string{"/x/text"}}, 126, "neither a program"},
		"NoCommand":        {isolate.Program{}, 127, "no command"},
		"EmptyCommand":     {isolate.Program{Args: []string{""}}, 127, "no command"},
		"NUL":              {isolate.Program{Args: []string{"/bin/helper", "a\x00b"}}, 126, "NUL"},
		"NoFolder":         {isolate.Program{Args: []string{"/bin/helper"}, Dir: "/nowhere"}, 126, "working directory"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := box.Spawn(&test.p, nil, nil, nil)
			var x *isolate.ExecError
			if p != nil || !errors.As(err, &x) || x.Code != test.code || !strings.Contains(err.Error(), test.text) {
				t.Errorf("Spawn = %v, %v, want an ExecError with code %d that says %q", p, err, test.code, test.text)
			}
		})
	}
	if box.Alive() {
		t.Error("something runs, though nothing could be executed")
	}
	if out := spawn(t, box, "cat", "/x/plain").output(t); !strings.Contains(out, "read") {
		t.Errorf("after failures nothing runs: %s", out)
	}
}

func TestExit(t *testing.T) {
	box := begin(t, baseSpec(t))
	p := spawn(t, box, "exit", "7")
	if code, signal, err := p.Wait(); code != 7 || signal != 0 || err != nil {
		t.Errorf("Wait = %d, %d, %v, want 7", code, signal, err)
	}
	if code, _, _ := p.Wait(); code != 7 {
		t.Errorf("a second Wait = %d, want the same", code)
	}
	if err := p.Signal(int(unix.SIGTERM)); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("Signal after the end = %v, want ErrProcessDone", err)
	}
	p = spawn(t, box, "hold")
	p.ready(t)
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGHUP, unix.SIGINT} {
		if err := p.Signal(int(sig)); err != nil {
			t.Errorf("Signal(%v) = %v", sig, err)
		}
	}
	if code, signal, err := p.Wait(); signal != int(unix.SIGINT) || err != nil {
		t.Errorf("Wait = %d, %d, %v, want the signal that was not ignored", code, signal, err)
	}
	p = spawn(t, box, "hold")
	p.ready(t)
	if !box.Alive() {
		t.Error("Alive = false while a program runs")
	}
	if err := p.Signal(int(unix.SIGKILL)); err != nil {
		t.Error(err)
	}
	if code, signal, _ := p.Wait(); code != 0 || signal != int(unix.SIGKILL) {
		t.Errorf("Wait = %d, %d, want signal 9", code, signal)
	}
	if box.Alive() {
		t.Error("Alive = true after the end")
	}
	if err := p.Signal(1000); err == nil {
		t.Error("a signal that does not exist was sent")
	}
}

func TestKill(t *testing.T) {
	for _, command := range []string{"tree", "forker"} {
		t.Run(command, func(t *testing.T) {
			spec := baseSpec(t)
			box := begin(t, spec)
			p := spawn(t, box, command)
			p.ready(t)
			if err := box.Kill(); err != nil {
				t.Fatalf("Kill = %v", err)
			}
			if box.Alive() {
				t.Error("Alive = true after Kill")
			}
			if left := children(box.PID()); len(left) > 0 {
				t.Errorf("processes %v live after Kill", left)
			}
			if _, signal, _ := p.Wait(); signal != int(unix.SIGKILL) {
				t.Errorf("Wait = signal %d, want 9", signal)
			}
			<-p.read // all that held its output are gone
			if err := box.Kill(); err != nil {
				t.Errorf("a second Kill = %v", err)
			}
			if out := spawn(t, box, "cat", "/proc/1/comm").output(t); !strings.Contains(out, "sandbox-init") {
				t.Errorf("after Kill the sandbox is not usable: %s", out)
			}
		})
	}
}

// A program can halt another one of its user before that runs. Whoever starts
// that one has to wait, but not whoever kills them all.
func TestKillWhileStarting(t *testing.T) {
	box := begin(t, baseSpec(t))
	halter := spawn(t, box, "halter")
	halter.ready(t)
	var starting atomic.Int64
	over := make(chan struct{})
	go func() {
		defer close(over)
		for {
			starting.Add(1)
			// Halted once it runs, it is no hindrance: another one is tried.
			if _, err := box.Spawn(&isolate.Program{Args: []string{"/bin/helper", "helper", "hold"}}, nil, nil, nil); err != nil {
				return
			}
			starting.Add(1)
		}
	}()
	halted := poll(func() bool {
		before := starting.Load()
		return before%2 == 1 && slices.ContainsFunc(children(box.PID()), isHaltedChild) && starting.Load() == before
	})
	if !halted {
		t.Error("no program was halted before it ran")
	}
	if err := box.Kill(); err != nil {
		t.Errorf("Kill = %v", err)
	}
	if _, signal, _ := halter.Wait(); signal != int(unix.SIGKILL) {
		t.Errorf("Wait = signal %d, want 9", signal)
	}
	<-halter.read
	if err := box.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	<-over
}

// isHaltedChild reports whether a process is halted and not a program yet, but
// still a copy of init.
func isHaltedChild(pid string) bool {
	text, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && strings.Contains(string(text), ") T ") && !strings.Contains(string(text), "(helper)")
}

func TestOrphans(t *testing.T) {
	box := begin(t, baseSpec(t))
	p := spawn(t, box, "orphan")
	if code, _, _ := p.Wait(); code != 0 {
		t.Fatalf("Wait = %d", code)
	}
	if !box.Alive() {
		t.Error("Alive = false while a program that was left behind runs")
	}
	if err := box.Kill(); err != nil {
		t.Error(err)
	}
	<-p.read
	if box.Alive() {
		t.Error("Alive = true after Kill")
	}
	if left := children(box.PID()); len(left) > 0 {
		t.Errorf("init did not reap %v", left)
	}
}

func TestClose(t *testing.T) {
	box := begin(t, baseSpec(t))
	p := spawn(t, box, "tree")
	p.ready(t)
	init := box.PID()
	root, err := box.Root()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for range 2 {
		if err := box.Close(); err != nil {
			t.Fatalf("Close = %v", err)
		}
	}
	if _, signal, _ := p.Wait(); signal != int(unix.SIGKILL) {
		t.Errorf("Wait = signal %d, want 9", signal)
	}
	<-p.read
	if err := unix.Kill(init, 0); err != unix.ESRCH {
		t.Errorf("init lives after Close: %v", err)
	}
	if _, err := box.Spawn(&isolate.Program{Args: []string{"/bin/helper"}}, nil, nil, nil); !errors.Is(err, caisson.ErrAborted) {
		t.Errorf("Spawn after Close = %v, want ErrAborted", err)
	}
	if err := p.Signal(9); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("Signal after Close = %v, want ErrProcessDone", err)
	}
	if _, err := box.Root(); !errors.Is(err, caisson.ErrAborted) {
		t.Errorf("Root after Close = %v, want ErrAborted", err)
	}
	if err := box.Kill(); err != nil {
		t.Errorf("Kill after Close = %v", err)
	}
	if box.Alive() {
		t.Error("Alive after Close")
	}
}

// TestInitEnds has init killed from outside, as by the OOM killer.
func TestInitEnds(t *testing.T) {
	box := begin(t, baseSpec(t))
	p := spawn(t, box, "tree")
	p.ready(t)
	if err := unix.Kill(box.PID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, signal, err := p.Wait(); signal != int(unix.SIGKILL) || err != nil {
		t.Errorf("Wait = signal %d, %v, want 9", signal, err)
	}
	<-p.read
	if _, err := box.Spawn(&isolate.Program{Args: []string{"/bin/helper"}}, nil, nil, nil); !errors.Is(err, caisson.ErrAborted) {
		t.Errorf("Spawn = %v, want ErrAborted", err)
	}
	if box.Alive() {
		t.Error("Alive = true")
	}
}

func TestInitIsOutOfReach(t *testing.T) {
	for name, uid := range map[string]int{"User": 1000, "Root": 0} {
		t.Run(name, func(t *testing.T) {
			if uid == 0 {
				needRoot(t)
			}
			spec := baseSpec(t)
			spec.Seccomp = false
			spec.User = &isolate.User{UID: uid, GID: uid}
			box := begin(t, spec)
			who := "other"
			if uid == 0 || rootless() {
				who = "same"
			}
			for range 2 {
				if out := spawn(t, box, "attack", who).output(t); out != "done\n" {
					t.Errorf("the attack on pid 1: %s", out)
				}
			}
			if r := reportOf(t, box); strings.Trim(r.Status["CapEff"], "0") != "" || strings.Trim(r.Status["CapBnd"], "0") != "" {
				t.Errorf("user %d has capabilities %s of %s", uid, r.Status["CapEff"], r.Status["CapBnd"])
			}
		})
	}
}

// TestOwnProgram checks that init runs from a file that can't be changed
// through /proc/PID/exe, whoever it belongs to.
func TestOwnProgram(t *testing.T) {
	box := begin(t, baseSpec(t))
	path := fmt.Sprintf("/proc/%d/exe", box.PID())
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		t.Fatal(err)
	}
	if fs.Flags&unix.ST_RDONLY == 0 {
		t.Error("init's program lies on a writable mount")
	}
	if f, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
		f.Close()
		t.Error("init's program could be opened for writing")
	}
}

func TestUserNamespaces(t *testing.T) {
	for _, nested := range []bool{false, true} {
		t.Run(strconv.FormatBool(nested), func(t *testing.T) {
			spec := baseSpec(t)
			spec.Seccomp, spec.Nested = false, nested
			box := begin(t, spec)
			r := spawn(t, box, "unshare")
			code, _, _ := r.Wait()
			<-r.read
			if (code == 0) != nested {
				t.Errorf("user namespace with Nested = %v: code %d, %s", nested, code, r.err)
			}
		})
	}
}

func TestNetwork(t *testing.T) {
	t.Run("None", func(t *testing.T) {
		if out := spawn(t, begin(t, baseSpec(t)), "loopback").output(t); out != "connected\n" {
			t.Errorf("loopback: %s", out)
		}
	})
	t.Run("Host", func(t *testing.T) {
		spec := baseSpec(t)
		spec.HostNetwork = true
		var host report
		if out, err := exec.Command(self(t), "helper", "report").Output(); err != nil || json.Unmarshal(out, &host) != nil {
			t.Fatal(err)
		}
		if r := reportOf(t, begin(t, spec)); !slices.Equal(r.Interfaces, host.Interfaces) {
			t.Errorf("network devices %v, want the host's %v", r.Interfaces, host.Interfaces)
		}
	})
}

func TestFreeze(t *testing.T) {
	box := begin(t, baseSpec(t))
	p := spawn(t, box, "tree")
	p.ready(t)
	state := func() byte {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID))
		return text[bytes.LastIndexByte(text, ')')+2]
	}
	for range 2 {
		if err := box.Freeze(true); err != nil {
			t.Fatalf("Freeze(true) = %v", err)
		}
	}
	if !poll(func() bool { return state() == 'T' || state() == 'D' }) {
		t.Errorf("the program is in state %c", state())
	}
	if _, err := box.Spawn(&isolate.Program{Args: []string{"/bin/helper"}}, nil, nil, nil); !errors.Is(err, caisson.ErrUnavailable) {
		t.Errorf("Spawn while frozen = %v, want ErrUnavailable", err)
	}
	if !box.Alive() {
		t.Error("Alive = false while frozen")
	}
	for range 2 {
		if err := box.Freeze(false); err != nil {
			t.Fatalf("Freeze(false) = %v", err)
		}
	}
	if !poll(func() bool { return state() == 'S' || state() == 'R' }) {
		t.Errorf("the program is in state %c", state())
	}
	reportOf(t, box)
	if err := box.Freeze(true); err != nil {
		t.Fatal(err)
	}
	if err := box.Kill(); err != nil {
		t.Fatalf("Kill while frozen = %v", err)
	}
	if box.Alive() {
		t.Error("Alive = true after Kill")
	}
	<-p.read
	reportOf(t, box)
}

// Halted programs stay so, and others run beside them.
func TestHalt(t *testing.T) {
	box := begin(t, baseSpec(t))
	p := spawn(t, box, "tree")
	p.ready(t)
	for range 2 {
		if err := box.Halt(); err != nil {
			t.Fatalf("Halt = %v", err)
		}
	}
	state := func() byte {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID))
		return text[bytes.LastIndexByte(text, ')')+2]
	}
	if !poll(func() bool { return state() == 'T' }) {
		t.Errorf("the program is in state %c", state())
	}
	for range 2 {
		reportOf(t, box)
	}
	if !box.Alive() {
		t.Error("Alive = false while halted")
	}
	if err := box.Kill(); err != nil {
		t.Fatalf("Kill while halted = %v", err)
	}
	<-p.read
	reportOf(t, box)

	// One that is frozen is halted, too.
	p = spawn(t, box, "tree")
	p.ready(t)
	if err := box.Freeze(true); err != nil {
		t.Fatal(err)
	}
	if err := box.Halt(); err != nil {
		t.Fatalf("Halt while frozen = %v", err)
	}
	reportOf(t, box)
}

// TestParentDies kills the process that holds the box.
func TestParentDies(t *testing.T) {
	for _, kind := range []string{"sandbox", "none"} {
		t.Run(kind, func(t *testing.T) {
			cmd := exec.Command(self(t), "parent", kind, inside(t))
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd.Stderr = os.Stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var init, program int
			if _, err := fmt.Fscanln(out, &init, &program); err != nil {
				t.Fatalf("the parent said nothing: %v", err)
			}
			all := []int{program}
			if init != 0 {
				all = append(all, init)
				for _, c := range children(init) {
					pid, _ := strconv.Atoi(c)
					all = append(all, pid)
				}
				if len(all) < 4 {
					t.Errorf("processes %v: those left behind are missing", all)
				}
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			cmd.Wait()
			for _, pid := range all {
				if !poll(func() bool { return gone(pid) }) {
					t.Errorf("process %d of %v lives without its parent", pid, all)
					unix.Kill(pid, unix.SIGKILL)
				}
			}
		})
	}
}

func TestTerminal(t *testing.T) {
	box := begin(t, baseSpec(t))
	testTerminal(t, box, "/bin/helper")
}

func testTerminal(t *testing.T, box *isolate.Box, path string) {
	t.Helper()
	p, err := box.Spawn(&isolate.Program{
		Args: []string{path, "helper", "terminal"}, Terminal: true, Cols: 132, Rows: 43,
	}, nil, nil, nil)
	if err != nil {
		t.Fatalf("Spawn = %v", err)
	}
	defer p.Terminal.Close()
	var seen bytes.Buffer
	expect := func(want string) {
		t.Helper()
		p.Terminal.SetReadDeadline(time.Now().Add(10 * time.Second))
		for buf := make([]byte, 1024); !bytes.Contains(seen.Bytes(), []byte(want)); {
			n, err := p.Terminal.Read(buf)
			seen.Write(buf[:n])
			if err != nil {
				t.Fatalf("the terminal shows %q, want %q: %v", &seen, want, err)
			}
		}
	}
	for fd := range 3 {
		expect(fmt.Sprintf("size %d 132x43", fd))
	}
	expect("tty /dev/pts/")
	fmt.Fprintln(p.Terminal, "hello")
	expect("got hello")
	size := unix.Winsize{Col: 90, Row: 30}
	if err := unix.IoctlSetWinsize(int(p.Terminal.Fd()), unix.TIOCSWINSZ, &size); err != nil {
		t.Fatal(err)
	}
	expect("resized 90x30")
	fmt.Fprintln(p.Terminal, "end")
	if code, signal, err := p.Wait(); code != 0 || signal != 0 || err != nil {
		t.Errorf("Wait = %d, %d, %v; the terminal shows %q", code, signal, err, &seen)
	}
}

func TestErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/etc", link); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(*isolate.Spec)
		kind   caisson.Kind
	}{
		"NoIDs": {func(s *isolate.Spec) { s.UIDs = nil }, caisson.ErrInvalid},
		"IDTooLarge": {func(s *isolate.Spec) {
			s.UIDs = append(s.UIDs, isolate.IDMap{Inside: 1<<32 - 1, Host: 1, Size: 1})
			s.User = &isolate.User{UID: 1<<32 - 1}
		}, caisson.ErrInvalid},
		"UserNotMapped": {func(s *isolate.Spec) { s.User = &isolate.User{UID: 5, GID: 5} }, caisson.ErrInvalid},
		"SourceMissing": {func(s *isolate.Spec) {
			s.Mounts = append(s.Mounts, isolate.Mount{Type: isolate.Bind, Source: "/no/such", Target: "/x"})
		}, caisson.ErrNotFound},
		"SourceLink": {func(s *isolate.Spec) {
			s.Mounts = append(s.Mounts, isolate.Mount{Type: isolate.Bind, Source: link, Target: "/x"})
		}, caisson.ErrDenied},
		"SourceMagicLink": {func(s *isolate.Spec) {
			s.Mounts = append(s.Mounts, isolate.Mount{Type: isolate.Bind, Source: "/proc/self/root", Target: "/x"})
		}, caisson.ErrDenied},
		"RootMissing": {func(s *isolate.Spec) { s.RootFS = "/no/such" }, caisson.ErrNotFound},
		"RootFile":    {func(s *isolate.Spec) { s.RootFS = file }, caisson.ErrInvalid},
		"TargetRoot": {func(s *isolate.Spec) {
			s.Mounts = append(s.Mounts, isolate.Mount{Type: isolate.Tmpfs, Target: "/"})
		}, caisson.ErrInvalid},
		"TargetUp": {func(s *isolate.Spec) {
			s.Mounts = append(s.Mounts, isolate.Mount{Type: isolate.Tmpfs, Target: "/a/../../b"})
		}, caisson.ErrInvalid},
		"TargetInProc": {func(s *isolate.Spec) {
			s.Mounts = append(s.Mounts, isolate.Mount{Type: isolate.Tmpfs, Target: "/proc/self"})
		}, caisson.ErrUnknown},
		"TargetOnProc": {func(s *isolate.Spec) {
			s.Mounts = append(s.Mounts, isolate.Mount{Type: isolate.Tmpfs, Target: "/proc"})
		}, caisson.ErrDenied},
		"FolderOnFile": {func(s *isolate.Spec) {
			s.Mounts = append(s.Mounts, isolate.Mount{Type: isolate.Tmpfs, Target: "/bin/helper"})
		}, caisson.ErrInvalid},
		"MountType": {func(s *isolate.Spec) {
			s.Mounts = append(s.Mounts, isolate.Mount{Type: "nfs", Target: "/x"})
		}, caisson.ErrInvalid},
		"SysWithHostNetwork": {func(s *isolate.Spec) { s.Sys, s.HostNetwork = true, true }, caisson.ErrUnsupported},
		"FilesOverHost":      {func(s *isolate.Spec) { s.Files = 1 << 40 }, caisson.ErrUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			watch(t)
			spec := baseSpec(t)
			test.change(spec)
			box, err := isolate.Start(spec)
			if box != nil {
				box.Close()
			}
			if err == nil || test.kind != caisson.ErrUnknown && !errors.Is(err, test.kind) {
				t.Errorf("Start = %v, want kind %v", err, test.kind)
			}
		})
	}
}

func BenchmarkStartSpawnTrue(b *testing.B) {
	var start, spawn, wait, end time.Duration
	spec := baseSpec(b)
	for b.Loop() {
		t0 := time.Now()
		box, err := isolate.Start(spec)
		if err != nil {
			b.Fatal(err)
		}
		t1 := time.Now()
		p, err := box.Spawn(&isolate.Program{Args: []string{"/bin/helper", "helper", "exit", "0"}}, nil, nil, nil)
		if err != nil {
			b.Fatal(err)
		}
		t2 := time.Now()
		p.Wait()
		t3 := time.Now()
		if err := box.Close(); err != nil {
			b.Fatal(err)
		}
		start, spawn, wait, end = start+t1.Sub(t0), spawn+t2.Sub(t1), wait+t3.Sub(t2), end+time.Since(t3)
	}
	for name, d := range map[string]time.Duration{"start": start, "spawn": spawn, "wait": wait, "close": end} {
		b.ReportMetric(float64(d.Microseconds())/float64(b.N)/1000, "ms-"+name)
	}
}
