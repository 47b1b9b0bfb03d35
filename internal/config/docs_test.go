package config

import (
	"flag"
	"os"
	"testing"

	"github.com/caissonrun/caisson/internal/fields"
)

var update = flag.Bool("update", false, "write the generated part of docs/configuration.md again")

// TestDocs checks that the tables of docs/configuration.md are those of the table.
func TestDocs(t *testing.T) {
	const path = "../../docs/configuration.md"
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, err := fields.Insert(string(page), table())
	if err != nil {
		t.Fatal(err)
	}
	if want == string(page) {
		return
	}
	if !*update {
		t.Fatal("docs/configuration.md is not up to date; run go test with -run TestDocs -update")
	}
	if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}
