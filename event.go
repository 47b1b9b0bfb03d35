package caisson

import (
	"encoding/json"
	"time"
)

// An Event tells what has just happened to a task. Events of one task are
// numbered from 1 without gaps. They are the lines of `caisson events`, of
// `caisson run --json` and of the task's journal.
type Event struct {
	Seq     int64     `json:"seq"`
	Time    time.Time `json:"time"`
	Task    string    `json:"task"`
	Attempt int       `json:"attempt,omitempty"`
	Step    string    `json:"step,omitempty"`
	// Type is one of the EventType constants.
	Type EventType `json:"type"`
	// State is the task's state after the event.
	State   State    `json:"state,omitempty"`
	Message string   `json:"message,omitempty"`
	Exit    *Exit    `json:"exit,omitempty"`
	Error   *Failure `json:"error,omitempty"`
	Result  *Result  `json:"result,omitempty"`
	// Stream and Data carry output in the event stream of `run --json` only;
	// Data is base64 there. They never stand in a journal.
	Stream string `json:"stream,omitempty"`
	Data   []byte `json:"data,omitempty"`
	// Outputs lists the files that were staged out, and Output is what the task
	// wrote to $CAISSON_OUTPUT: both in EventStagedOut.
	Outputs []OutputFile `json:"outputs,omitempty"`
	Output  string       `json:"output,omitempty"`
	// Phases are those that end with this event.
	Phases []Phase `json:"phases,omitempty"`
	// Sandbox is the id of the step's sandbox, in EventCreated.
	Sandbox string `json:"sandbox,omitempty"`
	// Boot is the host's boot id, in EventAttempt: an attempt does not outlive it.
	Boot string `json:"boot,omitempty"`
	// Child is the id of a task that was made as a part of this one, in
	// EventChild; Step is then what this one calls it. Offset is how many bytes
	// of this one's log come before the child's, or, in EventMessage, before the
	// message.
	Child  string `json:"child,omitempty"`
	Offset int64  `json:"offset,omitempty"`
	// Component is what a component's run tells of its end, in EventExited.
	Component json.RawMessage `json:"component,omitempty"`
	// Blocked is what a program might not reach, in EventBlocked.
	Blocked *Blocked `json:"blocked,omitempty"`
	// Progress is what the task wrote to $CAISSON_PROGRESS, 0 to 1.
	Progress float64 `json:"progress,omitempty"`
}

// An EventType names what happened.
type EventType string

// The events, in the order in which a task usually meets them.
const (
	EventAccepted   EventType = "accepted"
	EventAttempt    EventType = "attempt"     // an attempt begins
	EventStaged     EventType = "staged"      // inputs and mounts are in place
	EventCreated    EventType = "created"     // a step's sandbox exists
	EventStarted    EventType = "started"     // a step's program runs
	EventExited     EventType = "exited"      // a step's program has ended
	EventChild      EventType = "child"       // a task is made as a part of this one
	EventMessage    EventType = "message"     // a component's run says something once, in its log
	EventProgress   EventType = "progress"    // $CAISSON_PROGRESS changed
	EventBlocked    EventType = "blocked"     // a program wanted to reach what it may not
	EventOutput     EventType = "output"      // bytes of the log; run --json only
	EventStagedOut  EventType = "staged-out"  // outputs are at their places
	EventStopAsked  EventType = "stop-asked"  // stop, kill, abort or cancel was asked for
	EventAttemptEnd EventType = "attempt-end" // an attempt is over
	EventRetry      EventType = "retry"       // another attempt will begin
	EventEnded      EventType = "ended"       // the result is durable
)
