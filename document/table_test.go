package document

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/fields"
)

// jsonFields returns the JSON names of a struct's fields with their types.
func jsonFields(t reflect.Type) map[string]reflect.Type {
	out := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			for k, v := range jsonFields(f.Type) {
				out[k] = v
			}
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		out[name] = f.Type
	}
	return out
}

// compare checks that a table and a struct have the same fields, all the way
// down.
func compare(t *testing.T, path string, table *fields.Type, goType reflect.Type) {
	switch goType {
	case reflect.TypeFor[json.RawMessage](), reflect.TypeFor[caisson.Network]():
		return // its forms are not the struct's
	}
	switch goType.Kind() {
	case reflect.Pointer:
		compare(t, path, table, goType.Elem())
	case reflect.Slice, reflect.Map:
		if table.Elem == nil {
			t.Errorf("%s: a %v, but the table has no list or mapping", path, goType)
			return
		}
		compare(t, path+"[]", table.Elem, goType.Elem())
	case reflect.Struct:
		object := table
		for _, c := range table.Choices {
			if c.Form == fields.Object {
				object = c
			}
		}
		inGo := jsonFields(goType)
		for _, f := range object.Fields {
			if inGo[f.Name] == nil {
				t.Errorf("%s.%s: in the table, but %v has no such field", path, f.Name, goType)
				continue
			}
			compare(t, path+"."+f.Name, f.Type, inGo[f.Name])
			delete(inGo, f.Name)
		}
		if !strings.HasPrefix(path, "task.sidecars") {
			if goType == reflect.TypeFor[caisson.Step]() {
				delete(inGo, "probe") // only sidecars have it
			}
		}
		for name := range inGo {
			t.Errorf("%s.%s: a field of %v that the table does not have", path, name, goType)
		}
	}
}

func TestTableHasEveryField(t *testing.T) {
	compare(t, "task", table(), reflect.TypeFor[caisson.Task]())
	for _, c := range networkType().Choices {
		switch c.Form {
		case fields.Series:
			compare(t, "task.network", c, reflect.TypeFor[[]caisson.NetworkAttach]())
		case fields.Object:
			if len(c.Fields) != 1 || c.Fields[0].Name != "allow" {
				t.Error("task.network: a mapping has more than allow; see caisson.Network.UnmarshalJSON")
			}
		}
	}
}

// TestTableIsComplete checks that every field is described, and that examples
// are right.
func TestTableIsComplete(t *testing.T) {
	fields.Walk(table(), func(path string, f *fields.Field) {
		if f.Doc == "" || !strings.HasSuffix(f.Doc, ".") {
			t.Errorf("%s: the description %q is not a sentence", path, f.Doc)
		}
		for _, example := range f.Examples {
			data, err := json.Marshal(example)
			if err != nil {
				t.Errorf("%s: %v", path, err)
				continue
			}
			value, problems := source("example", data)
			if len(problems) == 0 {
				_, problems = fields.Read("example", value, f.Type)
			}
			for _, p := range problems {
				t.Errorf("%s: example %s: %v", path, data, p)
			}
		}
	})
}
