package fields

import (
	"fmt"
	"slices"
)

// Found is what a Rule sees of an object.
type Found struct {
	// Valid holds the plain forms of the values that are valid by themselves,
	// by key.
	Valid map[string]any

	r       *reader
	path    string
	value   *Value
	entries map[string]*Entry
}

// Has reports whether the key is there, valid or not.
func (o *Found) Has(key string) bool { return o.entries[key] != nil }

// Value returns the value of a key as it was written, or nil.
func (o *Found) Value(key string) *Value {
	if e := o.entries[key]; e != nil {
		return e.Value
	}
	return nil
}

// Text returns the valid text of a key, or "".
func (o *Found) Text(key string) string {
	s, _ := o.Valid[key].(string)
	return s
}

// Problem reports a problem at the value of a key, or at the object where the
// key is "" or not there.
func (o *Found) Problem(key, format string, args ...any) {
	v, path := o.value, o.path
	if e := o.entries[key]; e != nil {
		v, path = e.Value, Join(path, key)
	}
	o.r.at(v, path, format, args...)
}

// ProblemIn reports a problem at a value inside of the object, whose path
// below it is given, such as "[0].to".
func (o *Found) ProblemIn(v *Value, below, format string, args ...any) {
	path := o.path
	if path != "" && below != "" && below[0] != '[' {
		path += "."
	}
	o.r.at(v, path+below, format, args...)
}

// Lookup returns the value of a key of a mapping, or nil.
func (v *Value) Lookup(key string) *Value {
	if v == nil || v.Kind != Map {
		return nil
	}
	for i := range v.Keys {
		if v.Keys[i].Key == key {
			return v.Keys[i].Value
		}
	}
	return nil
}

// Exclusive is the rule that at most one of the keys is there.
func Exclusive(keys ...string) Rule {
	var pairs []any
	for i, a := range keys {
		for _, b := range keys[i+1:] {
			pairs = append(pairs, map[string]any{"required": []string{a, b}})
		}
	}
	return Rule{
		Schema: map[string]any{"not": map[string]any{"anyOf": pairs}},
		Check: func(o *Found) {
			var there []string
			for _, k := range keys {
				if o.Has(k) {
					there = append(there, k)
				}
			}
			if len(there) > 1 {
				last := there[len(there)-1]
				o.Problem(last, "can't stand beside %s; use one of them", oneOf(there[:len(there)-1]))
			}
		},
	}
}

// AnyOf is the rule that at least one of the keys is there. Missing is what is
// said otherwise.
func AnyOf(missing string, keys ...string) Rule {
	var each []any
	for _, k := range keys {
		each = append(each, map[string]any{"required": []string{k}})
	}
	return Rule{
		Schema: map[string]any{"anyOf": each},
		Check: func(o *Found) {
			if !slices.ContainsFunc(keys, o.Has) {
				o.Problem("", "%s", missing)
			}
		},
	}
}

// Needs is the rule that key comes with at least one of others.
func Needs(key string, others ...string) Rule {
	var each []any
	for _, k := range others {
		each = append(each, map[string]any{"required": []string{k}})
	}
	return Rule{
		Schema: map[string]any{
			"if":   map[string]any{"required": []string{key}},
			"then": map[string]any{"anyOf": each},
		},
		Check: func(o *Found) {
			if o.Has(key) && !slices.ContainsFunc(others, o.Has) {
				o.Problem(key, "needs %s beside it", oneOf(others))
			}
		},
	}
}

// Where is the rule that, where key has the text value, other is there
// (required) or is not (forbidden).
func Where(key, value string, required, forbidden []string) Rule {
	then := map[string]any{}
	if len(required) > 0 {
		then["required"] = required
	}
	props := map[string]any{}
	for _, k := range forbidden {
		props[k] = false
	}
	if len(props) > 0 {
		then["properties"] = props
	}
	return Rule{
		Schema: map[string]any{
			"if": map[string]any{
				"properties": map[string]any{key: map[string]any{"const": value}},
				"required":   []string{key},
			},
			"then": then,
		},
		Check: func(o *Found) {
			if o.Text(key) != value {
				return
			}
			for _, k := range required {
				if !o.Has(k) {
					o.Problem("", "the key %q is missing; %s %s needs it", k, key, quote(value))
				}
			}
			for _, k := range forbidden {
				if o.Has(k) {
					o.Problem(k, "does not go with %s %s", key, quote(value))
				}
			}
		},
	}
}

// Custom is a rule that no schema can express.
func Custom(check func(o *Found)) Rule { return Rule{Check: check} }

// String returns the rule's schema for messages of tests.
func (r Rule) String() string { return fmt.Sprint(r.Schema) }
