package sql

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/csv"
)

// Load implements storage.Storage. A bucket that it makes stays, empty, if the
// load fails.
func (s *Storage) Load(ctx context.Context, l *storage.Load) (*storage.Loaded, error) {
	id, err := parseID(l.Table)
	if err != nil {
		return nil, err
	}
	if err := s.check(id, l); err != nil {
		return nil, err
	}
	if err := s.change(ctx, id.String(), "bucket "+id.bucket, func(c *session) error { return c.bucket(ctx, id.bucket, l) }); err != nil {
		return nil, err
	}
	s.at("bucket")
	job := &load{s: s, l: l, id: id}
	err = s.change(ctx, id.String(), "table "+id.String(), func(c *session) error {
		job.c = c
		return job.run(ctx)
	})
	if err != nil {
		return nil, err
	}
	return job.done, nil
}

// check refuses what no table can have, before anything is done.
func (s *Storage) check(id tableID, l *storage.Load) error {
	item := id.String()
	if err := s.checkTable(id); err != nil {
		return err
	}
	if len(l.Columns) == 0 {
		return invalid(item, "a table needs a column")
	}
	if err := s.checkColumns(item, l.Columns); err != nil {
		return err
	}
	if err := s.checkColumns(item, l.AddColumns); err != nil {
		return err
	}
	if err := checkText(item, l.ID); err != nil {
		return err
	}
	for _, notes := range slices.Concat(slices.Collect(maps.Values(l.ColumnMetadata)), [][]storage.Metadata{l.Metadata, l.BucketMetadata}) {
		for _, m := range notes {
			if m.Value != nil && !json.Valid(m.Value) {
				return invalid(item, "the value of the metadata %q is not JSON", m.Key)
			}
		}
	}
	if err := csv.Check(l.Delimiter, l.Enclosure); err != nil {
		return fmt.Errorf("%s: %w", item, err)
	}
	return nil
}

// bucket makes the bucket of a load. It is a transaction of its own, so that
// loads into a new bucket do not wait for each other.
func (c *session) bucket(ctx context.Context, bucket string, l *storage.Load) error {
	if err := c.s.d.makeBucket(ctx, c, bucket); err != nil {
		return err
	}
	_, err := c.exec(ctx, "INSERT INTO "+c.s.d.catalog("buckets")+" (name, metadata) VALUES (?, ?) ON CONFLICT DO NOTHING",
		bucket, encode(l.BucketMetadata))
	return err
}

// A load is one on its way.
type load struct {
	s  *Storage
	c  *session
	l  *storage.Load
	id tableID

	table   *relation // as it is with the columns of the load
	entry   *entry
	made    bool     // by this load
	dropped bool     // its key, to get another one
	now     int64    // when its rows are loaded
	columns []string // of the slices, as the table calls them
	nulls   []string // those of them whose empty value is null
	rows    int64
	done    *storage.Loaded
}

// run is the transaction, under the table's lock.
func (j *load) run(ctx context.Context) error {
	j.done = &storage.Loaded{}
	if again, err := j.again(ctx); again || err != nil {
		return err
	}
	if err := j.prepare(ctx); err != nil {
		return err
	}
	j.s.at("prepared")
	if err := j.delete(ctx); err != nil {
		return err
	}
	j.s.at("deleted")
	if err := j.fill(ctx); err != nil {
		return err
	}
	j.s.at("filled")
	return j.note(ctx)
}

// again looks for what the same load did before.
func (j *load) again(ctx context.Context) (bool, error) {
	if j.l.ID == "" {
		return false, nil
	}
	var table, outcome string
	err := j.c.one(ctx, "SELECT table_id, outcome FROM "+j.s.d.catalog("loads")+" WHERE id = ?", []any{j.l.ID}, &table, &outcome)
	if errors.Is(err, errNone) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if table != j.id.String() {
		return false, invalid(j.id.String(), "the load %q is one of %s", j.l.ID, table)
	}
	j.done, err = decode[storage.Loaded](outcome)
	if err == nil {
		j.done.Again = true
	}
	return true, err
}

// delete removes the rows that go before.
func (j *load) delete(ctx context.Context) error {
	if j.made {
		return nil
	}
	for i := range j.l.Delete {
		where, err := j.s.where(j.table, &j.l.Delete[i])
		if err != nil {
			return err
		}
		n, err := j.c.exec(ctx, "DELETE FROM "+j.s.d.relation(j.id)+where)
		if err != nil {
			return err
		}
		j.entry.Rows -= n
	}
	return nil
}

// fill puts the rows where they belong.
func (j *load) fill(ctx context.Context) error {
	direct := j.made
	if !j.made && !j.l.Incremental {
		var err error
		if direct, err = j.s.d.clear(ctx, j.c, j.id); err != nil {
			return err
		}
		j.entry.Rows = 0
		// A new key is not there yet, and the merge needs it.
		if !direct {
			if err := j.rekey(ctx); err != nil {
				return err
			}
		}
	}
	if direct {
		return j.replace(ctx)
	}
	return j.merge(ctx)
}

// rekey gives an empty table the key that it is to have.
func (j *load) rekey(ctx context.Context) error {
	if !j.dropped || len(j.entry.PrimaryKey) == 0 {
		return nil
	}
	_, err := j.c.exec(ctx, j.s.d.addKey(j.id, j.entry.PrimaryKey))
	return err
}

// replace puts rows into an empty table. Its key comes afterwards: an index is
// built faster than it grows.
func (j *load) replace(ctx context.Context) error {
	if !j.made {
		if err := j.s.d.dropKey(ctx, j.c, j.id); err != nil {
			return err
		}
	}
	if err := j.stamp(ctx, j.now); err != nil {
		return err
	}
	t := &target{relation: j.s.d.relation(j.id), columns: j.columns, nulls: j.nulls, micros: j.now}
	if err := j.slices(ctx, t); err != nil {
		return err
	}
	if err := j.stamp(ctx, 0); err != nil {
		return err
	}
	j.entry.Rows = j.rows
	if len(j.entry.PrimaryKey) == 0 {
		return nil
	}
	addKey := func() error {
		_, err := j.c.exec(ctx, j.s.d.addKey(j.id, j.entry.PrimaryKey))
		return err
	}
	err := j.try(ctx, "new_key", addKey)
	if !j.s.d.duplicate(err) {
		return err
	}
	if err := j.dedupe(ctx); err != nil {
		return err
	}
	return addKey()
}

func (j *load) stamp(ctx context.Context, micros int64) error {
	statement := j.s.d.stamp(j.id, micros)
	if statement == "" {
		return nil
	}
	_, err := j.c.exec(ctx, statement)
	return err
}

// dedupe leaves the last row of each key.
func (j *load) dedupe(ctx context.Context) error {
	table := j.s.d.relation(j.id)
	row, err := j.s.d.row(j.table.names())
	if err != nil {
		return err
	}
	n, err := j.c.exec(ctx, fmt.Sprintf("DELETE FROM %s WHERE %s IN (SELECT place FROM (SELECT %s AS place,"+
		" row_number() OVER (PARTITION BY %s ORDER BY %s DESC) AS n FROM %s) AS numbered WHERE n > 1)",
		table, row, row, quoteAll(j.entry.PrimaryKey, ""), row, table))
	j.entry.Rows -= n
	return err
}

// merge puts rows into a table that has others, or that others read.
func (j *load) merge(ctx context.Context) error {
	if _, err := j.c.exec(ctx, j.s.d.temporary(j.id, j.columns)); err != nil {
		return err
	}
	if err := j.slices(ctx, &target{relation: j.s.d.temporaryName(), columns: j.columns, nulls: j.nulls}); err != nil {
		return err
	}
	j.s.at("copied")
	added, err := j.s.d.merge(ctx, j.c, &merge{
		relation: j.s.d.relation(j.id), columns: j.columns, key: j.entry.PrimaryKey, micros: j.now,
	})
	if err != nil {
		return err
	}
	j.entry.Rows += added
	_, err = j.c.exec(ctx, "DROP TABLE "+j.s.d.temporaryName())
	return err
}

// slices puts the rows of all slices into a table.
func (j *load) slices(ctx context.Context, t *target) error {
	for i := range j.l.Slices {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := j.slice(ctx, t, &j.l.Slices[i]); err != nil {
			return err
		}
	}
	return nil
}

func (j *load) slice(ctx context.Context, t *target, slice *storage.Slice) error {
	src, err := slice.Open()
	if err != nil {
		return j.unread(slice, err)
	}
	defer src.Close()
	from := &source{src: src}
	rows := csv.NewReader(from, csv.Options{
		Name: slice.Name, Skip: slice.Skip, Width: len(t.columns),
		Delimiter: j.l.Delimiter, Enclosure: j.l.Enclosure,
	})
	j.s.at("slice")
	err = j.s.d.into(ctx, j.c, t, rows)
	var wrong *misfit
	switch {
	case err == nil:
		j.rows += rows.Rows()
		return nil
	case from.failed() != nil:
		return j.unread(slice, from.failed())
	case errors.As(err, &wrong):
		err = wrong.in(slice.Name, slice.Skip)
	}
	return fmt.Errorf("%s: %w", j.id, err)
}

// unread is the error of a slice that could not be read, which is none of the
// database.
func (j *load) unread(slice *storage.Slice, err error) error {
	return fmt.Errorf("%s: %w", j.id, &caisson.Error{Item: slice.Name, Kind: caisson.KindOf(err), Err: err})
}

// note writes down what is known of the table now, and that the load is done.
func (j *load) note(ctx context.Context) error {
	e := j.entry
	e.LastChange, e.LastImport = j.now, j.now
	e.Rows = max(e.Rows, 0)
	e.Metadata = e.note(e.Metadata, j.l.Metadata, j.now)
	for name, notes := range j.l.ColumnMetadata {
		own, ok := find(j.table.names(), name)
		if !ok {
			return invalid(j.id.String(), "column_metadata names column %q, which the table does not have", name)
		}
		if e.ColumnMetadata == nil {
			e.ColumnMetadata = make(map[string][]storage.Metadata)
		}
		e.ColumnMetadata[own] = e.note(e.ColumnMetadata[own], notes, j.now)
	}
	var err error
	if e.Size, err = j.s.d.size(ctx, j.c, j.id); err != nil {
		return err
	}
	if err := j.c.putEntry(ctx, j.id, e); err != nil {
		return err
	}
	r, _, err := j.c.known(ctx, j.id)
	if err != nil {
		return err
	}
	j.done.Table, j.done.Rows = *r.describe(e), j.rows
	if j.l.ID == "" {
		return nil
	}
	_, err = j.c.exec(ctx, "INSERT INTO "+j.s.d.catalog("loads")+" (id, table_id, done, outcome) VALUES (?, ?, ?, ?)",
		j.l.ID, j.id.String(), j.now, encode(j.done))
	return err
}
