package source_test

import (
	"strings"
	"testing"

	"github.com/caissonrun/caisson/internal/fields"
	"github.com/caissonrun/caisson/internal/source"
)

func TestRead(t *testing.T) {
	o := source.Options{MaxSize: 1 << 10}
	for _, text := range []string{`{"a": [1, "x", null]}`, "a:\n- 1\n- x\n-\n"} {
		v, problems := source.Read("f", []byte(text), o)
		if len(problems) > 0 || v.Kind != fields.Map {
			t.Fatalf("Read(%q) = %+v, %v", text, v, problems)
		}
		list := v.Keys[0].Value
		if v.Keys[0].Key != "a" || v.Keys[0].Line != 1 || len(list.Items) != 3 || list.Items[0].Kind != fields.Int ||
			list.Items[1].Text != "x" || list.Items[2].Kind != fields.Null {
			t.Errorf("Read(%q) = %+v", text, v)
		}
	}
}

func TestReadErr(t *testing.T) {
	for name, test := range map[string]struct {
		file, text string
		options    source.Options
		want       string
	}{
		"Large":       {"f", strings.Repeat(" ", 2<<20), source.Options{MaxSize: 1 << 20}, "f: the document is larger than 1 MiB"},
		"Values":      {"f", "[1,2,3]", source.Options{MaxSize: 100, MaxValues: 2}, "the document has more than 2 values"},
		"Depth":       {"f", strings.Repeat("[", 70) + strings.Repeat("]", 70), source.Options{MaxSize: 1000}, "more than 64 deep"},
		"Empty":       {"f", "# nothing\n", source.Options{MaxSize: 100}, "f: the document is empty"},
		"EmptyOwn":    {"f", "", source.Options{MaxSize: 100, Empty: "say something"}, "f: say something"},
		"Second":      {"f", "a: 1\n---\nb: 2\n", source.Options{MaxSize: 100, Second: "task"}, "a file holds one task"},
		"JSONName":    {"f.json", "a: 1", source.Options{MaxSize: 100}, "f.json:1:1: not valid JSON"},
		"Control":     {"f", "\"a\u007f\"", source.Options{MaxSize: 100}, "U+007F"},
		"UTF8":        {"f", "\"\xff\"", source.Options{MaxSize: 100, AnyJSON: true}, "not UTF-8"},
		"SelfContain": {"f", "a: &x [*x]", source.Options{MaxSize: 100}, "contains itself"},
	} {
		t.Run(name, func(t *testing.T) {
			_, problems := source.Read(test.file, []byte(test.text), test.options)
			if len(problems) == 0 || !strings.Contains(problems[0].String(), test.want) {
				t.Errorf("Read = %v, want %q", problems, test.want)
			}
		})
	}
	t.Run("AnyJSON", func(t *testing.T) {
		v, problems := source.Read("f", []byte("\"a\u007f\""), source.Options{MaxSize: 100, AnyJSON: true})
		if len(problems) > 0 || v.Text != "a\u007f" {
			t.Errorf("Read = %+v, %v", v, problems)
		}
	})
}
