package component

// StorageConfig is the storage section of a configuration.
type StorageConfig struct {
	Input  Input  `json:"input"`
	Output Output `json:"output"`
}

// Input is what a component is given.
type Input struct {
	ReadOnlyStorageAccess bool         `json:"read_only_storage_access,omitempty"`
	Tables                []InputTable `json:"tables"`
	Files                 []InputFile  `json:"files"`
}

// Output is what becomes of what a component made.
type Output struct {
	DefaultBucket      string        `json:"default_bucket,omitempty"`
	DataTypeSupport    string        `json:"data_type_support,omitempty"`   // "", "authoritative", "hints" or "none"
	TableModifications string        `json:"table_modifications,omitempty"` // "", "none", "non-destructive" or "all"
	TreatValuesAsNull  []string      `json:"treat_values_as_null,omitempty"`
	Tables             []OutputTable `json:"tables"`
	Files              []OutputFile  `json:"files"`
	TableFiles         *TableFiles   `json:"table_files,omitempty"` // nil: not asked for
}

// TableFiles asks for out/tables to be kept as plain files.
type TableFiles struct {
	Tags        []string `json:"tags"`
	IsPermanent bool     `json:"is_permanent"` // true where it is not given
}

// An InputTable is a table that a component is given.
type InputTable struct {
	Source         string       `json:"source"` // a table's id
	SourceBranchID string       `json:"source_branch_id,omitempty"`
	Destination    string       `json:"destination,omitempty"` // the file's name; empty: the source
	Days           int64        `json:"days,omitempty"`
	ChangedSince   string       `json:"changed_since,omitempty"` // "", a time, or "adaptive"
	Columns        []string     `json:"columns"`                 // empty: all, or those of ColumnTypes
	ColumnTypes    []ColumnType `json:"column_types"`
	WhereColumn    string       `json:"where_column,omitempty"`
	WhereValues    []string     `json:"where_values"`
	WhereOperator  string       `json:"where_operator"` // "eq" or "ne"
	// Limit is how many rows there are at most; 0: all.
	Limit                 int64  `json:"limit,omitempty"`
	Overwrite             bool   `json:"overwrite"`
	LoadType              string `json:"load_type,omitempty"`
	UseView               bool   `json:"use_view,omitempty"`
	KeepInternalTimestamp bool   `json:"keep_internal_timestamp_column"` // true where it is not given
	FileType              string `json:"file_type,omitempty"`            // "", "csv" or "parquet"
}

// FileName returns the name of the table's file in in/tables.
func (t *InputTable) FileName() string {
	if t.Destination != "" {
		return t.Destination
	}
	return t.Source
}

// A ColumnType chooses a column and its type in a workspace.
type ColumnType struct {
	Source                   string `json:"source"`
	Type                     string `json:"type,omitempty"`
	Destination              string `json:"destination,omitempty"`
	Length                   string `json:"length,omitempty"`
	Nullable                 string `json:"nullable,omitempty"`
	ConvertEmptyValuesToNull string `json:"convert_empty_values_to_null,omitempty"`
	Compression              string `json:"compression,omitempty"`
}

// An InputFile chooses files that a component is given.
type InputFile struct {
	Tags          []string    `json:"tags,omitempty"` // all of them
	Source        *FileSource `json:"source,omitempty"`
	Query         string      `json:"query,omitempty"`
	FileIDs       []int64     `json:"file_ids,omitempty"`
	ProcessedTags []string    `json:"processed_tags,omitempty"` // added to the files after success
	Limit         int         `json:"limit,omitempty"`          // 0: 100
	ChangedSince  string      `json:"changed_since,omitempty"`
	Overwrite     bool        `json:"overwrite"` // true where it is not given
	FilterByRunID bool        `json:"filter_by_run_id,omitempty"`
}

// A FileSource chooses files by tags.
type FileSource struct {
	Tags []SourceTag `json:"tags"`
}

// A SourceTag is a tag that files have, or must not have.
type SourceTag struct {
	Name  string `json:"name"`
	Match string `json:"match"` // "include" or "exclude"
}

// An OutputTable says where a table goes that a component wrote.
type OutputTable struct {
	Source string `json:"source"` // the file's name in out/tables
	TableManifest
}

// An OutputFile says what becomes of a file that a component wrote.
type OutputFile struct {
	Source string `json:"source"` // the file's name in out/files
	FileManifest
}

// A Processor is a component that runs before or after the main one.
type Processor struct {
	Component  string // its id in the registry
	Tag        string // of its image; empty: its definition's
	Parameters *Value // an object; never nil
}

// Processors are those of a configuration or row, in order.
type Processors struct {
	Before, After []Processor
}
