package qemu

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/caissonrun/caisson/engine/internal/kept"
)

// A choice is what a task says in its options.
type choice struct {
	// Snapshot has the machine's state saved once it has booted, for all others like
	// it.
	Snapshot bool `json:"snapshot"`
	// Metadata says that no agent is in the machine: its system asks for the task.
	Metadata bool `json:"metadata"`
}

// readOptions reads a task's options.
func readOptions(data json.RawMessage) (*choice, error) {
	c := new(choice)
	if len(data) == 0 {
		return c, nil
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(c); err != nil {
		return nil, kept.Invalid("options", fmt.Errorf("%w: there are snapshot: true and metadata: true", err))
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, kept.Invalid("options", errors.New("more than one value"))
	}
	return c, nil
}
