package config

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/caissonrun/caisson/internal/fields"
)

// A Setting is one key with its effective value and where that came from.
type Setting struct {
	Key    string `json:"key"`    // dotted
	Value  string `json:"value"`  // as TOML; hidden for secrets; empty where there is none
	Origin string `json:"origin"` // "default", "FILE:LINE", a variable's name, or "flag"
}

// hidden is shown for the values of secrets.
const hidden = `"` + shownHidden + `"`

// Show returns every setting in the order of docs/configuration.md.
func (c *Config) Show() []Setting { return slices.Clone(c.settings) }

// setting returns what to show of f.
func (f *leaf) setting(defaults map[string]any) Setting {
	s := Setting{Key: f.key, Origin: f.origin}
	plain := f.plain
	if f.origin == "" {
		s.Origin, plain = "default", lookup(defaults, f.key)
	}
	switch {
	case plain == nil:
	case f.field.Secret:
		s.Value = hidden
	default:
		s.Value = asTOML(withoutSecrets(plain, f.field.Type))
	}
	return s
}

// shownHidden stands for a secret inside of a value.
const shownHidden = "(hidden)"

// withoutSecrets returns a copy of a plain value, which is a t, that has nothing
// of what is never shown.
func withoutSecrets(plain any, t *fields.Type) any {
	m, ok := plain.(map[string]any)
	if !ok || t.Form != fields.Table && t.Form != fields.Object {
		return plain
	}
	out := make(map[string]any, len(m))
	for key, value := range m {
		out[key] = value
		if t.Form == fields.Table {
			out[key] = withoutSecrets(value, t.Elem)
			continue
		}
		for i := range t.Fields {
			switch f := &t.Fields[i]; {
			case f.Name != key:
			case f.Secret:
				out[key] = shownHidden
			default:
				out[key] = withoutSecrets(value, f.Type)
			}
		}
	}
	return out
}

// asTOML returns a plain value as TOML.
func asTOML(plain any) string {
	switch x := plain.(type) {
	case []any:
		parts := make([]string, len(x))
		for i, item := range x {
			parts[i] = asTOML(item)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case map[string]any:
		parts := make([]string, 0, len(x))
		for _, key := range slices.Sorted(maps.Keys(x)) {
			parts = append(parts, asTOML(key)+" = "+asTOML(x[key]))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case json.RawMessage:
		var inner any
		dec := json.NewDecoder(bytes.NewReader(x))
		dec.UseNumber()
		if dec.Decode(&inner) == nil {
			return asTOML(inner)
		}
	}
	// What JSON and TOML call strings, numbers, true and false is the same.
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(plain); err != nil {
		return ""
	}
	return strings.TrimSpace(out.String())
}
