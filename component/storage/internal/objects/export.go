package objects

import (
	"bufio"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/csv"
)

// Export implements storage.Storage.
func (s *Storage) Export(ctx context.Context, id string, q *storage.Query) (*storage.Export, error) {
	parsed, err := storage.ParseID(id)
	if err != nil {
		return nil, err
	}
	if q == nil {
		q = &storage.Query{}
	}
	for try := 1; ; try++ {
		t, err := s.find(ctx, parsed)
		if err != nil {
			return nil, err
		}
		e, err := s.export(ctx, t, q)
		// A load can have removed the version that was found.
		if errors.Is(err, caisson.ErrNotFound) && try < tries {
			continue
		}
		return e, err
	}
}

func (s *Storage) export(ctx context.Context, t *table, q *storage.Query) (*storage.Export, error) {
	x := &exporter{limit: q.Limit}
	columns := t.record.Columns
	if len(q.Columns) > 0 {
		columns = q.Columns
	}
	if err := x.project(t, columns); err != nil {
		return nil, err
	}
	if err := x.filter(t, q); err != nil {
		return nil, err
	}
	e := &storage.Export{Columns: x.columns}
	local, ok := s.store.(Local)
	if ok && !t.theirs && x.whole() {
		path, release, err := local.Hold(folder(t.id) + "/" + t.record.Data)
		if err != nil {
			return nil, err
		}
		e.File, e.Close = path, release
		e.WriteTo = func(w io.Writer) (int64, error) { return s.copyRows(ctx, t, w) }
		return e, nil
	}
	r, err := s.openRows(ctx, t)
	if err != nil {
		return nil, err
	}
	e.Close = sync.OnceValue(r.Close)
	e.WriteTo = func(w io.Writer) (int64, error) { return x.write(ctx, r, w) }
	return e, nil
}

// copyRows writes a whole table.
func (s *Storage) copyRows(ctx context.Context, t *table, w io.Writer) (int64, error) {
	data, _, err := s.openData(ctx, t)
	if err != nil {
		return 0, err
	}
	defer data.Close()
	return io.Copy(w, data)
}

// An exporter selects rows and columns.
type exporter struct {
	columns []string
	at      []int // of columns in a row; nil: all in order
	filters []func(fields [][]byte, stamp int64) bool
	limit   int64
}

func (x *exporter) project(t *table, columns []string) error {
	var at []int
	for _, c := range columns {
		i := index(t.record.Columns, c)
		if i < 0 {
			return invalid(t.id, "it has no column %q; it has %s", c, quoted(t.record.Columns))
		}
		if slices.Contains(at, i) {
			return invalid(t.id, "column %q is asked for twice", c)
		}
		at = append(at, i)
		x.columns = append(x.columns, t.record.Columns[i])
	}
	if !slices.Equal(x.columns, t.record.Columns) {
		x.at = at
	}
	return nil
}

func (x *exporter) filter(t *table, q *storage.Query) error {
	until := q.ChangedUntil
	if !t.record.LastImport.After(until) {
		until = time.Time{} // that is all rows, and the table's file may do
	}
	if !q.ChangedSince.IsZero() || !until.IsZero() {
		x.filters = append(x.filters, between(q.ChangedSince, until))
	}
	if q.WhereColumn == "" {
		return nil
	}
	i := index(t.record.Columns, q.WhereColumn)
	if i < 0 {
		return invalid(t.id, "it has no column %q to select rows by; it has %s", q.WhereColumn, quoted(t.record.Columns))
	}
	x.filters = append(x.filters, filter(i, q.WhereValues, q.WhereNot))
	return nil
}

// whole reports whether the answer is the table.
func (x *exporter) whole() bool { return x.at == nil && len(x.filters) == 0 && x.limit <= 0 }

var errEnough = errors.New("enough rows")

// write writes the header and the rows that are selected.
func (x *exporter) write(ctx context.Context, r *rowReader, w io.Writer) (int64, error) {
	counted := &counter{w: w}
	out := bufio.NewWriterSize(counted, outputBuffer)
	if _, err := out.Write(csv.Line(x.columns)); err != nil {
		return counted.n, err
	}
	var fields [][]byte
	var line []byte
	var rows int64
	err := r.each(ctx, func(row []byte, stamp int64) error {
		if x.at != nil || len(x.filters) > 0 {
			fields = csv.Fields(row, fields[:0])
		}
		if slices.ContainsFunc(x.filters, func(f func([][]byte, int64) bool) bool { return !f(fields, stamp) }) {
			return nil
		}
		if x.at != nil {
			line = order(line[:0], fields, x.at)
			row = line
		}
		if _, err := out.Write(row); err != nil {
			return err
		}
		if rows++; rows == x.limit {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return counted.n, err
	}
	err = out.Flush()
	return counted.n, err
}

// A counter counts what passes.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
