package component

import "encoding/json"

// State is what is kept of a configuration or row from run to run.
type State struct {
	Component *Value // the component's own; an object or list, never nil
	Input     InputState
	DataApp   *Value // nil: none
}

// InputState is what was read: it drives changed_since "adaptive".
type InputState struct {
	Tables []TableState `json:"tables,omitempty"`
	Files  []FileState  `json:"files,omitempty"`
}

// TableState is how far a table was read.
type TableState struct {
	Source         string `json:"source"`
	LastImportDate string `json:"lastImportDate"`
}

// FileState is how far files of some tags were read. LastImportID is text, as
// the reference has it.
type FileState struct {
	Tags         []SourceTag `json:"tags"`
	LastImportID string      `json:"lastImportId"`
}

// Usage is what a component says it used.
type Usage struct {
	Metric json.RawMessage `json:"metric"` // scalars
	Value  json.RawMessage `json:"value"`
}

// ResultDoc is what a component hands to its result.
type ResultDoc struct {
	Variables map[string]json.RawMessage `json:"variables"` // scalars or null
}
