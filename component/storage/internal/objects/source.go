package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/csv"
)

// A row is a line in the one form and when it was changed. The line is valid
// until the next one.
type rowFunc func(line []byte, stamp int64) error

// A source is rows that can be gone through, again and again.
type source func(ctx context.Context, fn rowFunc) error

// looked is how many rows pass between two looks at the context.
const looked = 4096

// rows is a source of a table's rows.
func (s *Storage) rows(t *table) source {
	return func(ctx context.Context, fn rowFunc) error {
		r, err := s.openRows(ctx, t)
		if err != nil {
			return err
		}
		defer r.Close()
		return r.each(ctx, fn)
	}
}

// rowReader reads the rows of a table with their times.
type rowReader struct {
	data   io.ReadCloser
	csv    *csv.Reader
	stamps *stampReader
	times  io.Closer // nil: all the same
}

// openRows opens a table's rows, behind the header. They stay what they are
// until Close.
func (s *Storage) openRows(ctx context.Context, t *table) (*rowReader, error) {
	data, name, err := s.openData(ctx, t)
	if err != nil {
		return nil, err
	}
	r := &rowReader{data: data, stamps: &stampReader{stamp: t.record.Changed.UnixMicro()}}
	r.csv = csv.NewReader(data, csv.Options{Name: name, Width: len(t.record.Columns), CellLimit: s.o.CellLimit})
	if t.record.Stamps != "" {
		times, err := s.store.Open(ctx, folder(t.id)+"/"+t.record.Stamps)
		if err != nil {
			return nil, errors.Join(err, data.Close())
		}
		r.times = times
		if r.stamps, err = newStampReader(times); err != nil {
			return nil, errors.Join(err, r.Close())
		}
	}
	if err := r.header(t); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (s *Storage) openData(ctx context.Context, t *table) (io.ReadCloser, string, error) {
	if t.theirs {
		shelf := s.store.(Shelf)
		r, err := shelf.OpenShown(t.id)
		return r, shelf.ShownName(t.id), err
	}
	key := folder(t.id) + "/" + t.record.Data
	r, err := s.store.Open(ctx, key)
	return r, key, err
}

// header reads the header line. If people changed the file since it was looked
// at, it is another one now.
func (r *rowReader) header(t *table) error {
	line, err := r.csv.Next()
	if err == nil && !bytes.Equal(line, csv.Line(t.record.Columns)) {
		err = invalid(t.id, "its header changed while it was read: try again")
	}
	return noEOF(err)
}

func (r *rowReader) Close() error {
	err := r.data.Close()
	if r.times != nil {
		err = errors.Join(err, r.times.Close())
	}
	return err
}

func (r *rowReader) each(ctx context.Context, fn rowFunc) error {
	for n := 0; ; n++ {
		if n%looked == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		line, err := r.csv.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		stamp, err := r.stamps.next()
		if err != nil {
			return fmt.Errorf("the times of its rows: %w", err)
		}
		if err := fn(line, stamp); err != nil {
			return err
		}
	}
}

// blocks goes through the rows of a load's slices, many at a time, as they are
// in the slices.
func blocks(ctx context.Context, l *storage.Load, limit int64, fn func(rows []byte, n int64) error) error {
	for i := range l.Slices {
		if err := sliceBlocks(ctx, l, &l.Slices[i], limit, fn); err != nil {
			return err
		}
	}
	return nil
}

func sliceBlocks(ctx context.Context, l *storage.Load, slice *storage.Slice, limit int64, fn func(rows []byte, n int64) error) error {
	in, err := slice.Open()
	if err != nil {
		return fmt.Errorf("%s: %w", slice.Name, err)
	}
	defer in.Close()
	r := csv.NewReader(in, csv.Options{
		Name: slice.Name, Skip: slice.Skip, Width: len(l.Columns),
		Delimiter: l.Delimiter, Enclosure: l.Enclosure, CellLimit: limit,
	})
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		block, n, err := r.Block()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := fn(block, n); err != nil {
			return err
		}
	}
}
