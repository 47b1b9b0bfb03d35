package document_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"github.com/caissonrun/caisson/document"
)

func compile(t testing.TB, schema []byte) *jsonschema.Schema {
	t.Helper()
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", parsed); err != nil {
		t.Fatal(err)
	}
	out, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// asEditorsDo reads a document without knowing what it is about. It reports
// whether it could.
func asEditorsDo(t testing.TB, doc []byte) (any, bool) {
	t.Helper()
	if json.Valid(doc) {
		out, err := jsonschema.UnmarshalJSON(bytes.NewReader(doc))
		return out, err == nil
	}
	var plain any
	if err := yaml.Load(doc, &plain); err != nil {
		return nil, false
	}
	data, err := json.Marshal(plain)
	if err != nil {
		return nil, false
	}
	out, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	return out, err == nil
}

func TestSchemaTakesWhatParseTakes(t *testing.T) {
	schema := compile(t, document.Schema())
	docs := examples(t)
	docs["every"] = []byte(every)
	for name, doc := range docs {
		value, ok := asEditorsDo(t, doc)
		if !ok {
			t.Errorf("%s: can't be read", name)
			continue
		}
		if err := schema.Validate(value); err != nil {
			t.Errorf("%s: the schema refuses it: %v", name, err)
		}
	}
}

func TestSchemaRefusesWhatItCan(t *testing.T) {
	schema := compile(t, document.Schema())
	for _, test := range wrong {
		value, ok := asEditorsDo(t, []byte(test.doc))
		if !ok {
			if test.schema {
				t.Errorf("%s: can't be read, so that no schema can refuse it", test.name)
			}
			continue
		}
		if err := schema.Validate(value); (err != nil) != test.schema && test.doc != "" {
			t.Errorf("%s: schema = %v, want an error: %v\n%s", test.name, err, test.schema, test.doc)
		}
	}
}
