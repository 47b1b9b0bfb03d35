package objects

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/csv"
)

// format is the version of TABLE.json.
const format = 1

// remembered is how many loads a table remembers.
const remembered = 4096

// A record is TABLE.json. Names of objects are relative to the table's folder.
type record struct {
	Format     int       `json:"format"`
	ID         string    `json:"id"`
	Columns    []string  `json:"columns"`
	PrimaryKey []string  `json:"primary_key"`
	Created    time.Time `json:"created"`
	LastChange time.Time `json:"last_change"`
	LastImport time.Time `json:"last_import"`
	Rows       int64     `json:"rows"`

	Data    string    `json:"data"`
	Print   Print     `json:"print"` // of Data
	Stamps  string    `json:"stamps,omitempty"`
	Changed time.Time `json:"changed"` // when all rows were, where there are no Stamps
	// Before is what people saw when this was written, so that it is not taken
	// for a table of theirs if what they see could not be replaced.
	Before Print `json:"before"`

	Metadata       []storage.Metadata            `json:"metadata,omitempty"`
	ColumnMetadata map[string][]storage.Metadata `json:"column_metadata,omitempty"`
	Loads          []done                        `json:"loads,omitempty"`
	Replaced       []replaced                    `json:"replaced,omitempty"`
}

// done is a load that is done.
type done struct {
	ID       string   `json:"id"`
	Rows     int64    `json:"rows"`
	Warnings []string `json:"warnings,omitempty"`
}

// replaced is an object that may still be read.
type replaced struct {
	Name string    `json:"name"`
	Time time.Time `json:"time"`
}

// A table is one as it was at one time.
type table struct {
	id      storage.ID
	version string // of record; empty: there is none
	record  record
	theirs  bool // the rows are what people put there, see Shelf
}

func recordKey(id storage.ID) string { return id.Stage + "/" + id.Bucket + "/" + id.Table + ".json" }

func folder(id storage.ID) string { return id.Stage + "/" + id.Bucket + "/." + id.Table }

// find returns the table. Errors: ErrNotFound.
func (s *Storage) find(ctx context.Context, id storage.ID) (*table, error) {
	t, err := s.load(ctx, id)
	if err != nil {
		return nil, err
	}
	shelf, ok := s.store.(Shelf)
	for ok {
		if err := t.look(shelf); err != nil {
			return nil, err
		}
		if !t.theirs {
			break
		}
		// What people see can be newer than what was read before.
		again, err := s.load(ctx, id)
		if err != nil {
			return nil, err
		}
		if again.version == t.version {
			break
		}
		t = again
	}
	if t.version == "" && !t.theirs {
		return nil, &caisson.Error{Item: fmt.Sprintf("table %q", id), Kind: caisson.ErrNotFound, Err: fmt.Errorf("not in %s", s.Name())}
	}
	return t, nil
}

// load reads TABLE.json, if there is one.
func (s *Storage) load(ctx context.Context, id storage.ID) (*table, error) {
	t := &table{id: id}
	data, version, err := s.store.Get(ctx, recordKey(id))
	if errors.Is(err, caisson.ErrNotFound) {
		return t, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &t.record); err != nil {
		return nil, s.broken(recordKey(id), err)
	}
	if t.record.Format != format {
		return nil, &caisson.Error{Item: recordKey(id), Kind: caisson.ErrUnsupported, Err: fmt.Errorf(
			"its format is %d, this program knows %d", t.record.Format, format,
		)}
	}
	t.version = version
	return t, nil
}

func (s *Storage) broken(key string, err error) error {
	return &caisson.Error{Item: s.Name() + "/" + key, Kind: caisson.ErrInternal, Err: err}
}

// look takes the rows that people put in place of the table's own.
func (t *table) look(shelf Shelf) error {
	print, at, err := shelf.Shown(t.id)
	if errors.Is(err, caisson.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if t.version != "" && (print == t.record.Print || print == t.record.Before) && t.whole(shelf) {
		return nil
	}
	columns, err := t.head(shelf)
	if errors.Is(err, caisson.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	t.theirs = true
	t.adopt(columns, print, at.UTC().Truncate(time.Microsecond))
	return nil
}

// whole reports whether the table's objects are there. People remove hidden
// folders, and copy what they see alone.
func (t *table) whole(shelf Shelf) bool {
	return shelf.Has(folder(t.id)+"/"+t.record.Data) &&
		(t.record.Stamps == "" || shelf.Has(folder(t.id)+"/"+t.record.Stamps))
}

func (t *table) head(shelf Shelf) ([]string, error) {
	r, err := shelf.OpenShown(t.id)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	head, err := csv.ReadHead(r, csv.Options{Name: shelf.ShownName(t.id)})
	if errors.Is(err, io.EOF) {
		return nil, invalid(t.id, "%s has no header line", shelf.ShownName(t.id))
	}
	if err != nil {
		return nil, err
	}
	return head.Columns, checkColumns(t.id, head.Columns)
}

// adopt makes the record fit to rows that people put there.
func (t *table) adopt(columns []string, print Print, at time.Time) {
	r := &t.record
	r.ID, r.Columns = t.id.String(), columns
	r.LastChange, r.LastImport, r.Changed = at, at, at
	if r.Created.IsZero() {
		r.Created = at
	}
	if !slices.ContainsFunc(r.PrimaryKey, func(name string) bool { return index(columns, name) < 0 }) {
		r.PrimaryKey = named(columns, r.PrimaryKey)
	} else {
		r.PrimaryKey = nil
	}
	r.Rows, r.Stamps, r.Print, r.Before = -1, "", print, print
}

func (t *table) describe() *storage.Table {
	r := &t.record
	return &storage.Table{
		ID: r.ID, Name: t.id.Table,
		Columns: slices.Clone(r.Columns), PrimaryKey: slices.Clone(r.PrimaryKey),
		Created: r.Created, LastChange: r.LastChange, LastImport: r.LastImport,
		Rows: r.Rows, Size: r.Print.Size,
		Metadata: r.Metadata, ColumnMetadata: r.ColumnMetadata,
	}
}

// ids lists tables in order.
func (s *Storage) ids(ctx context.Context) ([]string, error) {
	var ids []string
	for _, stage := range []string{"in", "out"} {
		buckets, err := s.store.List(ctx, stage)
		if err != nil {
			return nil, err
		}
		for _, b := range buckets {
			bucket, ok := strings.CutSuffix(b, "/")
			if !ok || strings.HasPrefix(b, ".") {
				continue
			}
			found, err := s.tablesOf(ctx, stage, bucket)
			if err != nil {
				return nil, err
			}
			ids = append(ids, found...)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

func (s *Storage) tablesOf(ctx context.Context, stage, bucket string) ([]string, error) {
	names, err := s.store.List(ctx, stage+"/"+bucket)
	if err != nil {
		return nil, err
	}
	_, shelf := s.store.(Shelf)
	var ids []string
	for _, name := range names {
		base, ok := strings.CutSuffix(name, ".json")
		if !ok && shelf {
			base, ok = strings.CutSuffix(name, ".csv")
		}
		id, err := storage.ParseID(stage + "." + bucket + "." + base)
		if ok && err == nil {
			ids = append(ids, id.String())
		}
	}
	return ids, nil
}

// index returns where a column is, whatever its case, or -1.
func index(columns []string, name string) int {
	if i := slices.Index(columns, name); i >= 0 {
		return i
	}
	return slices.IndexFunc(columns, func(c string) bool { return strings.EqualFold(c, name) })
}

// named returns names as columns has them, each once.
func named(columns, names []string) []string {
	var list []string
	for _, n := range names {
		if c := columns[index(columns, n)]; !slices.Contains(list, c) {
			list = append(list, c)
		}
	}
	return list
}

func checkColumns(id storage.ID, columns []string) error {
	if len(columns) == 0 {
		return invalid(id, "it has no columns")
	}
	if len(columns) > csv.FieldLimit {
		return invalid(id, "it has %d columns, the limit is %d", len(columns), csv.FieldLimit)
	}
	seen := map[string]bool{}
	for _, c := range columns {
		lower := strings.ToLower(c)
		switch {
		case c == "":
			return invalid(id, "a column has no name")
		case lower == "_timestamp":
			return invalid(id, "column %q can't be loaded: its name is the system's", c)
		case seen[lower]:
			return invalid(id, "column %q is there twice", c)
		}
		seen[lower] = true
	}
	return nil
}
