//go:build unix

package run

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/mapping"
	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/internal/safefs"
)

// A phase is what is to be done next for the row at hand.
type phase string

// The phases, in order. Each can be done again from its begin.
const (
	phaseInput   phase = "input"    // make the folder, map the input in
	phaseImages  phase = "images"   // make all images ready
	phaseSteps   phase = "steps"    // run processors and the component
	phaseOutput  phase = "output"   // map the output out
	phaseCleanUp phase = "clean up" // remove the folder
)

// progressVersion is the version of progress.json that this code writes.
const progressVersion = 1

// progress is what is durable about an attempt, in progress.json: who goes on
// reads where it is.
type progress struct {
	Version int   `json:"version"`
	Row     int   `json:"row"` // the one at hand
	Phase   phase `json:"phase"`
	Step    int   `json:"step"` // the one at hand
	// Started says that the step's files are ready, and that it may be running.
	Started bool `json:"started,omitempty"`
	// Ended says that what the step has left has been read.
	Ended bool `json:"ended,omitempty"`
	// Failure is why the run has failed; what follows is cleaning up.
	Failure *failure    `json:"failure,omitempty"`
	Rows    []rowReport `json:"rows"`
}

// A rowReport is what is known of a row.
type rowReport struct {
	ID        string                     `json:"id,omitempty"`
	Fetched   *mapping.Fetched           `json:"input,omitempty"`
	Steps     []stepReport               `json:"steps,omitempty"`
	Loaded    *mapping.Loaded            `json:"output,omitempty"`
	Plan      *mapping.Plan              `json:"plan,omitempty"` // of a dry run
	Usage     []component.Usage          `json:"usage,omitempty"`
	Result    map[string]json.RawMessage `json:"variables,omitempty"`
	Archives  []archive                  `json:"archives,omitempty"`
	Warnings  []string                   `json:"warnings,omitempty"`
	Artifacts *Artifacts                 `json:"artifacts,omitempty"`
	// State is what is to be stored: sealed, with the version that it replaces.
	State *pendingState `json:"state,omitempty"`
}

// A stepReport is what is known of a step.
type stepReport struct {
	Component string        `json:"component"`
	Image     string        `json:"image,omitempty"` // as it was run
	Digest    string        `json:"digest,omitempty"`
	Task      string        `json:"task,omitempty"` // the child
	Exit      *caisson.Exit `json:"exit,omitempty"`
}

// An archive is a copy of a data folder in the storage.
type archive struct {
	Name string `json:"name"`
	File int64  `json:"file"`
}

// A pendingState is a state that is stored when everything has gone well.
type pendingState struct {
	Document string          `json:"document"`
	Version  string          `json:"version"` // that it replaces
	Data     json.RawMessage `json:"data,omitempty"`
	Done     bool            `json:"done,omitempty"`
}

// progressFile is where progress is kept, in the attempt's folder.
const progressFile = "progress.json"

// readProgress returns where an attempt is.
func readProgress(dir string, rows []planRow) (*progress, error) {
	path := filepath.Join(dir, progressFile)
	p := &progress{Version: progressVersion, Phase: phaseInput}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		for _, row := range rows {
			p.Rows = append(p.Rows, rowReport{ID: row.ID})
		}
		return p, nil
	}
	if err != nil {
		return nil, safefs.Sorted(caisson.OpState, path, err)
	}
	if err := json.Unmarshal(data, p); err != nil || len(p.Rows) != len(rows) {
		return nil, &caisson.Error{Op: caisson.OpState, Item: path, Kind: caisson.ErrInvalid, Err: errors.New("it is damaged")}
	}
	if p.Version > progressVersion {
		return nil, &caisson.Error{
			Op: caisson.OpState, Item: path, Kind: caisson.ErrUnsupported,
			Err: fmt.Errorf("written by a newer program (version %d, this one knows %d)", p.Version, progressVersion),
		}
	}
	return p, nil
}

// writeJSON makes name in dir hold v, durably.
func writeJSON(dir, name string, v any) error {
	path := filepath.Join(dir, name)
	data, err := json.Marshal(v)
	if err == nil {
		err = atomicfile.Write(path, data, 0o600)
	}
	return safefs.Sorted(caisson.OpState, path, err)
}

// readJSON reads what writeJSON has written; false if there is nothing.
func readJSON(dir, name string, v any) (bool, error) {
	path := filepath.Join(dir, name)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	return err == nil, safefs.Sorted(caisson.OpState, path, err)
}
