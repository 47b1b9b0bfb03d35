// Package disk gives a folder a bounded amount of room: by a project quota
// where the file system keeps them, else by an ext4 image on a loop device,
// else, for users who can do neither, by a tmpfs that the memory limit pays.
package disk

import (
	"context"

	"github.com/caissonrun/caisson"
)

// The ways to bound a folder.
const (
	MethodQuota = "quota" // project quota of ext4 or xfs
	MethodLoop  = "loop"  // ext4 in a sparse file on a loop device
	MethodTmpfs = "tmpfs" // memory
)

// Support is what can be done for a folder.
type Support struct {
	Method string // empty: nothing works
	Why    string // why better methods, or all of them, do not work
	Do     string // what the operator can do about it; may be empty
}

// A Place is a folder with bounded room: enough to undo it.
type Place struct {
	Dir    string        `json:"dir"`
	Method string        `json:"method"`
	Size   caisson.Bytes `json:"size"`
	// Project is the quota's project id. MethodQuota only.
	Project uint32 `json:"project,omitempty"`
	// Image is the file behind the loop device. MethodLoop only.
	Image string `json:"image,omitempty"`
}

// Probe finds out, by doing it below dir, how folders there can be bounded.
// Nothing is left.
func Probe(dir string) Support { panic("todo") }

// Create bounds the empty folder dir to size: writing more ends in ENOSPC, or
// EDQUOT with a quota. Before it makes anything it calls save with what Remove
// would need. On error nothing is left but dir itself.
//
// Errors: ErrUnsupported with the reason of Probe; ErrExhausted where the host
// is out of room or loop devices.
func Create(ctx context.Context, dir string, size caisson.Bytes, save func(Place) error) (*Place, error) {
	panic("todo")
}

// Remove undoes Create, also one that was cut short, and can be called again.
// The folder stays, and what a quota bounded in it; what lay in a loop image
// or a tmpfs is gone.
func Remove(ctx context.Context, place *Place) error { panic("todo") }
