//go:build unix

package mapping

import (
	"context"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/folder"
	"github.com/caissonrun/caisson/component/storage"
)

// Output is what is to become of what a component made.
type Output struct {
	Storage   storage.Storage
	Folder    *folder.Folder
	Config    component.Output
	Component *component.Definition
	Who       Who

	// LoadID begins the ids of all loads: it is of this attempt and row, and of no
	// other.
	LoadID string
	// DataTypes is what the component was told about types of columns: "", "none",
	// "hints" or "authoritative".
	DataTypes string
	// Failed maps only tables with write_always, and no files: the component, or
	// the output mapping, failed.
	Failed bool
	// Strict refuses tables and files that the configuration does not map.
	Strict bool
	// Parallel is how many tables are loaded at once; 0: DefaultParallel.
	Parallel int
	Now      time.Time      // what relative dates start at; zero: now, in UTC
	Progress func(Progress) // called one at a time; nil: nobody wants to know
}

// Who is whose output it is: system metadata and tags say so. Empty ones are
// left out.
type Who struct {
	Configuration string
	Row           string
	Branch        string
	Run           string
}

// Plan checks everything in out/ and says what would be loaded. It changes
// nothing in the storage.
//
// Errors: ErrInvalid and ErrNotFound for what the component or its configuration
// got wrong, all of it at once where that is possible; ErrUnsupported for what
// the storage can't do.
func (o *Output) Plan(ctx context.Context) (*Plan, error) { return nil, caisson.ErrUnsupported }

// Load does what a plan of the same folder says: files first, then tables. It
// can be repeated after an error or a crash; what is loaded already stays so.
// What was loaded is returned with an error, too.
//
// Errors: those of all loads, joined.
func (o *Output) Load(ctx context.Context, p *Plan) (*Loaded, error) {
	return nil, caisson.ErrUnsupported
}

// Loaded is what a plan has become.
type Loaded struct {
	Tables   []LoadedTable `json:"tables"`
	Files    []LoadedFile  `json:"files"`
	Warnings []string      `json:"warnings,omitempty"`
}

// A LoadedTable is one load of a table.
type LoadedTable struct {
	Source  string   `json:"source"` // in out/tables
	Table   string   `json:"table"`  // its id
	Rows    int64    `json:"rows"`   // loaded
	Columns []string `json:"columns"`
	Again   bool     `json:"again,omitempty"` // by an earlier call
}

// A LoadedFile is one file.
type LoadedFile struct {
	Source string   `json:"source"` // in out/files, or out/tables
	ID     int64    `json:"id"`
	Name   string   `json:"name"`
	Tags   []string `json:"tags"`
}

// DefaultBucket returns the bucket that tables go to whose table id nobody
// named, such as "in.c-keboola-ex-foo-123"; "" if there is none. Errors:
// ErrInvalid if the component has one for each configuration and there is no
// configuration id.
func DefaultBucket(def *component.Definition, out *component.Output, configuration string) (string, error) {
	return "", caisson.ErrUnsupported
}
