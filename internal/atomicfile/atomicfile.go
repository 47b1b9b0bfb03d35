// Package atomicfile writes files that appear completely or not at all, and
// that are durable when the call returns: a temporary file in the same folder,
// fsync, rename, fsync of the folder.
//
// A crash can leave a temporary file behind; IsTemp tells such names, so that
// whoever owns the folder removes them. The folder is trusted: paths that a
// task could have made are written through package safefs.
package atomicfile

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/caissonrun/caisson/internal/crash"
)

// The form of a temporary file's name: hidden, so that no glob of a user
// matches it, and told by both ends.
const (
	tempPrefix = ".caisson-"
	tempSuffix = ".tmp"
)

// Write makes path hold data with permission bits perm, whatever the umask is.
// When it returns nil the file survives a power cut; when it fails the former
// file is untouched.
func Write(path string, data []byte, perm os.FileMode) error {
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer root.Close()
	return WriteIn(root, filepath.Base(path), data, perm)
}

// WriteIn is Write for a file directly in dir.
func WriteIn(dir *os.Root, name string, data []byte, perm os.FileMode) error {
	f, err := CreateIn(dir, name, perm)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Commit()
}

// A File is being written and appears at its name only with Commit.
type File struct {
	*os.File
	dir        *os.Root
	temp, name string
	done       bool
}

// CreateIn begins a file that will appear as name, directly in dir. The caller
// must call Close, which takes back what was not committed. dir must stay open
// until then.
func CreateIn(dir *os.Root, name string, perm os.FileMode) (*File, error) {
	if name != filepath.Base(name) || name == "." || name == ".." {
		return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrInvalid}
	}
	temp := TempName()
	f, err := dir.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	file := &File{File: f, dir: dir, temp: temp, name: name}
	if err := f.Chmod(perm); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// Commit makes the file durable under its name, in place of what was there.
func (f *File) Commit() error {
	if f.done {
		return fmt.Errorf("commit %s: %w", f.name, fs.ErrClosed)
	}
	crash.Point(crash.AtomicBefore)
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.dir.Rename(f.temp, f.name); err != nil {
		return err
	}
	crash.Point(crash.AtomicAfter)
	f.done = true
	if err := f.File.Close(); err != nil {
		return err
	}
	return syncRoot(f.dir)
}

// Close closes the file and, unless it was committed, removes it. It can be
// called again and after Commit.
func (f *File) Close() error {
	if f.done {
		return nil
	}
	f.done = true
	return errors.Join(f.File.Close(), f.dir.Remove(f.temp))
}

// SyncDir makes the names in the folder durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func syncRoot(dir *os.Root) error {
	d, err := dir.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// TempName returns a new name for a temporary file.
func TempName() string { return tempPrefix + rand.Text() + tempSuffix }

// TempNameOf returns the name for a temporary file that always has the same
// one: for the same seed.
func TempNameOf(seed string) string {
	sum := sha256.Sum256([]byte(seed))
	return tempPrefix + base32.StdEncoding.EncodeToString(sum[:])[:26] + tempSuffix
}

// IsTemp reports whether name (without folders) could be from TempName or
// TempNameOf.
func IsTemp(name string) bool {
	return strings.HasPrefix(name, tempPrefix) && strings.HasSuffix(name, tempSuffix) &&
		len(name) == len(tempPrefix)+26+len(tempSuffix)
}
