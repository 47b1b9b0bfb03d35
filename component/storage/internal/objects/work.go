//go:build unix

package objects

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/lockfile"
)

// A Work is a folder in which this process keeps what it is writing. It is made
// when it is needed. A crash leaves it, and the next process that makes one
// beside it removes it, because nobody has it locked.
type Work struct {
	// Parent is the folder of such folders, which Make makes.
	Parent string
	Make   func() error
	// Temporary says that Parent goes with the last folder in it.
	Temporary bool

	mu   sync.Mutex
	dir  string // empty: none yet
	lock *lockfile.Lock
}

// Dir returns the folder.
func (w *Work) Dir() (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dir != "" {
		return w.dir, nil
	}
	for try := 1; ; try++ {
		dir, err := w.begin()
		// Another process may have removed Parent, which was empty.
		if !w.Temporary || !errors.Is(err, fs.ErrNotExist) || try == tries {
			return dir, err
		}
	}
}

func (w *Work) begin() (string, error) {
	if err := w.Make(); err != nil {
		return "", err
	}
	if err := w.clear(); err != nil {
		return "", err
	}
	dir := filepath.Join(w.Parent, rand.Text())
	// The lock is there first: a folder without one is nobody's.
	lock, err := lockfile.Try(dir + ".lock")
	if err != nil {
		return "", err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", errors.Join(err, lock.Release())
	}
	w.dir, w.lock = dir, lock
	return dir, nil
}

// clear removes the folders of processes that are gone.
func (w *Work) clear() error {
	entries, err := os.ReadDir(w.Parent)
	if err != nil {
		return err
	}
	for _, e := range entries {
		base, ok := strings.CutSuffix(e.Name(), ".lock")
		if !ok {
			continue
		}
		path := filepath.Join(w.Parent, base)
		lock, err := lockfile.Try(path + ".lock")
		if errors.Is(err, caisson.ErrExists) {
			continue
		}
		if err == nil {
			err = errors.Join(os.RemoveAll(path), os.Remove(path+".lock"), lock.Release())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Close removes the folder.
func (w *Work) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dir == "" {
		return nil
	}
	err := errors.Join(os.RemoveAll(w.dir), os.Remove(w.dir+".lock"), w.lock.Release())
	if w.Temporary {
		_ = os.Remove(w.Parent) // it is not empty, if others use it
	}
	w.dir, w.lock = "", nil
	return err
}
