//go:build unix

package state

import (
	"path/filepath"
	"strconv"
)

// A Task is where a task is kept.
type Task struct {
	ID  string
	Dir string
}

// Document returns the path of task.json: what was submitted. Where it is
// there, the task was accepted.
func (t Task) Document() string { return filepath.Join(t.Dir, "task.json") }

// Journal returns the path of journal.jsonl: what has happened.
func (t Task) Journal() string { return filepath.Join(t.Dir, "journal.jsonl") }

// Result returns the path of result.json: what the task ended in.
func (t Task) Result() string { return filepath.Join(t.Dir, "result.json") }

// Keep returns the path of keep.json: until when the sandbox is kept.
func (t Task) Keep() string { return filepath.Join(t.Dir, "keep.json") }

// Lock returns the path of the attendant's lock.
func (t Task) Lock() string { return filepath.Join(t.Dir, "lock") }

// Control returns the folder of what was asked for from outside.
func (t Task) Control() string { return filepath.Join(t.Dir, "control") }

// AttendLog returns the path of what attendants without a terminal say.
func (t Task) AttendLog() string { return filepath.Join(t.Dir, "attend.log") }

// Attempts returns the folder of all attempts.
func (t Task) Attempts() string { return filepath.Join(t.Dir, "attempts") }

// Attempt returns where an attempt is kept.
func (t Task) Attempt(n int) Attempt {
	return Attempt{Number: n, Dir: filepath.Join(t.Attempts(), strconv.Itoa(n))}
}

// An Attempt is where an attempt of a task is kept.
type Attempt struct {
	Number int
	Dir    string
}

// Disk returns the folder that limits.disk bounds: all that the task writes.
func (a Attempt) Disk() string { return filepath.Join(a.Dir, "disk") }

// Work returns the work folder.
func (a Attempt) Work() string { return filepath.Join(a.Disk(), "work") }

// Tmp returns the folder that is /tmp in a step's sandbox.
func (a Attempt) Tmp(step string) string { return filepath.Join(a.Disk(), "tmp-"+step) }

// Mounts returns the folder of a mount of the task that lives as long as the
// attempt, where mounters keep what is the task's own.
func (a Attempt) Mounts() string { return filepath.Join(a.Disk(), "mounts") }

// Places returns the path of mounts.json: what must be released.
func (a Attempt) Places() string { return filepath.Join(a.Dir, "mounts.json") }

// Files returns the folder of files that a step's document puts outside of the
// work folder.
func (a Attempt) Files() string { return filepath.Join(a.Dir, "files") }

// Temp returns the folder of data on its way in.
func (a Attempt) Temp() string { return filepath.Join(a.Disk(), "temp") }

// Steps returns the folder of all steps.
func (a Attempt) Steps() string { return filepath.Join(a.Dir, "steps") }

// Step returns the folder of a step's sandbox: engine.Spec.Dir.
func (a Attempt) Step(step string) string { return filepath.Join(a.Steps(), step) }

// Log returns the path of a step's log. It lies beside the sandbox's folder,
// which is made anew where a sandbox is.
func (a Attempt) Log(step string) string { return filepath.Join(a.Dir, "logs", step+".log") }
