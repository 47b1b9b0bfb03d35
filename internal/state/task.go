//go:build unix

package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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

// Fork returns the folder of what a copy of another task goes on from.
func (t Task) Fork() string { return filepath.Join(t.Dir, "fork") }

// Warm returns the path of warm.json: the folder has a sandbox that waits for its
// task, which is accepted once there is a document.
func (t Task) Warm() string { return filepath.Join(t.Dir, "warm.json") }

// Keep returns the path of keep.json: until when the sandbox is kept.
func (t Task) Keep() string { return filepath.Join(t.Dir, "keep.json") }

// Lock returns the path of the attendant's lock.
func (t Task) Lock() string { return filepath.Join(t.Dir, "lock") }

// Control returns the folder of what was asked for from outside, made by the
// first who asks.
func (t Task) Control() string { return filepath.Join(t.Dir, "control") }

// AttendLog returns the path of what attendants without a terminal say.
func (t Task) AttendLog() string { return filepath.Join(t.Dir, "attend.log") }

const attemptPrefix = "attempt-"

// Attempt returns where an attempt is kept.
func (t Task) Attempt(n int) Attempt {
	return Attempt{Number: n, Dir: filepath.Join(t.Dir, attemptPrefix+strconv.Itoa(n))}
}

// Attempts lists the numbers of the attempts that have a folder, in order.
func (t Task) Attempts() ([]int, error) {
	entries, err := readDir(t.Dir)
	if err != nil {
		return nil, err
	}
	var list []int
	for _, e := range entries {
		if n, err := strconv.Atoi(strings.TrimPrefix(e.Name(), attemptPrefix)); err == nil {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return list, nil
}

// An Attempt is where an attempt of a task is kept.
type Attempt struct {
	Number int
	Dir    string
}

// What lies in an attempt's folder beside those of steps.
const (
	diskDir   = "disk"
	filesDir  = "files"
	logSuffix = ".log"
)

// Disk returns the folder that limits.disk bounds: all that the task writes.
func (a Attempt) Disk() string { return filepath.Join(a.Dir, diskDir) }

// Work returns the work folder.
func (a Attempt) Work() string { return filepath.Join(a.Disk(), "work") }

// Tmp returns the folder that is /tmp in a step's sandbox.
func (a Attempt) Tmp(step string) string { return filepath.Join(a.Disk(), "tmp-"+step) }

// Changes returns the folder of what a step's sandbox changes of its image.
func (a Attempt) Changes(step string) string { return filepath.Join(a.Disk(), "changes-"+step) }

// RootFS returns the folder of a step's own copy of its image.
func (a Attempt) RootFS(step string) string { return filepath.Join(a.Disk(), "rootfs-"+step) }

// Volume returns the folder of an image's n-th volume, which steps share.
func (a Attempt) Volume(image string, n int) string {
	return filepath.Join(a.Disk(), "volume-"+image+"-"+strconv.Itoa(n))
}

// Mounts returns the folder where mounters keep what lives as long as the
// attempt.
func (a Attempt) Mounts() string { return filepath.Join(a.Disk(), "mounts") }

// Job returns the folder of a composite task, which its children's mounts lie in.
func (a Attempt) Job() string { return filepath.Join(a.Disk(), "job") }

// Temp returns the folder of data on its way in.
func (a Attempt) Temp() string { return filepath.Join(a.Disk(), "temp") }

// Places returns the path of mounts.json: what must be released.
func (a Attempt) Places() string { return filepath.Join(a.Dir, "mounts.json") }

// Files returns the folder of files that a step's document puts outside of the
// work folder.
func (a Attempt) Files() string { return filepath.Join(a.Dir, filesDir) }

// Step returns the folder of a step's sandbox: engine.Spec.Dir.
func (a Attempt) Step(step string) string { return filepath.Join(a.Dir, step) }

// NetworkDir is the folder, among those of the steps, of the network that they
// share.
const NetworkDir = "network"

// Network returns the folder of the network that steps share:
// engine.NetworkSpec.Dir.
func (a Attempt) Network() string { return filepath.Join(a.Dir, NetworkDir) }

// Log returns the path of a step's log. It lies beside the sandbox's folder,
// because it outlives that.
func (a Attempt) Log(step string) string { return filepath.Join(a.Dir, step+logSuffix) }

// Steps lists the folders of steps that may have a sandbox.
func (a Attempt) Steps() ([]string, error) {
	entries, err := readDir(a.Dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && e.Name() != diskDir && e.Name() != filesDir {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Removed reports whether nothing but logs is left of the attempt.
func (a Attempt) Removed() (bool, error) {
	entries, err := readDir(a.Dir)
	for _, e := range entries {
		if e.IsDir() || !strings.HasSuffix(e.Name(), logSuffix) {
			return false, err
		}
	}
	return err == nil, err
}

// readDir lists a folder; one that does not exist is empty.
func readDir(dir string) ([]fs.DirEntry, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, classify(dir, err)
	}
	return entries, nil
}
