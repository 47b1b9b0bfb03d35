package enginetest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caissonrun/caisson/engine"
)

// A Status is the outcome of a case on an engine.
type Status string

// The statuses.
const (
	Passed        Status = "pass"
	Refused       Status = "refuses" // it needs a feature that is not declared; a case checks the refusal
	NotApplicable Status = "n.a."    // the host or the harness can't show it
	Failed        Status = "fail"
)

// A Result is the outcome of one case.
type Result struct {
	Case   string   `json:"case"`
	Status Status   `json:"status"`
	Why    []string `json:"why,omitempty"`
}

// A Report is the outcome of the suite on one engine: the file that Run writes
// to the folder CAISSON_CONFORMANCE_DIR.
type Report struct {
	Engine  string           `json:"engine"`
	Version string           `json:"version,omitempty"`
	Missing []engine.Missing `json:"missing,omitempty"`
	Results []Result         `json:"results"`
}

// finish prints the numbers and writes the report where it is wanted.
func (r *Report) finish(t *testing.T) {
	count := make(map[Status]int)
	for _, result := range r.Results {
		count[result.Status]++
	}
	if dir := os.Getenv("CAISSON_CONFORMANCE_DIR"); dir != "" {
		data, err := json.MarshalIndent(r, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		name := strings.NewReplacer(" ", "-", ",", "", "/", "-").Replace(r.Engine) + ".json"
		if err := os.WriteFile(filepath.Join(dir, name), append(data, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("conformance of %s: ran %d (%d failed), refused %d, not applicable %d",
		r.Engine, count[Passed]+count[Failed], count[Failed], count[Refused], count[NotApplicable])
}
