package native

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/caissonrun/caisson/engine/internal/kept"
)

// A choice is what a task may say in its options.
type choice struct {
	Isolation string `json:"isolation"`
}

// readOptions reads a task's options.
func readOptions(data json.RawMessage) (choice, error) {
	var c choice
	if len(data) == 0 {
		return c, nil
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return c, kept.Invalid("options", fmt.Errorf("%w: there is only isolation: full or none", err))
	}
	if _, err := dec.Token(); err != io.EOF {
		return c, kept.Invalid("options", fmt.Errorf("more than one value"))
	}
	switch c.Isolation {
	case "", Full, None:
		return c, nil
	}
	return c, kept.Invalid("options.isolation", fmt.Errorf("%q is neither full nor none", c.Isolation))
}

// isolation decides between what the operator has configured and what a task
// asks for. More isolation is always permitted.
func (o *Options) isolation(data json.RawMessage) (string, error) {
	c, err := readOptions(data)
	switch {
	case err != nil:
		return "", err
	case c.Isolation == "":
		return o.Isolation, nil
	case c.Isolation == None && o.Isolation != None && !o.AllowNone:
		return "", kept.Denied("options.isolation", fmt.Errorf("none: the operator does not permit it (engine.%s.allow_none)", o.Name))
	}
	return c.Isolation, nil
}
