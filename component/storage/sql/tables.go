package sql

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/csv"
)

// Table implements storage.Storage.
func (s *Storage) Table(ctx context.Context, id string) (*storage.Table, error) {
	parsed, err := s.there(id)
	if err != nil {
		return nil, err
	}
	var t *storage.Table
	err = s.view(ctx, id, func(c *session) error {
		r, e, err := c.known(ctx, parsed)
		if err == nil {
			t = r.describe(e)
		}
		return err
	})
	return t, err
}

// there reads the id of a table that may be there. A name that is too long would
// be cut, and find another table.
func (s *Storage) there(id string) (tableID, error) {
	parsed, err := parseID(id)
	if err == nil && s.checkTable(parsed) != nil {
		return parsed, notFound(parsed)
	}
	return parsed, err
}

// Tables implements storage.Storage. Tables that Caisson did not make are among
// them.
func (s *Storage) Tables(ctx context.Context) ([]storage.Table, error) {
	var tables []storage.Table
	err := s.view(ctx, "", func(c *session) error {
		list, err := s.d.relations(ctx, c, tableID{})
		if err != nil {
			return err
		}
		entries, err := c.entries(ctx)
		if err != nil {
			return err
		}
		for i := range list {
			// An operator's schema may have names that no component can use.
			if _, err := storage.ParseID(list[i].id.String()); err != nil {
				continue
			}
			e := entries[list[i].id.String()]
			if !list[i].timed {
				e = nil
			}
			tables = append(tables, *list[i].describe(e))
		}
		return nil
	})
	slices.SortFunc(tables, func(a, b storage.Table) int { return strings.Compare(a.ID, b.ID) })
	return tables, err
}

func (c *session) entries(ctx context.Context) (map[string]*entry, error) {
	entries := make(map[string]*entry)
	if c.bare {
		return entries, nil
	}
	err := c.each(ctx, func(scan func(...any) error) error {
		var id, text string
		if err := scan(&id, &text); err != nil {
			return err
		}
		e, err := decode[entry](text)
		entries[id] = e
		return err
	}, "SELECT id, entry FROM "+c.s.d.catalog("tables"))
	return entries, err
}

// Export implements storage.Storage. An Export holds a connection, and in
// PostgreSQL keeps the table from being altered, until it is written or closed.
func (s *Storage) Export(ctx context.Context, id string, q *storage.Query) (*storage.Export, error) {
	parsed, err := s.there(id)
	if err != nil {
		return nil, err
	}
	if q == nil {
		q = &storage.Query{}
	}
	c, err := s.start(ctx, id, s.d.beginView())
	if err != nil {
		return nil, err
	}
	e := &export{c: c, ctx: ctx, id: id}
	if err := e.choose(parsed, q); err != nil {
		return nil, c.finish(ctx, id, err)
	}
	return &storage.Export{Columns: e.columns, WriteTo: e.writeTo, Close: e.close}, nil
}

// An export is a transaction that still sees the table as it was.
type export struct {
	c       *session
	ctx     context.Context // that of the call, which bounds the Export
	id      string
	columns []string
	query   string

	mu   sync.Mutex
	over bool
}

// choose keeps the table as it is and makes the query.
func (e *export) choose(id tableID, q *storage.Query) error {
	if err := e.c.s.d.hold(e.ctx, e.c, id); err != nil {
		return err
	}
	if err := e.c.s.look(e.ctx, e.c); err != nil {
		return err
	}
	r, known, err := e.c.known(e.ctx, id)
	if err == nil {
		e.columns, e.query, err = e.c.s.selection(r, known != nil, q)
	}
	return err
}

// end reports whether it is the caller who ends the transaction.
func (e *export) end() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	first := !e.over
	e.over = true
	return first
}

func (e *export) close() error {
	if e.end() {
		_ = e.c.finish(e.ctx, e.id, errClosed)
	}
	return nil
}

// errClosed says that nobody wants to read an export any more.
var errClosed = errors.New("the export is closed")

func (e *export) writeTo(w io.Writer) (int64, error) {
	if !e.end() {
		return 0, fmt.Errorf("%s: %w", e.id, errClosed)
	}
	out := &sink{w: w}
	_, err := out.Write(csv.Line(e.columns))
	if err == nil {
		err = e.c.s.d.out(e.ctx, e.c, e.query, out)
	}
	err = e.c.finish(e.ctx, e.id, err)
	if out.err != nil {
		err = out.err
	}
	return out.n, err
}

// selection makes the statement that a query stands for.
func (s *Storage) selection(r *relation, ours bool, q *storage.Query) (columns []string, query string, err error) {
	chosen, err := r.choose(q.Columns)
	if err != nil {
		return nil, "", err
	}
	values := make([]string, len(chosen))
	for i, c := range chosen {
		columns = append(columns, c.name)
		values[i] = s.d.value(c)
	}
	filters := []storage.Filter{}
	if q.WhereColumn != "" {
		filters = append(filters, storage.Filter{Column: q.WhereColumn, Values: q.WhereValues, Not: q.WhereNot})
	}
	if !ours && !(q.ChangedSince.IsZero() && q.ChangedUntil.IsZero()) {
		return nil, "", &caisson.Error{Item: r.id.String(), Kind: caisson.ErrUnsupported, Err: fmt.Errorf(
			"the table was not made by Caisson: nobody knows when its rows were changed, so changed_since can't be used",
		)}
	}
	where, err := s.where(r, &storage.Delete{ChangedSince: q.ChangedSince, ChangedUntil: q.ChangedUntil, Where: filters})
	if err != nil {
		return nil, "", err
	}
	query = "SELECT " + strings.Join(values, ", ") + " FROM " + s.d.relation(r.id) + where
	if q.Limit > 0 {
		query += " LIMIT " + strconv.FormatInt(q.Limit, 10)
	}
	return columns, query, nil
}

// choose returns columns of a relation by their names; nil: all.
func (r *relation) choose(names []string) ([]column, error) {
	if names == nil {
		return r.columns, nil
	}
	chosen := make([]column, len(names))
	for i, name := range names {
		c, err := r.column(name)
		if err != nil {
			return nil, err
		}
		if slices.Contains(chosen[:i], c) {
			return nil, invalid(r.id.String(), "column %q is asked for twice", name)
		}
		chosen[i] = c
	}
	return chosen, nil
}

func (r *relation) column(name string) (column, error) {
	own, ok := find(r.names(), name)
	if !ok {
		return column{}, invalid(r.id.String(), "there is no column %q; the table has %s", name, list(r.names()))
	}
	return r.columns[slices.IndexFunc(r.columns, func(c column) bool { return c.name == own })], nil
}

// list returns names for people, a few of them.
func list(names []string) string {
	const most = 20
	quoted := make([]string, 0, most+1)
	for i, n := range names {
		if i == most {
			quoted = append(quoted, fmt.Sprintf("and %d more", len(names)-most))
			break
		}
		quoted = append(quoted, strconv.Quote(n))
	}
	return strings.Join(quoted, ", ")
}

// where makes the condition that all parts of d stand for.
func (s *Storage) where(r *relation, d *storage.Delete) (string, error) {
	var parts []string
	if !d.ChangedSince.IsZero() {
		parts = append(parts, quote(hidden)+" > "+s.d.time(d.ChangedSince.UnixMicro()))
	}
	if !d.ChangedUntil.IsZero() {
		parts = append(parts, quote(hidden)+" <= "+s.d.time(d.ChangedUntil.UnixMicro()))
	}
	for _, f := range d.Where {
		part, err := s.filter(r, f)
		if err != nil {
			return "", err
		}
		parts = append(parts, part)
	}
	if len(parts) == 0 {
		return "", nil
	}
	return " WHERE " + strings.Join(parts, " AND "), nil
}

func (s *Storage) filter(r *relation, f storage.Filter) (string, error) {
	c, err := r.column(f.Column)
	if err != nil {
		return "", err
	}
	for _, v := range f.Values {
		if err := checkText(r.id.String(), v); err != nil {
			return "", err
		}
	}
	part := s.d.value(c) + " " + s.d.any(f.Values)
	if f.Not {
		part = "NOT (" + part + ")"
	}
	return part, nil
}

// A sink keeps the error of its writer apart from those of the database.
type sink struct {
	w   io.Writer
	n   int64
	err error
}

// Write implements io.Writer.
func (s *sink) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.n += int64(n)
	if err != nil {
		s.err = err
	}
	return n, err
}
