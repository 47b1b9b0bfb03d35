//go:build unix

// Package state is the layout of the state folder, and the journal in it.
// docs/state.md describes every file: who writes it, when it is durable, and
// who reads it after a crash.
package state

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/internal/crash"
	"github.com/caissonrun/caisson/internal/lockfile"
)

// Version is the version of the layout that this code reads and writes. A
// folder of an older one is brought up to it by Open, a newer one is refused.
const Version = 1

// openTimeout bounds the wait for another process that makes the same folder.
const openTimeout = 10 * time.Second

const (
	versionFile = "version.json"
	versionLock = "version.lock"
	sweepLock   = "sweep.lock"
	tasksDir    = "tasks"
	poolsDir    = "warm"
)

// A Folder is an open state folder.
type Folder struct {
	path     string
	instance string
}

// version is what version.json holds.
type version struct {
	Version  int    `json:"version"`
	Instance string `json:"instance"`
}

// Open opens the state folder at path, an absolute path, and makes it if it
// does not exist.
//
// Errors: ErrUnsupported if a newer program made it; ErrDenied if it can't be
// read or written; ErrInvalid if it is something else.
func Open(path string) (*Folder, error) {
	if !filepath.IsAbs(path) {
		return nil, stateError(path, caisson.ErrInvalid, errors.New("the state folder's path must be absolute"))
	}
	v, err := readVersion(path)
	if errors.Is(err, fs.ErrNotExist) {
		v, err = initialize(path)
	}
	if err != nil {
		return nil, classify(path, err)
	}
	if v.Version > Version {
		return nil, stateError(path, caisson.ErrUnsupported, fmt.Errorf(
			"written by a newer program (version %d, this one knows %d): use that one, or another folder with --state", v.Version, Version))
	}
	if v.Version < 1 || v.Instance == "" {
		return nil, stateError(path, caisson.ErrInvalid, fmt.Errorf("%s names no version: not a state folder of Caisson", versionFile))
	}
	// Sandboxes are given paths below, and open them without following links.
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, classify(path, err)
	}
	return &Folder{path: real, instance: v.Instance}, nil
}

// Path returns the folder's path.
func (f *Folder) Path() string { return f.path }

// Instance returns the installation's name, a random text that was made with
// the folder: whatever is marked with another one is never touched.
func (f *Folder) Instance() string { return f.instance }

// Short returns an abbreviation of Instance for names that must be short, such
// as those of sockets: 8 hexadecimal digits.
func (f *Folder) Short() string {
	sum := sha256.Sum256([]byte(f.instance))
	return hex.EncodeToString(sum[:4])
}

// Runtime returns this installation's folder below root, the runtime folder
// of all installations.
func (f *Folder) Runtime(root string) string { return filepath.Join(root, f.Short()) }

// Join returns the path of a folder or file that another package keeps in the
// state folder, such as "volumes".
func (f *Folder) Join(elem ...string) string {
	return filepath.Join(append([]string{f.path}, elem...)...)
}

// SweepLock returns the path of the lock that is shared by those who make
// sandboxes and exclusive to who looks for orphans.
func (f *Folder) SweepLock() string { return f.Join(sweepLock) }

// TasksDir returns the folder of all tasks.
func (f *Folder) TasksDir() string { return f.Join(tasksDir) }

// PoolsDir returns the folder of all warm pools.
func (f *Folder) PoolsDir() string { return f.Join(poolsDir) }

// Task returns where the task is kept, whether it exists or not.
func (f *Folder) Task(id string) Task { return Task{ID: id, Dir: f.Join(tasksDir, id)} }

// Tasks returns the ids of all task folders, also half-made ones, oldest first.
func (f *Folder) Tasks() ([]string, error) {
	entries, err := os.ReadDir(f.TasksDir()) // in order of names: ids sort by time
	if err != nil {
		return nil, classify(f.path, err)
	}
	ids := make([]string, 0, len(entries))
	for _, e := range entries {
		if caisson.CheckTaskID(e.Name()) == nil {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// SyncTasks makes the names of the task folders durable.
func (f *Folder) SyncTasks() error { return atomicfile.SyncDir(f.TasksDir()) }

func readVersion(path string) (*version, error) {
	data, err := os.ReadFile(filepath.Join(path, versionFile))
	if err != nil {
		return nil, err
	}
	v := new(version)
	if err := json.Unmarshal(data, v); err != nil {
		return nil, stateError(path, caisson.ErrInvalid, fmt.Errorf("%s: %w", versionFile, err))
	}
	return v, nil
}

// initialize makes the folder. Of several processes that try, one does.
func initialize(path string) (*version, error) {
	if err := os.MkdirAll(filepath.Join(path, tasksDir), 0o700); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	lock, err := lockfile.Acquire(ctx, filepath.Join(path, versionLock))
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	if v, err := readVersion(path); !errors.Is(err, fs.ErrNotExist) {
		return v, err
	}
	v := &version{Version: Version, Instance: rand.Text()}
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	crash.Point(crash.StateBefore)
	if err := atomicfile.Write(filepath.Join(path, versionFile), append(data, '\n'), 0o600); err != nil {
		return nil, err
	}
	crash.Point(crash.StateAfter)
	return v, nil
}

// classify sorts errors of the file system by what the reader can do.
func classify(path string, err error) error {
	switch {
	case caisson.KindOf(err) != caisson.ErrUnknown:
		return err
	case errors.Is(err, fs.ErrPermission):
		return stateError(path, caisson.ErrDenied, fmt.Errorf("%w: use --state with a folder of your own", err))
	case errors.Is(err, fs.ErrNotExist):
		return stateError(path, caisson.ErrNotFound, err)
	case noRoom(err):
		return stateError(path, caisson.ErrExhausted, err)
	}
	return stateError(path, caisson.ErrInvalid, err)
}

func stateError(path string, kind caisson.Kind, err error) error {
	return &caisson.Error{Op: caisson.OpState, Item: path, Kind: kind, Err: err}
}
