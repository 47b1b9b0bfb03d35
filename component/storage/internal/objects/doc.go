// Package objects is a storage over anything that keeps named objects: a folder,
// or a server that speaks S3.
//
// # What lies where
//
//	in/c-BUCKET/TABLE.json         a table: what is known of it, and which objects hold its rows
//	in/c-BUCKET/.TABLE/V.csv       its rows, in the one form of package csv, with a header line
//	in/c-BUCKET/.TABLE/V.rows      when they were changed, where that differs
//	in/c-BUCKET/.bucket.json       the bucket's metadata
//	files/ID_NAME, files/ID.json   a file, and what is known of it
//	files/.loads/HASH              the id of the file that a load makes
//	files/.adding/ID               since when a file is being added, and its object
//	documents/NAME.json            a document
//
// A load writes new objects first, and then TABLE.json in one step, which holds
// the ids of loads too. Before that step the table is the old one, after it the
// new one; objects that no TABLE.json names are removed by a later load.
package objects

import (
	"context"
	"io"
	"time"

	"github.com/caissonrun/caisson/component/storage"
)

// A Store keeps objects. Keys are clean relative paths. Errors are
// caisson.Error with a kind.
type Store interface {
	// Name is the storage's name for errors.
	Name() string

	// Get returns a small object and its version. Errors: ErrNotFound.
	Get(ctx context.Context, key string) (data []byte, version string, err error)

	// Put replaces a small object if its version still is the given one (empty:
	// if there is none), durably, and returns its new version. Errors: ErrExists
	// if it is not.
	Put(ctx context.Context, key string, data []byte, version string) (string, error)

	// Open reads an object. It stays readable until it is closed. Errors:
	// ErrNotFound.
	Open(ctx context.Context, key string) (io.ReadCloser, error)

	// Create begins an object, which is there with Commit.
	Create(ctx context.Context, key string) (Object, error)

	// List returns the names directly below a folder, those of folders with a
	// "/" at the end.
	List(ctx context.Context, folder string) ([]string, error)

	// Remove removes an object if it is there.
	Remove(ctx context.Context, key string) error

	// Sweep removes the objects directly below a folder that keep is false of,
	// but none that may still be read or about to be named by somebody else.
	Sweep(ctx context.Context, folder string, keep func(name string) bool) error

	// Lock keeps others from doing the same, where the store can; Put's versions
	// are what holds.
	Lock(ctx context.Context, name string) (release func(), err error)

	// Scratch makes a folder of this host for what does not fit into memory.
	Scratch() (dir string, err error)

	Close() error
}

// An Object is being written.
type Object interface {
	io.Writer
	// Commit makes it durable under its key, and returns what tells it from
	// another version of the same.
	Commit() (Print, error)
	// Close takes back what was not committed.
	Close() error
}

// A Copier is an Object that can begin as a copy of another one, cheaper than by
// reading it.
type Copier interface {
	// CopyFrom is called before the first Write.
	CopyFrom(ctx context.Context, key string) error
}

// A Print tells whether an object is the one that it was.
type Print struct {
	Size int64  `json:"size"`
	Tag  string `json:"tag"`
}

// A Local store has its objects as files.
type Local interface {
	// Hold returns the path of an object's file, which stays until release.
	Hold(key string) (path string, release func() error, err error)
}

// A Shelf is a store in which people see tables as files of their own, and may
// put some.
type Shelf interface {
	// Show puts the rows in the object of a key where people look for them.
	Show(id storage.ID, key string) error

	// Shown returns what people see of a table. Errors: ErrNotFound.
	Shown(id storage.ID) (Print, time.Time, error)

	// OpenShown reads it.
	OpenShown(id storage.ID) (io.ReadCloser, error)

	// Has reports whether an object is there.
	Has(key string) bool

	// ShownName is its path, for errors.
	ShownName(id storage.ID) string
}
