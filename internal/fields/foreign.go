package fields

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
)

// FromSchema makes a Type of a JSON Schema that somebody else wrote. Of the
// draft 2020-12 it understands type, properties, required, enum (of texts),
// pattern, minimum, maximum, minLength 1, maxLength, items, minItems,
// uniqueItems, additionalProperties, description, default, examples and
// writeOnly; anything else is an error, so that no rule is dropped. Keys that an
// object does not name are refused, as everywhere in Caisson.
func FromSchema(schema json.RawMessage) (*Type, error) {
	var f foreign
	if err := f.decode(schema); err != nil {
		return nil, err
	}
	return f.toType()
}

// foreign is the part of JSON Schema that FromSchema understands.
type foreign struct {
	Schema      string `json:"$schema"`
	ID          string `json:"$id"`
	Comment     string `json:"$comment"`
	Title       string `json:"title"`
	Description string `json:"description"`
	Default     any    `json:"default"`
	Examples    []any  `json:"examples"`
	WriteOnly   bool   `json:"writeOnly"`

	Type      json.RawMessage `json:"type"`
	Enum      []string        `json:"enum"`
	Pattern   string          `json:"pattern"`
	Minimum   *float64        `json:"minimum"`
	Maximum   *float64        `json:"maximum"`
	MinLength int             `json:"minLength"`
	MaxLength int             `json:"maxLength"`

	Items       json.RawMessage `json:"items"`
	MinItems    int             `json:"minItems"`
	UniqueItems bool            `json:"uniqueItems"`

	Properties map[string]json.RawMessage `json:"properties"`
	Required   []string                   `json:"required"`
	Additional json.RawMessage            `json:"additionalProperties"`
}

func (f *foreign) decode(schema json.RawMessage) error {
	dec := json.NewDecoder(bytes.NewReader(schema))
	dec.DisallowUnknownFields()
	return dec.Decode(f)
}

// types returns the names of the JSON types that are allowed.
func (f *foreign) types() (names []string, err error) {
	if len(f.Type) > 0 && f.Type[0] == '[' {
		err = json.Unmarshal(f.Type, &names)
		return names, err
	}
	var name string
	if len(f.Type) > 0 {
		err = json.Unmarshal(f.Type, &name)
	}
	return []string{name}, err
}

func (f *foreign) toType() (*Type, error) {
	names, err := f.types()
	if err != nil {
		return nil, err
	}
	if len(names) > 1 || names[0] == "string" {
		return f.text(names)
	}
	switch names[0] {
	case "integer", "number":
		t := &Type{Form: Whole, Min: -1 << 53}
		if names[0] == "number" {
			t = &Type{Form: Real, Min: -math.MaxFloat64}
		}
		return t, f.bound(t)
	case "boolean":
		return &Type{Form: Flag}, nil
	case "array":
		elem, err := FromSchema(f.Items)
		if err != nil {
			return nil, fmt.Errorf("items: %w", err)
		}
		return &Type{Form: Series, Elem: elem, Least: f.MinItems, Unique: f.UniqueItems}, nil
	case "object":
		return f.object()
	}
	return nil, fmt.Errorf("the type %q is not understood", names[0])
}

// text returns a Text that takes what else is in names without quotes.
func (f *foreign) text(names []string) (*Type, error) {
	t := &Type{
		Form: Text, Enum: f.Enum, Lines: true, Private: f.WriteOnly,
		NotEmpty: f.MinLength == 1, MaxLength: f.MaxLength,
	}
	if f.MinLength > 1 {
		return nil, errors.New("minLength above 1 is not understood")
	}
	for _, name := range names {
		switch name {
		case "integer":
			t.Numbers = max(t.Numbers, WholeNumbers)
		case "number":
			t.Numbers = AnyNumbers
		case "boolean":
			t.Bools = true
		case "string":
		default:
			return nil, fmt.Errorf("the type %q beside others is not understood", name)
		}
	}
	if !slices.Contains(names, "string") {
		return nil, errors.New("several types without string are not understood")
	}
	if f.Pattern != "" {
		if _, err := regexp.Compile(f.Pattern); err != nil {
			return nil, fmt.Errorf("pattern: %w", err)
		}
		t.Pattern, t.Want = Contain(f.Pattern), "text that matches "+f.Pattern
	}
	return t, nil
}

// bound sets the range of a number.
func (f *foreign) bound(t *Type) error {
	if f.Minimum != nil {
		t.Min = *f.Minimum
	}
	if f.Maximum == nil {
		return nil
	}
	if *f.Maximum <= 0 {
		return errors.New("a maximum of 0 or less is not understood")
	}
	t.Max = *f.Maximum
	return nil
}

func (f *foreign) object() (*Type, error) {
	free := len(f.Additional) > 0 && f.Additional[0] == '{'
	switch {
	case free && len(f.Properties) > 0:
		return nil, errors.New("properties beside a schema of additionalProperties are not understood")
	case free:
		elem, err := FromSchema(f.Additional)
		if err != nil {
			return nil, fmt.Errorf("additionalProperties: %w", err)
		}
		return &Type{Form: Table, Elem: elem}, nil
	case len(f.Properties) == 0 && string(f.Additional) != "false":
		return &Type{Form: Open}, nil
	}
	t := &Type{Form: Object}
	for _, name := range slices.Sorted(maps.Keys(f.Properties)) {
		var p foreign
		if err := p.decode(f.Properties[name]); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		inner, err := p.toType()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		field := Field{
			Name: name, Type: inner, Doc: p.Description, Examples: p.Examples, Secret: p.WriteOnly,
			Required: slices.Contains(f.Required, name),
		}
		if p.Default != nil {
			field.Default = fmt.Sprint(p.Default)
		}
		t.Fields = append(t.Fields, field)
	}
	return t, nil
}
