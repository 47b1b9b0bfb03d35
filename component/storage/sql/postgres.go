package sql

import (
	"context"
	dbsql "database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/csv"
)

const (
	// nameLimit is NAMEDATALEN of every PostgreSQL that is not built by hand,
	// less one. Longer names would be cut, and two tables could become one.
	nameLimit = 63
	// connectTime is how long a server may take to say that it is there, where
	// the URL does not say it (connect_timeout).
	connectTime = 30 * time.Second
	// settings make statements and values mean the same on every server. They
	// end with the transaction, so that a proxy in between can be one that gives
	// connections to others.
	settings = "; SET LOCAL standard_conforming_strings = on; SET LOCAL search_path = pg_catalog" +
		"; SET LOCAL DateStyle = 'ISO, YMD'; SET LOCAL IntervalStyle = postgres; SET LOCAL TimeZone = 'UTC'" +
		"; SET LOCAL bytea_output = hex; SET LOCAL extra_float_digits = 1; SET LOCAL client_min_messages = warning" +
		"; SET LOCAL client_encoding = 'UTF8'; SET LOCAL idle_in_transaction_session_timeout = 0"
)

// Codes of PostgreSQL's appendix A.
const (
	codeUnique    = "23505"
	codeLocked    = "55P03"
	codeForeign   = "0A000" // TRUNCATE of what a foreign key refers to
	codeNoTable   = "42P01"
	codeNoSchema  = "3F000"
	codeWrongType = "42809" // LOCK of a materialized view
)

// postgres is the dialect of PostgreSQL.
type postgres struct {
	url string // without credentials
}

// newPostgres reads a URL. What is wrong with it is not repeated in errors: it
// has a password in it.
func newPostgres(text string) (dialect, driver.Connector, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" && u.Path == "" {
		return nil, nil, invalid("storage", "the URL of PostgreSQL is not of the form postgres://USER:PASSWORD@HOST:PORT/DATABASE")
	}
	name := (&url.URL{Scheme: "postgres", Host: u.Host, Path: u.Path}).String()
	config, err := pgx.ParseConfig(text)
	if err != nil {
		return nil, nil, invalid(name, "PostgreSQL's settings can't be read: check the URL's host, port and parameters, and PG variables")
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "caisson"
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTime
	}
	// A server that is gone without a word is found out within two minutes.
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 15 * time.Second, Count: 6}}
	config.DialFunc = dialer.DialContext
	return &postgres{url: name}, stdlib.GetConnector(*config), nil
}

func (p *postgres) name() string { return p.url }

func (p *postgres) features() storage.Features {
	return storage.Features{ChangedSince: true, Types: true, FileQuery: true}
}

func (p *postgres) rebind(query string, n int) string {
	for i := 1; i <= n; i++ {
		query = strings.Replace(query, "?", "$"+strconv.Itoa(i), 1)
	}
	return query
}

// Without it bytes would go as text, twice as long, for one round trip less.
func (p *postgres) bulk() []any { return []any{pgx.QueryExecModeDescribeExec} }

func (p *postgres) beginView() string {
	return "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" + settings
}

// What may be written is for the operator's default_transaction_read_only to
// say.
func (p *postgres) beginChange() string { return "BEGIN ISOLATION LEVEL READ COMMITTED" + settings }

func (p *postgres) busy(error) bool { return false }

func (p *postgres) enter(context.Context) (func(), error) { return func() {}, nil }

// lock takes an advisory lock. Two names of the same hash wait for each other in
// vain, once in a very long time.
func (p *postgres) lock(ctx context.Context, c *session, name string) error {
	h := fnv.New64a()
	_, _ = io.WriteString(h, "caisson "+name)
	_, err := c.exec(ctx, fmt.Sprintf("SELECT pg_advisory_xact_lock(%d)", int64(h.Sum64())))
	return err
}

func (p *postgres) fits(what, name string) error {
	if len(name) <= nameLimit {
		return nil
	}
	return invalid(fmt.Sprintf("%s %q", what, name),
		"the name has %d bytes; PostgreSQL allows %d", len(name), nameLimit)
}

// columns is what fits even if every value is stored outside of its row.
func (p *postgres) columns() int { return 1599 }

func (p *postgres) relation(id tableID) string { return quote(id.bucket) + "." + quote(id.table) }

func (p *postgres) catalog(table string) string { return "caisson." + table }

func (p *postgres) migrations() [][]string {
	return [][]string{{
		"CREATE SCHEMA IF NOT EXISTS caisson",
		"CREATE TABLE caisson.versions (version int PRIMARY KEY, since bigint NOT NULL)",
		"CREATE TABLE caisson.buckets (name text PRIMARY KEY, metadata text NOT NULL)",
		"CREATE TABLE caisson.tables (id text PRIMARY KEY, entry text NOT NULL)",
		"CREATE TABLE caisson.loads (id text PRIMARY KEY, table_id text NOT NULL, done bigint NOT NULL, outcome text NOT NULL)",
		"CREATE TABLE caisson.files (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, load_id text UNIQUE," +
			" chunks text NOT NULL, created bigint NOT NULL, entry text NOT NULL)",
		"CREATE TABLE caisson.file_tags (file bigint NOT NULL, tag text NOT NULL, seq bigint NOT NULL, PRIMARY KEY (file, tag))",
		"CREATE INDEX file_tags_tag ON caisson.file_tags (tag)",
		"CREATE TABLE caisson.chunks (chunks text NOT NULL, seq bigint NOT NULL, data bytea NOT NULL, PRIMARY KEY (chunks, seq))",
		// Files are mostly compressed already.
		"ALTER TABLE caisson.chunks ALTER COLUMN data SET STORAGE EXTERNAL",
		"CREATE TABLE caisson.documents (name text PRIMARY KEY, data bytea NOT NULL, version bigint NOT NULL)",
	}}
}

func (p *postgres) hasCatalog(ctx context.Context, c *session) (bool, error) {
	var there bool
	err := c.one(ctx, "SELECT to_regclass('caisson.versions') IS NOT NULL", nil, &there)
	return there, err
}

// relations leaves out what the user may not even look up.
func (p *postgres) relations(ctx context.Context, c *session, id tableID) ([]relation, error) {
	which := "n.nspname ~ '^(in|out)[.][^.]+$' AND has_schema_privilege(n.oid, 'USAGE')"
	if id != (tableID{}) {
		which = "n.nspname = " + literal(id.bucket) + " AND r.relname = " + literal(id.table)
	}
	query := `SELECT n.nspname, r.relname, a.attname, a.atttypid = 'text'::regtype AND a.attnotnull
		FROM pg_class r JOIN pg_namespace n ON n.oid = r.relnamespace JOIN pg_attribute a ON a.attrelid = r.oid
		WHERE r.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped AND ` + which + `
		ORDER BY n.nspname, r.relname, a.attnum`
	return c.collect(ctx, query)
}

// collect reads rows of bucket, table, column, and whether it is text that is
// never null.
func (c *session) collect(ctx context.Context, query string) ([]relation, error) {
	var found []relation
	err := c.each(ctx, func(scan func(...any) error) error {
		var id tableID
		var col column
		if err := scan(&id.bucket, &id.table, &col.name, &col.text); err != nil {
			return err
		}
		if len(found) == 0 || found[len(found)-1].id != id {
			found = append(found, relation{id: id})
		}
		r := &found[len(found)-1]
		if col.name == hidden {
			r.timed = true
		} else {
			r.columns = append(r.columns, col)
		}
		return nil
	}, query)
	return found, err
}

// makeBucket makes a schema, if it is not there: IF NOT EXISTS alone would need
// the right to make one.
func (p *postgres) makeBucket(ctx context.Context, c *session, bucket string) error {
	var there bool
	err := c.one(ctx, "SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = "+literal(bucket)+")", nil, &there)
	if err != nil || there {
		return err
	}
	_, err = c.exec(ctx, "CREATE SCHEMA "+quote(bucket))
	return err
}

// size would wait where somebody else loads the table.
func (p *postgres) size(ctx context.Context, c *session, id tableID) (int64, error) {
	var size int64
	err := c.one(ctx, "SELECT pg_total_relation_size("+literal(p.relation(id))+"::regclass)", nil, &size)
	return size, err
}

func (p *postgres) now(ctx context.Context, c *session) (int64, error) {
	var micros int64
	err := c.one(ctx, "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint", nil, &micros)
	return micros, err
}

func (p *postgres) time(micros int64) string {
	return "'" + time.UnixMicro(micros).UTC().Format("2006-01-02 15:04:05.000000") + "+00'::timestamptz"
}

func (p *postgres) any(values []string) string {
	return "= ANY (ARRAY[" + literals(values) + "]::text[])"
}

func (p *postgres) value(c column) string {
	if c.text {
		return quote(c.name)
	}
	return "coalesce(" + quote(c.name) + "::text, '')"
}

// pgTypes are the types of package storage. A length goes to those that take
// one.
var pgTypes = map[string]struct {
	name   string
	length bool
}{
	"STRING":    {"text", false},
	"INTEGER":   {"bigint", false},
	"NUMERIC":   {"numeric", true},
	"FLOAT":     {"double precision", false},
	"BOOLEAN":   {"boolean", false},
	"DATE":      {"date", false},
	"TIMESTAMP": {"timestamp", false},
}

func (p *postgres) columnType(name string, t *storage.Type) (string, error) {
	if t == nil {
		return "text NOT NULL DEFAULT ''", nil
	}
	base := strings.ToUpper(t.Base)
	native, ok := pgTypes[base]
	if !ok {
		return "", invalid(fmt.Sprintf("column %q", name), "there is no type %q", t.Base)
	}
	text := native.name
	if native.length && t.Length != "" {
		if !isLength(t.Length) {
			return "", invalid(fmt.Sprintf("column %q", name), "%q is no length of a %s; it is a number, or two with a comma", t.Length, base)
		}
		text += "(" + t.Length + ")"
	}
	if err := checkText("the default of column "+strconv.Quote(name), t.Default); err != nil {
		return "", err
	}
	switch {
	case t.Default != "":
		text += " DEFAULT " + literal(t.Default)
	case base == "STRING":
		text += " DEFAULT ''"
	}
	if t.NotNull || base == "STRING" {
		text += " NOT NULL"
	}
	return text, nil
}

func isLength(s string) bool {
	a, b, two := strings.Cut(s, ",")
	return digits(a) && (!two || digits(b))
}

func digits(s string) bool {
	return s != "" && len(s) < 10 && strings.Trim(s, "0123456789") == ""
}

// Rows that somebody adds by hand have the time of that.
func (p *postgres) hiddenType() string { return "timestamptz NOT NULL DEFAULT now()" }

func (p *postgres) addKey(id tableID, key []string) string {
	return "ALTER TABLE " + p.relation(id) + " ADD PRIMARY KEY (" + quoteAll(key, "") + ")"
}

func (p *postgres) dropKey(ctx context.Context, c *session, id tableID) error {
	var names []string
	err := c.each(ctx, func(scan func(...any) error) error {
		var name string
		err := scan(&name)
		names = append(names, name)
		return err
	}, "SELECT conname FROM pg_constraint WHERE contype = 'p' AND conrelid = "+literal(p.relation(id))+"::regclass")
	for _, name := range names {
		if err == nil {
			_, err = c.exec(ctx, "ALTER TABLE "+p.relation(id)+" DROP CONSTRAINT "+quote(name))
		}
	}
	return err
}

func (p *postgres) duplicate(err error) bool { return isCode(err, codeUnique) }

func isCode(err error, codes ...string) bool {
	var answer *pgconn.PgError
	if !errors.As(err, &answer) {
		return false
	}
	for _, code := range codes {
		if answer.Code == code {
			return true
		}
	}
	return false
}

func (p *postgres) row([]string) (string, error) { return "ctid", nil }

func (p *postgres) stamp(id tableID, micros int64) string {
	value := "now()"
	if micros != 0 {
		value = p.time(micros)
	}
	return "ALTER TABLE " + p.relation(id) + " ALTER COLUMN " + quote(hidden) + " SET DEFAULT " + value
}

func (p *postgres) temporary(id tableID, columns []string) string {
	return "CREATE TEMPORARY TABLE " + waiting + " ON COMMIT DROP AS SELECT " + quoteAll(columns, "") +
		" FROM " + p.relation(id) + " WITH NO DATA"
}

func (p *postgres) temporaryName() string { return "pg_temp." + waiting }

// clear truncates where nobody else uses the table right now. Where somebody
// reads it, rows are deleted, which readers do not see, and nobody waits.
func (p *postgres) clear(ctx context.Context, c *session, id tableID) (direct bool, err error) {
	if _, err := c.exec(ctx, "SAVEPOINT clear"); err != nil {
		return false, err
	}
	table := p.relation(id)
	_, err = c.exec(ctx, "LOCK TABLE "+table+" IN ACCESS EXCLUSIVE MODE NOWAIT")
	if err == nil {
		_, err = c.exec(ctx, "TRUNCATE "+table)
	}
	if err == nil || !isCode(err, codeLocked, codeForeign) {
		return true, err
	}
	if _, err := c.exec(ctx, "ROLLBACK TO SAVEPOINT clear"); err != nil {
		return false, err
	}
	_, err = c.exec(ctx, "DELETE FROM "+table)
	return false, err
}

// into is COPY: the one form of rows is what it reads.
func (p *postgres) into(ctx context.Context, c *session, t *target, rows *csv.Reader) error {
	query := "COPY " + t.relation + " (" + quoteAll(t.columns, "") + ") FROM STDIN WITH (FORMAT csv"
	if len(t.nulls) > 0 {
		query += ", FORCE_NULL (" + quoteAll(t.nulls, "") + ")"
	}
	from := &blocks{rows: rows}
	err := onServer(c.conn, func(server *pgconn.PgConn) error {
		_, err := server.CopyFrom(ctx, from, query+")")
		return err
	})
	if bad := from.failed(); bad != nil {
		return bad
	}
	return placed(err, t.columns)
}

func onServer(conn *dbsql.Conn, f func(*pgconn.PgConn) error) error {
	return conn.Raw(func(raw any) error { return f(raw.(*stdlib.Conn).Conn().PgConn()) })
}

// merge puts rows into a table with one statement: of those with the same key
// the last, which replaces another one only if it differs.
func (p *postgres) merge(ctx context.Context, c *session, m *merge) (int64, error) {
	columns := quoteAll(m.columns, "")
	insert := "INSERT INTO " + m.relation + " AS kept (" + columns + ", " + quote(hidden) + ") SELECT "
	from := columns + ", " + p.time(m.micros) + " FROM " + p.temporaryName()
	if len(m.key) == 0 {
		return c.exec(ctx, insert+from)
	}
	key := quoteAll(m.key, "")
	query := "WITH done AS (" + insert + "DISTINCT ON (" + key + ") " + from + " ORDER BY " + key + ", ctid DESC" +
		" ON CONFLICT (" + key + ") DO " + m.update("IS DISTINCT FROM") + " RETURNING xmax = 0 AS added)" +
		" SELECT count(*) FILTER (WHERE added) FROM done"
	var added int64
	err := c.one(ctx, query, nil, &added)
	return added, err
}

// update is what a row does to the one of the same key.
func (m *merge) update(differs string) string {
	var set, others []string
	for _, name := range m.columns {
		if _, isKey := find(m.key, name); !isKey {
			others = append(others, name)
			set = append(set, quote(name)+" = excluded."+quote(name))
		}
	}
	if len(others) == 0 {
		return "NOTHING"
	}
	set = append(set, quote(hidden)+" = excluded."+quote(hidden))
	return "UPDATE SET " + strings.Join(set, ", ") + " WHERE (" + quoteAll(others, "kept.") + ") " + differs +
		" (" + quoteAll(others, "excluded.") + ")"
}

// hold locks the table before the transaction has its snapshot: what was
// truncated since would look empty.
func (p *postgres) hold(ctx context.Context, c *session, id tableID) error {
	if _, err := c.exec(ctx, "SAVEPOINT hold"); err != nil {
		return err
	}
	_, err := c.exec(ctx, "LOCK TABLE "+p.relation(id)+" IN ACCESS SHARE MODE")
	switch {
	case isCode(err, codeNoTable, codeNoSchema):
		return notFound(id)
	case isCode(err, codeWrongType):
		_, err = c.exec(ctx, "ROLLBACK TO SAVEPOINT hold")
	}
	return err
}

// out is COPY. A header that it writes is not in quotes, and null is not.
func (p *postgres) out(ctx context.Context, c *session, query string, w io.Writer) error {
	return onServer(c.conn, func(server *pgconn.PgConn) error {
		_, err := server.CopyTo(ctx, w, "COPY ("+query+") TO STDOUT WITH (FORMAT csv, FORCE_QUOTE *)")
		return err
	})
}

// placed tells in which line the server found a fault: it counts lines of what
// it is sent, and those are the lines of the slice.
func placed(err error, columns []string) error {
	var answer *pgconn.PgError
	if !errors.As(err, &answer) {
		return err
	}
	_, rest, found := strings.Cut(answer.Where, ", line ")
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(rest)
	}
	line, bad := strconv.ParseInt(rest[:end], 10, 64)
	kind, _ := explainCode(answer.Code)
	if !found || bad != nil || kind != caisson.ErrInvalid {
		return err
	}
	return &misfit{line: line, column: columnIn(rest[end:], columns), text: answer.Message}
}

// columnIn returns the column that begins a place's rest; of several, the
// longest.
func columnIn(rest string, columns []string) string {
	name, _ := strings.CutPrefix(rest, ", column ")
	longest := ""
	for _, c := range columns {
		if len(c) > len(longest) && strings.HasPrefix(name, c) {
			longest = c
		}
	}
	return longest
}
