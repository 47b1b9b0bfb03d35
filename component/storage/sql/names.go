package sql

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
)

// A tableID is a table's id in the parts that matter here.
type tableID struct {
	bucket string // "in.c-main"
	table  string
}

func (t tableID) String() string { return t.bucket + "." + t.table }

// parseID reads a table's id. Errors: ErrInvalid.
func parseID(id string) (tableID, error) {
	parsed, err := storage.ParseID(id)
	return tableID{bucket: parsed.Stage + "." + parsed.Bucket, table: parsed.Table}, err
}

// checkText refuses what no database can hold.
func checkText(what, text string) error {
	if strings.IndexByte(text, 0) >= 0 || !utf8.ValidString(text) {
		return invalid(what, "%q is not UTF-8 or has a NUL", text)
	}
	return nil
}

// quote makes a name one of a statement, whatever is in it.
func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func quoteAll(names []string, prefix string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = prefix + quote(n)
	}
	return strings.Join(quoted, ", ")
}

// literal makes a text one of a statement. PostgreSQL is told to take
// backslashes as they are.
func literal(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

func literals(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = literal(v)
	}
	return strings.Join(quoted, ", ")
}

// find returns the table's own spelling of a column: the same name, or else the
// same but for case.
func find(columns []string, name string) (string, bool) {
	folded := ""
	for _, c := range columns {
		if c == name {
			return c, true
		}
		if folded == "" && strings.EqualFold(c, name) {
			folded = c
		}
	}
	return folded, folded != ""
}

// checkColumns refuses names that a table can't have.
func (s *Storage) checkColumns(item string, columns []string) error {
	seen := make(map[string]string, len(columns))
	for _, name := range columns {
		folded := strings.ToLower(name)
		if before, ok := seen[folded]; ok {
			return invalid(item, "columns %q and %q are the same but for case; a table has each once", before, name)
		}
		seen[folded] = name
		if folded == hidden {
			return invalid(item, "column %q is the storage's own; rename it", name)
		}
		if name == "" {
			return invalid(item, "a column has no name")
		}
		if err := checkText(item, name); err != nil {
			return err
		}
		if err := s.d.fits("column", name); err != nil {
			return fmt.Errorf("%s: %w", item, err)
		}
	}
	return nil
}

// checkTable checks that a table of this id can be made.
func (s *Storage) checkTable(id tableID) error {
	if err := s.d.fits("bucket", id.bucket); err != nil {
		return err
	}
	return s.d.fits("table", id.table)
}

func notFound(id tableID) error {
	return &caisson.Error{
		Item: id.String(), Kind: caisson.ErrNotFound,
		Err: fmt.Errorf("there is no such table"),
	}
}
