package sql

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage/csv"
)

// A failure is the first error of a reader, kept where a driver that reads from
// it may wrap the error, or may return while it still reads.
type failure struct {
	mu  sync.Mutex
	err error
}

func (f *failure) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil && !errors.Is(err, io.EOF) {
		f.err = err
	}
}

func (f *failure) failed() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// A source keeps a slice's own errors apart from those of the database.
type source struct {
	failure
	src io.Reader
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.src.Read(p)
	if err != nil {
		s.fail(err)
	}
	return n, err
}

// blocks reads rows in the one form.
type blocks struct {
	failure
	rows  *csv.Reader
	block []byte // what is not read yet
}

// Read implements io.Reader.
func (b *blocks) Read(p []byte) (int, error) {
	if len(b.block) == 0 {
		block, _, err := b.rows.Block()
		if err != nil {
			b.fail(err)
			return 0, err
		}
		b.block = block
	}
	n := copy(p, b.block)
	b.block = b.block[n:]
	return n, nil
}

// A misfit is a row that the database refuses.
type misfit struct {
	line   int64 // of the rows that were read, from 1
	column string
	text   string
}

// Error implements error.
func (m *misfit) Error() string { return fmt.Sprintf("line %d: %s", m.line, m.text) }

// in tells where a misfit is, in the slice as the component knows it.
func (m *misfit) in(slice string, skip int64) error {
	where := fmt.Sprintf("line %d", skip+m.line)
	if m.column != "" {
		where += fmt.Sprintf(": column %q", m.column)
	}
	return &caisson.Error{Item: slice, Kind: caisson.ErrInvalid, Err: fmt.Errorf("%s: %s", where, m.text)}
}
