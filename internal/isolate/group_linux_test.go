package isolate_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
)

func TestCgroup(t *testing.T) {
	needRoot(t)
	spec := baseSpec(t)
	spec.Cgroup = &isolate.Cgroup{Name: fmt.Sprintf("isolate-test-%d", os.Getpid()), Memory: 48 * caisson.MiB, PIDs: 20, CPUs: 1500}
	box := begin(t, spec)

	r := spawn(t, box, "eat", strconv.Itoa(200<<20))
	if _, signal, _ := r.Wait(); signal != int(unix.SIGKILL) {
		<-r.read
		t.Errorf("a program over its memory ended with signal %d, want 9; it printed %s%s", signal, r.out, r.err)
	}
	stats, err := box.Stats()
	if err != nil {
		t.Fatalf("Stats = %v", err)
	}
	if stats.OOMKills != 1 || stats.CPU <= 0 || stats.PeakMemory < 40*caisson.MiB {
		t.Errorf("Stats = %+v, want one OOM kill, cpu time, and all the memory used", stats)
	}
	r = spawn(t, box, "threads", "100")
	r.Wait()
	if err := box.Kill(); err != nil {
		t.Error(err)
	}
	// The helper ends badly where it is refused a thread.
	if <-r.read; strings.Contains(r.out.String(), "no limit") {
		t.Errorf("100 processes where 20 are allowed: %s", r.out)
	}
	// On version 2 init's own threads are in the group.
	if stats, err := box.Stats(); err != nil || stats.PIDs >= 20 || box.Alive() {
		t.Errorf("Stats after Kill = %+v, %v, Alive = %v, want nobody but init in the group", stats, err, box.Alive())
	}
}

// TestUnified repeats a part where only the version 2 hierarchy is visible, in
// which init is born in the group.
func TestUnified(t *testing.T) {
	needRoot(t)
	cmd := exec.Command(self(t), "unified", "-test.v", "-test.run=^Test(InGroup|Freeze|Halt|HaltInGroup|PlainInGroup)$")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestInGroup")) {
		t.Errorf("with cgroup version 2 alone: %v\n%s", err, out)
	}
}

func TestInGroup(t *testing.T) {
	needRoot(t)
	spec := baseSpec(t)
	spec.Cgroup = &isolate.Cgroup{Name: fmt.Sprintf("isolate-test-%d", os.Getpid())}
	box := begin(t, spec)
	p := spawn(t, box, "tree")
	p.ready(t)
	if score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", p.PID)); err != nil || string(score) != "0\n" {
		t.Errorf("the program's oom_score_adj is %q, %v", score, err)
	}
	groups, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", box.PID()))
	score, _ := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", box.PID()))
	if strings.Contains(string(groups), spec.Cgroup.Name) && capable(unix.CAP_SYS_RESOURCE) && string(score) != "-900\n" {
		t.Errorf("init is in the group and has the oom_score_adj %q", score)
	}
	for range 2 {
		if err := box.Freeze(true); err != nil {
			t.Fatal(err)
		}
		if !box.Alive() {
			t.Error("Alive = false while frozen")
		}
		if _, err := box.Spawn(&isolate.Program{Args: []string{"/bin/helper"}}, nil, nil, nil); !errors.Is(err, caisson.ErrUnavailable) {
			t.Errorf("Spawn while frozen = %v, want ErrUnavailable", err)
		}
		if err := box.Freeze(false); err != nil {
			t.Fatal(err)
		}
		reportOf(t, box)
	}
	if err := box.Freeze(true); err != nil {
		t.Fatal(err)
	}
	if err := box.Kill(); err != nil {
		t.Fatal(err)
	}
	<-p.read
	if box.Alive() {
		t.Error("Alive = true after Kill")
	}
	reportOf(t, box)
	if stats, err := box.Stats(); err != nil || stats.CPU <= 0 {
		t.Errorf("Stats = %+v, %v, want cpu time", stats, err)
	}
	p = spawn(t, box, "tree")
	p.ready(t)
	if err := box.Freeze(true); err != nil {
		t.Fatal(err)
	}
	if err := box.Close(); err != nil {
		t.Errorf("Close while frozen = %v", err)
	}
	<-p.read
}

// In a group of version 2 what is halted is frozen: a SIGCONT changes nothing.
func TestHaltInGroup(t *testing.T) {
	needRoot(t)
	spec := baseSpec(t)
	spec.Cgroup = &isolate.Cgroup{Name: fmt.Sprintf("isolate-test-%d", os.Getpid())}
	box := begin(t, spec)
	p := spawn(t, box, "tree")
	p.ready(t)
	if err := box.Halt(); err != nil {
		t.Fatalf("Halt = %v", err)
	}
	groups, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.PID))
	init, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", box.PID()))
	frozen := strings.Contains(string(groups), spec.Cgroup.Name+"/halted")
	if inside := strings.Contains(string(init), "0::") && strings.Contains(string(init), spec.Cgroup.Name); inside != frozen {
		t.Errorf("init is in the group: %v, and what is halted is frozen: %v", inside, frozen)
	}
	reportOf(t, box)
	if stats, err := box.Stats(); err != nil || stats.CPU <= 0 {
		t.Errorf("Stats = %+v, %v, want cpu time", stats, err)
	}
	if err := box.Kill(); err != nil {
		t.Fatalf("Kill = %v", err)
	}
	<-p.read
	reportOf(t, box)
	p = spawn(t, box, "tree")
	p.ready(t)
	if err := box.Halt(); err != nil {
		t.Fatalf("Halt again = %v", err)
	}
	if err := box.Close(); err != nil {
		t.Errorf("Close while halted = %v", err)
	}
	<-p.read
}

func TestPlainInGroup(t *testing.T) {
	needRoot(t)
	spec := plainSpec()
	spec.Cgroup = &isolate.Cgroup{Name: fmt.Sprintf("isolate-test-%d", os.Getpid())}
	box := begin(t, spec)
	p := spawnPlain(t, box, "tree")
	p.ready(t)
	stats, err := box.Stats()
	if err != nil || stats.CPU <= 0 {
		t.Errorf("Stats = %+v, %v, want cpu time", stats, err)
	}
	if err := box.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	<-p.read
}

func TestNoCgroup(t *testing.T) {
	box := begin(t, baseSpec(t))
	if stats, err := box.Stats(); err != nil || stats.Memory != -1 || stats.CPU != 0 || stats.OOMKills != -1 {
		t.Errorf("Stats = %+v, %v, want no time yet, and -1 for all else", stats, err)
	}
	// The time of what has ended is known. It comes in hundredths of a second.
	for deadline := time.Now().Add(time.Minute); ; {
		reportOf(t, box)
		stats, err := box.Stats()
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("Stats = %+v, %v, want time", stats, err)
		}
		if stats.CPU > 0 {
			return
		}
	}
}
