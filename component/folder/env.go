//go:build unix

package folder

import (
	"crypto/sha1"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
)

// DataDir is KBC_DATADIR: some components put a name right behind it.
const DataDir = "/data/"

// queueFeature is the feature by which libraries tell a system that knows
// write_always.
const queueFeature = "queuev2"

// An Environment is what a step's variables are made of. An empty field that is
// optional leaves its variable out.
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
	Features      []string // the project's; "queuev2" is added
	Mode          string   // run or debug; empty: run

	DataTypeSupport string // optional; the main component's for processors too

	// ForwardToken and ForwardDetails are the component's forward_token and
	// forward_token_details; what follows is for them.
	ForwardToken, ForwardDetails    bool
	Token, URL                      string
	ProjectName, TokenID, TokenDesc string
	RealUser                        string // optional

	LoggerAddr string // optional; of a GELF listener
	LoggerPort int

	// Parameters are the configuration's, for ConfigID and Inject.
	Parameters *component.Value
	Inject     bool // inject_environment: each root parameter is KBC_PARAMETER_NAME
}

// Vars returns the variables. Errors: ErrInvalid if a parameter to be injected
// is not a scalar.
func (e *Environment) Vars() (map[string]string, error) {
	vars := map[string]string{
		"KBC_RUNID":                 e.RunID,
		"KBC_PROJECTID":             e.ProjectID,
		"KBC_DATADIR":               DataDir,
		"KBC_CONFIGID":              e.configID(),
		"KBC_CONFIGVERSION":         e.ConfigVersion,
		"KBC_COMPONENTID":           e.ComponentID,
		"KBC_STACKID":               e.StackID,
		"KBC_STAGING_FILE_PROVIDER": e.FileProvider,
		"KBC_PROJECT_FEATURE_GATES": e.features(),
		"KBC_COMPONENT_RUN_MODE":    e.mode(),
	}
	optional := map[string]string{
		"KBC_CONFIGROWID":       e.RowID,
		"KBC_BRANCHID":          e.BranchID,
		"KBC_DATA_TYPE_SUPPORT": e.DataTypeSupport,
	}
	if e.LoggerAddr != "" {
		vars["KBC_LOGGER_ADDR"] = e.LoggerAddr
		vars["KBC_LOGGER_PORT"] = strconv.Itoa(e.LoggerPort)
	}
	if e.ForwardToken {
		vars["KBC_TOKEN"], vars["KBC_URL"] = e.Token, e.URL
	}
	if e.ForwardDetails {
		vars["KBC_PROJECTNAME"], vars["KBC_TOKENID"], vars["KBC_TOKENDESC"] = e.ProjectName, e.TokenID, e.TokenDesc
		optional["KBC_REALUSER"] = e.RealUser
	}
	for name, value := range optional {
		if value != "" {
			vars[name] = value
		}
	}
	if e.Inject {
		return vars, e.inject(vars)
	}
	return vars, nil
}

// Secrets returns which of Vars nobody but the step may see: the token, and
// parameters under # keys.
func (e *Environment) Secrets() []string {
	var names []string
	if e.ForwardToken {
		names = append(names, "KBC_TOKEN")
	}
	if e.Inject && e.Parameters != nil {
		for _, m := range e.Parameters.Members {
			if strings.HasPrefix(m.Key, "#") {
				names = append(names, parameterVar(m.Key))
			}
		}
	}
	return names
}

// configID tells uses without a configuration apart by their parameters, as the
// reference does.
func (e *Environment) configID() string {
	if e.ConfigID != "" {
		return e.ConfigID
	}
	sum := sha1.Sum(serialize(e.Parameters))
	return hex.EncodeToString(sum[:])
}

func (e *Environment) features() string {
	list := slices.Clone(e.Features)
	if !slices.Contains(list, queueFeature) {
		list = append(list, queueFeature)
	}
	return strings.Join(list, ",")
}

func (e *Environment) mode() string {
	if e.Mode == "" {
		return "run"
	}
	return e.Mode
}

// inject adds a variable for each root parameter.
func (e *Environment) inject(vars map[string]string) error {
	if e.Parameters == nil {
		return nil
	}
	for _, m := range e.Parameters.Members {
		if !m.Value.IsScalar() {
			return invalid(caisson.OpValidate, "parameters."+m.Key,
				"is no single value: this component is given its parameters in environment variables")
		}
		value := scalarText(m.Value)
		if strings.Contains(value, "\x00") {
			return invalid(caisson.OpValidate, "parameters."+m.Key, "has a zero byte, which no environment variable can have")
		}
		vars[parameterVar(m.Key)] = value
	}
	return nil
}

// parameterVar returns the variable of a root parameter: its key in upper case,
// with "_" for each byte that is no letter, digits too.
func parameterVar(key string) string {
	name := []byte(key)
	for i, c := range name {
		switch {
		case c >= 'a' && c <= 'z':
			name[i] = c - 'a' + 'A'
		case c < 'A' || c > 'Z':
			name[i] = '_'
		}
	}
	return parameterPrefix + string(name)
}

const parameterPrefix = "KBC_PARAMETER_"

// IsParameter reports whether a variable is an injected parameter's.
func IsParameter(name string) bool { return strings.HasPrefix(name, parameterPrefix) }

// scalarText returns a scalar as PHP turns it into a string.
func scalarText(v *component.Value) string {
	if v.Kind != component.Bool {
		return v.Text
	}
	if v.Text == "true" {
		return "1"
	}
	return ""
}

// serialize writes a value as PHP's serialize does one that was read from JSON.
func serialize(v *component.Value) []byte { return appendSerialized(nil, v) }

func appendSerialized(out []byte, v *component.Value) []byte {
	switch {
	case v == nil || v.Kind == component.Object || v.Kind == component.List:
		return appendArray(out, v)
	case v.Kind == component.Null:
		return append(out, "N;"...)
	case v.Kind == component.Bool:
		return append(out, "b:"+map[string]string{"true": "1", "false": "0"}[v.Text]+";"...)
	case v.Kind == component.Number && strings.ContainsAny(v.Text, ".eE"):
		return append(out, "d:"+v.Text+";"...)
	case v.Kind == component.Number:
		return append(out, "i:"+v.Text+";"...)
	}
	return appendText(out, v.Text)
}

func appendText(out []byte, s string) []byte {
	return append(out, "s:"+strconv.Itoa(len(s))+`:"`+s+`";`...)
}

func appendArray(out []byte, v *component.Value) []byte {
	if v == nil {
		return append(out, "a:0:{}"...)
	}
	out = append(out, "a:"+strconv.Itoa(len(v.Items)+len(v.Members))+":{"...)
	for i, item := range v.Items {
		out = append(out, "i:"+strconv.Itoa(i)+";"...)
		out = appendSerialized(out, item)
	}
	for _, m := range v.Members {
		if n, err := strconv.Atoi(m.Key); err == nil && strconv.Itoa(n) == m.Key {
			out = append(out, "i:"+m.Key+";"...)
		} else {
			out = appendText(out, m.Key)
		}
		out = appendSerialized(out, m.Value)
	}
	return append(out, '}')
}
