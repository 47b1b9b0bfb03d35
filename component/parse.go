package component

import (
	"errors"

	"github.com/caissonrun/caisson"
)

// A Format is the syntax of a component's files.
type Format string

// The formats.
const (
	JSON Format = "json"
	YAML Format = "yaml"
)

// errTodo is what is not there yet.
var errTodo = &caisson.Error{Op: caisson.OpValidate, Kind: caisson.ErrUnsupported, Err: errors.New("not there yet")}

// ParseTableManifest reads the manifest of a table that a component wrote. Name
// is what errors call it. Errors: Problems, of kind ErrInvalid.
func ParseTableManifest(name string, data []byte, f Format) (*TableManifest, error) {
	return nil, errTodo
}

// ParseFileManifest reads the manifest of a file that a component wrote. Errors:
// Problems.
func ParseFileManifest(name string, data []byte, f Format) (*FileManifest, error) {
	return nil, errTodo
}

// ParseState reads a stored state. Errors: Problems.
func ParseState(name string, data []byte) (*State, error) { return nil, errTodo }

// Marshal returns the state as it is stored.
func (s *State) Marshal() ([]byte, error) { return nil, errTodo }

// ParseComponentState reads out/state.json: any object or list. Errors: the
// application's Problems.
func ParseComponentState(name string, data []byte, f Format) (*Value, error) { return nil, errTodo }

// ParseUsage reads out/usage.json. Errors: the application's Problems.
func ParseUsage(name string, data []byte) ([]Usage, error) { return nil, errTodo }

// ParseResultDoc reads out/result.json. Errors: Problems, which a run only warns
// of.
func ParseResultDoc(name string, data []byte) (*ResultDoc, error) { return nil, errTodo }
