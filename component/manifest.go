package component

import (
	"encoding/json"
)

// The most bytes that files of a component may have.
const (
	MaxManifest = 16 << 20
	MaxState    = 1 << 20
	MaxUsage    = 1 << 20
	MaxResult   = 1 << 20
)

// A TableManifest is what a component says about a table that it wrote, and
// what a mapping may say instead. Columns is empty where it is not given.
type TableManifest struct {
	Destination           string                     `json:"destination,omitempty"` // a table id, or a name in the default bucket
	PrimaryKey            []string                   `json:"primary_key"`           // trimmed, without empty ones, each once
	Incremental           bool                       `json:"incremental"`
	Columns               []string                   `json:"columns"` // not empty: the CSV has no header line, but see HasHeader
	Delimiter             string                     `json:"delimiter"`
	Enclosure             string                     `json:"enclosure"`
	DeleteWhereColumn     string                     `json:"delete_where_column,omitempty"`
	DeleteWhereValues     []string                   `json:"delete_where_values"`
	DeleteWhereOperator   string                     `json:"delete_where_operator"` // "eq" or "ne"
	DeleteWhere           []DeleteWhere              `json:"delete_where,omitempty"`
	Metadata              []Metadata                 `json:"metadata"`
	ColumnMetadata        map[string][]Metadata      `json:"column_metadata"`
	DistributionKey       []string                   `json:"distribution_key"`
	WriteAlways           bool                       `json:"write_always"` // loaded even if the component fails
	Tags                  []string                   `json:"tags"`
	DeduplicationStrategy string                     `json:"deduplication_strategy,omitempty"` // "", "insert" or "upsert"
	UnloadStrategy        string                     `json:"unload_strategy,omitempty"`
	ManifestType          string                     `json:"manifest_type,omitempty"`
	HasHeader             bool                       `json:"has_header,omitempty"` // the first line is skipped although columns are given
	Description           string                     `json:"description,omitempty"`
	TableMetadata         map[string]json.RawMessage `json:"table_metadata,omitempty"` // key to scalar
	Schema                []Column                   `json:"schema"`                   // in place of columns, keys and metadata
	// Warnings are what was mended when it was read, for people.
	Warnings []string `json:"-"`
}

// A DeleteWhere is rows that are removed before a load. All its parts must be
// true of a row.
type DeleteWhere struct {
	ChangedSince string        `json:"changed_since,omitempty"`
	ChangedUntil string        `json:"changed_until,omitempty"`
	Filters      []WhereFilter `json:"where_filters,omitempty"`
}

// A WhereFilter is true of rows by one column. Exactly one of the sources of
// values is set.
type WhereFilter struct {
	Column        string           `json:"column"`
	Operator      string           `json:"operator"` // "eq" or "ne"
	Values        []string         `json:"values_from_set,omitempty"`
	FromWorkspace *WorkspaceValues `json:"values_from_workspace,omitempty"`
	FromStorage   *StorageValues   `json:"values_from_storage,omitempty"`
}

// WorkspaceValues are the values of a workspace table's column.
type WorkspaceValues struct {
	WorkspaceID string `json:"workspace_id,omitempty"`
	Table       string `json:"table"`
	Column      string `json:"column,omitempty"`
}

// StorageValues are the values of a stored table's column.
type StorageValues struct {
	BucketID string `json:"bucket_id"`
	Table    string `json:"table"`
	Column   string `json:"column,omitempty"`
}

// Metadata is a note of a component on a table or column.
type Metadata struct {
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value"` // a scalar of any type
}

// A Column is a column of a table with types of its own.
type Column struct {
	Name            string                     `json:"name"`
	DataType        map[string]DataType        `json:"data_type,omitempty"` // by backend; "base" is for all
	Nullable        bool                       `json:"nullable"`            // true where it is not given
	PrimaryKey      bool                       `json:"primary_key"`
	DistributionKey bool                       `json:"distribution_key"`
	Description     string                     `json:"description,omitempty"`
	Metadata        map[string]json.RawMessage `json:"metadata,omitempty"`
}

// A DataType is the type of a column.
type DataType struct {
	Type    string `json:"type"`
	Length  string `json:"length,omitempty"`
	Default string `json:"default,omitempty"`
}

// A FileManifest is what a component says about a file that it wrote, and what
// a mapping may say instead.
type FileManifest struct {
	Tags        []string `json:"tags"`
	IsPublic    bool     `json:"is_public"`
	IsPermanent bool     `json:"is_permanent"`
	IsEncrypted bool     `json:"is_encrypted"` // true where it is not given
	Notify      bool     `json:"notify"`
}

// An InTableManifest is what the runner says about a table in in/tables.
// Times are as FormatTime writes them.
type InTableManifest struct {
	ID              string                       `json:"id"`
	URI             string                       `json:"uri"`
	Name            string                       `json:"name"`
	PrimaryKey      []string                     `json:"primary_key"`
	DistributionKey []string                     `json:"distribution_key"`
	Created         string                       `json:"created"`
	LastChangeDate  string                       `json:"last_change_date"`
	LastImportDate  string                       `json:"last_import_date"`
	Columns         []string                     `json:"columns"` // the selected ones, in the order of the selection
	Metadata        []StoredMetadata             `json:"metadata"`
	ColumnMetadata  map[string][]StoredMetadata  `json:"column_metadata"` // an entry for every column
	Schema          []Column                     `json:"schema"`
	Description     string                       `json:"description,omitempty"`
	IndexedColumns  []string                     `json:"indexed_columns,omitempty"`
	RowsCount       *int64                       `json:"rows_count,omitempty"`
	DataSizeBytes   *int64                       `json:"data_size_bytes,omitempty"`
	IsAlias         *bool                        `json:"is_alias,omitempty"`
	Attributes      []map[string]json.RawMessage `json:"attributes,omitempty"`
}

// StoredMetadata is a note that a storage keeps.
type StoredMetadata struct {
	ID        string          `json:"id"`
	Key       string          `json:"key"`
	Value     json.RawMessage `json:"value"`
	Provider  string          `json:"provider"`
	Timestamp string          `json:"timestamp"`
}

// An InFileManifest is what the runner says about a file in in/files.
type InFileManifest struct {
	ID          int64    `json:"id"`
	Name        string   `json:"name"`
	Created     string   `json:"created"`
	IsPublic    bool     `json:"is_public"`
	IsEncrypted bool     `json:"is_encrypted"`
	IsSliced    bool     `json:"is_sliced"`
	Tags        []string `json:"tags"`
	MaxAgeDays  int      `json:"max_age_days"`
	SizeBytes   int64    `json:"size_bytes"`
}
