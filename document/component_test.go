package document_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/document"
)

// everyComponent has every field of a component's run.
const everyComponent = `
version: 1
name: population
engine: oci
timeout: 1h
grace: 5s
retry: {limit: 1}
component:
  config: ./population
  definition: acme.join
  registry: ./registry
  storage: s3://bucket/prefix?endpoint=http://127.0.0.1:9000
  action: run
  rows: ["1", two]
  mode: dry-run
  tag: "1.2"
  variables: {year: 2026, name: x}
  strict_mapping: true
`

func TestParseComponent(t *testing.T) {
	got, err := document.Parse("every.yaml", []byte(everyComponent))
	if err != nil {
		t.Fatal(err)
	}
	want := &caisson.ComponentRun{
		Config: "./population", Definition: "acme.join", Registry: "./registry",
		Storage: "s3://bucket/prefix?endpoint=http://127.0.0.1:9000", Action: "run", Rows: []string{"1", "two"},
		Mode: caisson.ComponentDryRun, Tag: "1.2", Variables: map[string]string{"year": "2026", "name": "x"},
		StrictMapping: true,
	}
	if diff := cmp.Diff(want, got.Component); diff != "" {
		t.Error(diff)
	}
	schema := compile(t, document.Schema())
	for _, doc := range []string{everyComponent, "component: ./population", "component: {config: a, variable_values: b}"} {
		value, ok := asEditorsDo(t, []byte(doc))
		if !ok {
			t.Fatalf("%s can't be read", doc)
		}
		if err := schema.Validate(value); err != nil {
			t.Errorf("%s: the schema refuses it: %v", doc, err)
		}
	}
	short, err := document.Parse("short.yaml", []byte("component: ./population"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&caisson.ComponentRun{Config: "./population"}, short.Component); diff != "" {
		t.Error(diff)
	}
}
