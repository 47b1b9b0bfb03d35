package fields_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson/internal/fields"
)

func TestSuggest(t *testing.T) {
	known := []string{"memory", "cpus", "name", "network", "run", "retry", "env"}
	for word, want := range map[string]string{
		"memroy": "memory", "Memory": "memory", "cpu": "cpus", "nmae": "name", "networks": "network", "nun": "run",
		"zzz": "", "": "", "r": "", "image": "", strings.Repeat("m", 10_000): "",
	} {
		if got := fields.Suggest(word, known); got != want {
			t.Errorf("Suggest(%.20q) = %q, want %q", word, got, want)
		}
	}
}

func TestJoin(t *testing.T) {
	for _, test := range []struct{ path, key, want string }{
		{"", "a", "a"}, {"a", "b", "a.b"}, {"a[0]", "b-c", "a[0].b-c"}, {"env", "x y", `env["x y"]`}, {"", "a.b", `["a.b"]`}, {"a", "", `a[""]`},
	} {
		if got := fields.Join(test.path, test.key); got != test.want {
			t.Errorf("Join(%q, %q) = %q, want %q", test.path, test.key, got, test.want)
		}
	}
}

func TestProblemString(t *testing.T) {
	for want, p := range map[string]fields.Problem{
		"f:1:2: a.b: wrong":    {File: "f", Line: 1, Column: 2, Path: "a.b", Message: "wrong"},
		"line 1:2: a.b: wrong": {Line: 1, Column: 2, Path: "a.b", Message: "wrong"},
		"f: wrong":             {File: "f", Message: "wrong"},
		"wrong":                {Message: "wrong"},
	} {
		if got := p.String(); got != want {
			t.Errorf("String() = %q, want %q", got, want)
		}
	}
}

func TestFromSchema(t *testing.T) {
	t.Run("SchemaOfTheType", func(t *testing.T) {
		// What is understood comes out again as the same schema.
		const schema = `{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "additionalProperties": false,
  "properties": {
    "count": {
      "description": "How many.",
      "examples": [
        3
      ],
      "maximum": 9,
      "minimum": -1,
      "type": "integer"
    },
    "factor": {
      "maximum": 1.5,
      "minimum": 0.5,
      "type": "number"
    },
    "host": {
      "pattern": "^unix:",
      "type": "string"
    },
    "key": {
      "pattern": "^[^\\x00]*$",
      "type": "string",
      "writeOnly": true
    },
    "kind": {
      "enum": [
        "a",
        "b"
      ],
      "type": "string"
    },
    "on": {
      "type": "boolean"
    },
    "rest": {
      "type": "object"
    },
    "sizes": {
      "items": {
        "pattern": "^[0-9]+$",
        "type": [
          "string",
          "number",
          "boolean"
        ]
      },
      "minItems": 1,
      "type": "array",
      "uniqueItems": true
    }
  },
  "required": [
    "host"
  ],
  "type": "object"
}
`
		typ, err := fields.FromSchema([]byte(schema))
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Replace(string(fields.Schema(typ, nil)), `
        "minimum": 0,`, "", 1)
		if diff := cmp.Diff(schema, got); diff != "" {
			t.Errorf("Schema(FromSchema(s)), want - got +:\n%s", diff)
		}
	})
	for name, schema := range map[string]string{
		"Syntax":       `{`,
		"NoType":       `{}`,
		"Keyword":      `{"type": "string", "format": "uri"}`,
		"KeywordBelow": `{"type": "object", "properties": {"a": {"oneOf": []}}}`,
		"Type":         `{"type": "null"}`,
		"Types":        `{"type": ["integer", "boolean"]}`,
		"TypesNull":    `{"type": ["string", "null"]}`,
		"Pattern":      `{"type": "string", "pattern": "("}`,
		"MinLength":    `{"type": "string", "minLength": 2}`,
		"Maximum":      `{"type": "integer", "maximum": -1}`,
		"Items":        `{"type": "array"}`,
		"Both":         `{"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}`,
		"Enum":         `{"type": "string", "enum": [1]}`,
	} {
		t.Run("Err"+name, func(t *testing.T) {
			if typ, err := fields.FromSchema([]byte(schema)); err == nil {
				t.Errorf("FromSchema(%s) = %+v, want an error", schema, typ)
			}
		})
	}
}

func TestMarkdown(t *testing.T) {
	inner := &fields.Type{Form: fields.Object, Name: "step", Fields: []fields.Field{
		{Name: "a", Type: &fields.Type{Form: fields.Text, Enum: []string{"x", "y"}}, Doc: "One | two.", Required: true},
	}}
	list := &fields.Type{Form: fields.Series, Elem: inner}
	got := fields.Markdown(&fields.Type{Form: fields.Object, Fields: []fields.Field{
		{Name: "pre", Type: list, Doc: "Before.", Default: "none", Examples: []any{[]any{map[string]any{"a": "<x>"}}}},
		{Name: "post", Type: list, Doc: "After."},
	}})
	want := "| field | value | meaning |\n|---|---|---|\n" +
		"| `pre` | list of mapping | Before. Default: none. Example: `[{\"a\":\"<x>\"}]`. |\n" +
		"| `post` | list of mapping | After. |\n\n" +
		"### `pre[]`, `post[]`\n\n| field | value | meaning |\n|---|---|---|\n" +
		"| `a` (required) | `x`, `y` | One \\| two. |\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Markdown, want - got +:\n%s", diff)
	}
}
