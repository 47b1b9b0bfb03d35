//go:build unix

package run

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/executor"
)

// planVersion is the version of plan that this code writes. A newer one is
// refused.
const planVersion = 1

// A plan is what a run goes by from its acceptance on. Nothing in it is secret.
type plan struct {
	Version int    `json:"version"`
	Mode    string `json:"mode"`
	Action  string `json:"action"`
	Tag     string `json:"tag,omitempty"` // of the main image, in place of all others
	Strict  bool   `json:"strict,omitempty"`
	Storage string `json:"storage"`     // URL or folder
	Dir     string `json:"storage_dir"` // that a relative Storage starts at

	ConfigID      string `json:"config_id,omitempty"`
	ConfigVersion string `json:"config_version,omitempty"`
	// Components are the definitions by id: the main one, and processors'.
	Component  string              `json:"component"`
	Components map[string]*defined `json:"components"`
	Rows       []planRow           `json:"rows"`
	// Notes are for people, said when the run begins.
	Notes []string `json:"notes,omitempty"`
}

// A planRow is a row to be run.
type planRow struct {
	ID   string `json:"id,omitempty"`
	Name string `json:"name,omitempty"`
}

// defined is a component as it was defined when the run was accepted. What is
// sealed in the definition is opened in secrets.
type defined struct {
	*component.Definition
	// Operator says that the definition is the operator's.
	Operator bool `json:"operator,omitempty"`
}

// main is the component that is run.
func (p *plan) main() *defined { return p.Components[p.Component] }

// sync reports whether it is a synchronous action: an answer, no data.
func (p *plan) sync() bool { return p.Action != actionRun }

// actionRun is the action that is no synchronous one.
const actionRun = "run"

// secrets is what must not be on disk of a run. Each value under a "#" key is
// an entry of its own, so that it is found in logs; what they are taken from is
// not looked for.
type secrets struct {
	Configs []json.RawMessage        `json:"configs"` // of each row, plain
	Images  map[string]*imageSecrets `json:"images"`  // by component
	// Storage is the plan's, with its password.
	Storage string `json:"storage"`
	// Env are variables that the storage has looked up.
	Env   map[string]string `json:"env,omitempty"`
	Token string            `json:"token,omitempty"` // of the project, if a component asks for it
	// Builds are what the main image is made of, for each row, if it is built.
	Builds []*component.Build `json:"builds,omitempty"`
}

// imageSecrets is what is opened of a definition.
type imageSecrets struct {
	Parameters *component.Value `json:"parameters"`
	Password   string           `json:"password,omitempty"` // of its registry
}

// The names of entries in executor.Plan.Secrets.
const (
	secretAll   = "run"
	secretValue = "value-"
)

// pack makes of a plan what an executor keeps.
func pack(p *plan, s *secrets, values []string) (*executor.Plan, error) {
	data, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	all, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	out := &executor.Plan{Data: data, Secrets: map[string][]byte{secretAll: all}}
	for i, value := range values {
		out.Secrets[secretValue+strconv.Itoa(i)] = []byte(value)
	}
	return out, nil
}

// unpack reads what pack has made.
func unpack(job *executor.Job) (*plan, *secrets, [][]byte, error) {
	p, s := &plan{}, &secrets{}
	if err := json.Unmarshal(job.Data, p); err != nil {
		return nil, nil, nil, bad(err)
	}
	if p.Version > planVersion {
		return nil, nil, nil, &caisson.Error{
			Op: caisson.OpState, Item: "component", Kind: caisson.ErrUnsupported,
			Err: fmt.Errorf("accepted by a newer program (version %d, this one knows %d)", p.Version, planVersion),
		}
	}
	if err := json.Unmarshal(job.Secrets[secretAll], s); err != nil {
		return nil, nil, nil, bad(errors.New("its configuration can't be read")) // the cause could quote it
	}
	if len(s.Configs) != len(p.Rows) || p.main() == nil {
		return nil, nil, nil, bad(errors.New("its rows and configurations are not as many"))
	}
	var values [][]byte
	for name, value := range job.Secrets {
		if name != secretAll {
			values = append(values, value)
		}
	}
	return p, s, values, nil
}

func bad(err error) error {
	return &caisson.Error{Op: caisson.OpState, Item: "component", Kind: caisson.ErrInternal, Err: err}
}
