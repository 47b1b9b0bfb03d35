package caisson

import (
	"encoding/json"
	"time"
)

// A State is where a task is in its life.
type State string

// The states of a task. Only StateEnded is final, and then there is a Result.
const (
	StateAccepted State = "accepted" // durable, nothing done yet
	StateStaging  State = "staging"  // inputs, mounts, sandbox
	StateRunning  State = "running"  // a program runs
	StateEnding   State = "ending"   // outputs, finally steps, clean-up
	StateWaiting  State = "waiting"  // for the next attempt
	StateEnded    State = "ended"
)

// A Result is what a task ended in. There is exactly one for every accepted
// task, and it never changes.
type Result struct {
	Version int    `json:"version"` // of this document's form: 1
	Task    string `json:"task"`
	Name    string `json:"name,omitempty"`
	Engine  string `json:"engine,omitempty"`
	// Attempt is the number of the attempt that decided, counted from 1; 0
	// where none began.
	Attempt int `json:"attempt"`
	// Success says whether the task succeeded: main ended with a code that
	// success.codes lists, every pre and post step succeeded, and outputs were
	// staged out.
	Success bool `json:"success"`
	// Status is what `caisson run` and `caisson wait` exit with.
	Status int `json:"status"`
	// Exit is how the deciding step ended: main, or the pre or post step that
	// failed.
	Exit Exit `json:"exit"`
	// Step names the deciding step.
	Step string `json:"step,omitempty"`
	// Error is set where Caisson could not do its part.
	Error *Failure `json:"error,omitempty"`
	// Output is what the task wrote to $CAISSON_OUTPUT.
	Output string `json:"output,omitempty"`
	// Outputs lists the files that were staged out.
	Outputs []OutputFile `json:"outputs,omitempty"`
	// Component is what a component's run tells besides: see docs/components.md.
	Component json.RawMessage `json:"component,omitempty"`
	// Usage sums what all steps of the deciding attempt used; PeakMemory is
	// the largest of them.
	Usage Usage `json:"usage,omitzero"`
	// Phases tells how long each phase of the deciding attempt took, in order.
	Phases     []Phase   `json:"phases,omitempty"`
	AcceptedAt time.Time `json:"accepted_at"`
	StartedAt  time.Time `json:"started_at,omitzero"`
	EndedAt    time.Time `json:"ended_at"`
}

// A Failure is an error as it is kept in a result.
type Failure struct {
	Kind    Kind   `json:"kind"`
	Message string `json:"message"`
}

// A Phase is one part of an attempt and how long it took.
type Phase struct {
	Name string   `json:"name"` // an Op, or "run STEP"
	Took Duration `json:"took"`
}

// An OutputFile is one file that was staged out.
type OutputFile struct {
	Path   string `json:"path"` // relative to the work folder, with slashes
	To     string `json:"to"`   // where it went
	Size   int64  `json:"size"` // bytes
	SHA256 string `json:"sha256"`
}
