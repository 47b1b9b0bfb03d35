package sql

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

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

// prepare makes the table or brings it to the load's columns and key.
func (j *load) prepare(ctx context.Context) error {
	var err error
	if j.now, err = j.s.d.now(ctx, j.c); err != nil {
		return err
	}
	j.table, j.entry, err = j.c.known(ctx, j.id)
	switch {
	case errors.Is(err, caisson.ErrNotFound):
		err = j.create(ctx)
	case err == nil && j.entry == nil:
		return &caisson.Error{
			Item: j.id.String(), Kind: caisson.ErrDenied,
			Err: errors.New("the table was not made by Caisson: it can be read, but nothing can be loaded into it"),
		}
	case err == nil:
		err = j.alter(ctx)
	}
	if err != nil {
		return err
	}
	return j.own()
}

func (j *load) create(ctx context.Context) error {
	j.made = true
	j.entry = &entry{Created: j.now}
	j.table = &relation{id: j.id, timed: true}
	columns := slices.Clone(j.l.Columns)
	for _, name := range j.l.AddColumns {
		if _, there := find(columns, name); !there {
			columns = append(columns, name)
		}
	}
	var parts []string
	for _, name := range columns {
		typ, err := j.newColumn(name)
		if err != nil {
			return err
		}
		parts = append(parts, quote(name)+" "+typ)
	}
	parts = append(parts, quote(hidden)+" "+j.s.d.hiddenType())
	if _, err := j.c.exec(ctx, "CREATE TABLE "+j.s.d.relation(j.id)+" ("+strings.Join(parts, ", ")+")"); err != nil {
		return err
	}
	key, err := j.key()
	j.entry.PrimaryKey = key
	return err
}

// newColumn writes down a column that is to be made and returns its type.
func (j *load) newColumn(name string) (string, error) {
	var typ *storage.Type
	if t, ok := j.l.Types[name]; ok && j.s.Features().Types {
		typ = &t
		if j.entry.Types == nil {
			j.entry.Types = make(map[string]storage.Type)
		}
		j.entry.Types[name] = t
	}
	j.table.columns = append(j.table.columns, column{name: name})
	if most := j.s.d.columns(); len(j.table.columns) > most {
		return "", invalid(j.id.String(), "the table would have more than the %d columns that the database allows", most)
	}
	text, err := j.s.d.columnType(name, typ)
	if err != nil {
		return "", fmt.Errorf("%s: %w", j.id, err)
	}
	return text, nil
}

// key returns the key that the load asks for, as the table calls its columns.
func (j *load) key() ([]string, error) {
	var key []string
	for _, name := range j.l.PrimaryKey {
		own, ok := find(j.table.names(), name)
		if !ok {
			return nil, invalid(j.id.String(), "the primary key names column %q, which the table does not have; it has %s",
				name, list(j.table.names()))
		}
		if !slices.Contains(key, own) {
			key = append(key, own)
		}
	}
	return key, nil
}

func (j *load) alter(ctx context.Context) error {
	// The clock may have been set back; times of loads never are.
	j.now = max(j.now, j.entry.LastImport+1)
	if err := j.missing(); err != nil {
		return err
	}
	for _, name := range slices.Concat(j.l.Columns, j.l.AddColumns) {
		if own, there := find(j.table.names(), name); there {
			if err := j.sameType(name, own); err != nil {
				return err
			}
			continue
		}
		typ, err := j.newColumn(name)
		if err != nil {
			return err
		}
		if _, err := j.c.exec(ctx, "ALTER TABLE "+j.s.d.relation(j.id)+" ADD COLUMN "+quote(name)+" "+typ); err != nil {
			return err
		}
	}
	if !j.l.SetPrimaryKey {
		return nil
	}
	return j.changeKey(ctx)
}

// missing refuses a load without all columns of the table.
func (j *load) missing() error {
	var missing []string
	for _, own := range j.table.names() {
		_, loaded := find(j.l.Columns, own)
		_, added := find(j.l.AddColumns, own)
		if !loaded && !added {
			missing = append(missing, own)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return invalid(j.id.String(), "the rows lack columns of the table: %s; they have %s; check the delimiter (%q)",
		list(missing), list(j.l.Columns), delimiter(j.l))
}

func delimiter(l *storage.Load) byte {
	if l.Delimiter == 0 {
		return ','
	}
	return l.Delimiter
}

// sameType refuses to change the type of a column that is there.
func (j *load) sameType(name, own string) error {
	asked, ok := j.l.Types[name]
	if !ok || !j.s.Features().Types {
		return nil
	}
	has, typed := j.entry.Types[own]
	if typed && strings.EqualFold(has.Base, asked.Base) && has.Length == asked.Length {
		return nil
	}
	if !typed {
		has.Base = "text without a type"
	}
	return invalid(j.id.String(), "column %q has the type %s %s; it can't become %s %s: load into a new table",
		own, has.Base, has.Length, asked.Base, asked.Length)
}

// changeKey gives the table another key. Rows that it can't tell apart keep it
// from that, unless they are to go anyway.
func (j *load) changeKey(ctx context.Context) error {
	key, err := j.key()
	if err != nil || sameSet(key, j.entry.PrimaryKey) {
		return err
	}
	from, to := list(j.entry.PrimaryKey), list(key)
	if !j.l.Incremental {
		err = j.s.d.dropKey(ctx, j.c, j.id)
		j.dropped = true
	} else {
		err = j.try(ctx, "another_key", func() error {
			if err := j.s.d.dropKey(ctx, j.c, j.id); err != nil || len(key) == 0 {
				return err
			}
			_, err := j.c.exec(ctx, j.s.d.addKey(j.id, key))
			return err
		})
	}
	if j.s.d.duplicate(err) {
		j.warn("the primary key of %s stays %s: rows have the same %s", j.id, or(from, "empty"), to)
		return nil
	}
	if err == nil {
		j.entry.PrimaryKey = key
		j.warn("the primary key of %s was changed from %s to %s", j.id, or(from, "none"), or(to, "none"))
	}
	return err
}

func or(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

func sameSet(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}

func (j *load) warn(format string, args ...any) {
	j.done.Warnings = append(j.done.Warnings, fmt.Sprintf(format, args...))
}

// try calls f, and undoes what it did if it fails.
func (j *load) try(ctx context.Context, name string, f func() error) error {
	if _, err := j.c.exec(ctx, "SAVEPOINT "+name); err != nil {
		return err
	}
	err := f()
	if err != nil {
		if _, bad := j.c.exec(ctx, "ROLLBACK TO SAVEPOINT "+name); bad != nil {
			return errors.Join(err, bad)
		}
	}
	if _, bad := j.c.exec(ctx, "RELEASE SAVEPOINT "+name); bad != nil {
		return errors.Join(err, bad)
	}
	return err
}

// own finds out what the table calls the columns of the load.
func (j *load) own() error {
	for _, name := range j.l.Columns {
		own, ok := find(j.table.names(), name)
		if !ok {
			return invalid(j.id.String(), "there is no column %q", name)
		}
		j.columns = append(j.columns, own)
		if t, typed := j.entry.Types[own]; typed && !strings.EqualFold(t.Base, "STRING") {
			j.nulls = append(j.nulls, own)
		}
	}
	return nil
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
