// Package tasklog is the format of the log of one step: records of output
// bytes, each with its stream, time and offset. Bytes are kept as they were
// written; which stream they came from is out of band, so that no task can
// forge it.
package tasklog

import (
	"context"
	"time"

	"github.com/caissonrun/caisson"
)

// A Stream is where bytes came from.
type Stream uint8

// The streams.
const (
	Stdout Stream = 1
	Stderr Stream = 2
	System Stream = 3 // what Caisson says, such as that the limit was reached
)

// A Record is some bytes of one stream.
type Record struct {
	Stream Stream
	Time   time.Time
	Offset int64 // of Data's first byte in its stream
	Data   []byte
	Pos    int64 // where the next record begins in the file; to follow from
}

// A Writer appends records to a log file. One process writes a log at a time.
type Writer struct{}

// Create opens the log for appending and makes it if need be, mode 0600. A
// torn last record of a writer that was killed is cut off. After limit bytes
// of output (0: no limit) the rest is dropped and a System record says so once.
func Create(path string, limit caisson.Bytes) (*Writer, error) { panic("todo") }

// Write appends one record, or several if data is large.
func (w *Writer) Write(stream Stream, now time.Time, data []byte) error { panic("todo") }

// Sync makes what was written durable.
func (w *Writer) Sync() error { panic("todo") }

// Close closes the file.
func (w *Writer) Close() error { panic("todo") }

// A Reader reads records.
type Reader struct{}

// Open opens a log at pos, 0 or a Record.Pos.
func Open(path string, pos int64) (*Reader, error) { panic("todo") }

// Next returns the next record, or io.EOF where there is none yet: it may be
// called again later.
func (r *Reader) Next() (Record, error) { panic("todo") }

// Close closes the file.
func (r *Reader) Close() error { panic("todo") }

// Follow calls f for every record from pos on, those that are written later
// too, until ended reports true and everything has been read, or ctx ends, or
// f returns an error.
func Follow(ctx context.Context, path string, pos int64, ended func() bool, f func(Record) error) error {
	panic("todo")
}
