//go:build unix

package mapping

import (
	"time"

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
	Source string      `json:"source"`
	Part   folder.Part `json:"part"` // of out/ that it was in
	ID     int64       `json:"id"`
	Name   string      `json:"name"`
	Tags   []string    `json:"tags"`
}
