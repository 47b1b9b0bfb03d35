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
	ReadOnly bool `json:"readonly"` // the image's files can't be changed
	// Snapshot has the machine's state saved once it has booted, for all others like
	// it.
	Snapshot bool `json:"snapshot"`
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
		return nil, kept.Invalid("options", fmt.Errorf("%w: there are readonly: true and snapshot: true", err))
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, kept.Invalid("options", errors.New("more than one value"))
	}
	return c, nil
}
