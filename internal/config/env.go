package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/caissonrun/caisson/internal/fields"
)

const (
	prefix = "CAISSON_"
	// configVariable names the file to read.
	configVariable = "CAISSON_CONFIG"
)

// otherVariables are those that mean something else: to Caisson itself, or to
// a task, in which Caisson may be running.
var otherVariables = []string{
	configVariable, "CAISSON_CRASH", "CAISSON_WORK", "CAISSON_OUTPUT", "CAISSON_PROGRESS", "CAISSON_TASK", "CAISSON_ATTEMPT",
	"CAISSON_STEP",
}

// otherPrefixes begin the names of variables that tests and scripts use.
var otherPrefixes = []string{"CAISSON_TEST_", "CAISSON_GUEST_", "CAISSON_CONFORMANCE_"}

// variable returns the name of the variable of a setting.
func variable(key string) string {
	return prefix + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(key))
}

// variables reads the settings in the environment as one layer. A variable
// that is empty says nothing.
func (l *loader) variables() {
	byName := map[string]*leaf{}
	known := slices.Clone(otherVariables)
	for _, leaf := range l.leaves {
		name := variable(leaf.key)
		if byName[name] != nil {
			panic("caisson: bug: two settings have the variable " + name)
		}
		byName[name] = leaf
		known = append(known, name)
	}
	names := make([]string, 0, len(l.env))
	for name := range l.env {
		if strings.HasPrefix(name, prefix) && l.env[name] != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		leaf := byName[name]
		switch {
		case leaf != nil:
			l.set(leaf, name, l.env[name])
		case slices.Contains(otherVariables, name):
		case slices.ContainsFunc(otherPrefixes, func(p string) bool { return strings.HasPrefix(name, p) }):
		default:
			message := "there is no such setting"
			if near := fields.Suggest(name, known); near != "" {
				message += fmt.Sprintf("; did you mean %s?", near)
			}
			l.problem(name, "", message+"; unset the variable")
		}
	}
}

// flags reads the settings of the command line as one layer.
func (l *loader) flags() {
	keys := make([]string, 0, len(l.opts.Flags))
	known := make([]string, len(l.leaves))
	for key := range l.opts.Flags {
		keys = append(keys, key)
	}
	for i, leaf := range l.leaves {
		known[i] = leaf.key
	}
	slices.Sort(keys)
	for _, key := range keys {
		i := slices.Index(known, key)
		if i < 0 {
			message := "there is no such setting"
			if near := fields.Suggest(key, known); near != "" {
				message += fmt.Sprintf("; did you mean %q?", near)
			}
			l.problem("flag", key, message)
			continue
		}
		l.set(l.leaves[i], "flag", l.opts.Flags[key])
	}
}

// set gives a setting the value that text means, unless a nearer layer has.
func (l *loader) set(leaf *leaf, origin, text string) {
	value, err := fromText(text, leaf.field.Type)
	if err != nil {
		l.problem(origin, leaf.key, err.Error())
		return
	}
	absolutePaths(value, leaf.field.Type, l.dir)
	plain, problems := fields.Read(origin, value, leaf.field.Type)
	for _, p := range problems {
		l.problem(origin, leaf.key+p.Path, p.Message)
	}
	if len(problems) == 0 {
		leaf.take(plain, origin)
	}
}

// fromText returns what the text of a variable or flag means for a type. Lists
// are separated by commas, or written as in TOML.
func fromText(text string, t *fields.Type) (*fields.Value, error) {
	v := &fields.Value{Kind: fields.String, Text: text}
	switch t.Form {
	case fields.Flag:
		if text == "true" || text == "false" {
			v.Kind = fields.Bool
		}
	case fields.Whole:
		v.Kind = fields.Int
	case fields.Real:
		v.Kind = fields.Float
	case fields.Series:
		if strings.HasPrefix(strings.TrimSpace(text), "[") {
			return fromTOML(text)
		}
		v = &fields.Value{Kind: fields.List}
		for part := range strings.SplitSeq(text, ",") {
			item, err := fromText(strings.TrimSpace(part), t.Elem)
			if err != nil {
				return nil, err
			}
			v.Items = append(v.Items, item)
		}
	case fields.Table, fields.Open:
		return fromTOML(text)
	}
	return v, nil
}

// fromTOML reads text as a value of TOML.
func fromTOML(text string) (*fields.Value, error) {
	var doc map[string]any
	if err := toml.Unmarshal([]byte("value = "+text), &doc); err != nil || len(doc) != 1 {
		return nil, fmt.Errorf("is not a value of TOML, such as [\"a\", \"b\"] or {a = 1}")
	}
	return (&places{}).value(doc["value"], ""), nil
}
