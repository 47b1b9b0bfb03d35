//go:build unix

// Package shelf keeps named folders that outlive tasks: what volumes and caches
// have in common.
//
// Each folder NAME of a Shelf holds
//
//	meta.json  what it is, written atomically
//	lock       flock of whoever changes something of it, for the moment only
//	leases/    one file for each mount of a task's attempt that uses it
//	data/      its contents
//
// A lease is a file and not a lock, because it lives as long as the attempt,
// whichever processes come and go meanwhile; Sweep drops those of attempts that
// are gone. What is being made or removed has a name that begins with a dot,
// and is removed by Sweep if its maker is gone.
package shelf

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/internal/cleanup"
	"github.com/caissonrun/caisson/internal/lockfile"
	"github.com/caissonrun/caisson/internal/safefs"
)

// The names in a shelf's folder.
const (
	metaFile  = "meta.json"
	lockFile  = "lock"
	leasesDir = "leases"
	dataDir   = "data"
)

// A Shelf is a folder of named folders. Several processes may use it.
type Shelf struct {
	dir  string
	noun string // for messages: volume or cache
	now  func() time.Time
}

// New returns the shelf in dir, which is made on first use. Noun is what one of
// its folders is called.
func New(dir, noun string) *Shelf { return &Shelf{dir: dir, noun: noun, now: time.Now} }

var nameForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$`)

// CheckName says whether name can be used. Errors: ErrInvalid.
func (s *Shelf) CheckName(name string) error {
	if nameForm.MatchString(name) {
		return nil
	}
	err := errors.New("use up to 64 letters, digits, dots, dashes and underscores, the first a letter or digit")
	return s.err(name, caisson.ErrInvalid, err)
}

func (s *Shelf) err(name string, kind caisson.Kind, err error) error {
	return &caisson.Error{Op: caisson.OpMount, Item: fmt.Sprintf("%s %q", s.noun, name), Kind: kind, Err: err}
}

func (s *Shelf) sorted(name string, err error) error {
	return safefs.Sorted(caisson.OpMount, fmt.Sprintf("%s %q", s.noun, name), err)
}

// An Owner is who the files in a folder belong to on disk. Without root's
// rights it is the caller, whatever is said here.
type Owner struct {
	UID int `json:"uid"`
	GID int `json:"gid"`
}

func (o Owner) files() *safefs.Owner {
	if os.Geteuid() != 0 {
		return nil
	}
	return &safefs.Owner{UID: o.UID, GID: o.GID}
}

// meta is what stands in meta.json.
type meta struct {
	Version   int       `json:"version"` // 1
	CreatedAt time.Time `json:"created_at"`
	UsedAt    time.Time `json:"used_at,omitzero"`
	Owner     Owner     `json:"owner"`
	// Next is set while the files are on their way from Owner to it.
	Next *Owner `json:"next,omitempty"`
}

func (s *Shelf) path(name string, more ...string) string {
	return filepath.Join(append([]string{s.dir, name}, more...)...)
}

func (s *Shelf) readMeta(name string) (*meta, error) {
	data, err := os.ReadFile(s.path(name, metaFile))
	if err != nil {
		return nil, err
	}
	var m meta
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("%s: %w", metaFile, err)
	}
	if m.Version != 1 {
		return nil, s.err(name, caisson.ErrUnsupported, fmt.Errorf("version %d is of a newer caisson", m.Version))
	}
	return &m, nil
}

func (s *Shelf) writeMeta(name string, m *meta) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return atomicfile.Write(s.path(name, metaFile), data, 0o600)
}

// lock takes the lock of a folder that must exist.
func (s *Shelf) lock(ctx context.Context, name string) (*lockfile.Lock, error) {
	if err := s.CheckName(name); err != nil {
		return nil, err
	}
	l, err := lockfile.Acquire(ctx, s.path(name, lockFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, s.err(name, caisson.ErrNotFound, errors.New("it does not exist"))
	}
	if err != nil {
		return nil, s.sorted(name, err)
	}
	return l, nil
}

// Create makes a folder that holds what fill puts there; a nil fill puts
// nothing. It appears completely or not at all.
//
// Errors: ErrInvalid for the name; ErrExists; ErrExhausted; fill's.
func (s *Shelf) Create(ctx context.Context, name string, owner Owner, fill func(*safefs.Root) error) (err error) {
	if err := s.CheckName(name); err != nil {
		return err
	}
	if s.Exists(name) {
		return s.err(name, caisson.ErrExists, errors.New("it exists already"))
	}
	temp := atomicfile.TempName()
	var undo cleanup.List
	defer undo.OnError(ctx, &err)
	if err := os.MkdirAll(s.path(temp), 0o700); err != nil {
		return s.sorted(name, err)
	}
	undo.AddContext(func(ctx context.Context) error { return s.drop(ctx, temp) })
	lock, err := lockfile.Try(s.path(temp, lockFile))
	if err != nil {
		return s.sorted(name, err)
	}
	defer lock.Release()
	if err := s.make(temp, owner, fill); err != nil {
		return s.sorted(name, err)
	}
	err = os.Rename(s.path(temp), s.path(name))
	if errors.Is(err, fs.ErrExist) {
		return s.err(name, caisson.ErrExists, errors.New("it exists already"))
	}
	if err != nil {
		return s.sorted(name, err)
	}
	undo.Release()
	return s.sorted(name, atomicfile.SyncDir(s.dir))
}

// make puts everything into a folder that has its temporary name still.
func (s *Shelf) make(temp string, owner Owner, fill func(*safefs.Root) error) error {
	root, err := safefs.Open(s.path(temp), nil)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.MkdirAll(leasesDir, 0o700, nil); err != nil {
		return err
	}
	if err := root.MkdirAll(dataDir, 0o755, owner.files()); err != nil {
		return err
	}
	if fill != nil {
		data, err := root.Sub(dataDir)
		if err != nil {
			return err
		}
		defer data.Close()
		if err := fill(data); err != nil {
			return err
		}
	}
	return s.writeMeta(temp, &meta{Version: 1, CreatedAt: s.now().UTC(), Owner: owner})
}

// Exists reports whether there is such a folder.
func (s *Shelf) Exists(name string) bool {
	_, err := os.Stat(s.path(name, metaFile))
	return nameForm.MatchString(name) && err == nil
}

// Names returns the names of all folders, sorted.
func (s *Shelf) Names() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, s.sorted("", err)
	}
	var names []string
	for _, e := range entries {
		if s.Exists(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Info is what is known about a folder.
type Info struct {
	Name      string
	CreatedAt time.Time
	UsedAt    time.Time // zero: never
	Size      int64     // bytes on disk
	InUse     bool
}

// List returns what is known about all folders, by name. One that vanishes
// meanwhile is left out.
func (s *Shelf) List(ctx context.Context) ([]Info, error) {
	names, err := s.Names()
	if err != nil {
		return nil, err
	}
	var list []Info
	for _, name := range names {
		info, err := s.info(ctx, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, s.sorted(name, err)
		}
		list = append(list, *info)
	}
	return list, nil
}

func (s *Shelf) info(ctx context.Context, name string) (*Info, error) {
	m, err := s.readMeta(name)
	if err != nil {
		return nil, err
	}
	leases, err := s.leases(name)
	if err != nil {
		return nil, err
	}
	root, err := safefs.Open(s.path(name), nil)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	size, _, err := root.Usage(ctx, dataDir)
	if err != nil {
		return nil, err
	}
	return &Info{Name: name, CreatedAt: m.CreatedAt, UsedAt: m.UsedAt, Size: size, InUse: len(leases) > 0}, nil
}

// Open opens the contents of a folder. Errors: ErrNotFound.
func (s *Shelf) Open(name string) (*safefs.Root, error) {
	if err := s.CheckName(name); err != nil {
		return nil, err
	}
	root, err := safefs.Open(s.path(name, dataDir), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, s.err(name, caisson.ErrNotFound, errors.New("it does not exist"))
	}
	return root, s.sorted(name, err)
}

// Remove deletes a folder. Errors: ErrNotFound; ErrExists if it is in use.
func (s *Shelf) Remove(ctx context.Context, name string) error {
	lock, err := s.lock(ctx, name)
	if err != nil {
		return err
	}
	defer lock.Release()
	leases, err := s.leases(name)
	if err != nil {
		return s.sorted(name, err)
	}
	if len(leases) > 0 {
		return s.inUse(name, &leases[0])
	}
	// From here on nobody finds it, and Sweep finishes it after a crash.
	temp := atomicfile.TempName()
	if err := os.Rename(s.path(name), s.path(temp)); err != nil {
		return s.sorted(name, err)
	}
	if err := atomicfile.SyncDir(s.dir); err != nil {
		return s.sorted(name, err)
	}
	return s.sorted(name, s.drop(ctx, temp))
}

// drop removes a folder that has a temporary name.
func (s *Shelf) drop(ctx context.Context, temp string) error {
	root, err := safefs.Open(s.dir, nil)
	if err != nil {
		return err
	}
	defer root.Close()
	return root.RemoveAll(ctx, temp)
}

// sweepTemp removes what somebody began to make or remove who is gone.
func (s *Shelf) sweepTemp(ctx context.Context) error {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), ".") || !atomicfile.IsTemp(e.Name()) {
			continue
		}
		lock, err := lockfile.Try(s.path(e.Name(), lockFile))
		if errors.Is(err, caisson.ErrExists) || errors.Is(err, fs.ErrNotExist) {
			continue // its maker lives, or has just renamed it
		}
		if err == nil {
			err = s.drop(ctx, e.Name())
			lock.Release()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
