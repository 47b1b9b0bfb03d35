package fields

import (
	"bytes"
	"encoding/json"
	"strings"
)

// Draft is the JSON Schema draft that Schema writes.
const Draft = "https://json-schema.org/draft/2020-12/schema"

// Schema returns a JSON Schema of t, indented. Header holds more keys of the
// schema's root, such as title.
func Schema(t *Type, header map[string]any) []byte {
	w := &schemaWriter{defs: map[string]any{}}
	root := w.schema(t, nil)
	root["$schema"] = Draft
	for k, v := range header {
		root[k] = v
	}
	if len(w.defs) > 0 {
		root["$defs"] = w.defs
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(root); err != nil {
		panic("caisson: bug: schema: " + err.Error())
	}
	return out.Bytes()
}

type schemaWriter struct{ defs map[string]any }

// schema returns the schema of t, with what f adds to it.
func (w *schemaWriter) schema(t *Type, f *Field) map[string]any {
	out := map[string]any{}
	if t.Name != "" {
		if _, known := w.defs[t.Name]; !known {
			w.defs[t.Name] = nil // in the making
			w.defs[t.Name] = w.bare(t)
		}
		out["$ref"] = "#/$defs/" + t.Name
	} else {
		out = w.bare(t)
	}
	if f == nil {
		return out
	}
	doc := f.Doc
	if f.Default != "" {
		doc += " Default: " + f.Default + "."
	}
	if doc != "" {
		out["description"] = strings.ReplaceAll(doc, "`", "")
	}
	if len(f.Examples) > 0 {
		out["examples"] = f.Examples
	}
	if f.Secret {
		out["writeOnly"] = true
	}
	if f.Fill != "" {
		out["default"] = json.RawMessage(f.Fill)
	}
	return out
}

// bare returns the schema of t itself.
func (w *schemaWriter) bare(t *Type) map[string]any {
	out := w.form(t)
	if !t.Null {
		return out
	}
	if name, one := out["type"].(string); one && out["enum"] == nil {
		out["type"] = []string{name, "null"} // the other keywords are not about null
		return out
	}
	if names, several := out["type"].([]string); several && out["enum"] == nil {
		out["type"] = append(names, "null")
		return out
	}
	return map[string]any{"anyOf": []any{out, map[string]any{"type": "null"}}}
}

func (w *schemaWriter) form(t *Type) map[string]any {
	switch t.Form {
	case Any:
		return map[string]any{}
	case Text:
		return t.textSchema()
	case Whole, Real:
		out := map[string]any{"type": "number"}
		if t.Form == Whole {
			out["type"] = "integer"
		}
		t.addRange(out)
		return out
	case Flag:
		return map[string]any{"type": "boolean"}
	case Series:
		out := map[string]any{"type": "array", "items": w.schema(t.Elem, nil)}
		if t.Least > 0 {
			out["minItems"] = t.Least
		}
		if t.Unique {
			out["uniqueItems"] = true
		}
		return out
	case Table:
		out := map[string]any{"type": "object", "additionalProperties": w.schema(t.Elem, nil)}
		if t.Key != nil {
			names := t.Key.textSchema()
			delete(names, "type")
			out["propertyNames"] = names
		}
		if t.Least > 0 {
			out["minProperties"] = t.Least
		}
		return out
	case Object:
		return w.object(t)
	case Open:
		return map[string]any{"type": "object"}
	}
	var forms []any
	for _, c := range t.Choices {
		forms = append(forms, w.schema(c, nil))
	}
	return map[string]any{"oneOf": forms}
}

func (w *schemaWriter) object(t *Type) map[string]any {
	props, required := map[string]any{}, []string{}
	for i := range t.Fields {
		f := &t.Fields[i]
		props[f.Name] = w.schema(f.Type, f)
		if f.Required {
			required = append(required, f.Name)
		}
	}
	out := map[string]any{"type": "object", "properties": props}
	if !t.Extra {
		out["additionalProperties"] = false
	}
	if len(required) > 0 {
		out["required"] = required
	}
	var all []any
	for _, r := range t.Rules {
		if r.Schema != nil {
			all = append(all, r.Schema)
		}
	}
	if len(all) > 0 {
		out["allOf"] = all
	}
	return out
}

func (t *Type) textSchema() map[string]any {
	types := []string{"string"}
	switch t.Numbers {
	case WholeNumbers:
		types = append(types, "integer")
	case AnyNumbers:
		types = append(types, "number")
	}
	if t.Bools {
		types = append(types, "boolean")
	}
	out := map[string]any{"type": types[0]}
	if len(types) > 1 {
		out["type"] = types
	}
	switch {
	case len(t.Enum) > 0:
		out["enum"] = t.Enum
	case t.Pattern != nil:
		out["pattern"] = t.Pattern.source
	case !t.Raw && t.Lines:
		out["pattern"] = `^[^\x00]*$`
	case !t.Raw:
		out["pattern"] = `^[^\x00-\x1F\x7F]*$`
	}
	if t.Deny != nil {
		out["not"] = map[string]any{"type": "string", "pattern": t.Deny.source}
	}
	if t.NotEmpty && t.Pattern == nil {
		out["minLength"] = 1
	}
	if t.MaxLength > 0 {
		out["maxLength"] = t.MaxLength
	}
	if t.Numbers != NoNumbers && (t.Max > 0 || t.Pattern != nil) {
		t.addRange(out)
	}
	return out
}

func (t *Type) addRange(out map[string]any) {
	out["minimum"] = t.Min
	if t.Max > 0 {
		out["maximum"] = t.Max
	}
}
