package keeper_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/slowtest"
)

// TestSilentKeeper halts a keeper: what is asked of it then has an end.
func TestSilentKeeper(t *testing.T) {
	slowtest.Skip(t) // it waits until the client does not any more
	k := start(t, spec(t, sleeps))
	status, err := k.Status(k.ctx())
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(status.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the keeper is halted", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", status.PID))
		return err == nil && strings.Contains(string(stat), ") T ")
	})
	_, err = k.Status(k.ctx())
	if err := syscall.Kill(status.PID, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	wantKind(t, "Status of a halted keeper", err, caisson.ErrUnavailable)
	if _, err := k.Status(k.ctx()); err != nil {
		t.Errorf("Status once it goes on = %v", err)
	}
}
