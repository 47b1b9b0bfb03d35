//go:build unix

package shelf

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/internal/safefs"
)

// A Lease says that a mount of a task's attempt uses a folder.
type Lease struct {
	Task     string    `json:"task"`
	Attempt  int       `json:"attempt"`
	Index    int       `json:"index"`              // of the mount in the task
	ReadOnly bool      `json:"readonly,omitempty"` // others may read at the same time
	Since    time.Time `json:"since"`
}

// file returns the name of the lease's file.
func (l *Lease) file() string { return fmt.Sprintf("%s-%d-%d.json", l.Task, l.Attempt, l.Index) }

// Take leases a folder and returns the path of its contents, which then belong
// on disk to owner. Any number of leases may be read-only at once; one that is
// not excludes those of other tasks. Taking the same again is harmless.
//
// Errors: ErrNotFound if there is no such folder; ErrExists if it is in use and
// can't be shared.
func (s *Shelf) Take(ctx context.Context, name string, lease Lease, owner Owner) (data string, err error) {
	if err := caisson.CheckTaskID(lease.Task); err != nil {
		return "", err // it becomes part of a path
	}
	lock, err := s.lock(ctx, name)
	if err != nil {
		return "", err
	}
	defer lock.Release()
	m, err := s.readMeta(name)
	if err != nil {
		return "", s.sorted(name, err)
	}
	others, err := s.others(name, &lease)
	if err != nil {
		return "", s.sorted(name, err)
	}
	for i := range others {
		if !lease.ReadOnly || !others[i].ReadOnly {
			return "", s.inUse(name, &others[i])
		}
	}
	if err := s.give(ctx, name, m, owner, others); err != nil {
		return "", err
	}
	lease.Since = s.now().UTC()
	if err := s.writeLease(name, &lease); err != nil {
		return "", s.sorted(name, err)
	}
	m.UsedAt = lease.Since
	if err := s.writeMeta(name, m); err != nil {
		return "", s.sorted(name, err)
	}
	data, err = filepath.EvalSymlinks(s.path(name, dataDir))
	return data, s.sorted(name, err)
}

func (s *Shelf) inUse(name string, by *Lease) error {
	how := "reads"
	if !by.ReadOnly {
		how = "uses"
	}
	return s.err(name, caisson.ErrExists, fmt.Errorf("task %s %s it", by.Task, how))
}

// give has the files belong to owner. m says durably what is under way, so that
// the files are known whichever of both they belong to after a crash.
func (s *Shelf) give(ctx context.Context, name string, m *meta, owner Owner, others []Lease) error {
	if os.Geteuid() != 0 || m.Owner == owner && m.Next == nil {
		return nil
	}
	if len(others) > 0 {
		err := fmt.Errorf("task %s uses it as user %d:%d", others[0].Task, m.Owner.UID, m.Owner.GID)
		return s.err(name, caisson.ErrExists, err)
	}
	had := map[int]bool{m.Owner.UID: true, owner.UID: true}
	if m.Next != nil {
		had[m.Next.UID] = true
	}
	m.Next = &owner
	if err := s.writeMeta(name, m); err != nil {
		return s.sorted(name, err)
	}
	root, err := safefs.Open(s.path(name), nil)
	if err != nil {
		return s.sorted(name, err)
	}
	defer root.Close()
	if err := root.ChownAll(ctx, dataDir, *owner.files(), func(uid, _ int) bool { return had[uid] }); err != nil {
		return s.sorted(name, err)
	}
	m.Owner, m.Next = owner, nil
	return nil
}

func (s *Shelf) writeLease(name string, l *Lease) error {
	data, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return atomicfile.Write(s.path(name, leasesDir, l.file()), data, 0o600)
}

// Release gives up a lease. One that is not there is no error, nor is a folder
// that is not there.
func (s *Shelf) Release(ctx context.Context, name string, lease Lease) error {
	if err := caisson.CheckTaskID(lease.Task); err != nil {
		return err
	}
	lock, err := s.lock(ctx, name)
	if errors.Is(err, caisson.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Release()
	return s.sorted(name, s.removeLease(name, lease.file()))
}

func (s *Shelf) removeLease(name, file string) error {
	err := os.Remove(s.path(name, leasesDir, file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return atomicfile.SyncDir(s.path(name, leasesDir))
}

// leases returns the leases of a folder. What a crash left of one that was
// being written is none.
func (s *Shelf) leases(name string) ([]Lease, error) {
	entries, err := os.ReadDir(s.path(name, leasesDir))
	if err != nil {
		return nil, err
	}
	var leases []Lease
	for _, e := range entries {
		if atomicfile.IsTemp(e.Name()) {
			continue
		}
		data, err := os.ReadFile(s.path(name, leasesDir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var l Lease
		if err := json.Unmarshal(data, &l); err != nil {
			return nil, fmt.Errorf("lease %s: %w", e.Name(), err)
		}
		leases = append(leases, l)
	}
	return leases, nil
}

// others returns the leases that tasks other than lease's have.
func (s *Shelf) others(name string, lease *Lease) ([]Lease, error) {
	all, err := s.leases(name)
	if err != nil {
		return nil, err
	}
	var others []Lease
	for _, l := range all {
		if l.Task != lease.Task {
			others = append(others, l)
		}
	}
	return others, nil
}

// Sweep drops the leases of attempts that are not live, and what a crash left
// half made or half removed.
func (s *Shelf) Sweep(ctx context.Context, live func(task string, attempt int) bool) error {
	names, err := s.Names()
	if err != nil {
		return err
	}
	errs := []error{s.sweepTemp(ctx)}
	for _, name := range names {
		errs = append(errs, s.sweepLeases(ctx, name, live))
	}
	return errors.Join(errs...)
}

func (s *Shelf) sweepLeases(ctx context.Context, name string, live func(task string, attempt int) bool) error {
	lock, err := s.lock(ctx, name)
	if errors.Is(err, caisson.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Release()
	entries, err := os.ReadDir(s.path(name, leasesDir))
	if err != nil {
		return s.sorted(name, err)
	}
	for _, e := range entries {
		if atomicfile.IsTemp(e.Name()) {
			err = errors.Join(err, s.removeLease(name, e.Name())) // nobody writes while the lock is ours
		}
	}
	leases, listErr := s.leases(name)
	err = errors.Join(err, listErr)
	for i := range leases {
		if !live(leases[i].Task, leases[i].Attempt) {
			err = errors.Join(err, s.removeLease(name, leases[i].file()))
		}
	}
	return s.sorted(name, err)
}
