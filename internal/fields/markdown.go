package fields

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// Markdown returns tables of all fields of t, an Object: one for t itself and
// one for each object below it, under a heading with its path.
func Markdown(t *Type) string {
	m := &markdown{named: map[string][]string{}, done: map[string]bool{}}
	Walk(t, func(path string, f *Field) {
		for _, inner := range f.Type.objects("") {
			if name := inner.object.Name; name != "" {
				m.named[name] = append(m.named[name], "`"+path+inner.suffix+"`")
			}
		}
	})
	m.table(t, "")
	return strings.TrimSpace(m.out.String()) + "\n"
}

type markdown struct {
	out   strings.Builder
	named map[string][]string // where types with a name stand
	done  map[string]bool     // those whose table is written
}

// table writes the table of an object and then those of what is in it.
func (m *markdown) table(t *Type, path string) {
	heading := "`" + path + "`"
	if t.Name != "" {
		heading = strings.Join(m.named[t.Name], ", ")
	}
	if path != "" {
		fmt.Fprintf(&m.out, "\n### %s\n\n", heading)
	}
	fmt.Fprintf(&m.out, "| field | value | meaning |\n|---|---|---|\n")
	for i := range t.Fields {
		f := &t.Fields[i]
		name := "`" + f.Name + "`"
		if f.Required {
			name += " (required)"
		}
		fmt.Fprintf(&m.out, "| %s | %s | %s |\n", name, cell(f.Type.brief()), cell(f.meaning()))
	}
	for i := range t.Fields {
		f := &t.Fields[i]
		at := f.Name
		if path != "" {
			at = path + "." + at
		}
		for _, inner := range f.Type.objects("") {
			if name := inner.object.Name; name != "" {
				if m.done[name] {
					continue
				}
				m.done[name] = true
			}
			m.table(inner.object, at+inner.suffix)
		}
	}
}

// A nested object with what leads to it: "[]", ".NAME".
type nested struct {
	suffix string
	object *Type
}

// objects returns the objects that t holds, t itself or those in its lists,
// mappings and forms.
func (t *Type) objects(suffix string) []nested {
	switch t.Form {
	case Object:
		return []nested{{suffix, t}}
	case Series:
		return t.Elem.objects(suffix + "[]")
	case Table:
		return t.Elem.objects(suffix + ".NAME")
	}
	var out []nested
	for _, c := range t.Choices {
		out = append(out, c.objects(suffix)...)
	}
	return out
}

// meaning returns the description with default and example.
func (f *Field) meaning() string {
	out := f.Doc
	if f.Default != "" {
		out += " Default: " + f.Default + "."
	}
	if len(f.Examples) > 0 {
		var example bytes.Buffer
		enc := json.NewEncoder(&example)
		enc.SetEscapeHTML(false)
		if enc.Encode(f.Examples[0]) == nil {
			out += " Example: `" + strings.TrimSpace(example.String()) + "`."
		}
	}
	return out
}

// brief says in a word or two what t takes.
func (t *Type) brief() string {
	switch t.Form {
	case Text:
		switch {
		case len(t.Enum) > 0:
			return "`" + strings.Join(t.Enum, "`, `") + "`"
		case t.Name == "duration", t.Name == "size", t.Name == "path":
			return t.Name
		case t.Numbers != NoNumbers && t.Bools:
			return "text, number, true or false"
		case t.Numbers != NoNumbers:
			return "text or number"
		}
		return "text"
	case Whole, Real:
		return "number"
	case Flag:
		return "true or false"
	case Series:
		return "list of " + t.Elem.brief()
	case Table:
		return "mapping of " + t.Elem.brief()
	case Any:
		return "any value"
	case Choice:
		var forms []string
		for _, c := range t.Choices {
			forms = append(forms, c.brief())
		}
		return strings.Join(forms, ", or ")
	}
	return "mapping"
}

// cell makes text fit for a cell of a table.
func cell(s string) string { return strings.NewReplacer("|", `\|`, "\n", " ").Replace(s) }
