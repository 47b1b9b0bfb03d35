//go:build unix

package executor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/internal/state"
)

// recordVersion is the version of task.json that this code writes. A newer
// one is refused.
const recordVersion = 1

// defaultOwner is who work folders and volumes belong to on disk where the
// task names nobody and the executor may choose.
const defaultOwner = 1000

// A record is task.json: all that attendants know of a task besides its
// journal. Values of secrets are never in it.
type record struct {
	Version    int           `json:"version"`
	ID         string        `json:"id"`
	Engine     string        `json:"engine"`
	Sharing    sharing       `json:"sharing"`
	Task       *caisson.Task `json:"task"`
	BaseDir    string        `json:"base_dir,omitempty"`
	Trusted    bool          `json:"trusted,omitempty"`
	UID        int           `json:"uid"` // the submitter's: outputs become theirs
	GID        int           `json:"gid"`
	Owner      engine.Owner  `json:"owner"`             // of the work folder on disk
	Secrets    bool          `json:"secrets,omitempty"` // there are values in the runtime folder
	AcceptedAt time.Time     `json:"accepted_at"`

	Data   json.RawMessage   `json:"data,omitempty"`   // of a composite task: its Plan's
	Parent *parentage        `json:"parent,omitempty"` // of a child
	Links  map[string]string `json:"links,omitempty"`  // of a child: see Child
	Root   bool              `json:"root,omitempty"`   // of a child: see Child
	served bool              // of a child: its Child has Ready

	// Pool is the warm pool whose sandboxes are as the task's: it has one, or had
	// none left.
	Pool string `json:"pool,omitempty"`

	Fork *forked                `json:"fork,omitempty"` // of a copy of another task
	fill func(state.Task) error // makes its Task.Fork

	brokerage *brokerage // nil: no secret is brokered, or it is not read yet
}

// parentage says which task a child is a part of.
type parentage struct {
	ID      string `json:"id"`
	Attempt int    `json:"attempt"`
	Key     string `json:"key"`
}

// composite reports whether the task is made of other tasks.
func (r *record) composite() bool { return r.Task.Component != nil }

// sharing is how files get into and out of the engine's sandboxes, as its
// probe said when the task was submitted.
type sharing struct {
	Work  bool `json:"work"`  // folders of the host are used in place
	Files bool `json:"files"` // they are copied by engine.Filer
	Binds bool `json:"binds"`
	// RootFS says that images are had by the executor, and Overlay that steps
	// may share one.
	RootFS  bool `json:"rootfs,omitempty"`
	Overlay bool `json:"overlay,omitempty"`
	// Disk says that they are had as disks.
	Disk bool `json:"disk,omitempty"`
	// Network says that the steps are on one network.
	Network bool `json:"network,omitempty"`
	// Enter says that a sandbox that is kept can be entered: engine.Spec.Keep.
	Enter bool `json:"enter,omitempty"`
}

func sharingOf(f *engine.Features, task *caisson.Task) sharing {
	// A machine's own system need not have what shares a folder.
	private := f.PrivateDisk && task.Limits.Disk > 0 || ownMachine(task) || task.Forkable && f.Fork == engine.ForkMemory
	return sharing{
		Work: f.ShareWork && !private, Files: f.Files, Binds: f.Mounts.Bind, Network: sharesNetwork(f, task),
		RootFS: f.RootFS && !f.Image, Overlay: f.Overlay, Disk: f.Disk, Enter: f.Keep && task.Keep > 0,
	}
}

// ownerOf returns who the task's files belong to on disk. Files of a task that
// runs as root inside still belong to an ordinary user outside.
func ownerOf(task *caisson.Task) engine.Owner {
	if os.Geteuid() != 0 {
		return engine.Owner{UID: os.Getuid(), GID: os.Getgid()}
	}
	owner := engine.Owner{UID: defaultOwner, GID: defaultOwner}
	user, group, _ := strings.Cut(task.User, ":")
	if uid, err := strconv.Atoi(user); err == nil && uid > 0 {
		owner = engine.Owner{UID: uid, GID: uid}
	}
	if gid, err := strconv.Atoi(group); err == nil && gid > 0 {
		owner.GID = gid
	}
	return owner
}

func writeRecord(t state.Task, r *record) error {
	return writeJSON(t.Document(), r)
}

// readRecord reads what was submitted. Errors: ErrNotFound if there is no such
// task; ErrUnsupported if a newer program wrote it.
func readRecord(t state.Task) (*record, error) {
	r := new(record)
	if err := readJSON(t.Document(), r); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, noTask(t.ID)
		}
		return nil, stateError(t.Document(), caisson.ErrInvalid, err)
	}
	if r.Version > recordVersion {
		return nil, stateError(t.Document(), caisson.ErrUnsupported,
			fmt.Errorf("written by a newer program (version %d, this one knows %d)", r.Version, recordVersion))
	}
	return r, nil
}

// readResult returns the task's result, or nil where there is none yet.
func readResult(t state.Task) (*caisson.Result, error) {
	result := new(caisson.Result)
	err := readJSON(t.Result(), result)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, stateError(t.Result(), caisson.ErrInvalid, err)
	}
	return result, nil
}

func readJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

// writeJSON makes path hold v, atomically and durably.
func writeJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return stateError(path, caisson.ErrInternal, err)
	}
	if err := atomicfile.Write(path, append(data, '\n'), 0o600); err != nil {
		return safefs.Sorted(caisson.OpState, path, err)
	}
	return nil
}
