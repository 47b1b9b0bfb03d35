//go:build unix

package executor

import (
	"errors"
	"io/fs"
	"os"
	"slices"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/crash"
	"github.com/caissonrun/caisson/internal/disk"
	"github.com/caissonrun/caisson/internal/state"
	"github.com/caissonrun/caisson/mount"
)

const placesVersion = 1

// places is mounts.json: what an attempt has on the host that must be released
// after it, and what its sandboxes get besides the work folder. It is written
// before each thing that it names is made; an attempt that has nothing of the
// kind has no file.
type places struct {
	Version int            `json:"version"`
	Disk    *disk.Place    `json:"disk,omitempty"`
	Mounts  []*mount.Place `json:"mounts,omitempty"`
	Binds   []inputBind    `json:"binds,omitempty"`
	Images  []*rooted      `json:"images,omitempty"`
	Leases  []string       `json:"leases,omitempty"` // of copies, by their owners
	Machine *machined      `json:"machine,omitempty"`
	// Pinned is by which names the engine is to pull images that the policies
	// let in with that contents only.
	Pinned map[string]string `json:"pinned,omitempty"`
	// Network is the host's boot id when the network that the steps share was
	// complete. Empty: there is none, or none that can be used.
	Network string `json:"network,omitempty"`
}

// An inputBind is an input that is not copied but bound read-only.
type inputBind struct {
	Source string `json:"source"`
	Target string `json:"target"`
}

func readPlaces(att state.Attempt) (*places, error) {
	p := &places{Version: placesVersion}
	err := readJSON(att.Places(), p)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, stateError(att.Places(), caisson.ErrInvalid, err)
	}
	if p.Version > placesVersion {
		return nil, stateError(att.Places(), caisson.ErrUnsupported, errors.New("written by a newer program"))
	}
	return p, nil
}

func (p *places) write(att state.Attempt) error {
	crash.Point(crash.PlacesBefore)
	err := writeJSON(att.Places(), p)
	crash.Point(crash.PlacesAfter)
	return err
}

// set adds a place, or replaces the one of the same mount.
func (p *places) set(place *mount.Place) {
	same := func(other *mount.Place) bool { return other.Index == place.Index }
	if i := slices.IndexFunc(p.Mounts, same); i >= 0 {
		p.Mounts[i] = place
		return
	}
	p.Mounts = append(p.Mounts, place)
}

// remove forgets the file once everything in it is released.
func (p *places) remove(att state.Attempt) error {
	err := os.Remove(att.Places())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
