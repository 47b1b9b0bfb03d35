//go:build unix

package folder_test

import (
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/folder"
	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"
)

// FuzzEncode reads back what was written in each format.
func FuzzEncode(f *testing.F) {
	f.Add(`{"parameters":{"a":{},"yes":"no","l":[1,[2,{"x":"é\n😀"}],[]],"e":1e5,"z":null,"t":true},"":"\u0000\u2028\u0085"}`)
	f.Add(`[[[]],"- a: b","# c","'","\"","*x","&y","!z","2020-01-01","0x10","1_000",".inf","~","<<"]`)
	f.Add(`{"<<":{"a":1},"a b":1,"1":2,"a: b":3}`)
	f.Add(`"a\\\/b"`)
	f.Fuzz(func(t *testing.T, text string) {
		v := &component.Value{}
		if !json.Valid([]byte(text)) || strings.Count(text, "[")+strings.Count(text, "{") > 500 || v.UnmarshalJSON([]byte(text)) != nil {
			return
		}
		want := plain(t, v)
		encoded := folder.Encode(v, component.JSON, component.Encoding{})
		for _, c := range encoded {
			if c >= 0x80 {
				t.Fatalf("JSON is not ASCII: %q", encoded)
			}
		}
		var got any
		if err := json.Unmarshal(encoded, &got); err != nil {
			t.Fatalf("%v: %s", err, encoded)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("JSON (-want +got):\n%s", diff)
		}
		encoded = folder.Encode(v, component.YAML, component.Encoding{})
		got = nil
		if err := yaml.Load(encoded, &got); err != nil {
			t.Fatalf("%v: %s", err, encoded)
		}
		if diff := cmp.Diff(normal(want), normal(got)); diff != "" {
			t.Errorf("YAML (-want +got):\n%s\n%s", diff, encoded)
		}
	})
}

func plain(t *testing.T, v *component.Value) (out any) {
	t.Helper()
	data, err := v.MarshalJSON()
	must(t, err)
	if err := json.Unmarshal(data, &out); err != nil {
		t.Skip("a number that is too large for both")
	}
	return out
}

// normal makes numbers of all types comparable.
func normal(v any) any {
	switch x := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, e := range x {
			out[k] = normal(e)
		}
		return out
	case map[any]any:
		out := map[string]any{}
		for k, e := range x {
			out[k.(string)] = normal(e)
		}
		return out
	case []any:
		out := make([]any, len(x))
		for i, e := range x {
			out[i] = normal(e)
		}
		return out
	case int:
		return float64(x)
	case int64:
		return float64(x)
	case uint64:
		return float64(x)
	case *big.Int:
		f, _ := new(big.Float).SetInt(x).Float64()
		return f
	}
	return v
}
