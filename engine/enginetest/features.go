package enginetest

import (
	"reflect"
	"slices"
	"strings"

	"github.com/caissonrun/caisson/engine"
)

const isolationPrefix = "isolation:"

// declared reports whether f has a feature, and whether there is such one.
func declared(f *engine.Features, name string) (has, known bool) {
	if word, ok := strings.CutPrefix(name, isolationPrefix); ok {
		return slices.Contains(f.Isolation, word), true
	}
	v := reflect.ValueOf(f).Elem()
	for part := range strings.SplitSeq(name, ".") {
		if v.Kind() != reflect.Struct {
			return false, false
		}
		if v = field(v, part); !v.IsValid() {
			return false, false
		}
	}
	if v.Kind() != reflect.Bool {
		return false, false
	}
	return v.Bool(), true
}

// field returns the field of a structure that has a name in JSON.
func field(v reflect.Value, name string) reflect.Value {
	for i := range v.NumField() {
		tag, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if tag == name {
			return v.Field(i)
		}
	}
	return reflect.Value{}
}

// featureNames returns the names of all features that are declared by a bool.
func featureNames() []string {
	var names []string
	var collect func(t reflect.Type, prefix string)
	collect = func(t reflect.Type, prefix string) {
		for i := range t.NumField() {
			tag, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			switch t.Field(i).Type.Kind() {
			case reflect.Struct:
				collect(t.Field(i).Type, prefix+tag+".")
			case reflect.Bool:
				names = append(names, prefix+tag)
			}
		}
	}
	collect(reflect.TypeFor[engine.Features](), "")
	return names
}
