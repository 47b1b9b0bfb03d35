//go:build unix

package mapping

import (
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/folder"
	"github.com/caissonrun/caisson/component/storage"
)

// Input is what a component is to be given.
type Input struct {
	Storage storage.Storage
	Folder  *folder.Folder
	Config  component.Input
	// State is the stored one, for changed_since "adaptive".
	State component.InputState

	// Rows bounds each table besides what the configuration says, as sandbox mode
	// does with SandboxRows; 0: no more than that.
	Rows int64
	// MaxTable is how many bytes a table may have; 0: no limit.
	MaxTable caisson.Bytes
	// Strict makes errors of what is otherwise a warning: two tables of one name.
	Strict bool
	// Ways is how a table that lies on this host as a file may get into the folder.
	Ways folder.Ways
	// Parallel is how many tables and files are fetched at once; 0:
	// DefaultParallel.
	Parallel int
	Now      time.Time      // what relative dates start at; zero: now, in UTC
	Progress func(Progress) // called one at a time; nil: nobody wants to know
}

// SandboxRows is how many rows of a table sandbox mode gives.
const SandboxRows = 50

// Fetched is what an input mapping did.
type Fetched struct {
	Tables    []FetchedTable       `json:"tables"`
	Files     []FetchedFile        `json:"files"`
	State     component.InputState `json:"state"` // to be kept if everything goes well
	Processed []Processed          `json:"processed"`
	Warnings  []string             `json:"warnings,omitempty"`
}

// A FetchedTable is a table in in/tables.
type FetchedTable struct {
	Table string     `json:"table"` // its id
	Name  string     `json:"name"`  // in in/tables
	Bytes int64      `json:"bytes"`
	How   folder.How `json:"how,omitempty"` // empty: its rows were written
	// Columns is for the result of the run.
	Columns []string `json:"columns"`
}

// A FetchedFile is a file in in/files.
type FetchedFile struct {
	ID    int64  `json:"id"`
	Name  string `json:"name"` // in in/files
	Bytes int64  `json:"bytes"`
}

// Processed is a file that gets tags once the output is mapped: see MarkFiles.
type Processed struct {
	File int64    `json:"file"`
	Tags []string `json:"tags"`
}
