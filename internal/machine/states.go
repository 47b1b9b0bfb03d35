//go:build unix

package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/internal/filecopy"
)

const (
	// maxStates and maxStateAge bound a folder of states where nobody else does.
	maxStates   = 16
	maxStateAge = 30 * 24 * time.Hour
	// staleState is after how long a state that was never finished is nobody's.
	staleState = time.Hour
	// maxStateMeta bounds what is read of a state's description, in bytes.
	maxStateMeta = 256 << 10

	stateMeta   = "state.json"
	stateMemory = "memory"
	stateDisk   = "disk-"
	stateNew    = ".new-"
)

var keyPattern = regexp.MustCompile(`^[0-9a-f]{32}$`)

// States is a folder of saved states, of one user and for all machines that this
// user makes. Whoever goes on from a state trusts its maker, and what is in it comes
// from a guest: so none but those of machines in which nothing of a task has run
// belong here, and nobody else may write to them.
type States struct {
	dir string
	max int
	age time.Duration
}

// StatesOptions bound a folder of states. Zero is the default.
type StatesOptions struct {
	Max int           // how many; 16
	Age time.Duration // since the last use; 30 days
}

// A State is one saved state.
type State struct {
	Version int    `json:"version"` // shapeVersion
	Key     string `json:"key"`
	// Name is what it is of, for people, and for telling one that was made for the
	// same and does not fit any more.
	Name  string        `json:"name"`
	Shape *Shape        `json:"shape"`
	Size  caisson.Bytes `json:"size"` // of File
	Made  time.Time     `json:"made"`
	Used  time.Time     `json:"-"` // the last time
	File  string        `json:"-"` // its path
}

// OpenStates opens a folder of states, or makes it.
//
// Errors: ErrDenied if somebody else could write to it.
func OpenStates(dir string, o *StatesOptions) (*States, error) {
	s := &States{dir: dir, max: maxStates, age: maxStateAge}
	if o != nil && o.Max > 0 {
		s.max = o.Max
	}
	if o != nil && o.Age > 0 {
		s.age = o.Age
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return s, ownState(dir, fs.ModeDir|0o700)
}

// ownState refuses a file or folder that is not this user's alone.
func ownState(path string, mode fs.FileMode) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if info.Mode() == mode && ok && int(st.Uid) == os.Geteuid() {
		return nil
	}
	return &caisson.Error{
		Item: path, Kind: caisson.ErrDenied,
		Err: fmt.Errorf("machines go on from saved states, so it must belong to this user with mode %v; remove it", mode),
	}
}

// Find returns the state for a machine, and notes that it is used.
//
// Errors: ErrNotFound if there is none; ErrUnsupported, saying why, if there is one
// of that name that does not fit any more.
func (s *States) Find(name string, shape *Shape) (*State, error) {
	st, err := s.read(shape.Key())
	if err == nil {
		if why := shape.Differs(st.Shape); why != "" {
			return nil, stateError(name, caisson.ErrUnsupported, why)
		}
		now := time.Now()
		_ = os.Chtimes(filepath.Join(s.dir, st.Key, stateMeta), now, now)
		return st, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	for _, other := range all {
		if other.Name == name {
			return nil, stateError(name, caisson.ErrUnsupported, shape.Differs(other.Shape))
		}
	}
	return nil, stateError(name, caisson.ErrNotFound, "there is no saved state")
}

func stateError(name string, kind caisson.Kind, why string) error {
	return &caisson.Error{Item: "saved state of " + name, Kind: kind, Err: errors.New(why)}
}

// read reads a state by its key.
//
// Errors: fs.ErrNotExist; ErrDenied if it could be somebody else's; ErrInvalid if
// it is damaged.
func (s *States) read(key string) (*State, error) {
	dir := filepath.Join(s.dir, key)
	if err := errors.Join(ownState(s.dir, fs.ModeDir|0o700), ownState(dir, fs.ModeDir|0o700)); err != nil {
		return nil, err
	}
	meta, file := filepath.Join(dir, stateMeta), filepath.Join(dir, stateMemory)
	for _, path := range []string{meta, file} {
		if err := ownState(path, 0o600); err != nil {
			return nil, err
		}
	}
	used, err := os.Lstat(meta)
	if err != nil {
		return nil, err
	}
	if used.Size() > maxStateMeta {
		return nil, stateError(key, caisson.ErrInvalid, "its description is too long; remove it with `caisson vm rm "+key+"`")
	}
	data, err := os.ReadFile(meta)
	if err != nil {
		return nil, err
	}
	st := new(State)
	if err := json.Unmarshal(data, st); err != nil || st.Shape == nil || st.Version > shapeVersion {
		return nil, stateError(key, caisson.ErrInvalid, "its description is none of this version; remove it with `caisson vm rm "+key+"`")
	}
	info, err := os.Lstat(file)
	if err != nil {
		return nil, err
	}
	if st.Key != key || info.Size() != int64(st.Size) || info.Size() == 0 {
		return nil, stateError(st.Name, caisson.ErrInvalid, "it is damaged; remove it with `caisson vm rm "+key+"`")
	}
	st.File, st.Used = file, used.ModTime()
	return st, nil
}

// List returns the states, the one that was used last first. What is damaged is
// not among them.
func (s *States) List() ([]*State, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var list []*State
	for _, e := range entries {
		if !keyPattern.MatchString(e.Name()) {
			continue
		}
		if st, err := s.read(e.Name()); err == nil {
			list = append(list, st)
		}
	}
	slices.SortFunc(list, func(a, b *State) int { return b.Used.Compare(a.Used) })
	return list, nil
}

// Remove removes a state by its key. Machines that go on from it do.
//
// Errors: ErrNotFound if there is none; ErrInvalid if that can be no key.
func (s *States) Remove(key string) error {
	if !keyPattern.MatchString(key) {
		return stateError(fmt.Sprintf("%q", key), caisson.ErrInvalid, "a key has 32 hexadecimal digits")
	}
	// The name goes first: what has it is complete.
	gone := filepath.Join(s.dir, stateNew+key+"-gone")
	if err := os.RemoveAll(gone); err != nil {
		return err
	}
	err := os.Rename(filepath.Join(s.dir, key), gone)
	if errors.Is(err, fs.ErrNotExist) {
		return stateError(key, caisson.ErrNotFound, "there is no such state")
	}
	if err != nil {
		return err
	}
	return os.RemoveAll(gone)
}

// Collect removes what is more or older than the folder's bounds, and what nobody
// will finish, and returns the names of states that it has removed. Keep is never
// one of them; it may be empty.
func (s *States) Collect(keep string) (removed []string, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), stateNew) {
			continue
		}
		if info, infoErr := e.Info(); infoErr == nil && time.Since(info.ModTime()) > staleState {
			err = errors.Join(err, os.RemoveAll(filepath.Join(s.dir, e.Name())))
		}
	}
	list, listErr := s.List()
	if listErr != nil {
		return nil, errors.Join(err, listErr)
	}
	for i, st := range list {
		if st.Key == keep || i < s.max && time.Since(st.Used) < s.age {
			continue
		}
		if removeErr := s.Remove(st.Key); removeErr != nil {
			err = errors.Join(err, removeErr)
			continue
		}
		removed = append(removed, st.Name)
	}
	return removed, err
}

// A Saving is a state that is being made.
type Saving struct {
	s     *States
	state State
	dir   string
	file  *os.File
}

// Begin makes room for a state of a machine of that shape. The caller must Commit
// or Discard it.
func (s *States) Begin(name string, shape *Shape) (*Saving, error) {
	dir, err := os.MkdirTemp(s.dir, stateNew)
	if err != nil {
		return nil, err
	}
	g := &Saving{s: s, dir: dir, state: State{Version: shapeVersion, Key: shape.Key(), Name: name, Shape: shape}}
	if g.file, err = os.OpenFile(filepath.Join(dir, stateMemory), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return g, nil
}

// File is where the state is to be written: see Save.
func (g *Saving) File() *os.File { return g.file }

// AddDisk adds a copy of a disk, as it is now: the machine stands still, and has
// written what it will have written when somebody goes on from the state.
func (g *Saving) AddDisk(name, path string) error {
	src, err := os.Open(path)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(DiskOf(g.file.Name(), name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = filecopy.Copy(context.Background(), dst, src, nil)
	return errors.Join(err, dst.Sync(), dst.Close())
}

// DiskOf is where the copy of a disk is that belongs to a state, by the state's file.
func DiskOf(file, name string) string { return filepath.Join(filepath.Dir(file), stateDisk+name) }

// Commit makes the state one that Find finds, and returns it. Where another one
// was quicker that one stays.
func (g *Saving) Commit() (*State, error) {
	defer os.RemoveAll(g.dir)
	err := g.file.Sync()
	info, statErr := g.file.Stat()
	if err = errors.Join(err, statErr, g.file.Close()); err != nil {
		return nil, err
	}
	g.state.Size, g.state.Made = caisson.Bytes(info.Size()), time.Now()
	data, err := json.Marshal(&g.state)
	if err != nil {
		return nil, err
	}
	if err := atomicfile.Write(filepath.Join(g.dir, stateMeta), data, 0o600); err != nil {
		return nil, err
	}
	place := filepath.Join(g.s.dir, g.state.Key)
	err = os.Rename(g.dir, place)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTEMPTY) {
		if st, readErr := g.s.read(g.state.Key); readErr == nil {
			return st, nil
		}
		// What is there is of no use to anybody.
		if err = g.s.Remove(g.state.Key); err == nil {
			err = os.Rename(g.dir, place)
		}
	}
	if err != nil {
		return nil, err
	}
	return g.s.read(g.state.Key)
}

// Discard removes what was written.
func (g *Saving) Discard() error { return errors.Join(g.file.Close(), os.RemoveAll(g.dir)) }
