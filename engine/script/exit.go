package script

import (
	"errors"
	"fmt"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// What the program says by its exit status.
const (
	succeeded = 0
	failed    = 1 // the task's failure
	malformed = 2 // the task asks for what the program can't do
	internal  = 3 // the program could not do its part
	fatal     = 4 // nor will it for other tasks
)

// Judge implements engine.Judge. What Caisson itself has ended, or a limit, is
// the task's; so is what no status says: the program was killed by nobody else.
func (e *Engine) Judge(exit caisson.Exit) error {
	kind, what := caisson.ErrUnavailable, ""
	switch {
	case exit.Reason == caisson.ReasonSignaled:
		kind, what = caisson.ErrInternal, fmt.Sprintf("it was ended by signal %d", exit.Signal)
	case exit.Reason != caisson.ReasonExited, exit.Code == succeeded, exit.Code == failed, exit.Code == malformed:
		return nil
	case exit.Code == internal:
		kind, what = caisson.ErrInternal, "an internal error"
	case exit.Code == fatal:
		what = "a fatal error"
	default:
		what = fmt.Sprintf("it ended with status %d, which means nothing", exit.Code)
	}
	if exit.Message != "" {
		what += ": " + exit.Message
	}
	return &caisson.Error{Op: caisson.OpWait, Item: "the operator's program", Kind: kind, Err: errors.New(what)}
}

// explain gives an exit that has no message the program's own: the last line
// that it has written to its standard error.
func explain(exit *caisson.Exit, log string) {
	if exit.Reason != caisson.ReasonExited || exit.Code == succeeded || exit.Message != "" {
		return
	}
	said := tasklog.LastLine(log, tasklog.Stderr)
	if exit.Code == malformed {
		said = strings.TrimSuffix("malformed payload: "+said, ": ")
	}
	exit.Message = said
}
