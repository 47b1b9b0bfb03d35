package storage

import (
	"fmt"
	"strings"

	"github.com/caissonrun/caisson"
)

// nameLimit is the longest name of a bucket or a table.
const nameLimit = 128

// An ID is the id of a table in its parts.
type ID struct {
	Stage  string // in or out
	Bucket string // with its c-
	Table  string
}

// String returns the id.
func (id ID) String() string { return id.Stage + "." + id.Bucket + "." + id.Table }

// ParseID reads a table's id. Names are of letters, digits, "_" and "-", so
// that every storage can have them. Errors: ErrInvalid.
func ParseID(id string) (ID, error) {
	parts := strings.Split(id, ".")
	bad := func(cause string) (ID, error) {
		return ID{}, &caisson.Error{Item: fmt.Sprintf("table %q", id), Kind: caisson.ErrInvalid, Err: fmt.Errorf("%s", cause)}
	}
	switch {
	case len(parts) != 3:
		return bad("the id of a table is STAGE.BUCKET.TABLE")
	case parts[0] != "in" && parts[0] != "out":
		return bad("the stage is in or out")
	case !name(parts[1]) || !name(parts[2]):
		return bad(fmt.Sprintf("names are at most %d letters, digits, _ and -", nameLimit))
	}
	return ID{Stage: parts[0], Bucket: parts[1], Table: parts[2]}, nil
}

func name(s string) bool {
	for _, c := range []byte(s) {
		if c != '_' && c != '-' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return s != "" && len(s) <= nameLimit
}
