// Package mount is the contract for where the files in a sandbox's mounts come
// from. A Mounter turns a task's mount into a Place on the host; the engine
// brings the place into the sandbox. Package mounttest checks implementations.
package mount

import (
	"context"

	"github.com/caissonrun/caisson"
)

// A Mounter makes mounts of one type ready.
type Mounter interface {
	// Type returns the value of caisson.Mount.Type that it serves.
	Type() string

	// Check says what is wrong with m before anything is done: a source or an
	// option that this type does not have, a name that is not allowed.
	//
	// Errors: ErrInvalid; ErrDenied where the operator does not permit it;
	// ErrNotFound where what must exist does not.
	Check(m caisson.Mount, env Env) error

	// Mount makes m ready and returns where it is. Before it makes anything it
	// calls req.Save with the Place that Release would need, so that nothing is
	// left after a crash.
	//
	// Errors: as Check; ErrNotFound if the source is absent; ErrExists if it is
	// in use by another task and can't be shared; ErrExhausted.
	Mount(ctx context.Context, req *Request) (*Place, error)

	// Release undoes Mount once no sandbox uses the place. Persistent contents
	// stay. It can be called again, and for a place whose Mount did not end.
	Release(ctx context.Context, place *Place) error
}

// A Sweeper is a Mounter that keeps more on the host than Place tells, such as
// leases.
type Sweeper interface {
	// Sweep releases what attempts hold that are not live. It is called at
	// start, and leaves alone what live attempts hold. The caller sees to it
	// that live knows every attempt that mounts something until Sweep returns.
	Sweep(ctx context.Context, live func(task string, attempt int) bool) error
}

// Env is what a mounter knows about a task's surroundings.
type Env struct {
	BaseDir string // that relative sources start from, absolute
	Trusted bool   // sources act with the caller's rights, as on the command line
	UID     int    // who the contents belong to on disk
	GID     int
	// Parent is what the task that this one is a part of lends it. Nil: it is
	// part of none. No document can set it.
	Parent *Parent
}

// A Parent is what a task lends to those that are made as parts of it.
type Parent struct {
	Dir     string            // its folder for them, absolute
	Private string            // the same in memory, for what must not be on disk
	Links   map[string]string // files and folders of the host that may be read, by name
}

// A Request is one mount of one attempt.
type Request struct {
	Env
	Mount   caisson.Mount
	Task    string
	Attempt int
	Index   int                // of the mount in the task
	Dir     string             // a folder for what belongs to this attempt alone; the caller removes it
	Save    func(*Place) error // makes a place durable; never nil
}

// ID names the mount: no other one, of any task or attempt, ever has the same.
func (r *Request) ID() string { return ID(r.Task, r.Attempt, r.Index) }

// A Place is what has been made ready: enough to use it and to release it.
type Place struct {
	// ID is of this one mount, the same when it is released: see Request.ID. The
	// caller sets it, and Type and Index.
	ID       string            `json:"id"`
	Type     string            `json:"type"`             // of the mounter
	Index    int               `json:"index"`            // of the mount in the task
	Source   string            `json:"source,omitempty"` // host path to bind, without symbolic links; empty: a tmpfs
	Target   string            `json:"target"`           // absolute path inside
	ReadOnly bool              `json:"readonly,omitempty"`
	Owned    bool              `json:"owned,omitempty"` // files belong on disk to Request's UID and GID, see engine.Mount
	Size     caisson.Bytes     `json:"size,omitempty"`  // of a tmpfs
	Mode     uint32            `json:"mode,omitempty"`  // of a tmpfs
	Data     map[string]string `json:"data,omitempty"`  // the mounter's own
}
