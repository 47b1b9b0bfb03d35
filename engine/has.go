package engine

import (
	"reflect"
	"slices"
	"strings"
)

// isolationPrefix is before a word of Features.Isolation in Has.
const isolationPrefix = "isolation:"

// Has reports whether f has a feature, and whether there is such one. A
// feature is named by the path of a boolean field in JSON, such as
// "limits.memory", or by a word of Isolation after "isolation:".
func (f *Features) Has(name string) (has, known bool) {
	if word, ok := strings.CutPrefix(name, isolationPrefix); ok {
		return slices.Contains(f.Isolation, word), true
	}
	v := reflect.ValueOf(f).Elem()
	for part := range strings.SplitSeq(name, ".") {
		if v.Kind() != reflect.Struct {
			return false, false
		}
		if v = jsonField(v, part); !v.IsValid() {
			return false, false
		}
	}
	if v.Kind() != reflect.Bool {
		return false, false
	}
	return v.Bool(), true
}

// jsonField returns the field of a structure that has a name in JSON.
func jsonField(v reflect.Value, name string) reflect.Value {
	for i := range v.NumField() {
		tag, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if tag == name {
			return v.Field(i)
		}
	}
	return reflect.Value{}
}
