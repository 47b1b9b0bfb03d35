//go:build unix

package executor

import (
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/mem"
)

// What the executor adds to a task, with an engine that does next to nothing.
func BenchmarkTask(b *testing.B) {
	x, err := New(&Options{State: b.TempDir() + "/state", Engines: []engine.Engine{mem.New(nil)}})
	if err != nil {
		b.Fatal(err)
	}
	defer x.Close()
	task := &caisson.Task{Program: caisson.Program{Cmd: []string{"true"}}}
	for b.Loop() {
		id, err := x.Submit(b.Context(), task, &Submission{})
		if err == nil {
			err = x.Attend(b.Context(), id, false)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
