// Package storage is the contract for where components' tables and files come
// from and go to. Package storagetest checks implementations; file, sql and s3
// are folders beside it.
//
// A table is a header and rows of text in a bucket. Its id is
// "STAGE.c-BUCKET.TABLE", with a stage of "in" or "out". A file has a number, a
// name and tags.
package storage

import (
	"context"
	"encoding/json"
	"io"
	"time"
)

// A Storage holds tables, files and small documents.
//
// Its methods may be called at the same time, by several processes too. Errors
// are caisson.Error: ErrNotFound, ErrInvalid for what the component or its
// configuration got wrong, ErrUnsupported for what this storage can't do (told
// by Check before anything runs), ErrDenied, ErrExhausted, ErrUnavailable where
// trying again may help.
type Storage interface {
	// Name is what errors call it: its URL without credentials.
	Name() string

	// Features says what it can do. What is not there is refused with
	// ErrUnsupported.
	Features() Features

	// Table returns what is known of a table. Errors: ErrNotFound.
	Table(ctx context.Context, id string) (*Table, error)

	// Tables lists the tables, in the order of their ids.
	Tables(ctx context.Context) ([]Table, error)

	// Export selects rows of a table as it is now, whatever is loaded later. The
	// caller closes the Export; ctx bounds it until then. Errors: ErrNotFound;
	// ErrInvalid for a column that the table does not have.
	Export(ctx context.Context, id string, q *Query) (*Export, error)

	// Load puts rows into a table: all of them, with what goes before and after,
	// or nothing. A load whose ID is done already is not done again: its outcome
	// is returned, so that a caller that was killed can just repeat it.
	//
	// Errors: ErrInvalid if the rows don't fit, with the slice and the line.
	Load(ctx context.Context, l *Load) (*Loaded, error)

	// Files lists files, newest first.
	Files(ctx context.Context, q *FileQuery) ([]File, error)

	// OpenFile reads a file's contents. The caller closes it. Errors:
	// ErrNotFound.
	OpenFile(ctx context.Context, id int64) (io.ReadCloser, error)

	// PutFile adds a file with the contents of r. As with Load, a load id that
	// is done already returns the file that it made.
	PutFile(ctx context.Context, f *NewFile, r io.Reader) (*File, error)

	// TagFile adds tags to a file. Errors: ErrNotFound.
	TagFile(ctx context.Context, id int64, tags []string) error

	// Document returns a small document, such as a configuration's state, with
	// its version. Errors: ErrNotFound.
	Document(ctx context.Context, name string) (data []byte, version string, err error)

	// PutDocument replaces a document if its version still is the given one
	// (empty: if there is none) and returns the new one. Errors: ErrExists if
	// somebody else has changed it.
	PutDocument(ctx context.Context, name string, data []byte, version string) (string, error)

	// Close releases what the storage holds.
	Close() error
}

// Features is what a storage can do beyond the least.
type Features struct {
	ChangedSince bool // Query.ChangedSince: it remembers when a row was changed
	Types        bool // columns have types of their own; without it all are text
	FileQuery    bool // FileQuery.Query
}

// A Table is what is known of a table.
type Table struct {
	ID             string
	Name           string
	Columns        []string
	PrimaryKey     []string
	Created        time.Time
	LastChange     time.Time // of the table or its description
	LastImport     time.Time // of rows
	Rows           int64     // -1: not known
	Size           int64     // bytes; -1: not known
	Metadata       []Metadata
	ColumnMetadata map[string][]Metadata
}

// Metadata is a note on a table, a column or a bucket. Key and Provider
// together are unique.
type Metadata struct {
	ID       string          `json:"id"`
	Key      string          `json:"key"`
	Value    json.RawMessage `json:"value"` // a scalar of any type
	Provider string          `json:"provider"`
	Time     time.Time       `json:"timestamp"`
}

// A Query chooses rows and columns of a table.
type Query struct {
	Columns      []string // in this order; nil: all
	WhereColumn  string
	WhereValues  []string
	WhereNot     bool      // rows whose value is none of WhereValues
	ChangedSince time.Time // rows changed after it, so that a Table's LastImport tells what is new; zero: all
	ChangedUntil time.Time // rows changed at it or before; zero: all
	Limit        int64     // 0: none
}

// An Export is the answer to a Query, as CSV in one fixed form: RFC 4180, UTF-8,
// a header line, "," between fields, every field in quotes, a quote doubled, LF
// at the end of each line.
type Export struct {
	Columns []string
	// File is a file of this host that holds the whole answer already, in that
	// form, and that nobody will ever change; it may be removed, but not while
	// the Export is open. Empty: call WriteTo.
	File string
	// WriteTo writes the answer, once, in constant memory. It may be called
	// where File is set, too.
	WriteTo func(w io.Writer) (int64, error)
	// Close ends the Export, at any time. Never nil.
	Close func() error
}

// A Load is rows that go into one table.
type Load struct {
	// ID names the load for ever: no other load of any table has the same.
	ID    string
	Table string // its id; bucket and table are made if they are not there

	// Columns are the columns of every slice, in order. Those that the table does
	// not have are added to it, with empty values in its rows; those that it has
	// and the load has not are an error, also where the load replaces all rows.
	// Case does not matter: a table keeps the names that it has.
	Columns []string
	Slices  []Slice
	// Delimiter and Enclosure are of the slices' CSV; 0: ',' and '"'.
	Delimiter, Enclosure byte

	Incremental bool // keep the rows that are there
	// PrimaryKey is the key of a table that this load makes. In a table with a
	// key one row of each is kept, the last of a load; a row that was there and is
	// the same keeps the time of its change.
	PrimaryKey []string
	// SetPrimaryKey says that a table that is there is to have PrimaryKey, which
	// may be empty; without it, it keeps its own. Rows that the new key can't tell
	// apart are a warning, and the table keeps its key.
	SetPrimaryKey bool
	AddColumns    []string // that the table is to have besides
	Delete        []Delete // rows that go before; nothing of a table that is not there
	// Insert says that rows of the same key are all kept where the table's key
	// is not enforced (deduplication_strategy insert). A storage may enforce all.
	Insert bool

	Types          map[string]Type // of columns; without Features.Types all stay text
	Metadata       []Metadata      // replaces what has the same Key and Provider
	ColumnMetadata map[string][]Metadata
	BucketMetadata []Metadata // for a bucket that this load makes
}

// A Slice is a part of a load's rows: CSV without a header line. Rows of all
// slices are loaded, in any order.
type Slice struct {
	Name string // for errors: the file, as the component knows it
	Skip int64  // lines before the first row in Name, so that errors tell its lines
	// Open starts to read it from its first row; it may be called again. The
	// reader may be an *os.File, positioned there.
	Open func() (io.ReadCloser, error)
	Size int64 // bytes; -1: not known
}

// A Type is a column's type.
type Type struct {
	Base    string // STRING, INTEGER, NUMERIC, FLOAT, BOOLEAN, DATE or TIMESTAMP
	Length  string
	Default string
	NotNull bool
}

// A Delete is rows that are removed: those that every part of it is true of.
type Delete struct {
	ChangedSince, ChangedUntil time.Time // zero: whenever
	Where                      []Filter
}

// A Filter is true of rows by one column.
type Filter struct {
	Column string
	Values []string
	Not    bool // the value is none of Values
}

// Loaded is what a load did.
type Loaded struct {
	Table    Table
	Rows     int64    // in the slices
	Again    bool     // it was done by an earlier call
	Warnings []string // for people, such as a primary key that was changed
}

// A File is a file with tags.
type File struct {
	ID        int64
	Name      string
	Created   time.Time
	Tags      []string
	Size      int64
	Public    bool
	Permanent bool
	Encrypted bool
	Sliced    bool // its contents are a tar of slices
	MaxAge    int  // days; 0: for ever
}

// A FileQuery chooses files. All that is set must be true of a file.
type FileQuery struct {
	Tags    []string // all of them
	NotTags []string // none of them
	IDs     []int64
	Query   string // see section 2.2 of the mapping's documentation
	After   int64  // ids above this one
	// Settled leaves out files with ids above that of one that is still being
	// added: what it finds later has higher ids than all that it has found.
	Settled      bool
	ChangedSince time.Time
	Limit        int // 0: all
}

// A NewFile is a file to be added.
type NewFile struct {
	Load      string // as Load.ID
	Name      string
	Tags      []string
	Public    bool
	Permanent bool
	Encrypted bool
}
