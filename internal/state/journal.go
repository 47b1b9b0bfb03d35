//go:build unix

package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/caissonrun/caisson"
)

// A Journal appends events to a task's journal. Whoever holds the task's lock
// is the only one to have it open.
type Journal struct {
	f    *os.File
	seq  int64
	good int64 // where the last complete line ends
	torn bool  // something may stand behind it, because a write failed
}

// OpenJournal opens the journal at path, makes it if it does not exist, and
// returns what it holds. What a writer that was killed left of a last line is
// cut off.
func OpenJournal(path string) (*Journal, []caisson.Event, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, classify(path, err)
	}
	events, good, err := parse(f, path)
	if err == nil {
		err = cut(f, good)
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	j := &Journal{f: f, good: good}
	if n := len(events); n > 0 {
		j.seq = events[n-1].Seq
	}
	return j, events, nil
}

// Append numbers the event and appends it. With durable it and all before it
// survive a power cut when Append returns nil; without, only a crash of the
// process.
//
// Errors: ErrExhausted if the disk is full: the event is not there then.
func (j *Journal) Append(ev *caisson.Event, durable bool) error {
	if j.torn {
		if err := cut(j.f, j.good); err != nil {
			return classify(j.f.Name(), err)
		}
		j.torn = false
	}
	ev.Seq = j.seq + 1
	line, err := json.Marshal(ev)
	if err != nil {
		return stateError(j.f.Name(), caisson.ErrInternal, err)
	}
	line = append(line, '\n')
	if _, err := j.f.Write(line); err != nil {
		j.torn = true
		return classify(j.f.Name(), err)
	}
	j.good += int64(len(line))
	j.seq++
	if durable {
		if err := j.f.Sync(); err != nil {
			return classify(j.f.Name(), err)
		}
	}
	return nil
}

// Close closes the file.
func (j *Journal) Close() error { return j.f.Close() }

// ReadJournal returns the events of the journal at path from the byte pos on,
// and the position to go on from. A last line that is still being written is
// left for the next call. Errors: ErrNotFound.
func ReadJournal(path string, pos int64) ([]caisson.Event, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, pos, classify(path, err)
	}
	defer f.Close()
	if _, err := f.Seek(pos, io.SeekStart); err != nil {
		return nil, pos, classify(path, err)
	}
	events, n, err := parse(f, path)
	return events, pos + n, err
}

// parse reads events up to the last complete line and returns where that ends.
func parse(r io.Reader, path string) (events []caisson.Event, good int64, err error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, 0, classify(path, err)
	}
	for {
		line, rest, complete := bytes.Cut(data, []byte{'\n'})
		if !complete {
			return events, good, nil
		}
		var ev caisson.Event
		if err := json.Unmarshal(line, &ev); err != nil {
			// A power cut can leave a complete line of zeros, at the end only.
			if len(bytes.Trim(line, "\x00")) == 0 || len(rest) == 0 {
				return events, good, nil
			}
			return nil, 0, stateError(path, caisson.ErrInvalid, fmt.Errorf("event %d: %w", len(events)+1, err))
		}
		events = append(events, ev)
		good += int64(len(line)) + 1
		data = rest
	}
}

func cut(f *os.File, size int64) error {
	info, err := f.Stat()
	if err != nil || info.Size() == size {
		return err
	}
	return f.Truncate(size)
}

// Exists reports whether there is something at path.
func Exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
