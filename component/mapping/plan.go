//go:build unix

package mapping

import (
	"time"

	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/folder"
	"github.com/caissonrun/caisson/component/storage"
)

// A Plan is what an output mapping will do. It is plain data: kept before the
// first load, it says the same after a crash.
type Plan struct {
	Files    []FileLoad  `json:"files"`
	Tables   []TableLoad `json:"tables"`
	Warnings []string    `json:"warnings,omitempty"`
}

// An Origin is where a value of a plan comes from.
type Origin string

// The origins.
const (
	FromMapping  Origin = "mapping"  // the configuration
	FromManifest Origin = "manifest" // beside the data
	FromBoth     Origin = "both"     // mapping and manifest, merged
	FromDefault  Origin = "default"  // nobody said anything
	FromName     Origin = "file name"
	FromBucket   Origin = "default bucket" // with a name from file or manifest
	FromHeader   Origin = "header"         // the first line of the CSV
	FromSchema   Origin = "schema"         // of the manifest or the mapping
	FromSystem   Origin = "system"
)

// A TableLoad is one load of one table.
type TableLoad struct {
	ID     string      `json:"id"`     // storage.Load.ID
	Source string      `json:"source"` // the name in out/tables
	Slices []SliceFile `json:"slices"`
	Table  string      `json:"table"`
	New    bool        `json:"new"` // the table is not there yet

	Columns       []string                      `json:"columns"`
	Delimiter     string                        `json:"delimiter"`
	Enclosure     string                        `json:"enclosure"`
	Incremental   bool                          `json:"incremental"`
	PrimaryKey    []string                      `json:"primary_key"`
	OldKey        []string                      `json:"old_primary_key,omitempty"` // the table's, where it will be changed
	Insert        bool                          `json:"insert,omitempty"`          // deduplication_strategy insert
	Delete        []storage.Delete              `json:"delete,omitempty"`
	Types         map[string]storage.Type       `json:"types,omitempty"`
	Metadata      []storage.Metadata            `json:"metadata"`
	ColumnMeta    map[string][]storage.Metadata `json:"column_metadata"`
	WriteAlways   bool                          `json:"write_always"`
	BucketCreated []storage.Metadata            `json:"bucket_metadata"`

	// Origins says where each value comes from, by its JSON name above.
	Origins map[string]Origin `json:"origins"`
}

// A SliceFile is a file with rows of a table.
type SliceFile struct {
	File   folder.Slice `json:"file"`
	Offset int64        `json:"offset"` // of the first row, in what is unpacked
	Lines  int64        `json:"lines"`  // before the first row
}

// A FileLoad is one file.
type FileLoad struct {
	ID     string                 `json:"id"`     // storage.NewFile.Load
	Part   folder.Part            `json:"part"`   // of out/
	Source string                 `json:"source"` // its name there
	Name   string                 `json:"name"`   // that it is given
	File   folder.Slice           `json:"file"`
	Tags   []string               `json:"tags"`
	Said   component.FileManifest `json:"said"`
	Origin Origin                 `json:"origin"`
}

// timeOrNow is what relative dates start at.
func timeOrNow(t time.Time) time.Time {
	if t.IsZero() {
		return time.Now().UTC()
	}
	return t
}
