package component

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/fields"
)

// A Library is a folder of variables and shared code, in JSON or YAML:
//
//	variables/ID.yaml     variables: [{name: a, type: string}]
//	                      values: {VALUES-ID: {a: 1}}
//	shared_code/ID.yaml   {ROW-ID: {code_content: [text, ...]}}
type Library struct{ Dir string }

// read reads a file of the library.
func (l *Library) read(kind, what, id string, t *fields.Type) (*Value, error) {
	file := ""
	if l != nil && l.Dir != "" && safeName(id) {
		file = oneOf(filepath.Join(l.Dir, kind), id)
	}
	if file == "" {
		return nil, &caisson.Error{
			Op: caisson.OpValidate, Item: id, Kind: caisson.ErrNotFound,
			Err: fmt.Errorf("there are no %s of that id: no file %s", what, filepath.Join(kind, clip(id))+".json, .yaml or .yml"),
		}
	}
	v, err := readText(file)
	if err != nil {
		return nil, err
	}
	return check(file, v, t)
}

// safeName reports whether id can be the name of a file.
func safeName(id string) bool {
	return id != "" && !strings.HasPrefix(id, ".") && !strings.ContainsAny(id, "/\\\x00")
}

func variablesType() *fields.Type {
	return object(
		"a mapping with variables and values",
		field("variables", list(object(
			"a mapping with name and type",
			required("name", given("a variable's name"), "The variable."),
			field("type", scalar(), "", "Information only."),
		)), "", "The variables."),
		field("values", mapping(mapping(scalar())), "", "Sets of values, by id: mappings of names to values."),
	)
}

func sharedCodeType() *fields.Type {
	text := scalar()
	text.Null = false
	content := &fields.Type{Form: fields.Choice, Want: "text or a list of texts", Choices: []*fields.Type{
		{Form: fields.Text, Lines: true}, {Form: fields.Series, Elem: text},
	}}
	return mapping(object(
		"a mapping with code_content",
		required("code_content", content, "The code."),
		field("variables_id", scalar(), "", "Information only."),
	))
}
