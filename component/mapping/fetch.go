//go:build unix

package mapping

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/folder"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/internal/safefs"
)

// Adaptive is the changed_since that goes on where the last run ended.
const Adaptive = "adaptive"

// A fetcher is one Run of an Input.
type fetcher struct {
	*Input
	now   time.Time
	meter *meter

	mu     sync.Mutex // guards out, while things are fetched
	out    *Fetched
	tables []*tableFetch
}

// A tableFetch is one table on its way into the folder.
type tableFetch struct {
	config *component.InputTable
	table  *storage.Table
	query  storage.Query
	name   string // in in/tables
}

// Run fills the folder's in/. It can be repeated.
//
// Errors: ErrInvalid for what the configuration got wrong; ErrNotFound for a
// table that is not there; the application's (see component.Application) if a
// file can't be fetched; the storage's.
func (in *Input) Run(ctx context.Context) (*Fetched, error) {
	f := &fetcher{
		Input: in, now: timeOrNow(in.Now), meter: &meter{call: in.Progress},
		out: &Fetched{Tables: []FetchedTable{}, Files: []FetchedFile{}, Processed: []Processed{}},
	}
	// Everything is looked at before anything is fetched.
	if err := f.look(ctx); err != nil {
		return nil, err
	}
	fetched := make([]FetchedTable, len(f.tables))
	err := together(in.Parallel, len(f.tables), func(i int) (err error) {
		fetched[i], err = f.fetch(ctx, f.tables[i])
		return err
	})
	if err != nil {
		return nil, err
	}
	f.out.Tables = fetched
	if err := f.files(ctx); err != nil {
		return nil, err
	}
	return f.out, nil
}

func (f *fetcher) warn(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.out.Warnings = append(f.out.Warnings, fmt.Sprintf(format, args...))
}

// look finds all tables and says what is wrong with what is asked of them.
func (f *fetcher) look(ctx context.Context) error {
	var problems []error
	for i := range f.Config.Tables {
		t, err := f.table(ctx, &f.Config.Tables[i])
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && component.FaultOf(err) == component.ApplicationFault:
			return fmt.Errorf("table %q: %w", f.Config.Tables[i].Source, err)
		case err != nil:
			problems = append(problems, stageIn(fmt.Sprintf("table %q", f.Config.Tables[i].Source), err))
			continue
		}
		f.tables = append(f.tables, t)
		f.keepTableState(t)
	}
	if len(problems) == 0 {
		problems = append(problems, f.oneName())
	}
	return errors.Join(problems...)
}

// stageIn is an error about one thing of the input that the user can mend.
func stageIn(item string, err error) error {
	return &caisson.Error{Op: caisson.OpStageIn, Item: item, Kind: caisson.KindOf(err), Err: unnamed(item, err)}
}

// unnamed returns err without its item, where that is the same: it is named once.
func unnamed(item string, err error) error {
	if e, ok := err.(*caisson.Error); ok && e.Op == "" && e.Item == item && e.Err != nil {
		return e.Err
	}
	return err
}

func invalid(format string, args ...any) error {
	return &caisson.Error{Kind: caisson.ErrInvalid, Err: fmt.Errorf(format, args...)}
}

// ofStorage marks what a storage has not sorted: nothing that a user has written
// is to blame for it.
func ofStorage(err error) error {
	if err != nil && caisson.KindOf(err) == caisson.ErrUnknown {
		return component.Application(err)
	}
	return err
}

// oneName lets the last of two tables of one name win, as in the reference, or
// refuses them.
func (f *fetcher) oneName() error {
	last := map[string]int{}
	for i, t := range f.tables {
		other, twice := last[t.name]
		last[t.name] = i
		if !twice {
			continue
		}
		err := invalid("%s and %s have the same destination", f.tables[other].table.ID, t.table.ID)
		if f.Strict {
			return stageIn(fmt.Sprintf("file %q", t.name), err)
		}
		f.warn("file %q: %v: the later one replaces the earlier", t.name, err)
	}
	kept := f.tables[:0:0]
	for i, t := range f.tables {
		if last[t.name] == i {
			kept = append(kept, t)
		}
	}
	f.tables = kept
	return nil
}

// table finds one table and makes a query of its options.
func (f *fetcher) table(ctx context.Context, c *component.InputTable) (*tableFetch, error) {
	t := &tableFetch{config: c, name: c.FileName()}
	if err := folder.CheckName(t.name); err != nil {
		return nil, err
	}
	if _, err := storage.ParseID(c.Source); err != nil {
		return nil, err
	}
	if err := f.query(t); err != nil {
		return nil, err
	}
	var err error
	if t.table, err = f.Storage.Table(ctx, c.Source); err != nil {
		return nil, ofStorage(err)
	}
	if c.ChangedSince == Adaptive {
		// What is loaded from here on is new to the next run, and so not to this one.
		t.query.ChangedUntil = t.table.LastImport
	}
	columns := spellingOf(t.table.Columns)
	if gone := columns.missing(t.query.Columns); len(gone) > 0 {
		return nil, invalid("it has no columns %s; it has %s", quoteAll(gone), quoteAll(t.table.Columns))
	}
	columns.all(t.query.Columns)
	if w := t.query.WhereColumn; w != "" {
		as, ok := columns.of(w)
		if !ok {
			return nil, invalid("where_column: it has no column %q; it has %s", w, quoteAll(t.table.Columns))
		}
		t.query.WhereColumn = as
	}
	if f.MaxTable > 0 && t.table.Size > int64(f.MaxTable) {
		return nil, invalid("its size of %d bytes exceeds the input mapping's limit of %d bytes", t.table.Size, int64(f.MaxTable))
	}
	return t, nil
}

// query makes a query of a table's options, which it checks.
func (f *fetcher) query(t *tableFetch) error {
	c := t.config
	q := &t.query
	var err error
	if q.Columns, err = selection(c); err != nil {
		return err
	}
	if err := where(c); err != nil {
		return err
	}
	q.WhereColumn, q.WhereValues, q.WhereNot = c.WhereColumn, c.WhereValues, c.WhereOperator == "ne"
	if q.ChangedSince, err = f.changed(c); err != nil {
		return err
	}
	if c.Limit < 0 {
		return invalid("limit %d is less than nothing", c.Limit)
	}
	if c.Limit > 0 && c.ChangedSince == Adaptive {
		f.warn("table %q: with a limit, changed_since %q loses rows: those over the limit never come", c.Source, Adaptive)
	}
	if q.Limit = c.Limit; f.Rows > 0 && (q.Limit == 0 || q.Limit > f.Rows) {
		q.Limit = f.Rows
	}
	return nil
}

// selection returns the columns that are asked for; nil for all.
func selection(c *component.InputTable) ([]string, error) {
	if len(c.ColumnTypes) == 0 {
		if len(c.Columns) == 0 {
			return nil, nil
		}
		return slices.Clone(c.Columns), nil
	}
	var typed []string
	for _, t := range c.ColumnTypes {
		typed = append(typed, t.Source)
	}
	if len(c.Columns) == 0 {
		return typed, nil
	}
	if extra := missing(c.Columns, typed); len(extra) > 0 {
		return nil, invalid("both columns and column_types are given, and columns has more: %s", quoteAll(extra))
	}
	if extra := missing(typed, c.Columns); len(extra) > 0 {
		return nil, invalid("both columns and column_types are given, and column_types has more: %s", quoteAll(extra))
	}
	return slices.Clone(c.Columns), nil
}

// where checks the filter by a column.
func where(c *component.InputTable) error {
	switch {
	case c.WhereColumn != "" && len(c.WhereValues) == 0:
		return invalid("where_column needs where_values")
	case c.WhereColumn == "" && len(c.WhereValues) > 0:
		return invalid("where_values needs where_column")
	case c.WhereOperator != "" && c.WhereOperator != "eq" && c.WhereOperator != "ne":
		return invalid("where_operator %q is neither eq nor ne", c.WhereOperator)
	}
	return nil
}

// changed returns since when rows of a table are asked for; zero for all.
func (f *fetcher) changed(c *component.InputTable) (time.Time, error) {
	switch {
	case c.Days != 0 && c.ChangedSince != "":
		return time.Time{}, invalid("only one of days and changed_since can be given")
	case c.Days < 0:
		return time.Time{}, invalid("days %d is less than nothing", c.Days)
	case c.Days > 0:
		return f.now.AddDate(0, 0, -int(min(c.Days, 1e6))), nil
	case c.ChangedSince == "":
		return time.Time{}, nil
	case c.ChangedSince != Adaptive:
		return ParseTime(c.ChangedSince, f.now)
	}
	for _, s := range f.State.Tables {
		if s.Source == c.Source {
			return ParseTime(s.LastImportDate, f.now)
		}
	}
	return time.Time{}, nil // the first run
}

// keepTableState notes how far a table is read. Parts of seconds count: rows of
// the next load may come in the same one.
func (f *fetcher) keepTableState(t *tableFetch) {
	if t.table.LastImport.IsZero() {
		return
	}
	s := component.TableState{
		Source: t.config.Source, LastImportDate: t.table.LastImport.UTC().Format(time.RFC3339Nano),
	}
	tables := &f.out.State.Tables
	for i := range *tables {
		if (*tables)[i].Source == s.Source {
			(*tables)[i] = s
			return
		}
	}
	*tables = append(*tables, s)
}

// fetch puts one table with its manifest into the folder.
func (f *fetcher) fetch(ctx context.Context, t *tableFetch) (FetchedTable, error) {
	done := FetchedTable{Table: t.table.ID, Name: t.name}
	if err := ctx.Err(); err != nil {
		return done, err
	}
	e, err := f.Storage.Export(ctx, t.table.ID, &t.query)
	if err != nil {
		return done, fmt.Errorf("table %q: %w", t.config.Source, ofStorage(err))
	}
	defer e.Close()
	total := int64(-1)
	if t.plain() {
		total = t.table.Size
	}
	done.Columns = e.Columns
	c := f.meter.count(Progress{Name: t.name, Table: t.table.ID, Total: total})
	if err := f.write(ctx, t, e, c, &done); err != nil {
		return done, fmt.Errorf("table %q: %w", t.config.Source, err)
	}
	if err := f.Folder.PutManifest(folder.Tables, t.name, tableManifest(t.table, e.Columns)); err != nil {
		return done, fmt.Errorf("table %q: %w", t.config.Source, err)
	}
	c.set(done.Bytes)
	c.done(0)
	return done, nil
}

// plain reports whether the whole table is asked for.
func (t *tableFetch) plain() bool {
	q := &t.query
	return len(q.Columns) == 0 && q.WhereColumn == "" && q.ChangedSince.IsZero() && q.ChangedUntil.IsZero() && q.Limit == 0
}

// write puts an export's rows into the folder: the file that has them, else row
// by row.
func (f *fetcher) write(ctx context.Context, t *tableFetch, e *storage.Export, c *counter, done *FetchedTable) error {
	if e.File != "" {
		how, err := f.Folder.PutFile(ctx, folder.Tables, t.name, e.File, f.Ways)
		if err != nil {
			return err
		}
		done.How, done.Bytes = how, max(t.table.Size, 0)
		return nil
	}
	file, err := f.Folder.Create(folder.Tables, t.name)
	if err != nil {
		return err
	}
	defer file.Close()
	out := &stopWriter{ctx: ctx, w: countWriter{file, c}}
	buffer := bufio.NewWriterSize(out, 256<<10)
	if done.Bytes, err = e.WriteTo(buffer); err == nil {
		err = buffer.Flush()
	}
	// What the disk has to say counts more than what the storage makes of it.
	if out.err != nil {
		return safefs.Sorted(caisson.OpStageIn, t.name, out.err)
	}
	if err != nil {
		return err
	}
	return safefs.Sorted(caisson.OpStageIn, t.name, file.Commit(false))
}

// stopWriter fails once its context has ended, and remembers its error.
type stopWriter struct {
	ctx context.Context // of the one call that the writer lives for
	w   countWriter
	err error
}

func (s *stopWriter) Write(p []byte) (int, error) {
	if s.err == nil {
		s.err = s.ctx.Err()
	}
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.w.Write(p)
	s.err = err
	return n, err
}

// tableManifest is what the component is told about a table.
func tableManifest(t *storage.Table, columns []string) *component.InTableManifest {
	m := &component.InTableManifest{
		ID: t.ID, URI: "caisson:storage/tables/" + t.ID, Name: tableName(t),
		PrimaryKey: list(t.PrimaryKey), DistributionKey: []string{}, IndexedColumns: list(t.PrimaryKey),
		Created: formatTime(t.Created), LastChangeDate: formatTime(t.LastChange), LastImportDate: formatTime(t.LastImport),
		Columns: columns, Metadata: storedNotes(t.Metadata), ColumnMetadata: map[string][]component.StoredMetadata{},
		Schema: []component.Column{},
	}
	for _, c := range columns {
		m.ColumnMetadata[c] = storedNotes(t.ColumnMetadata[c])
	}
	for _, n := range m.Metadata {
		if n.Key == "KBC.description" {
			m.Description = scalarText(n.Value)
		}
	}
	if t.Rows >= 0 {
		m.RowsCount = &t.Rows
	}
	if t.Size >= 0 {
		m.DataSizeBytes = &t.Size
	}
	return m
}

func tableName(t *storage.Table) string {
	if t.Name != "" {
		return t.Name
	}
	return t.ID[strings.LastIndexByte(t.ID, '.')+1:]
}

// list is s, and not null as JSON.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func storedNotes(notes []storage.Metadata) []component.StoredMetadata {
	out := []component.StoredMetadata{}
	for _, n := range notes {
		out = append(out, component.StoredMetadata{
			ID: n.ID, Key: n.Key, Value: n.Value, Provider: n.Provider, Timestamp: formatTime(n.Time),
		})
	}
	return out
}
