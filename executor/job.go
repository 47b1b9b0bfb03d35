//go:build unix

package executor

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// A Job is one attempt of a composite task, as Composite.Run sees it. Its
// methods may be called from any goroutine until Run returns.
type Job struct {
	ID      string
	Attempt int // counted from 1
	Task    *caisson.Task
	BaseDir string // that relative paths start from
	Trusted bool
	// Owner is who files belong to on disk that children are to read and write.
	Owner engine.Owner
	// Dir is a folder that lasts until the attempt ends, mode 0700. It does not
	// outlive a reboot of the host: the attempt doesn't either.
	Dir string
	// Private is a folder of the runtime folder, for what must not be on disk.
	// It is there as long as Dir.
	Private string
	Data    json.RawMessage   // the Plan's
	Secrets map[string][]byte // the Plan's
}

var errTodo = errors.New("not yet")

// Stopped returns what was asked for, or a Stop of ReasonTimeout once the time
// is up; nil while the task may go on.
func (j *Job) Stopped() *engine.Stop { return nil }

// Submit makes the child of that key, once in this attempt however often it is
// called: later, and after a crash, it returns the id of the first. A key is a
// path of letters, digits, ".", "_" and "-", such as "row-1/main"; it stands in
// logs.
//
// Errors: those of Executor.Submit; ErrAborted once the task was asked to end.
func (j *Job) Submit(ctx context.Context, key string, c *Child) (id string, err error) {
	return "", errTodo
}

// Wait attends to a child and returns its result. That the task was asked to
// end does not cut it short: the child ends soon, then.
//
// Errors: those of Executor.Attend; ctx's, unless it ended because of Stopped.
func (j *Job) Wait(ctx context.Context, id string) (*caisson.Result, error) { return nil, errTodo }

// Logs is Executor.Logs for a child.
func (j *Job) Logs(ctx context.Context, id string, opts LogOptions, f func(LogRecord) error) error {
	return errTodo
}

// Print adds text to the task's own log, with its secrets taken out. With a key
// it does so once in this attempt, however often it is called.
func (j *Job) Print(key string, stream tasklog.Stream, text string) error { return errTodo }

// Progress tells how far the work is, from 0 to 1.
func (j *Job) Progress(v float64) error { return errTodo }
