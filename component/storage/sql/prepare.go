package sql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
)

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
