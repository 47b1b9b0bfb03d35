package component

import (
	"github.com/caissonrun/caisson/internal/fields"
)

// The names of the schemas that Schema returns.
var schemas = []struct {
	name, title, description string
	table                    func() *fields.Type
}{
	{"definition", "Component definition", "What a component is: an entry of a registry.", definitionType},
	{"configuration", "Component configuration", "How a component is used.", configType},
	{"state", "Component state", "What is kept of a configuration from run to run.", stateType},
	{"usage", "Component usage", "What a component says it used: out/usage.json.", usageType},
	{"table-manifest", "Table manifest", "What a component says about a table that it wrote: out/tables/NAME.manifest.", tableManifestType},
	{"file-manifest", "File manifest", "What a component says about a file that it wrote: out/files/NAME.manifest.", fileManifestType},
}

// Schemas returns the names of the schemas, with one line about each.
func Schemas() [][2]string {
	out := make([][2]string, len(schemas))
	for i, s := range schemas {
		out[i] = [2]string{s.name, s.description}
	}
	return out
}

// Schema returns the JSON Schema (draft 2020-12) of that name, or nil. What it
// refuses, the parser refuses, but for one thing: as PHP does, the parser takes
// [] for an empty mapping and a mapping of numbers for a list.
func Schema(name string) []byte {
	for _, s := range schemas {
		if s.name == name {
			return fields.Schema(s.table(), map[string]any{
				"$id": "urn:caisson:schema:" + name + ":1", "title": s.title, "description": s.description,
			})
		}
	}
	return nil
}
