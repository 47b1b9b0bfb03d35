package enginetest

import (
	"reflect"
	"strings"

	"github.com/caissonrun/caisson/engine"
)

const isolationPrefix = "isolation:"

// declared reports whether f has a feature, and whether there is such one.
func declared(f *engine.Features, name string) (has, known bool) { return f.Has(name) }

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
