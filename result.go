package caisson

import (
	"encoding/json"
	"strconv"
	"strings"
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
	// Blocked lists what programs of the deciding attempt wanted to reach and
	// might not, in the order of the first tries, at most MaxBlocked.
	Blocked []Blocked `json:"blocked,omitempty"`
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

// MaxBlocked bounds how much of what was blocked an attempt remembers. A task
// that tries a million hosts fills no journal with them.
const MaxBlocked = 100

// A Blocked is something that a program wanted to reach and might not: by its
// task's network allow-list, or because it would have told a brokered secret's
// placeholder to somebody else.
type Blocked struct {
	// Host is the name or the address that the program asked for, as far as it
	// could be told; Port is 0 where it only asked for the name.
	Host string `json:"host"`
	Port int    `json:"port,omitempty"`
	Why  string `json:"why"` // one line: "not in network.allow"
	// Count is how often it was tried. In EventBlocked it is how often so far.
	Count int `json:"count"`
}

// String returns what was blocked and why: "example.com:443: not in
// network.allow".
func (b Blocked) String() string {
	host := b.Host
	if b.Port != 0 && strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if b.Port != 0 {
		host += ":" + strconv.Itoa(b.Port)
	}
	return host + ": " + b.Why
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
