//go:build unix

package qemu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/machine"
)

// statesName is the folder of saved states in the engine's cache.
const statesName = "states"

// A saveSpec says where a machine's state is put, for all machines of its shape.
type saveSpec struct {
	// Dir is the folder of the engine's states.
	Dir   string         `json:"dir"`
	Name  string         `json:"name"` // for people
	Shape *machine.Shape `json:"shape"`
	// Max and Age are the folder's bounds: see machine.StatesOptions.
	Max int              `json:"max,omitempty"`
	Age caisson.Duration `json:"age,omitempty"`
}

// An attachSpec names a program that runs in a saved state.
type attachSpec struct {
	ID uint64 `json:"id"` // the agent's
	// Stdout and Stderr are how much of its output belongs to the machine that was
	// saved: what comes after it is the copy's.
	Stdout int64 `json:"stdout"`
	Stderr int64 `json:"stderr"`
}

// statesDir is where states of machines are that nothing of a task has run in.
func (o *Options) statesDir() string { return filepath.Join(o.Cache, statesName) }

// openStates opens that folder.
func (o *Options) openStates() (*machine.States, error) {
	if err := o.openCache(); err != nil {
		return nil, err
	}
	return machine.OpenStates(o.statesDir(), &machine.StatesOptions{Max: o.States, Age: o.StateAge})
}

// begin decides what the machine begins with: a snapshot that the spec names, a saved
// state that fits, or its kernel. What is wrong with saved states is a reason to boot.
func (set *setting) begin(s *engine.Spec, bs *boxSpec, in *machine.Spec) error {
	bs.Disks = map[string]string{}
	for _, d := range in.Disks {
		if !d.ReadOnly {
			bs.Disks[d.Name] = machine.OnHost(&bs.Box, d.Path)
		}
	}
	if s.Snapshot != "" {
		return set.beginCopy(s, bs, in)
	}
	// A system of its own has written to its disk before its agent answers; before the
	// layer is made nobody can say how it compares.
	if set.own != nil || !set.ready {
		return nil
	}
	states, err := set.opts.openStates()
	if err != nil {
		bs.Unfit = err.Error()
		return nil
	}
	host := func(path string) string { return machine.OnHost(&bs.Box, path) }
	shape, err := set.base.QEMU.Shape(in, host, set.base.Of)
	if err != nil {
		return err
	}
	own := &saved{name: stateName(imageName(s), in), shape: shape}
	if !set.boots {
		set.goOn(bs, states, own)
	}
	set.diskless(s, bs, in, states, own)
	in.Incoming = bs.State != ""
	return nil
}

// A saved is a state that there may be.
type saved struct {
	name  string
	shape *machine.Shape
}

// goOn has the machine go on from a state, if there is that one.
func (set *setting) goOn(bs *boxSpec, states *machine.States, want *saved) {
	st, err := states.Find(want.name, want.shape)
	switch {
	case err == nil:
		set.state, bs.State = st.Key, st.File
	case !errors.Is(err, caisson.ErrNotFound):
		bs.Unfit = err.Error()
	}
}

// diskless has a machine that there is no state of go on from that of a guest that
// knows nothing of its disks yet, which serves all images, and says what is to be
// saved.
func (set *setting) diskless(s *engine.Spec, bs *boxSpec, in *machine.Spec, states *machine.States, own *saved) {
	if bs.State != "" {
		return
	}
	wanted := set.opts.Snapshot || set.choice.Snapshot
	// A disk that has no name of an image's is seldom seen again.
	if wanted && (s.RootFS.Image != "" || set.choice.Snapshot || !set.base.LateDisks) {
		bs.Save = set.save(own)
	}
	if !set.base.LateDisks {
		return
	}
	bare := &saved{name: stateName("any image", in), shape: own.shape.WithoutDisks()}
	if !set.boots {
		set.goOn(bs, states, bare)
	}
	if bs.Diskless = bs.State != ""; !bs.Diskless && wanted {
		bs.SaveDiskless = set.save(bare)
	}
}

// save says where a state is put.
func (set *setting) save(st *saved) *saveSpec {
	o := set.opts
	return &saveSpec{Dir: o.statesDir(), Name: st.name, Shape: st.shape, Max: o.States, Age: caisson.Duration(o.StateAge)}
}

// imageName is what a machine's disk is of, for people.
func imageName(s *engine.Spec) string {
	return cmp.Or(s.RootFS.Image, filepath.Base(filepath.Dir(s.RootFS.Disk)))
}

// stateName is what a state is of, for people.
func stateName(what string, m *machine.Spec) string {
	return fmt.Sprintf("%s (%s, %s, %d cpus, %s)", what, m.Type, m.Accel, max(m.CPUs, 1), m.Memory)
}

// beginCopy has the machine go on from a snapshot, with the disks that makeLayer has
// copied. All that was done in the guest is done, but that it is another one.
func (set *setting) beginCopy(s *engine.Spec, bs *boxSpec, in *machine.Spec) error {
	snap, err := readSnapshot(s.Snapshot)
	if err != nil {
		return err
	}
	for name := range bs.Disks {
		if !slices.Contains(snap.Disks, name) {
			return &caisson.Error{Item: s.Snapshot, Kind: caisson.ErrInvalid, Err: fmt.Errorf("it is of a machine without the disk %q", name)}
		}
	}
	bs.State, in.Incoming, bs.Attach = filepath.Join(s.Snapshot, snapshotMemory), true, &snap.Program
	bs.Guest = guestSpec{
		Hostname: bs.Guest.Hostname, MachineID: bs.Guest.MachineID, UUID: bs.Guest.UUID, NewKeys: bs.Guest.NewKeys,
		Interfaces: bs.Guest.Interfaces, Gateway: bs.Guest.Gateway,
	}
	return nil
}

// copied fills a fresh disk from the spec's snapshot, and reports whether there is
// one.
func copied(s *engine.Spec, f *os.File, name string) (bool, error) {
	if s.Snapshot == "" {
		return false, nil
	}
	snap, err := readSnapshot(s.Snapshot)
	if err != nil {
		return true, err
	}
	src, err := os.Open(snap.disk(s.Snapshot, name))
	if err != nil {
		return true, err
	}
	defer src.Close()
	return true, copyContents(f, src)
}

// SavedStates implements engine.Saver.
func (e *Engine) SavedStates(ctx context.Context) ([]engine.SavedState, error) {
	if err := e.boxes.Open(ctx, caisson.OpState); err != nil {
		return nil, err
	}
	states, err := e.opts.openStates()
	if err != nil {
		return nil, err
	}
	all, err := states.List()
	var list []engine.SavedState
	for _, st := range all {
		list = append(list, engine.SavedState{
			Key: st.Key, Engine: Name, Name: st.Name, Size: st.Size, Made: st.Made, Used: st.Used, By: "QEMU " + st.Shape.QEMU,
		})
	}
	return list, err
}

// RemoveState implements engine.Saver.
func (e *Engine) RemoveState(ctx context.Context, key string) error {
	if err := e.boxes.Open(ctx, caisson.OpState); err != nil {
		return err
	}
	states, err := e.opts.openStates()
	if err != nil {
		return err
	}
	return states.Remove(key)
}

var _ engine.Saver = (*Engine)(nil)
