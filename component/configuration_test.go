package component_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
)

func TestReadConfiguration(t *testing.T) {
	dir := write(t, filepath.Join(t.TempDir(), "main"), map[string]string{
		"config.yaml":              "component: c\nversion: 3\nconfiguration: {parameters: {a: 1}}\nrows:\n- {id: z, configuration: {}}\n",
		"rows/a.json":              `{"parameters":{"b":1}}`,
		"rows/b/config.json":       `[]`,
		"rows/b/meta.json":         `{"name":"Bee","isDisabled":true,"description":"x"}`,
		"rows/empty/meta.json":     `{}`,
		"rows/notes.txt":           "x",
		"rows/.hidden.json":        "{",
		"variables/something.json": "{}",
	})
	c, err := component.ReadConfiguration(dir)
	if err != nil {
		t.Fatal(err)
	}
	if c.ID != "main" || c.Component != "c" || c.Version != "3" || c.Dir != dir || compact(t, c.Data) != `{"parameters":{"a":1}}` {
		t.Errorf("configuration %+v", c)
	}
	var ids []string
	for _, r := range c.Rows {
		ids = append(ids, r.ID)
	}
	if diff := cmp.Diff([]string{"z", "a", "b"}, ids); diff != "" || !c.Rows[2].Disabled || c.Rows[2].Name != "Bee" {
		t.Errorf("rows %+v", c.Rows)
	}
	t.Run("File", func(t *testing.T) {
		file := filepath.Join(write(t, t.TempDir(), map[string]string{"x.json": `{"parameters":{}}`}), "x.json")
		c, err := component.ReadConfiguration(file)
		if err != nil || c.ID != "" || len(c.Rows) != 0 {
			t.Errorf("ReadConfiguration = %+v, %v", c, err)
		}
	})
	t.Run("RowFile", func(t *testing.T) {
		dir := write(t, t.TempDir(), map[string]string{
			"config.yaml": "{}", "rows/a.yaml": "name: Ant\nisDisabled: true\nconfiguration: {parameters: {a: 1}}\n",
		})
		c, err := component.ReadConfiguration(dir)
		if err != nil {
			t.Fatal(err)
		}
		if r := c.Rows[0]; r.ID != "a" || r.Name != "Ant" || !r.Disabled || compact(t, r.Data) != `{"parameters":{"a":1}}` {
			t.Errorf("row %+v", r)
		}
	})
	t.Run("Export", func(t *testing.T) {
		file := filepath.Join(write(t, t.TempDir(), map[string]string{"x.json": `{"id":"55","name":"N","description":"","created":"2020","creatorToken":{"id":1},"version":4,"changeDescription":"","isDeleted":false,"configuration":{"parameters":{}},"rowsSortOrder":[],"rows":[{"id":"r","name":"","description":"","isDisabled":true,"version":1,"created":"x","configuration":{},"state":{}}],"state":{},"currentVersion":{}}`}), "x.json")
		c, err := component.ReadConfiguration(file)
		if err != nil || c.ID != "55" || c.Name != "N" || len(c.Rows) != 1 || !c.Rows[0].Disabled {
			t.Errorf("ReadConfiguration = %+v, %v", c, err)
		}
	})
	for name, test := range map[string]struct {
		files map[string]string
		path  string
		kind  caisson.Kind
		word  string
	}{
		"NoFile":     {nil, "x.json", caisson.ErrNotFound, "x.json"},
		"NoConfig":   {map[string]string{"a/other.json": "{}"}, "a", caisson.ErrNotFound, "config.json"},
		"Syntax":     {map[string]string{"config.json": `{"a":`}, "", caisson.ErrInvalid, "not valid JSON"},
		"Root":       {map[string]string{"config.json": `5`}, "", caisson.ErrInvalid, "not a mapping"},
		"Wrapper":    {map[string]string{"config.yaml": "configuration: {}\nrow: []\n"}, "", caisson.ErrInvalid, `did you mean "rows"`},
		"Twice":      {map[string]string{"config.yaml": "configuration: {}\nrows: [{id: a, configuration: {}}]", "rows/a.json": "{}"}, "", caisson.ErrInvalid, "there twice"},
		"RowRoot":    {map[string]string{"config.yaml": "{}", "rows/a.json": "[1]"}, "", caisson.ErrInvalid, "not a mapping"},
		"RowID":      {map[string]string{"config.yaml": "{}", "rows/a.json": `{"id":"b","configuration":{}}`}, "", caisson.ErrInvalid, `not the file's name`},
		"RowKey":     {map[string]string{"config.yaml": "{}", "rows/a.json": `{"disable":true,"configuration":{}}`}, "", caisson.ErrInvalid, "unknown key"},
		"RowNoID":    {map[string]string{"config.yaml": "configuration: {}\nrows: [{configuration: {}}]"}, "", caisson.ErrInvalid, `"id" is missing`},
		"Definition": {map[string]string{"config.json": `{"id":"a","data":{"definition":{}}}`}, "", caisson.ErrInvalid, "a component's definition"},
		"NoWrapper":  {map[string]string{"config.yaml": "component: a\nparameters: {}\n"}, "", caisson.ErrInvalid, "beside \"configuration\""},
		"DoubleKeys": {map[string]string{"config.json": `{"parameters":{"a":1,"a":2}}`}, "", caisson.ErrInvalid, "twice"},
	} {
		t.Run("Err"+name, func(t *testing.T) {
			dir := write(t, t.TempDir(), test.files)
			_, err := component.ReadConfiguration(filepath.Join(dir, test.path))
			if !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.word) || component.FaultOf(err) != component.UserFault {
				t.Errorf("ReadConfiguration = %v, want %v with %q", err, test.kind, test.word)
			}
		})
	}
	t.Run("ErrLarge", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "config.json")
		f, err := os.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.Truncate(1 << 40); err != nil {
			t.Fatal(err)
		}
		if _, err := component.ReadConfiguration(file); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("ReadConfiguration of 1 TB = %v", err)
		}
	})
}

func TestSelect(t *testing.T) {
	c := configuration(t, `{}`)
	rows, _, _, err := c.Select(nil)
	if err != nil || len(rows) != 1 || rows[0].ID != "" {
		t.Errorf("Select without rows = %v, %v", rows, err)
	}
	if _, _, _, err := c.Select([]string{"a"}); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("Select(a) without rows = %v, want ErrNotFound", err)
	}
	for _, id := range []string{"a", "b", "c"} {
		c.Rows = append(c.Rows, component.Row{ID: id, Disabled: id == "b", Data: component.NewObject()})
	}
	for _, test := range []struct {
		names                 []string
		want, skipped, forced string
	}{{nil, "a c", "b", ""}, {[]string{"c", "b"}, "b c", "", "b"}, {[]string{"a"}, "a", "", ""}} {
		rows, skipped, forced, err := c.Select(test.names)
		var ids []string
		for _, r := range rows {
			ids = append(ids, r.ID)
		}
		if err != nil || strings.Join(ids, " ") != test.want || strings.Join(skipped, " ") != test.skipped || strings.Join(forced, " ") != test.forced {
			t.Errorf("Select(%v) = %v, %v, %v, %v", test.names, ids, skipped, forced, err)
		}
	}
	_, _, _, err = c.Select([]string{"x", "a", "y"})
	if !errors.Is(err, caisson.ErrNotFound) || !strings.Contains(err.Error(), `"x", "y"`) || component.FaultOf(err) != component.UserFault {
		t.Errorf("Select(x, a, y) = %v, want x and y named", err)
	}
}

func TestConfigurationCheck(t *testing.T) {
	c := configuration(t, `{"foo":1,"storage":{"input":{"tables":[{"source":"a"}]}}}`)
	c.Rows = []component.Row{
		{ID: "a", File: "a.json", Data: value(t, `{"bar":1}`)}, {ID: "b", File: "b.json", Data: value(t, `{"storage":{"input":{"tables":[{"days":"1"}]}}}`)},
	}
	err := c.Check()
	for _, path := range []string{"foo", "bar", "storage.input.tables[0].days"} {
		wantProblem(t, err, path, "")
	}
	if n := strings.Count(err.Error(), `unknown key "foo"`); n != 1 {
		t.Errorf("foo is reported %d times", n)
	}
	for _, text := range []string{`config.json: foo: `, `a.json: bar: `, `b.json: storage.input.tables[0].days: `} {
		if !strings.Contains("\n"+err.Error(), "\n"+text) {
			t.Errorf("%v names another file than %q", err, text)
		}
	}
	t.Run("RowCompletes", func(t *testing.T) {
		c := configuration(t, `{"storage":{"input":{"tables":[{"destination":"x"}]}}}`)
		c.Rows = []component.Row{{ID: "a", File: "a.json", Data: value(t, `{"storage":{"input":{"tables":[{"source":"in.c-a.b"}]}}}`)}}
		if err := c.Check(); err != nil {
			t.Errorf("Check = %v", err)
		}
	})
	if err := configuration(t, `{}`).Check(); err != nil {
		t.Errorf("Check of nothing wrong = %v", err)
	}
}
