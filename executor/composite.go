//go:build unix

package executor

import (
	"context"
	"encoding/json"

	"github.com/caissonrun/caisson"
)

// A Composite carries out tasks that are made of other tasks: those with a
// component. What it does is the main step of such a task, and has no sandbox;
// what needs one are children, tasks of their own that it submits.
//
// One value serves the whole process; its methods may be called at any time,
// from any goroutine, for different tasks at once.
type Composite interface {
	// Accept checks a task before it is accepted and returns what Run goes by.
	// That is kept with the task, so that no later change of a file matters.
	// Nothing is done yet.
	//
	// Errors: those of Submit; nothing is kept then.
	Accept(ctx context.Context, task *caisson.Task, sub *Submission) (*Plan, error)

	// Run does an attempt of the task from wherever it is to its end. After a
	// crash it is called again, in another process, and goes on from what is
	// durable: job.Dir, its children, and what its messages and steps have keys
	// for.
	//
	// ctx ends when somebody asks for the task's end, or its time is up: then
	// job.Stopped says why, children are being stopped, Submit refuses new ones,
	// and Run puts away what it must and returns soon, with or without an error.
	// ctx also ends when this process is to leave the task as it is: then
	// job.Stopped is nil, and Run returns ctx's error at once.
	//
	// An error means that Caisson could not do its part: the attempt ends with
	// it, and is tried again by the task's policy where its kind says that this
	// may help. How the work itself ended is Outcome's Exit.
	Run(ctx context.Context, job *Job) (*Outcome, error)
}

// A Plan is what a Composite needs to know of a task that it has accepted.
type Plan struct {
	Data json.RawMessage // kept in the state folder; never a secret
	// Secrets are kept in the runtime folder until the result is there, and
	// taken out of what the task itself prints. A reboot loses them, and ends
	// the task. Those that redact.Compile refuses are kept, but not looked for.
	Secrets map[string][]byte
}

// An Outcome is how the work of an attempt ended.
type Outcome struct {
	// Exit is what the attempt counts as having exited with. An empty Reason
	// means ReasonExited, or, where the task was asked to end, that reason. Its
	// Usage, if zero, becomes the sum of the children's.
	Exit   caisson.Exit
	Output string // as what a program writes to $CAISSON_OUTPUT
	// Outputs are files or tables that were stored.
	Outputs []caisson.OutputFile
	// Document becomes Result.Component: at most MaxDocument bytes of JSON.
	Document json.RawMessage
}

// MaxDocument bounds Outcome.Document.
const MaxDocument = caisson.MiB

// A Child is a task that a Composite submits as a part of its own.
type Child struct {
	// Task is any task but one with a component. Its mounts may be of type
	// "component", which nobody else can use: a source is the path of a file or
	// folder below Job.Dir, "private:PATH" one below Job.Private, and
	// "link:NAME" one of Links.
	Task *caisson.Task
	// Secrets are the values of Task.Secrets.
	Secrets map[string][]byte
	// Redact are other values that are taken out of its log. Those that are too
	// short or too long to be found are not looked for.
	Redact [][]byte
	// Links are files and folders of the host, absolute paths, that it may see
	// read-only. Everyone must be able to read them.
	Links map[string]string
	// Root permits its program to be root inside, whatever the engine's
	// configuration says: the operator has said so.
	Root bool
	// Ready is called with a path of the sandbox's network namespace, for
	// setns(2), once the sandbox is there and before its program starts: a
	// listener can be opened inside. Where that fails the program does not start.
	// In a process that has found the program running it is called again, as
	// listeners end with whoever was killed. Nil: nothing is called. Engines
	// without Features.Networks.Inside are refused.
	Ready func(netns string) error
}
