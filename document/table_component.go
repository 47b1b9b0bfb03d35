package document

import (
	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/fields"
)

// componentField is a run of a data component, in place of a program.
func componentField() fields.Field {
	return fields.Field{
		Name: "component",
		Type: &fields.Type{
			Form: fields.Choice,
			Choices: []*fields.Type{
				{
					Form: fields.Text, Want: "a configuration's file or folder", NotEmpty: true, MaxLength: 4096,
					Convert: func(v any) any { return map[string]any{"config": v} },
				},
				componentType(),
			},
		},
		Examples: []any{
			"./population",
			map[string]any{"config": "./population", "storage": "sqlite:tables.db", "rows": []any{"1"}},
		},
		Doc: "A data component to run, in place of a program: see docs/components.md. Text alone is its " +
			"configuration. What it runs, mounts and reaches is said by its definition, so of the other fields " +
			"only `version`, `name`, `engine`, `timeout` (of the whole run), `grace` and `retry` go with it.",
	}
}

// besideComponent are the fields that a task with a component may have.
var besideComponent = []string{"version", "name", "engine", "component", "timeout", "grace", "retry"}

func componentType() *fields.Type {
	values := &fields.Type{
		Form: fields.Table, Want: "a mapping of names to values",
		Key: line("a variable's name"),
		Elem: &fields.Type{
			Form: fields.Text, Want: "text", Lines: true, Numbers: fields.AnyNumbers, Bools: true, Private: true,
		},
	}
	mode := enum(caisson.ComponentRunMode, caisson.ComponentDebug, caisson.ComponentInput, caisson.ComponentSandbox, caisson.ComponentDryRun)
	return &fields.Type{
		Form: fields.Object, Want: "a mapping with a component run's fields",
		Fields: []fields.Field{
			{
				Name: "config", Type: line("a configuration's file or folder"), Required: true,
				Also: []string{"configuration"}, Examples: []any{"./population", "config.json"},
				Doc: "The configuration: a file, or a folder that holds one.",
			},
			{
				Name: "definition", Type: line("a definition's file, or a component's id"),
				Default: "the component that the configuration names", Examples: []any{"./component.yaml", "acme.join"},
				Doc: "The component: a file with its definition, or its id in the registry.",
			},
			{
				Name: "registry", Type: line("a folder of definitions"), Default: "`component.registry` of the configuration file",
				Doc: "A folder of definitions.",
			},
			{
				Name: "storage", Type: line("a folder, or a storage's URL"),
				Default:  "`component.storage` of the configuration file, else the folder `storage` beside the configuration",
				Examples: []any{"./storage", "sqlite:tables.db", "postgres://db.example.com/data", "s3://bucket/prefix"},
				Doc:      "Where tables and files are. Credentials are never part of it.",
			},
			{
				Name: "action", Type: word("an action's name", `[A-Za-z0-9][A-Za-z0-9_.-]{0,127}`), Default: "run",
				Doc: "What the component is to do: another one than `run` is a synchronous action.",
			},
			{
				Name: "rows", Type: list(line("a row's id")), Default: "all that are not disabled",
				Also: []string{"row"}, Examples: []any{[]any{"1", "2"}},
				Doc: "The rows of the configuration that run, by their ids.",
			},
			{
				Name: "mode", Type: mode, Default: caisson.ComponentRunMode,
				Doc: "`debug` keeps the data folder of every stage. `input` makes the data folder and stops; " +
					"`sandbox` does so with few rows of each table. `dry-run` does everything but store.",
			},
			{
				Name: "tag", Type: word("an image's tag", `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`), Default: "the definition's",
				Doc: "The tag of the component's image.",
			},
			{
				Name: "variables", Type: values, Examples: []any{map[string]any{"year": 2026}},
				Doc: "Values of variables for this run.",
			},
			{
				Name: "variable_values", Type: line("the id of a set of values"), Default: "the configuration's",
				Doc: "The set of values that the variables have.",
			},
			{
				Name: "strict_mapping", Type: toggle(), Default: "false",
				Doc: "What the component leaves in its output folder and nothing maps is an error.",
			},
		},
		Rules: []fields.Rule{fields.Exclusive("variables", "variable_values")},
	}
}

// alone is the rule that where key is there, of all fields only those allowed are.
func alone(key string, all []fields.Field, allowed []string) fields.Rule {
	ok := make(map[string]bool)
	for _, name := range allowed {
		ok[name] = true
	}
	var others []string
	none := map[string]any{}
	for _, f := range all {
		if !ok[f.Name] {
			others = append(others, f.Name)
			none[f.Name] = false
		}
	}
	return fields.Rule{
		Schema: map[string]any{
			"if":   map[string]any{"required": []string{key}},
			"then": map[string]any{"properties": none},
		},
		Check: func(o *fields.Found) {
			if !o.Has(key) {
				return
			}
			for _, name := range others {
				if o.Has(name) {
					o.Problem(name, "does not go with %q, whose definition says what is run and how; leave out one of them", key)
				}
			}
		},
	}
}
