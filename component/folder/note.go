//go:build unix

package folder

import (
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/safefs"
)

// noteName is in W, beside what steps see.
const noteName = "folder.json"

// A note is what a later process has to know of a folder besides its files.
type note struct {
	Swaps int    `json:"swaps"` // that are done
	Binds []Bind `json:"binds,omitempty"`
}

// A Bind is a file of the host that is to be mounted read-only.
type Bind struct {
	Source string `json:"source"` // on the host, in W
	Target string `json:"target"` // relative to /data, such as in/tables/x
}

// Binds returns what is to be mounted for the next step, by target. A swap drops
// them.
func (f *Folder) Binds() []Bind {
	f.mu.Lock()
	defer f.mu.Unlock()
	binds := slices.Clone(f.note.Binds)
	slices.SortFunc(binds, func(a, b Bind) int { return strings.Compare(a.Target, b.Target) })
	return binds
}

// bind notes that target is a place for a file of the host.
func (f *Folder) bind(b Bind) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note.Binds = append(without(f.note.Binds, b.Target), b)
	return f.writeNote()
}

// unbind forgets what was to be mounted at target.
func (f *Folder) unbind(target string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	rest := without(f.note.Binds, target)
	if len(rest) == len(f.note.Binds) {
		return nil
	}
	f.note.Binds = rest
	return f.writeNote() // the pin stays until the swap
}

func without(binds []Bind, target string) []Bind {
	return slices.DeleteFunc(slices.Clone(binds), func(b Bind) bool { return b.Target == target })
}

// bound returns the host's file that stands for a name in data/, or "".
func (f *Folder) bound(target string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range f.note.Binds {
		if b.Target == target {
			return b.Source
		}
	}
	return ""
}

func (f *Folder) writeNote() error {
	data, err := json.Marshal(&f.note)
	if err != nil {
		return err
	}
	return f.root.WriteFile(noteName, data, 0o600, nil)
}

func (f *Folder) readNote() error {
	data, err := f.root.ReadFile(noteName, 1<<30)
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.New("not made completely; make it again")
		return &caisson.Error{Op: caisson.OpState, Item: f.path, Kind: caisson.ErrNotFound, Err: err}
	}
	if err == nil {
		err = json.Unmarshal(data, &f.note)
	}
	return safefs.Sorted(caisson.OpState, f.path, err)
}
