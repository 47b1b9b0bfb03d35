// Package schema checks JSON values against JSON Schemas (draft 2020-12 where
// they do not say) that are somebody else's: an engine's, or an operator's.
package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// A Schema is one that was compiled.
type Schema struct{ compiled *jsonschema.Schema }

// name is what the schema is called within itself.
const name = "urn:caisson:schema"

// Compile reads a schema. It reads nothing else: references that lead out of
// data are errors.
func Compile(data []byte) (*Schema, error) {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	compiler := jsonschema.NewCompiler()
	compiler.UseLoader(jsonschema.SchemeURLLoader{})
	if err := compiler.AddResource(name, value); err != nil {
		return nil, err
	}
	compiled, err := compiler.Compile(name)
	if err != nil {
		return nil, err
	}
	return &Schema{compiled}, nil
}

// Check returns data as it was understood, without what two readers could
// understand in two ways, such as a key that stands there twice. Otherwise it
// returns one error with everything that is wrong.
func (s *Schema) Check(data []byte) ([]byte, error) {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	var problems *jsonschema.ValidationError
	if err := s.compiled.Validate(value); errors.As(err, &problems) {
		return nil, errors.New(strings.Join(leaves(problems), "; "))
	} else if err != nil {
		return nil, err
	}
	return json.Marshal(value)
}

// leaves lists what is wrong, without the schema's own structure.
func leaves(e *jsonschema.ValidationError) []string {
	if len(e.Causes) == 0 {
		what := e.ErrorKind.LocalizedString(message.NewPrinter(language.English))
		if at := strings.Join(e.InstanceLocation, "."); at != "" {
			what = at + ": " + what
		}
		return []string{what}
	}
	var list []string
	for _, cause := range e.Causes {
		list = append(list, leaves(cause)...)
	}
	return list
}
