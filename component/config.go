package component

import (
	"time"
)

// Config is a configuration (with its row merged in), checked, with defaults
// filled in.
type Config struct {
	Parameters       *Value // an object or list; never nil
	ImageParameters  *Value // what the user gave; overwritten by the definition's
	Storage          StorageConfig
	Processors       Processors
	Runtime          Runtime
	Authorization    Authorization
	Action           string // "run" where it is not given
	VariablesID      string
	VariableValuesID string
	SharedCodeID     string
	SharedCodeRowIDs []string
	Artifacts        Artifacts

	tree *Value // as it was written, defaults added: what config.json is made of
}

// Runtime is what a configuration changes of how its component is run.
type Runtime struct {
	ImageTag       string
	Tag            string
	Safe           *bool
	ProcessTimeout time.Duration // 0: the definition's
	BackendType    string        // "", "xsmall", "small", "medium" or "large"
	BackendContext string
	Parallelism    string // "", "2" to "100" or "infinity"
	Extra          *Value // all of it as it was written; an object, never nil
}

// Authorization is where a component's credentials come from.
type Authorization struct {
	OAuthID          string // of the local store; of use where OAuthCredentials is nil
	OAuthCredentials *Value
	AppProxy         *Value
	Context          string
}

// Artifacts says which artifacts of earlier runs a component is given.
type Artifacts struct {
	Zip    bool // true where it is not given
	Tree   *Value
	Runs   bool
	Custom bool
	Shared bool
}
