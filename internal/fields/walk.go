package fields

// Walk calls f for every field below t, in order, with its path: "inputs[].to",
// "secrets.*.from".
func Walk(t *Type, f func(path string, field *Field)) { walk(t, "", f) }

func walk(t *Type, path string, f func(path string, field *Field)) {
	switch t.Form {
	case Series:
		walk(t.Elem, path+"[]", f)
	case Table:
		walk(t.Elem, path+".*", f)
	case Choice:
		for _, c := range t.Choices {
			walk(c, path, f)
		}
	case Object:
		for i := range t.Fields {
			field := &t.Fields[i]
			at := field.Name
			if path != "" {
				at = path + "." + at
			}
			f(at, field)
			walk(field.Type, at, f)
		}
	}
}
