//go:build linux

package keeper_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/keeper"
)

// limited gives a sandbox a control group, on hosts that let this test.
func limited(t *testing.T, s *keeper.Spec) *keeper.Spec {
	t.Helper()
	needRoot(t, "no control group is delegated")
	s.Box.Cgroup = &isolate.Cgroup{
		Name:   fmt.Sprintf("keeper-test-%d-%d", os.Getpid(), len(t.Name())),
		Memory: 64 * caisson.MiB, PIDs: 64,
	}
	return s
}

func TestOutOfMemory(t *testing.T) {
	for name, mk := range map[string]func(*testing.T, string) *keeper.Spec{"None": spec, "Isolated": isolated} {
		t.Run(name+"/Main", func(t *testing.T) {
			k := start(t, limited(t, mk(t, "exec tail /dev/zero")))
			exit := k.wait()
			if exit.Reason != caisson.ReasonOOM || exit.Signal != 9 || exit.OOMKills == 0 || exit.Status() != 137 {
				t.Errorf("exit = %+v, want oom", exit)
			}
			if !strings.Contains(exit.Message, "64m") {
				t.Errorf("message = %q, want the limit in it", exit.Message)
			}
		})
		t.Run(name+"/MainFailsBecauseOfIt", func(t *testing.T) {
			k := start(t, limited(t, mk(t, "tail /dev/zero; exit 4")))
			if exit := k.wait(); exit.Reason != caisson.ReasonOOM || exit.Code != 4 {
				t.Errorf("exit = %+v, want oom with code 4", exit)
			}
		})
		t.Run(name+"/ChildAlone", func(t *testing.T) {
			k := start(t, limited(t, mk(t, "tail /dev/zero; exit 0")))
			if exit := k.wait(); exit.Reason != caisson.ReasonExited || exit.OOMKills == 0 {
				t.Errorf("exit = %+v, want exited, and the kill counted", exit)
			}
		})
	}
}

func TestUsage(t *testing.T) {
	k := start(t, limited(t, isolated(t, "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; head -c 20000000 /dev/zero | tail | wc -c")))
	exit := k.wait()
	if exit.Usage.CPU <= 0 || exit.Usage.PeakMemory < 10*caisson.MiB || exit.Usage.PeakMemory > 64*caisson.MiB {
		t.Errorf("usage = %+v", exit.Usage)
	}
	stats, err := k.Stats(k.ctx())
	if err != nil || stats.PeakMemory != exit.Usage.PeakMemory || stats.CPU <= 0 {
		t.Errorf("Stats after the end = %+v, %v, want the last figures", stats, err)
	}
	running := start(t, spec(t, sleeps))
	stats, err = running.Stats(k.ctx())
	if err != nil || stats.Memory != -1 || stats.PIDs != -1 {
		t.Errorf("Stats without a control group = %+v, %v, want -1 for what can't be measured", stats, err)
	}
}
