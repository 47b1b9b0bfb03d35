package sql

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	dbsql "database/sql"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/csv"
)

const (
	// busyMillis is how long SQLite itself waits for another process; after it
	// the caller's context is looked at, and it waits on.
	busyMillis = 1000
	// insertValues is how many values one statement inserts at most: more rows
	// at once cost less each, and SQLite takes 32766 values.
	insertValues = 2000
	// journalBytes is what is left of the log after a large load.
	journalBytes = 64 << 20
	// exportBuffer is how much of an export is written at once.
	exportBuffer = 256 << 10
)

// lite is the dialect of SQLite.
type lite struct {
	file string
	// writer holds a place for the one who writes: SQLite has one writer, and
	// those of this process need not ask again and again.
	writer chan struct{}
}

// newSQLite reads the name of a file, which the first call that writes makes.
func newSQLite(file string) (dialect, driver.Connector, error) {
	file = strings.TrimPrefix(file, "//")
	if file == "" || strings.ContainsAny(file, "\x00") {
		return nil, nil, invalid("storage", "the URL of SQLite is sqlite:FILE")
	}
	path, err := filepath.Abs(file)
	if err != nil {
		return nil, nil, invalid("storage", "%w", err)
	}
	values := url.Values{}
	values.Set("_busy_timeout", fmt.Sprint(busyMillis))
	values.Set("_journal_mode", "WAL")
	values.Set("_synchronous", "FULL")
	values.Add("_pragma", fmt.Sprintf("journal_size_limit(%d)", journalBytes))
	values.Add("_pragma", "temp_store(1)")
	// Views of somebody else call no functions that do more than to compute.
	values.Add("_pragma", "trusted_schema(0)")
	q := &lite{file: path, writer: make(chan struct{}, 1)}
	dsn := (&url.URL{Scheme: "file", Path: path, RawQuery: values.Encode()}).String()
	inner, err := sqlite.NewConnector(dsn)
	if err != nil {
		return nil, nil, invalid(q.name(), "%w", err)
	}
	return q, &fileConnector{Connector: inner, path: path}, nil
}

// A fileConnector makes the file, for its owner alone, before SQLite would make
// it for everybody.
type fileConnector struct {
	driver.Connector
	path string
}

// Connect implements driver.Connector.
func (f *fileConnector) Connect(ctx context.Context) (driver.Conn, error) {
	file, err := os.OpenFile(f.path, os.O_RDWR|os.O_CREATE, 0o600)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, &caisson.Error{Item: "sqlite:" + f.path, Kind: caisson.ErrNotFound, Err: errors.New("there is no such folder")}
	case errors.Is(err, os.ErrPermission):
		// It may still be readable.
	case err != nil:
		return nil, &caisson.Error{Item: "sqlite:" + f.path, Kind: caisson.ErrUnavailable, Err: err}
	default:
		_ = file.Close()
	}
	// The first connection turns the log on, which fails for others meanwhile.
	var conn driver.Conn
	err = retry(ctx, isBusy, func() error {
		conn, err = f.Connector.Connect(ctx)
		return err
	})
	return conn, err
}

func (q *lite) name() string { return "sqlite:" + q.file }

func (q *lite) features() storage.Features {
	return storage.Features{ChangedSince: true, FileQuery: true}
}

func (q *lite) rebind(query string, _ int) string { return query }

func (q *lite) bulk() []any { return nil }

func (q *lite) beginView() string { return "BEGIN" }

func (q *lite) beginChange() string { return "BEGIN IMMEDIATE" }

func (q *lite) busy(err error) bool { return isBusy(err) }

func isBusy(err error) bool { return isResult(err, lib.SQLITE_BUSY) }

func isResult(err error, code int) bool {
	var answer *sqlite.Error
	return errors.As(err, &answer) && answer.Code()&0xff == code
}

func (q *lite) enter(ctx context.Context) (func(), error) {
	select {
	case q.writer <- struct{}{}:
		return func() { <-q.writer }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// lock has nothing to do: who writes is alone.
func (q *lite) lock(context.Context, *session, string) error { return nil }

func (q *lite) fits(string, string) error { return nil }

func (q *lite) columns() int { return 1999 }

func (q *lite) relation(id tableID) string { return quote(id.String()) }

func (q *lite) catalog(table string) string { return "caisson_" + table }

func (q *lite) migrations() [][]string {
	return [][]string{{
		"CREATE TABLE caisson_versions (version INTEGER PRIMARY KEY, since INTEGER NOT NULL)",
		"CREATE TABLE caisson_buckets (name TEXT PRIMARY KEY, metadata TEXT NOT NULL) WITHOUT ROWID",
		"CREATE TABLE caisson_tables (id TEXT PRIMARY KEY, entry TEXT NOT NULL)",
		"CREATE TABLE caisson_loads (id TEXT PRIMARY KEY, table_id TEXT NOT NULL, done INTEGER NOT NULL, outcome TEXT NOT NULL)",
		"CREATE TABLE caisson_files (id INTEGER PRIMARY KEY AUTOINCREMENT, load_id TEXT UNIQUE," +
			" chunks TEXT NOT NULL, created INTEGER NOT NULL, entry TEXT NOT NULL)",
		"CREATE TABLE caisson_file_tags (file INTEGER NOT NULL, tag TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (file, tag)) WITHOUT ROWID",
		"CREATE INDEX caisson_file_tags_tag ON caisson_file_tags (tag)",
		"CREATE TABLE caisson_chunks (chunks TEXT NOT NULL, seq INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (chunks, seq))",
		"CREATE TABLE caisson_documents (name TEXT PRIMARY KEY, data BLOB NOT NULL, version INTEGER NOT NULL)",
	}}
}

func (q *lite) hasCatalog(ctx context.Context, c *session) (bool, error) {
	var there bool
	err := c.one(ctx, "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'caisson_versions')", nil, &there)
	return there, err
}

func (q *lite) relations(ctx context.Context, c *session, id tableID) ([]relation, error) {
	which := "(m.name GLOB 'in.*.*' OR m.name GLOB 'out.*.*') AND m.name NOT GLOB '*.*.*.*'"
	if id != (tableID{}) {
		which = "m.name = " + literal(id.String())
	}
	const text = `p.type = 'TEXT' AND p."notnull"`
	return c.collect(ctx, `SELECT substr(m.name, 1, length(m.name) - length(tail) - 1), tail, p.name, `+text+`
		FROM (SELECT name, type, replace(name, rtrim(name, replace(name, '.', '')), '') AS tail FROM sqlite_master) m,
			pragma_table_info(m.name) p
		WHERE m.type IN ('table', 'view') AND `+which+` ORDER BY m.name, p.cid`)
}

// makeBucket has nothing to do: buckets are prefixes.
func (q *lite) makeBucket(context.Context, *session, string) error { return nil }

func (q *lite) size(context.Context, *session, tableID) (int64, error) { return -1, nil }

func (q *lite) now(context.Context, *session) (int64, error) { return time.Now().UnixMicro(), nil }

func (q *lite) time(micros int64) string { return fmt.Sprint(micros) }

func (q *lite) any(values []string) string { return "IN (" + literals(values) + ")" }

func (q *lite) value(c column) string {
	if c.text {
		return quote(c.name)
	}
	return "coalesce(CAST(" + quote(c.name) + " AS TEXT), '')"
}

func (q *lite) columnType(string, *storage.Type) (string, error) {
	return "TEXT NOT NULL DEFAULT ''", nil
}

// Rows that somebody adds by hand have the time of that.
func (q *lite) hiddenType() string {
	return "INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER))"
}

// A key is an index, which unlike SQLite's PRIMARY KEY can be changed. Its name
// has one more dot than a table's.
func (q *lite) addKey(id tableID, key []string) string {
	return "CREATE UNIQUE INDEX " + q.index(id) + " ON " + q.relation(id) + " (" + quoteAll(key, "") + ")"
}

func (q *lite) index(id tableID) string { return quote(id.String() + ".key") }

func (q *lite) dropKey(ctx context.Context, c *session, id tableID) error {
	_, err := c.exec(ctx, "DROP INDEX IF EXISTS "+q.index(id))
	return err
}

func (q *lite) duplicate(err error) bool { return isResult(err, lib.SQLITE_CONSTRAINT) }

// row is one of SQLite's names for a row's number that no column takes.
func (q *lite) row(columns []string) (string, error) {
	for _, name := range []string{"rowid", "_rowid_", "oid"} {
		if _, taken := find(columns, name); !taken {
			return name, nil
		}
	}
	return "", &caisson.Error{Kind: caisson.ErrUnsupported, Err: errors.New(
		"SQLite can't give a key to a table with columns rowid, _rowid_ and oid",
	)}
}

// stamp has nothing to do: rows are put in with their time.
func (q *lite) stamp(tableID, int64) string { return "" }

func (q *lite) temporary(id tableID, columns []string) string {
	return "CREATE TEMPORARY TABLE " + waiting + " AS SELECT " + quoteAll(columns, "") + " FROM " + q.relation(id) + " WHERE 0"
}

func (q *lite) temporaryName() string { return "temp." + waiting }

// clear disturbs no readers, who see the log's older pages.
func (q *lite) clear(ctx context.Context, c *session, id tableID) (bool, error) {
	_, err := c.exec(ctx, "DELETE FROM "+q.relation(id))
	return true, err
}

func (q *lite) into(ctx context.Context, c *session, t *target, rows *csv.Reader) error {
	return c.conn.Raw(func(raw any) error {
		in := &inserter{ctx: ctx, conn: raw.(driver.Conn), t: t}
		defer in.close()
		return in.all(rows)
	})
}

// An inserter inserts rows with two prepared statements: one for many rows, one
// for a single row.
type inserter struct {
	ctx       context.Context
	conn      driver.Conn
	t         *target
	many, one driver.Stmt
	values    []driver.NamedValue // of rows that wait for many
	fields    [][]byte
}

func (in *inserter) all(rows *csv.Reader) error {
	width := len(in.t.columns)
	batch := max(1, insertValues/width)
	var err error
	if in.many, err = in.prepare(batch); err != nil {
		return err
	}
	for {
		line, err := rows.Next()
		if errors.Is(err, io.EOF) {
			return in.rest(width)
		}
		if err != nil {
			return err
		}
		in.add(line)
		if len(in.values) < batch*width {
			continue
		}
		if err := in.insert(in.many, in.values); err != nil {
			return err
		}
		in.values = in.values[:0]
		if err := in.ctx.Err(); err != nil {
			return err
		}
	}
}

func (in *inserter) prepare(rows int) (driver.Stmt, error) {
	columns := quoteAll(in.t.columns, "")
	row := "(?" + strings.Repeat(", ?", len(in.t.columns)-1)
	if in.t.micros != 0 {
		columns += ", " + quote(hidden)
		row += fmt.Sprintf(", %d", in.t.micros)
	}
	row += ")"
	return in.conn.Prepare("INSERT INTO " + in.t.relation + " (" + columns + ") VALUES " + row + strings.Repeat(", "+row, rows-1))
}

// add takes the values of a row, whose memory is the reader's.
func (in *inserter) add(line []byte) {
	in.fields = csv.Fields(line[:len(line)-1], in.fields[:0])
	for _, field := range in.fields {
		in.values = append(in.values, driver.NamedValue{Value: csv.Value(field)})
	}
}

func (in *inserter) insert(statement driver.Stmt, values []driver.NamedValue) error {
	for i := range values {
		values[i].Ordinal = i + 1
	}
	_, err := statement.(driver.StmtExecContext).ExecContext(in.ctx, values)
	return err
}

// rest inserts what is too little for many, row by row.
func (in *inserter) rest(width int) error {
	if len(in.values) == 0 {
		return nil
	}
	var err error
	if in.one, err = in.prepare(1); err != nil {
		return err
	}
	for v := in.values; len(v) > 0; v = v[width:] {
		if err := in.insert(in.one, v[:width]); err != nil {
			return err
		}
	}
	return nil
}

func (in *inserter) close() {
	for _, statement := range []driver.Stmt{in.many, in.one} {
		if statement != nil {
			_ = statement.Close()
		}
	}
}

// merge counts first what is new: SQLite does not tell it afterwards.
func (q *lite) merge(ctx context.Context, c *session, m *merge) (int64, error) {
	columns := quoteAll(m.columns, "")
	insert := "INSERT INTO " + m.relation + " AS kept (" + columns + ", " + quote(hidden) + ") SELECT " + columns +
		", " + q.time(m.micros) + " FROM " + q.temporaryName()
	if len(m.key) == 0 {
		return c.exec(ctx, insert)
	}
	row, err := q.row(m.columns)
	if err != nil {
		return 0, err
	}
	key := quoteAll(m.key, "")
	var added int64
	err = c.one(ctx, "SELECT count(*) FROM (SELECT DISTINCT "+key+" FROM "+q.temporaryName()+") AS n WHERE NOT EXISTS"+
		" (SELECT 1 FROM "+m.relation+" AS kept WHERE ("+quoteAll(m.key, "kept.")+") = ("+quoteAll(m.key, "n.")+"))", nil, &added)
	if err != nil {
		return 0, err
	}
	_, err = c.exec(ctx, insert+" AS n WHERE "+row+" IN (SELECT max("+row+") FROM "+q.temporaryName()+" GROUP BY "+key+")"+
		" ON CONFLICT ("+key+") DO "+m.update("IS NOT"))
	return added, err
}

// hold reads, which is what begins a transaction's view.
func (q *lite) hold(ctx context.Context, c *session, _ tableID) error {
	_, err := q.hasCatalog(ctx, c)
	return err
}

func (q *lite) out(ctx context.Context, c *session, query string, w io.Writer) error {
	rows, err := c.conn.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	values := make([]dbsql.RawBytes, len(columns))
	into := make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	buffer := make([]byte, 0, exportBuffer)
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		if buffer, err = appendRow(buffer, values); err != nil {
			return err
		}
		if len(buffer) >= exportBuffer {
			if _, err := w.Write(buffer); err != nil {
				return err
			}
			buffer = buffer[:0]
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	_, err = w.Write(buffer)
	return err
}

// appendRow appends values as CSV. A table of somebody else may have anything
// in it.
func appendRow(dst []byte, values []dbsql.RawBytes) ([]byte, error) {
	for i, v := range values {
		if i > 0 {
			dst = append(dst, ',')
		}
		if !utf8.Valid(v) || bytes.IndexByte(v, 0) >= 0 {
			return dst, &caisson.Error{Kind: caisson.ErrInvalid, Err: fmt.Errorf("a value of the table is not UTF-8 or has a NUL: %q", short(v))}
		}
		dst = csv.Append(dst, string(v))
	}
	return append(dst, '\n'), nil
}

func short(v []byte) []byte { return v[:min(len(v), 40)] }
