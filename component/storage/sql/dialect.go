package sql

import (
	"context"
	"io"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/csv"
)

// A dialect is what PostgreSQL and SQLite do differently. Its statements have
// values in them as literals: COPY takes no parameters. It is as wide as the two
// differ: each method is one statement or one fact, and what is done with them,
// and in which order, is written once, outside.
type dialect interface {
	name() string // the URL without credentials
	features() storage.Features

	// rebind makes a statement with n question marks one of the database.
	rebind(query string, n int) string
	// bulk are options before the values of a statement with large ones.
	bulk() []any
	beginView() string
	beginChange() string
	// busy tells that beginning a transaction is to be tried again.
	busy(err error) bool
	// enter waits until this process may write.
	enter(ctx context.Context) (release func(), err error)
	// lock waits for others who hold the same name, until the transaction ends.
	lock(ctx context.Context, c *session, name string) error
	explain(err error) (caisson.Kind, error)

	// fits tells whether the database can have something of this name.
	fits(what, name string) error
	columns() int                // how many a table can have, without the hidden one
	relation(id tableID) string  // in a statement
	catalog(table string) string // in a statement
	migrations() [][]string
	hasCatalog(ctx context.Context, c *session) (bool, error)
	// relations returns a table or, where id is empty, all that are in buckets.
	relations(ctx context.Context, c *session, id tableID) ([]relation, error)
	// makeBucket makes what holds the tables of a bucket.
	makeBucket(ctx context.Context, c *session, bucket string) error

	// size returns how many bytes a table takes that this transaction has loaded;
	// -1: not known.
	size(ctx context.Context, c *session, id tableID) (int64, error)

	// now returns the time of the database, in microseconds.
	now(ctx context.Context, c *session) (int64, error)
	time(micros int64) string   // a literal of "_timestamp"
	any(values []string) string // "is one of them"
	value(c column) string      // as a text that is never null
	// columnType is a column's type, with its default. Errors: ErrInvalid.
	columnType(name string, t *storage.Type) (string, error)
	hiddenType() string
	addKey(id tableID, key []string) string
	dropKey(ctx context.Context, c *session, id tableID) error
	duplicate(err error) bool // addKey failed because rows have the same key
	// row is an expression that tells rows apart, in the order of loading.
	row(columns []string) (string, error)
	// stamp makes micros the time of rows that come without one; 0: their own
	// again. Empty: rows come with theirs.
	stamp(id tableID, micros int64) string
	// temporary makes an empty table of some columns of a table.
	temporary(id tableID, columns []string) string
	temporaryName() string

	// clear removes all rows. direct says that the next rows may be put into the
	// table itself, without a key; nobody else sees it until the end.
	clear(ctx context.Context, c *session, id tableID) (direct bool, err error)
	// into puts rows into a table.
	into(ctx context.Context, c *session, t *target, rows *csv.Reader) error
	// merge puts the rows of the temporary table into a table and returns how
	// many are new.
	merge(ctx context.Context, c *session, m *merge) (added int64, err error)

	// hold is the first thing of a transaction: what it sees of a table from now
	// on does not change.
	hold(ctx context.Context, c *session, id tableID) error
	// out writes the rows of a query, without a header.
	out(ctx context.Context, c *session, query string, w io.Writer) error
}

// hidden is the column that tells when a row was changed.
const hidden = "_timestamp"

// waiting is the table that rows to be merged are in.
const waiting = "caisson_load"

// A relation is a table or a view, as the database describes it.
type relation struct {
	id      tableID
	columns []column
	timed   bool // it has the hidden column
}

// A column is one of a relation.
type column struct {
	name string
	text bool // it is text and never null
}

// A target is where rows are put.
type target struct {
	relation string   // in a statement
	columns  []string // of the rows
	nulls    []string // those of them whose empty value is null
	micros   int64    // the rows' time; 0: the target has no hidden column
}

// A merge is rows of the temporary table that go into a table.
type merge struct {
	relation string
	columns  []string
	key      []string // empty: rows are added
	micros   int64
}
