//go:build unix

package folder

import (
	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
)

// DataDir is KBC_DATADIR: some components put a name right behind it.
const DataDir = "/data/"

// An Environment is what a step's variables are made of. An empty optional field
// leaves its variable out.
type Environment struct {
	RunID         string
	ProjectID     string
	ConfigID      string // empty: a digest of Parameters
	RowID         string // optional
	ConfigVersion string
	ComponentID   string // of the image that runs
	StackID       string
	BranchID      string // optional
	FileProvider  string
	// Features are the project's; "queuev2" is added, or libraries would take
	// this for a system that does not know write_always.
	Features        []string
	Mode            string // run or debug; empty: run
	DataTypeSupport string // optional; the main component's for processors too
	// ForwardToken and what follows are the component's forward_token and
	// forward_token_details.
	ForwardToken, ForwardDetails    bool
	Token, URL                      string
	ProjectName, TokenID, TokenDesc string
	RealUser                        string // optional
	LoggerAddr                      string // optional; of a GELF listener
	LoggerPort                      int
	// Parameters are the configuration's, for ConfigID and Inject.
	Parameters *component.Value
	Inject     bool // inject_environment: each root parameter is KBC_PARAMETER_NAME
}

// Vars returns the variables. Errors: ErrInvalid if a parameter to be injected
// is not a scalar.
func (e *Environment) Vars() (map[string]string, error) { return nil, caisson.ErrUnsupported }
