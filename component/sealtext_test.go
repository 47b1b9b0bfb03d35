package component_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
)

func TestSealText(t *testing.T) {
	for name, test := range map[string]struct {
		text, want string
		count      int
	}{
		"JSON": {
			"\uFEFF{\n\t\"é\": {\"#a\": \"x\\\"y\", \"#n\":5 , \"b\" : 1.0},\r\n \"l\": [ {\"#c\":\"z\"}], \"#d\":\"caisson:v1:test:q\"}\n",
			"\uFEFF{\n\t\"é\": {\"#a\": \"caisson:v1:test:y\\\"x\", \"#n\":\"caisson:v1:test:5\" , \"b\" : 1.0},\r\n \"l\": [ {\"#c\":\"caisson:v1:test:z\"}], \"#d\":\"caisson:v1:test:q\"}\n",
			3,
		},
		"YAML": {
			"# first\nparameters:   # why\n    \"#a\": ab cd   # a comment\n    '#b': 'it''s'\n    l: [{\"#c\": \"q\\n\"}, {\"#d\": yes}]\n    keep: {x:   1}\n",
			"# first\nparameters:   # why\n    \"#a\": \"caisson:v1:test:dc ba\"   # a comment\n    '#b': \"caisson:v1:test:s'ti\"\n    l: [{\"#c\": \"caisson:v1:test:\\nq\"}, {\"#d\": \"caisson:v1:test:sey\"}]\n    keep: {x:   1}\n",
			4,
		},
		"Nothing": {"a: 1 # x\n", "a: 1 # x\n", 0},
	} {
		t.Run(name, func(t *testing.T) {
			got, count, err := component.SealText(box{}, "f", []byte(test.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, string(got)); diff != "" || count != test.count {
				t.Errorf("SealText: %d, want - got +:\n%s", count, diff)
			}
		})
	}
	for name, text := range map[string]string{
		"Block": "\"#a\": |\n  hunter2x\n  more\n", "Folded": "\"#a\": hunter2x\n  more\n",
		"Anchor": "\"#a\": &x hunter2x\nb: *x\n", "Alias": "b: &x hunter2x\n\"#a\": *x\n",
	} {
		t.Run("Err"+name, func(t *testing.T) {
			out, _, err := component.SealText(box{}, "f", []byte(text))
			if !errors.Is(err, caisson.ErrUnsupported) || strings.Contains(err.Error(), "hunter2x") {
				t.Errorf("SealText = %s, %v, want ErrUnsupported", out, err)
			}
		})
	}
}

func FuzzSealText(f *testing.F) {
	f.Add([]byte(`{"#a":"x","b":{"#c":1}}`))
	f.Add([]byte("'#a': 'x'\nb: &q {'#c': y}\nd: *q\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		out, _, err := component.SealText(box{}, "f", data)
		if err != nil {
			return
		}
		v, err := component.ParseValue("f", out)
		if err != nil {
			t.Fatalf("%q became %q: %v", data, out, err)
		}
		again, n, err := component.SealText(box{}, "f", out)
		if err != nil || n != 0 || string(again) != string(out) {
			t.Errorf("%q is not sealed: %d, %v (%v)", out, n, err, v)
		}
	})
}
