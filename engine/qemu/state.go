package qemu

import (
	"github.com/caissonrun/caisson/internal/machine"
)

// A saveSpec says where a machine's state is put, for all machines of its shape.
type saveSpec struct {
	// Dir is the folder of the engine's states.
	Dir   string         `json:"dir"`
	Name  string         `json:"name"` // for people
	Shape *machine.Shape `json:"shape"`
}

// An attachSpec names a program that runs in a saved state.
type attachSpec struct {
	ID uint64 `json:"id"` // the agent's
	// Stdout and Stderr are how much of its output belongs to the machine that was
	// saved: what comes after it is the copy's.
	Stdout int64 `json:"stdout"`
	Stderr int64 `json:"stderr"`
}
