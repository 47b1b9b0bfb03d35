package caisson

import "time"

// A Reason says why a process ended.
type Reason string

// The reasons. Where several could be given, the first cause wins: a process
// that is killed because its time is up has ended by timeout.
const (
	ReasonExited    Reason = "exited"    // by itself; Code tells
	ReasonSignaled  Reason = "signaled"  // by a signal that Caisson did not send
	ReasonOOM       Reason = "oom"       // the memory limit killed and the main process failed
	ReasonTimeout   Reason = "timeout"   // its time was up
	ReasonStopped   Reason = "stopped"   // a stop was asked for
	ReasonKilled    Reason = "killed"    // a kill was asked for; the sandbox is kept
	ReasonAborted   Reason = "aborted"   // an abort was asked for; the attempt does not count
	ReasonCancelled Reason = "cancelled" // whoever submitted the task took it back
	ReasonPolicy    Reason = "policy"    // it broke a rule that ends tasks
	ReasonLost      Reason = "lost"      // its end was not seen: keeper killed, or host rebooted
)

// An Exit tells how a process ended.
type Exit struct {
	// Reason is why the process ended. Empty means that it has not.
	Reason Reason `json:"reason"`
	// Code is the exit status, 0 to 255. It is 126 where the program could not
	// be executed and 127 where it was not found. It is 0 where Signal is set.
	Code int `json:"code"`
	// Signal is the number of the signal that ended the process, or 0.
	Signal int `json:"signal,omitempty"`
	// Message adds what a person should know, such as why a program could not
	// be executed or what the limit was. It may be empty.
	Message string `json:"message,omitempty"`
	// OOMKills counts the processes in the sandbox that the memory limit
	// killed, also where the main process lived on.
	OOMKills int `json:"oom_kills,omitempty"`
	// StartedAt and EndedAt are wall clock times for people. Durations are
	// measured by the monotonic clock and stand in Usage.
	StartedAt time.Time `json:"started_at,omitzero"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
	// Usage is what the whole sandbox used.
	Usage Usage `json:"usage,omitzero"`
}

// Status returns the exit status that a command line gives for e: the code,
// 128+N for signal N, 124 for timeout, 137 for out of memory, 125 where the
// process was lost.
func (e Exit) Status() int {
	switch {
	case e.Reason == ReasonTimeout:
		return 124
	case e.Reason == ReasonOOM:
		return 137
	case e.Reason == ReasonLost || e.Reason == "":
		return 125
	case e.Signal != 0:
		return 128 + e.Signal
	}
	return e.Code
}

// Usage is what a sandbox used.
type Usage struct {
	Wall       Duration `json:"wall"`                  // by the monotonic clock
	CPU        Duration `json:"cpu"`                   // user and system time of all its processes
	PeakMemory Bytes    `json:"peak_memory,omitempty"` // 0 where it could not be measured
}
