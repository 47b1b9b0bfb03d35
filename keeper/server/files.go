//go:build unix

package server

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/keeper/internal/wire"
)

// How often and with what pauses the exit is written where the disk fails.
const (
	exitTries = 5
	exitPause = 200 * time.Millisecond
)

// spareSize is more than an exit takes.
const spareSize = 4096

// files are what a keeper leaves in Spec.Dir.
type files struct {
	dir   string
	spare *os.File // room on the disk for the exit
}

// newFiles reserves the room.
func newFiles(dir string) (*files, error) {
	spare, err := os.OpenFile(filepath.Join(dir, wire.SpareFile), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := reserve(spare, spareSize); err != nil {
		return nil, errors.Join(err, spare.Close(), os.Remove(spare.Name()))
	}
	return &files{dir: dir, spare: spare}, nil
}

// remove takes away everything but the exit.
func (f *files) remove() error {
	f.spare.Close()
	return errors.Join(removeFile(filepath.Join(f.dir, wire.RecordFile)), removeFile(f.spare.Name()))
}

func removeFile(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// writeRecord writes keeper.json. It appears whole, but is not flushed to the
// disk: after a power cut there is no keeper that it could tell of.
func (f *files) writeRecord(spec *wire.Spec) error {
	record, err := wire.Self()
	if err != nil {
		return err
	}
	record.ID, record.Socket = spec.ID, spec.Socket
	data, err := json.Marshal(record)
	if err != nil {
		return err
	}
	path := filepath.Join(f.dir, wire.RecordFile)
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return errors.Join(err, removeFile(path+".new"))
	}
	return os.Rename(path+".new", path)
}

// writeExit makes the exit durable, whole or not at all, in the room that was
// reserved for it.
func (f *files) writeExit(exit *caisson.Exit) error {
	data, err := json.Marshal(exit)
	if err != nil {
		return err
	}
	pause := exitPause
	for range exitTries {
		if err = f.tryExit(data); err == nil {
			return nil
		}
		time.Sleep(pause)
		pause *= 2
	}
	return err
}

func (f *files) tryExit(data []byte) error {
	if _, err := f.spare.WriteAt(data, 0); err != nil {
		return err
	}
	if err := f.spare.Truncate(int64(len(data))); err != nil {
		return err
	}
	if err := f.spare.Sync(); err != nil {
		return err
	}
	err := os.Rename(f.spare.Name(), filepath.Join(f.dir, wire.ExitFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	// Not there any more: an earlier try came as far as this.
	return atomicfile.SyncDir(f.dir)
}
