package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/fields"
)

// addSections puts the embedding program's sections into the table and returns
// which of their keys must be there. The table itself does not ask for them,
// because no single layer needs to have them.
func addSections(t *fields.Type, sections map[string]*Section) (map[string][]string, error) {
	required := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(sections)) {
		inner, err := fields.FromSchema(sections[name].Schema)
		if err == nil && inner.Form != fields.Object {
			err = fmt.Errorf("it must be an object with properties")
		}
		if err == nil {
			err = addSection(t, strings.Split(name, "."), inner)
		}
		if err != nil {
			return nil, &caisson.Error{
				Op: caisson.OpConfig, Item: "schema of section " + name, Kind: caisson.ErrInternal, Err: err,
			}
		}
		for i := range inner.Fields {
			if f := &inner.Fields[i]; f.Required {
				required[name] = append(required[name], f.Name)
				f.Required = false
			}
		}
	}
	return required, nil
}

// addSection puts a section at its place, with the sections around it.
func addSection(t *fields.Type, path []string, inner *fields.Type) error {
	for i := range t.Fields {
		if t.Fields[i].Name != path[0] {
			continue
		}
		if len(path) == 1 || t.Fields[i].Type.Form != fields.Object {
			return fmt.Errorf("there is a setting or section of that name already")
		}
		return addSection(t.Fields[i].Type, path[1:], inner)
	}
	field := fields.Field{Name: path[0], Type: inner}
	if len(path) > 1 {
		field.Type = section("a section")
		if err := addSection(field.Type, path[1:], inner); err != nil {
			return err
		}
	}
	t.Fields = append(t.Fields, field)
	return nil
}

// Schema returns the JSON Schema (draft 2020-12) of caisson.toml with the
// embedding program's sections. Where Load does not understand one of theirs,
// none of them is in it.
func Schema(sections map[string]*Section) []byte {
	t := table()
	if _, err := addSections(t, sections); err != nil {
		t = table()
	}
	return fields.Schema(t, map[string]any{
		"$id":         "urn:caisson:schema:config:1",
		"title":       "Caisson configuration",
		"description": "The settings of caisson.toml.",
	})
}
