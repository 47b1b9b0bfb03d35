package component

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/caissonrun/caisson/internal/fields"
)

// The values that tables are made of. As in the reference, a text may be
// written as a number, true or false, and a list or mapping that is null is
// empty.

// scalar is any single value, or null.
func scalar() *fields.Type {
	return &fields.Type{
		Form: fields.Text, Want: "text or a number", Numbers: fields.AnyNumbers, Bools: true, Lines: true, Null: true,
		Min: -1e308,
	}
}

// given is any single value that is not empty.
func given(want string) *fields.Type {
	t := scalar()
	t.Want, t.NotEmpty, t.Null = want, true, false
	t.Pattern = fields.Match(`[^\x00]*[^\x00\s][^\x00]*`)
	return t
}

// secret is a single value that no message repeats.
func secret() *fields.Type {
	t := scalar()
	t.Private = true
	return t
}

// oneWord is one of some words.
func oneWord(words ...string) *fields.Type {
	return &fields.Type{Form: fields.Text, Enum: words}
}

// wordOrNothing is one of some words, "" or null.
func wordOrNothing(words ...string) *fields.Type {
	return &fields.Type{
		Form: fields.Text, Enum: append(words, ""), Null: true,
		Want: fmt.Sprintf("%q", words[0]) + " or " + fmt.Sprintf("%q", words[1:]),
	}
}

func toggle() *fields.Type { return &fields.Type{Form: fields.Flag} }

func toggleOrNull() *fields.Type { return &fields.Type{Form: fields.Flag, Null: true} }

func whole(want string, least, most float64) *fields.Type {
	return &fields.Type{Form: fields.Whole, Want: want, Min: least, Max: most}
}

func list(elem *fields.Type) *fields.Type {
	return &fields.Type{Form: fields.Series, Elem: elem, Null: true}
}

func mapping(elem *fields.Type) *fields.Type {
	return &fields.Type{Form: fields.Table, Elem: elem, Null: true}
}

func object(want string, fs ...fields.Field) *fields.Type {
	return &fields.Type{Form: fields.Object, Want: want, Fields: fs, Null: true}
}

func anything() *fields.Type { return &fields.Type{Form: fields.Any} }

// tree is a mapping or a list that nobody looks into.
func tree() *fields.Type {
	return &fields.Type{Form: fields.Choice, Want: "a mapping or a list", Null: true, Choices: []*fields.Type{
		{Form: fields.Open}, {Form: fields.Series, Elem: anything()},
	}}
}

// withRules adds rules to an object.
func withRules(t *fields.Type, rules ...fields.Rule) *fields.Type {
	t.Rules = append(t.Rules, rules...)
	return t
}

// Checks of several keys. A key that is there with nothing in it, or 0, counts as
// not there.

// present reports whether a key is there and says something.
func present(o *fields.Found, key string) bool { return !isNothing(o.Value(key)) }

func isNothing(v *fields.Value) bool {
	switch {
	case v == nil, v.Kind == fields.Null, v.Kind == fields.String && v.Text == "", v.Kind == fields.Int && v.Text == "0":
		return true
	case v.Kind == fields.List:
		return len(v.Items) == 0
	case v.Kind == fields.Map:
		return len(v.Keys) == 0
	}
	return false
}

// notBoth is the rule that only one of two keys says something.
func notBoth(a, b string) fields.Rule {
	return fields.Rule{
		Schema: map[string]any{"not": map[string]any{"required": []string{a, b}, "properties": map[string]any{
			a: somethingSchema(), b: somethingSchema(),
		}}},
		Check: func(o *fields.Found) {
			if present(o, a) && present(o, b) {
				o.Problem(b, "can't stand beside %q; use one of them", a)
			}
		},
	}
}

// needsOther is the rule that a key that says something comes with another that
// does.
func needsOther(key, other, why string) fields.Rule {
	return fields.Rule{
		Schema: map[string]any{
			"if":   map[string]any{"required": []string{key}, "properties": map[string]any{key: somethingSchema()}},
			"then": map[string]any{"required": []string{other}, "properties": map[string]any{other: somethingSchema()}},
		},
		Check: func(o *fields.Found) {
			if present(o, key) && !present(o, other) {
				o.Problem(key, "needs %q beside it%s", other, why)
			}
		},
	}
}

// somethingSchema is the schema of what isNothing is not true of.
func somethingSchema() map[string]any {
	return map[string]any{"not": map[string]any{"enum": []any{nil, "", 0, []any{}, map[string]any{}}}}
}

// toFields returns v for package fields.
func toFields(v *Value) *fields.Value {
	if v == nil {
		return &fields.Value{Kind: fields.Null}
	}
	out := &fields.Value{Text: v.Text, Line: v.line, Column: v.column}
	switch v.Kind {
	case Null:
		out.Kind = fields.Null
	case Bool:
		out.Kind = fields.Bool
	case Number:
		out.Kind = fields.Int
		if strings.ContainsAny(v.Text, ".eE") {
			out.Kind = fields.Float
		}
	case String:
		out.Kind = fields.String
	case List:
		out.Kind = fields.List
		for _, item := range v.Items {
			out.Items = append(out.Items, toFields(item))
		}
	case Object:
		out.Kind = fields.Map
		for _, m := range v.Members {
			out.Keys = append(out.Keys, fields.Entry{Key: m.Key, Value: toFields(m.Value), Line: m.line, Column: m.column})
		}
	}
	return out
}

// shape returns v with lists and mappings as t has them: to PHP, which writes
// these files, an empty list and an empty mapping are one thing, and a list is a
// mapping whose keys are numbers. Null is an empty list or mapping. What does
// not fit stays as it is.
func shape(v *Value, t *fields.Type) *Value {
	if v == nil {
		return nil
	}
	switch {
	case v.Kind == Null && t.Null && t.Form == fields.Series:
		return at(v, List)
	case v.Kind == Null && t.Null && (t.Form == fields.Table || t.Form == fields.Object || t.Form == fields.Open):
		return at(v, Object)
	case v.Kind == List && len(v.Items) == 0 && (t.Form == fields.Table || t.Form == fields.Object || t.Form == fields.Open):
		return at(v, Object)
	case v.Kind == Object && t.Form == fields.Series && numbered(v):
		list := at(v, List)
		for _, m := range v.Members {
			list.Items = append(list.Items, shape(m.Value, t.Elem))
		}
		return list
	}
	out := *v
	switch {
	case v.Kind == List && t.Form == fields.Series:
		out.Items = nil
		for _, item := range v.Items {
			out.Items = append(out.Items, shape(item, t.Elem))
		}
	case v.Kind == Object && (t.Form == fields.Table || t.Form == fields.Object):
		out.Members = nil
		for _, m := range v.Members {
			inner := t.Elem
			if t.Form == fields.Object {
				inner = fieldType(t, m.Key)
			}
			if inner != nil {
				m.Value = shape(m.Value, inner)
			}
			out.Members = append(out.Members, m)
		}
	}
	return &out
}

func at(v *Value, k Kind) *Value { return &Value{Kind: k, line: v.line, column: v.column} }

// numbered reports whether all keys of an object are whole numbers.
func numbered(v *Value) bool {
	for _, m := range v.Members {
		if n, err := strconv.Atoi(m.Key); err != nil || n < 0 {
			return false
		}
	}
	return true
}

func fieldType(t *fields.Type, name string) *fields.Type {
	for i := range t.Fields {
		if t.Fields[i].Name == name {
			return t.Fields[i].Type
		}
	}
	return nil
}

// fill adds to v the defaults of what t has and v has not, at the end, in the
// order of t.
func fill(v *Value, t *fields.Type) {
	if v == nil {
		return
	}
	switch {
	case v.Kind == List && t.Form == fields.Series:
		for _, item := range v.Items {
			fill(item, t.Elem)
		}
	case v.Kind == Object && t.Form == fields.Table:
		for _, m := range v.Members {
			fill(m.Value, t.Elem)
		}
	case v.Kind == Object && t.Form == fields.Object:
		for i := range t.Fields {
			f := &t.Fields[i]
			if v.Get(f.Name) == nil && f.Fill != "" {
				def := &Value{}
				if err := def.UnmarshalJSON([]byte(f.Fill)); err != nil {
					panic("caisson: bug: default of " + f.Name + ": " + err.Error())
				}
				v.Set(f.Name, def)
			}
			fill(v.Get(f.Name), f.Type)
		}
	}
}
