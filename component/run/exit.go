//go:build unix

package run

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
)

// A failure is why a run has failed: whose fault it is, what to tell, and what
// the task exits with. It is an error.
type failure struct {
	Fault   component.Fault `json:"type"`
	Message string          `json:"message"`
	Exit    caisson.Exit    `json:"exit"`
}

// Error implements error.
func (f *failure) Error() string { return f.Message }

// failed makes a failure of any error.
func failed(err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	fault := component.FaultOf(err)
	return &failure{Fault: fault, Message: err.Error(), Exit: exitOf(fault)}
}

// exitOf is what a task exits with by whose fault it is.
func exitOf(fault component.Fault) caisson.Exit {
	code := component.ExitApplication
	if fault == component.UserFault {
		code = component.ExitUser
	}
	return caisson.Exit{Reason: caisson.ReasonExited, Code: code}
}

// An ending is how a step's program ended, and what is needed to say what that
// means.
type ending struct {
	Exit   caisson.Exit
	Image  string // of the step, without the registry's host; or its command
	Name   string // of the step
	Stderr string // what it has said, see capture
	Stdout string
	GELF   string // its last message of level 4 or worse
	Limits caisson.Limits
	// Timeout is what it was given.
	Timeout caisson.Duration
	// Quiet says that no failure is the application's.
	Quiet bool
}

// Codes by which a program ends that something has killed: 128 and the signal's
// number, and what a container's runtime says of itself.
const (
	codeKilled  = 137
	codeRuntime = 125
	signalKill  = 9
)

// judge says what a step's end means, in the order in which causes count. Nil is
// success.
func judge(e *ending) *failure {
	x := e.Exit
	switch {
	case x.Reason == caisson.ReasonOOM, x.OOMKills > 0:
		return outOfMemory(e)
	case x.Reason == caisson.ReasonTimeout:
		f := userFailure("running %s exceeded the timeout of %d seconds", e.Image, int64(e.Timeout.Std().Seconds()))
		f.Exit = caisson.Exit{Reason: caisson.ReasonTimeout}
		return f
	case x.Reason == caisson.ReasonLost:
		f := applicationFailure("%s: its end was not seen: the keeper was killed, or the host went down", e.Name)
		f.Exit = caisson.Exit{Reason: caisson.ReasonLost}
		return f
	case x.Reason != caisson.ReasonExited && x.Reason != caisson.ReasonSignaled:
		return &failure{Fault: component.UserFault, Message: fmt.Sprintf("%s: %s", e.Name, x.Reason), Exit: caisson.Exit{Reason: x.Reason}}
	case x.Signal == signalKill, x.Code == codeKilled, x.Code == codeRuntime:
		return userFailure("component terminated, possibly because it was out of memory")
	case x.Signal == 0 && x.Code == 0:
		return nil
	case x.Signal == 0 && x.Code == component.ExitUser:
		return userFailure("%s", e.message())
	}
	text := fmt.Sprintf("%s container %q failed: (%d) %s", e.Image, e.Name, x.Status(), e.message())
	if e.Quiet {
		return userFailure("%s", text)
	}
	return applicationFailure("%s", text)
}

func outOfMemory(e *ending) *failure {
	text := "component out of memory"
	if limit := e.Limits.Memory; limit > 0 {
		text += fmt.Sprintf(" (exceeded %s)", megabytes(limit))
	}
	f := userFailure("%s", text)
	f.Exit = caisson.Exit{Reason: caisson.ReasonOOM, OOMKills: e.Exit.OOMKills}
	return f
}

// megabytes writes a limit as definitions do: in decimal units.
func megabytes(b caisson.Bytes) string {
	if b%1_000_000_000 == 0 {
		return fmt.Sprintf("%dG", b/1_000_000_000)
	}
	return fmt.Sprintf("%dM", b/1_000_000)
}

// message is what the program has said of its failure.
func (e *ending) message() string {
	for _, text := range []string{e.Stderr, e.Stdout, e.GELF, e.Exit.Message} {
		if text = strings.TrimSpace(text); text != "" {
			return text
		}
	}
	return "no error message"
}

func userFailure(format string, args ...any) *failure {
	return &failure{Fault: component.UserFault, Message: shorten(fmt.Sprintf(format, args...)), Exit: exitOf(component.UserFault)}
}

func applicationFailure(format string, args ...any) *failure {
	return &failure{Fault: component.ApplicationFault, Message: shorten(fmt.Sprintf(format, args...)), Exit: exitOf(component.ApplicationFault)}
}

// maxMessage is how long a message may be, in characters. keepEnds is how many
// of a longer one are kept of its begin, and of its end.
const (
	maxMessage = 4000
	keepEnds   = 1997
)

// shorten cuts the middle out of a long message.
func shorten(text string) string {
	text = strings.ToValidUTF8(text, "")
	runes := []rune(text)
	if len(runes) <= maxMessage {
		return text
	}
	return string(runes[:keepEnds]) + " ... " + string(runes[len(runes)-keepEnds:])
}

// interrupted reports whether err is of a context that has ended: that says
// nothing of the run.
func interrupted(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
