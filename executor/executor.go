// Package executor runs tasks from start to finish: what every engine would
// otherwise repeat lives here once.
package executor

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/keeper/tasklog"
	"github.com/caissonrun/caisson/mount"
	"github.com/caissonrun/caisson/stage"
)

// Options configures an Executor.
type Options struct {
	State    string // the state folder; made if it does not exist
	Runtime  string // the runtime folder, for sockets and secrets
	Engines  []engine.Engine
	Prefer   []string // engine names, most wanted first
	Mounters []mount.Mounter
	Stagers  []stage.Stager
	// Attend is the argv that starts an attendant; the task's id is appended.
	Attend []string
	Logger *slog.Logger // nil: discard
}

// An Executor runs the tasks of one state folder. Several executors, in
// several processes, may work on the same folder.
type Executor struct{}

// New opens the state folder. Errors: ErrDenied; ErrUnsupported if the folder
// is of a newer version.
func New(opts *Options) (*Executor, error) { panic("todo") }

// Close releases what the executor holds. Tasks run on.
func (x *Executor) Close() error { panic("todo") }

// A Submission is what comes with a task.
type Submission struct {
	BaseDir string            // that relative paths outside start from
	Secrets map[string][]byte // values by the names in Task.Secrets
	// Detached says that the submitter does not attend to the task.
	Detached bool
	// Trusted says that file: paths and binds act with the caller's rights, as
	// on the command line.
	Trusted bool
}

// Submit checks the task against the engines and makes it durable. From then
// on it ends in exactly one Result.
//
// Errors: ErrInvalid, ErrUnsupported, ErrDenied, ErrNotFound: nothing is kept.
func (x *Executor) Submit(ctx context.Context, task *caisson.Task, sub *Submission) (id string, err error) {
	panic("todo")
}

// Attend does what is to be done for a task until it has ended, or, with
// detach, until a program of it runs that nobody need wait for. It returns
// ErrExists at once if another process attends to it.
func (x *Executor) Attend(ctx context.Context, id string, detach bool) error { panic("todo") }

// Recover looks after tasks that nobody attends to: it adopts those that run,
// starts attendants for those with work left, and removes what nobody owns.
func (x *Executor) Recover(ctx context.Context) error { panic("todo") }

// Info is what is known about a task.
type Info struct {
	ID         string          `json:"id"`
	Name       string          `json:"name,omitempty"`
	Engine     string          `json:"engine"`
	State      caisson.State   `json:"state"`
	Attempt    int             `json:"attempt"`
	Step       string          `json:"step,omitempty"` // that runs now
	PID        int             `json:"pid,omitempty"`  // of its program on the host
	AcceptedAt time.Time       `json:"accepted_at"`
	StartedAt  time.Time       `json:"started_at,omitzero"`
	Progress   float64         `json:"progress,omitempty"`
	Attended   bool            `json:"attended"`         // a process attends to it now
	Task       *caisson.Task   `json:"task,omitempty"`   // Inspect only; secrets never in it
	Result     *caisson.Result `json:"result,omitempty"` // once it has ended
	Dir        string          `json:"dir,omitempty"`    // Inspect only: the task's folder
}

// List returns the tasks, oldest first; all includes those that have ended.
func (x *Executor) List(ctx context.Context, all bool) ([]Info, error) { panic("todo") }

// Inspect returns one task. id may be a unique beginning of one. Errors:
// ErrNotFound; ErrInvalid if several begin so.
func (x *Executor) Inspect(ctx context.Context, id string) (*Info, error) { panic("todo") }

// Wait waits for a task's result.
func (x *Executor) Wait(ctx context.Context, id string) (*caisson.Result, error) { panic("todo") }

// LogOptions chooses what Logs returns.
type LogOptions struct {
	Follow  bool
	Attempt int            // 0: the newest; with Follow also those that come
	Step    string         // empty: all steps in order
	Stream  tasklog.Stream // 0: all
	Since   time.Time
	Tail    int // last lines only; 0: all
}

// LogRecord is one record of a task's log.
type LogRecord struct {
	tasklog.Record
	Attempt int
	Step    string
}

// Logs calls f for each record of the log in order.
func (x *Executor) Logs(ctx context.Context, id string, opts LogOptions, f func(LogRecord) error) error {
	panic("todo")
}

// Events calls f for the events of a task (of all tasks if id is empty), in
// order, and with follow for those that come, until the task has ended.
func (x *Executor) Events(ctx context.Context, id string, follow bool, f func(caisson.Event) error) error {
	panic("todo")
}

// Stop has the task end, durably: also if nobody attends to it right now. With
// ReasonAborted the sandbox is destroyed at once and the attempt does not count.
// Errors: ErrEnded if it has ended; ErrNotFound.
func (x *Executor) Stop(ctx context.Context, id string, stop engine.Stop) error { panic("todo") }

// Signal sends a signal to the program that runs. Errors: ErrEnded.
func (x *Executor) Signal(ctx context.Context, id string, signal int) error { panic("todo") }

// Exec starts a program in the task's running sandbox.
func (x *Executor) Exec(ctx context.Context, id string, spec *engine.ExecSpec) (engine.Session, error) {
	panic("todo")
}

// Stats returns what the task's running sandbox uses.
func (x *Executor) Stats(ctx context.Context, id string) (engine.Stats, error) { panic("todo") }

// CopyOut writes path of the task's files as a tar stream: from the sandbox if
// it lives, else from the kept work folder. Relative paths start at the work
// folder.
func (x *Executor) CopyOut(ctx context.Context, id, path string, w io.Writer) error { panic("todo") }

// CopyIn unpacks a tar stream below the folder path.
func (x *Executor) CopyIn(ctx context.Context, id, path string, r io.Reader) error { panic("todo") }

// Remove deletes an ended task with all it left; with force it aborts one that
// runs first. Errors: ErrExists if it runs and force is not set.
func (x *Executor) Remove(ctx context.Context, id string, force bool) error { panic("todo") }

// EngineStatus is an engine with what its probe found.
type EngineStatus struct {
	Name     string          `json:"name"`
	Features engine.Features `json:"features"`
	Error    string          `json:"error,omitempty"`
}

// Engines probes all engines, in order of preference.
func (x *Executor) Engines(ctx context.Context) ([]EngineStatus, error) { panic("todo") }

// Volume is a named volume or cache.
type Volume struct {
	Name      string        `json:"name"`
	Kind      string        `json:"kind"` // volume or cache
	CreatedAt time.Time     `json:"created_at"`
	UsedAt    time.Time     `json:"used_at,omitzero"`
	Size      caisson.Bytes `json:"size"`
	InUse     bool          `json:"in_use"`
}
