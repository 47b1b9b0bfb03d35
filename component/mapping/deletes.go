//go:build unix

package mapping

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/csv"
)

// maxValues is how many bytes of values a filter may take from a table: they are
// held in memory.
const maxValues = 16 << 20

// deletes returns which rows go before a load.
func (p *planner) deletes(m *merged, table *storage.Table, names *names) ([]storage.Delete, error) {
	var columns spelling // of the table; nil: there is none
	id := ""
	if table != nil {
		columns, id = spellingOf(table.Columns), table.ID
	}
	t := target{id, columns, names}
	if m.DeleteWhereColumn != "" {
		f, err := p.filter(component.WhereFilter{
			Column: m.DeleteWhereColumn, Operator: m.DeleteWhereOperator, Values: m.DeleteWhereValues,
		}, t)
		return []storage.Delete{{Where: []storage.Filter{f}}}, err
	}
	var out []storage.Delete
	for i := range m.DeleteWhere {
		d, err := p.delete(&m.DeleteWhere[i], t)
		if err != nil {
			return nil, fmt.Errorf("delete_where[%d]: %w", i, err)
		}
		out = append(out, d)
	}
	return out, nil
}

// A target is the table that rows are deleted from.
type target struct {
	id      string
	columns spelling // nil: it is not there
	names   *names
}

func (p *planner) delete(w *component.DeleteWhere, t target) (storage.Delete, error) {
	var d storage.Delete
	if w.ChangedSince == "" && w.ChangedUntil == "" && len(w.Filters) == 0 {
		return d, errors.New("it says nothing, and would remove every row")
	}
	for _, at := range [...]struct {
		text string
		to   *time.Time
	}{{w.ChangedSince, &d.ChangedSince}, {w.ChangedUntil, &d.ChangedUntil}} {
		if at.text == "" {
			continue
		}
		if !p.Storage.Features().ChangedSince {
			return d, unsupported("changed_since and changed_until: the storage does not know when rows were changed")
		}
		when, err := ParseTime(at.text, p.now)
		if err != nil {
			return d, err
		}
		*at.to = when
	}
	for _, w := range w.Filters {
		f, err := p.filter(w, t)
		if err != nil {
			return d, err
		}
		d.Where = append(d.Where, f)
	}
	return d, nil
}

func (p *planner) filter(w component.WhereFilter, t target) (storage.Filter, error) {
	f := storage.Filter{Column: t.names.one(w.Column), Values: w.Values, Not: w.Operator == "ne"}
	if t.columns != nil {
		as, ok := t.columns.of(f.Column)
		if !ok {
			return f, fmt.Errorf("rows are to be deleted by a column %q, which %s does not have", w.Column, t.id)
		}
		f.Column = as
	}
	switch {
	case w.FromWorkspace != nil:
		return f, unsupported("values_from_workspace: there are no workspaces")
	case w.FromStorage != nil:
		var err error
		f.Values, err = p.values(w.FromStorage, w.Column)
		return f, err
	}
	return f, nil
}

// values reads the values of a stored table's column, each once.
func (p *planner) values(v *component.StorageValues, column string) ([]string, error) {
	id := v.BucketID + "." + v.Table
	column = either(v.Column, column)
	e, err := p.Storage.Export(p.ctx, id, &storage.Query{Columns: []string{column}})
	if err != nil {
		return nil, fmt.Errorf("values_from_storage %s: %w", id, ofStorage(err))
	}
	defer e.Close()

	// The reader takes what the storage writes, until one of them has enough.
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := e.WriteTo(pw)
		pw.CloseWithError(err)
		done <- err
	}()
	out, err := distinct(csv.NewReader(pr, csv.Options{Name: id, Width: 1}))
	pr.CloseWithError(io.ErrClosedPipe)
	if wrote := <-done; wrote != nil && err == nil {
		err = wrote
	}
	if err != nil {
		return nil, fmt.Errorf("values_from_storage %s: %w", id, ofStorage(err))
	}
	return out, nil
}

// distinct returns the values of the rows after the header.
func distinct(r *csv.Reader) ([]string, error) {
	out, seen, size, header := []string{}, map[string]bool{}, 0, true
	for {
		row, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, err
		case header:
			header = false
			continue
		}
		value := csv.Values(row)[0]
		if seen[value] {
			continue
		}
		if size += len(value) + 64; size > maxValues {
			return nil, &caisson.Error{Kind: caisson.ErrInvalid, Err: fmt.Errorf("its values are more than %s", caisson.Bytes(maxValues))}
		}
		seen[value] = true
		out = append(out, value)
	}
}
