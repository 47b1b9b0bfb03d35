package isolate_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
)

// plainSpec asks for no isolation.
func plainSpec() *isolate.Spec { return &isolate.Spec{ID: "isolate-test", None: true} }

// plainEnv keeps the helper's Go runtime from opening files of its own.
var plainEnv = []string{"A=b", "GODEBUG=containermaxprocs=0,updatemaxprocs=0"}

// spawnPlain starts the helper without isolation.
func spawnPlain(t *testing.T, box *isolate.Box, args ...string) *run {
	t.Helper()
	return spawnProgram(t, box, &isolate.Program{Args: append([]string{inside(t), "helper"}, args...), Env: plainEnv})
}

func plainReport(t *testing.T, box *isolate.Box) (r report) {
	t.Helper()
	if err := json.Unmarshal([]byte(spawnPlain(t, box, "report").output(t)), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestPlain(t *testing.T) {
	fd, err := unix.FcntlInt(0, unix.F_DUPFD, 100) // inherited, were it not closed
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	spec := plainSpec()
	spec.Files = 64
	box := begin(t, spec)
	r := plainReport(t, box)
	if r.UID != os.Getuid() || r.GID != os.Getgid() || !r.Session || r.Dir != "/" {
		t.Errorf("runs as %d:%d, session %v, in %s", r.UID, r.GID, r.Session, r.Dir)
	}
	if !slices.Equal(r.FDs, []string{"0", "1", "2"}) || !slices.Equal(r.Env, plainEnv) {
		t.Errorf("descriptors %v, environment %v", r.FDs, r.Env)
	}
	if r.Status["NoNewPrivs"] != "1" || r.Status["SigIgn"] != "0000000000000000" || r.Status["SigBlk"] != "0000000000000000" {
		t.Errorf("no_new_privs %s, signals ignored %s", r.Status["NoNewPrivs"], r.Status["SigIgn"])
	}
	if r.Files.Max != 64 || r.Core.Max != 0 {
		t.Errorf("limits: files %v, core %v", r.Files, r.Core)
	}
	if box.PID() != 0 {
		t.Errorf("PID = %d, want 0: there is no init", box.PID())
	}
	root, err := box.Root()
	if err != nil {
		t.Fatal(err)
	}
	root.Close()
	p := spawnPlain(t, box, "exit", "3")
	if code, _, _ := p.Wait(); code != 3 {
		t.Errorf("Wait = %d, want 3", code)
	}
	_, err = box.Spawn(&isolate.Program{Args: []string{"/no/such"}}, nil, nil, nil)
	var x *isolate.ExecError
	if !errors.As(err, &x) || x.Code != 127 {
		t.Errorf("Spawn = %v, want an ExecError with 127", err)
	}
}

// TestPlainUser checks that nothing of root's is kept.
func TestPlainUser(t *testing.T) {
	spec := plainSpec()
	spec.User = &isolate.User{UID: 31235, GID: 31236, Groups: []int{31237}}
	if rootless() {
		if _, err := isolate.Start(spec); !errors.Is(err, caisson.ErrDenied) {
			t.Errorf("Start = %v, want ErrDenied", err)
		}
		return
	}
	// The test binary's folder may be root's alone.
	dir := image(t)
	data, err := os.ReadFile(inside(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/helper", data, 0o755); err != nil {
		t.Fatal(err)
	}
	box := begin(t, spec)
	p := spawnProgram(t, box, &isolate.Program{Args: []string{dir + "/helper", "helper", "report"}})
	var r report
	if err := json.Unmarshal([]byte(p.output(t)), &r); err != nil {
		t.Fatal(err)
	}
	if r.UID != 31235 || r.GID != 31236 || !slices.Equal(r.Groups, []int{31237}) {
		t.Errorf("runs as %d:%d, groups %v", r.UID, r.GID, r.Groups)
	}
	for key, want := range map[string]string{"Uid": "31235", "Gid": "31236"} {
		if got := strings.Fields(r.Status[key]); !slices.Equal(got, []string{want, want, want, want}) {
			t.Errorf("%s is %v, want %s four times", key, got, want)
		}
	}
	for _, key := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		if strings.Trim(r.Status[key], "0") != "" {
			t.Errorf("%s is %s, want none", key, r.Status[key])
		}
	}
}

func TestPlainUserInvalid(t *testing.T) {
	for _, id := range []int{-1, 1<<32 - 1, 1 << 32} {
		for _, u := range []isolate.User{{UID: id}, {GID: id}, {Groups: []int{id}}} {
			spec := plainSpec()
			spec.User = &u
			if box, err := isolate.Start(spec); !errors.Is(err, caisson.ErrInvalid) {
				t.Errorf("Start as %+v = %v, want ErrInvalid", u, err)
				if box != nil {
					box.Close()
				}
			}
		}
	}
}

func TestPlainKill(t *testing.T) {
	for _, command := range []string{"tree", "forker"} {
		t.Run(command, func(t *testing.T) {
			box := begin(t, plainSpec())
			p := spawnPlain(t, box, command)
			p.ready(t)
			if !box.Alive() {
				t.Error("Alive = false")
			}
			if err := box.Kill(); err != nil {
				t.Fatalf("Kill = %v", err)
			}
			<-p.read // all that held its output are gone
			if box.Alive() {
				t.Error("Alive = true after Kill")
			}
			if !poll(func() bool { return len(children(os.Getpid())) == 0 }) {
				t.Errorf("processes %v were not reaped", children(os.Getpid()))
			}
			if _, signal, _ := p.Wait(); signal != int(unix.SIGKILL) {
				t.Errorf("Wait = signal %d, want 9", signal)
			}
			plainReport(t, box)
		})
	}
}

func TestPlainOrphan(t *testing.T) {
	box := begin(t, plainSpec())
	p := spawnPlain(t, box, "orphan")
	if code, _, _ := p.Wait(); code != 0 {
		t.Fatalf("Wait = %d", code)
	}
	if !box.Alive() {
		t.Error("Alive = false while a program that was left behind runs")
	}
	for range 2 {
		if err := box.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	}
	<-p.read
	if _, err := box.Spawn(&isolate.Program{Args: []string{inside(t)}}, nil, nil, nil); !errors.Is(err, caisson.ErrAborted) {
		t.Errorf("Spawn after Close = %v, want ErrAborted", err)
	}
}

func TestPlainFreeze(t *testing.T) {
	box := begin(t, plainSpec())
	p := spawnPlain(t, box, "tree")
	p.ready(t)
	stopped := func() bool {
		text, _ := os.ReadFile("/proc/" + strconv.Itoa(p.PID) + "/status")
		return strings.Contains(string(text), "State:\tT")
	}
	if err := box.Freeze(true); err != nil {
		t.Fatal(err)
	}
	if !poll(stopped) {
		t.Error("the program is not stopped")
	}
	if _, err := box.Spawn(&isolate.Program{Args: []string{inside(t)}}, nil, nil, nil); !errors.Is(err, caisson.ErrUnavailable) {
		t.Errorf("Spawn while frozen = %v, want ErrUnavailable", err)
	}
	if err := box.Freeze(false); err != nil {
		t.Fatal(err)
	}
	if !poll(func() bool { return !stopped() }) {
		t.Error("the program does not go on")
	}
	if err := box.Freeze(true); err != nil {
		t.Fatal(err)
	}
	if err := box.Kill(); err != nil {
		t.Fatal(err)
	}
	<-p.read
}

func TestPlainHalt(t *testing.T) {
	if err := begin(t, plainSpec()).Halt(); !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("Halt = %v, want ErrUnsupported", err)
	}
}

func TestPlainTerminal(t *testing.T) { testTerminal(t, begin(t, plainSpec()), inside(t)) }

func TestPlainCgroup(t *testing.T) {
	needRoot(t)
	spec := plainSpec()
	spec.Cgroup = &isolate.Cgroup{Name: fmt.Sprintf("isolate-test-%d", os.Getpid()), Memory: 48 * caisson.MiB}
	box := begin(t, spec)
	p := spawnPlain(t, box, "eat", strconv.Itoa(200<<20))
	if _, signal, _ := p.Wait(); signal != int(unix.SIGKILL) {
		t.Errorf("Wait = signal %d, want 9", signal)
	}
	if stats, err := box.Stats(); err != nil || stats.OOMKills != 1 {
		t.Errorf("Stats = %+v, %v, want one OOM kill", stats, err)
	}
}

func BenchmarkPlainSpawnTrue(b *testing.B) {
	program := &isolate.Program{Args: []string{inside(b), "helper", "exit", "0"}}
	for b.Loop() {
		box, err := isolate.Start(plainSpec())
		if err != nil {
			b.Fatal(err)
		}
		p, err := box.Spawn(program, nil, nil, nil)
		if err != nil {
			b.Fatal(err)
		}
		p.Wait()
		if err := box.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
