//go:build unix

package qemu

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/internal/filecopy"
	"github.com/caissonrun/caisson/internal/guest"
	"github.com/caissonrun/caisson/internal/machine"
)

// snapshotTime is how long writing a machine's state and disks may take.
const snapshotTime = 5 * time.Minute

// load has the machine, which was started to wait for it, go on from a saved state.
func (b *box) load(ctx context.Context) error {
	f, err := os.Open(b.spec.State)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := machine.Load(ctx, b.qmp, f); err != nil {
		return fmt.Errorf("saved state: %w", err)
	}
	// A state that is to be saved is none that the machine has begun with.
	b.origin.From = b.spec.Save == nil
	return b.qmp.Continue(ctx)
}

// fillDisks has disks that the machine writes to begin as they were when the state was
// saved that it goes on from: the guest has them mounted.
func (b *box) fillDisks() error {
	if b.spec.State == "" || b.spec.Attach != nil || b.spec.Diskless {
		return nil
	}
	for name, path := range b.spec.Disks {
		if err := fillDisk(path, machine.DiskOf(b.spec.State, name)); err != nil {
			return fmt.Errorf("disk %s: %w", name, err)
		}
	}
	return nil
}

// fillDisk has a disk be as another one. It stays its owner's.
func fillDisk(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_RDWR|os.O_TRUNC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	return errors.Join(copyContents(dst, src), dst.Close())
}

// seedSize is how much randomness a copy of a guest gets, in bytes.
const seedSize = 64

// renew makes a guest that is a copy another one than those of the same state: it
// draws other random numbers, and knows what time it is.
func (s *steps) renew() error {
	seed := make([]byte, seedSize)
	if _, err := rand.Read(seed); err != nil {
		return err
	}
	err := s.add("copy", func(b *guest.Batch) error { return b.Reseed(seed) })
	return errors.Join(err, s.add("copy", func(b *guest.Batch) error { return b.SetClock(time.Now()) }))
}

// keepState saves the machine's state for others of its shape, with disks that it has
// mounted. Nothing of a task's was done in the guest yet. That it can't be saved is no
// reason not to go on.
func (b *box) keepState(ctx context.Context, to *saveSpec, disks map[string]string) error {
	err := b.saveState(ctx, to, disks)
	if err != nil {
		b.origin.Why = err.Error()
	}
	b.origin.Saved = err == nil
	// Whatever became of it, the machine may stand still.
	return b.qmp.Continue(ctx)
}

func (b *box) saveState(ctx context.Context, to *saveSpec, disks map[string]string) error {
	states, err := machine.OpenStates(to.Dir, &machine.StatesOptions{Max: to.Max, Age: to.Age.Std()})
	if err != nil {
		return err
	}
	g, err := states.Begin(to.Name, to.Shape)
	if err != nil {
		return err
	}
	if err := machine.Save(ctx, b.qmp, g.File()); err != nil {
		return errors.Join(err, g.Discard())
	}
	for name, path := range disks {
		if err := g.AddDisk(name, path); err != nil {
			return errors.Join(err, g.Discard())
		}
	}
	st, err := g.Commit()
	if err != nil {
		return err
	}
	// What can't be removed now can be the next time.
	_, _ = states.Collect(st.Key)
	return nil
}

// doOrigin answers kept.OpOrigin.
func doOrigin(b *box, _ json.RawMessage) (json.RawMessage, []*os.File, error) {
	told := b.origin
	if told.Why == "" {
		told.Why = b.spec.Unfit
	}
	data, err := json.Marshal(told)
	return data, nil, err
}

// What is in the folder of a snapshot, besides a disk for each that the machine
// writes to.
const (
	snapshotMeta   = "snapshot.json"
	snapshotMemory = "memory"
	snapshotDisk   = "disk-"
)

// A snapshot is what a machine was at one time.
type snapshot struct {
	Version int `json:"version"` // snapshotVersion
	// Program is the main one, and what of its output came before.
	Program attachSpec `json:"program"`
	Disks   []string   `json:"disks"`
}

const snapshotVersion = 1

// doSnapshot answers kept.OpSnapshot: the machine stands still while its memory and its
// disks are written, so that they are of one time.
func doSnapshot(b *box, params json.RawMessage) (_ json.RawMessage, _ []*os.File, err error) {
	var req kept.SnapshotRequest
	if err := json.Unmarshal(params, &req); err != nil {
		return nil, nil, err
	}
	b.mu.Lock()
	main, paused := b.main, b.paused
	b.mu.Unlock()
	if main == nil || main.over() {
		return nil, nil, &caisson.Error{Kind: caisson.ErrEnded, Err: errors.New("no program runs in the machine")}
	}
	ctx, cancel := within(snapshotTime)
	defer cancel()
	defer func() {
		if paused {
			return
		}
		if again := b.qmp.Continue(ctx); again != nil {
			err = errors.Join(err, b.said("continue", again))
		}
	}()
	if err := b.writeSnapshot(ctx, main, &req); err != nil {
		return nil, nil, err
	}
	return nil, nil, nil
}

func (b *box) writeSnapshot(ctx context.Context, main *program, req *kept.SnapshotRequest) error {
	f, err := os.OpenFile(filepath.Join(req.Dir, snapshotMemory), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := machine.Save(ctx, b.qmp, f); err != nil {
		return err
	}
	s := snapshot{Version: snapshotVersion, Program: main.place()}
	for name, path := range b.spec.Disks {
		if err := copyDisk(filepath.Join(req.Dir, snapshotDisk+name), path); err != nil {
			return fmt.Errorf("disk %s: %w", name, err)
		}
		s.Disks = append(s.Disks, name)
	}
	data, err := json.Marshal(&s)
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(req.Dir, snapshotMeta), data, 0o600)
}

// over reports whether the program has ended.
func (p *program) over() bool {
	select {
	case <-p.gp.Done():
		return true
	default:
		return false
	}
}

// place says where in the program's output its log is, while the machine stands
// still.
func (p *program) place() attachSpec {
	a := attachSpec{ID: p.gp.ID()}
	for i, n := range []*int64{&a.Stdout, &a.Stderr} {
		if i < len(p.out) {
			*n, _ = p.out[i].offset()
		}
	}
	return a
}

// disk is the copy of a disk in the folder of a snapshot.
func (s *snapshot) disk(dir, name string) string { return filepath.Join(dir, snapshotDisk+name) }

// readSnapshot reads what a folder of a snapshot has.
//
// Errors: ErrInvalid if it is none, or of another version.
func readSnapshot(dir string) (*snapshot, error) {
	data, err := os.ReadFile(filepath.Join(dir, snapshotMeta))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &caisson.Error{Item: dir, Kind: caisson.ErrInvalid, Err: errors.New("it is no snapshot of a machine, or an unfinished one")}
	}
	if err != nil {
		return nil, err
	}
	s := new(snapshot)
	if err := json.Unmarshal(data, s); err != nil || s.Version != snapshotVersion {
		return nil, &caisson.Error{Item: dir, Kind: caisson.ErrInvalid, Err: errors.New("it is a snapshot of another version")}
	}
	return s, nil
}

// copyDisk copies a disk to a new file.
func copyDisk(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(copyContents(dst, src), dst.Close())
}

// copyContents copies a disk with its holes, or shares its blocks where the file
// system can.
func copyContents(dst, src *os.File) error {
	_, err := filecopy.Copy(context.Background(), dst, src, nil)
	return err
}
