//go:build linux

package wasm_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/enginetest"
)

func TestConformance(t *testing.T) {
	opts := options(t)
	module := inside(t)
	engineOf := func(installation string) func(testing.TB) engine.Engine {
		return func(t testing.TB) engine.Engine {
			mine := opts
			mine.Installation = installation
			return newEngine(t, mine)
		}
	}
	enginetest.Run(t, enginetest.Harness{
		New: engineOf("one"), Other: engineOf("two"),
		Restart: func(t testing.TB, _ engine.Engine) engine.Engine { return engineOf("one")(t) },
		Program: func(spec *engine.Spec, args []string) { spec.Module, spec.Args = module, args },
		Lose:    killKeeper,
		Folders: []string{opts.Runtime},
		Require: []string{"module", "limits.memory", "limits.log", "networks.none", "mounts.bind", "mounts.readonly", "secrets"},
	})
}

// killKeeper kills the keeper of a sandbox, and returns when it is gone.
func killKeeper(t testing.TB, spec *engine.Spec) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(spec.Dir, "keeper.json"))
	if err != nil {
		t.Fatal(err)
	}
	var record struct{ PID int }
	if err := json.Unmarshal(data, &record); err != nil || record.PID <= 1 {
		t.Fatalf("keeper.json is %s: %v", data, err)
	}
	if err := syscall.Kill(record.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(record.PID, &status, syscall.WNOHANG, nil); err != nil && syscall.Kill(record.PID, 0) != nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("the keeper %d does not die", record.PID)
}
