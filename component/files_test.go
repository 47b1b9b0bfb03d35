package component_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson/component"
)

func TestTableManifest(t *testing.T) {
	m, err := component.ParseTableManifest("a.csv.manifest", []byte(`{}`), component.JSON)
	if err != nil {
		t.Fatal(err)
	}
	want := &component.TableManifest{
		PrimaryKey: []string{}, Columns: []string{}, Delimiter: ",", Enclosure: `"`, DeleteWhereValues: []string{}, DeleteWhereOperator: "eq",
		Metadata: []component.Metadata{}, ColumnMetadata: map[string][]component.Metadata{}, DistributionKey: []string{}, Tags: []string{},
		Schema: []component.Column{},
	}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Errorf("defaults, want - got +:\n%s", diff)
	}
	m, err = component.ParseTableManifest("a", []byte(`{"primary_key":[" a ","","a",1],"metadata":[{"key":"k","value":false},{"key":"n","value":1.50}],"column_metadata":{"c":[{"key":"k","value":null}]},
		"columns":{"1":"x","0":"y"},"delete_where":[{"where_filters":[{"column":"c","operator":"","values_from_storage":{"bucket_id":"b","table":"t"}}]}],"has_header":true,"table_metadata":[]}`), component.JSON)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "1"}, m.PrimaryKey); diff != "" || len(m.Warnings) != 1 {
		t.Errorf("primary key %s %v", diff, m.Warnings)
	}
	if diff := cmp.Diff([]component.Metadata{{"k", json.RawMessage("false")}, {"n", json.RawMessage("1.50")}}, m.Metadata); diff != "" {
		t.Errorf("metadata %s", diff)
	}
	if diff := cmp.Diff([]string{"x", "y"}, m.Columns); diff != "" || string(m.ColumnMetadata["c"][0].Value) != "null" || !m.HasHeader {
		t.Errorf("manifest %+v", m)
	}
	if f := m.DeleteWhere[0].Filters[0]; f.Operator != "eq" || f.FromStorage.Table != "t" {
		t.Errorf("delete_where %+v", f)
	}
}

func TestTableManifestOfSchema(t *testing.T) {
	m, err := component.ParseTableManifest("a", []byte("schema:\n- name: a\n  data_type: {base: {type: NUMERIC, length: '10,2'}}\n  primary_key: true\n- {name: b, nullable: false, metadata: {x: 1}}\n"), component.YAML)
	if err != nil {
		t.Fatal(err)
	}
	want := []component.Column{
		{Name: "a", DataType: map[string]component.DataType{"base": {Type: "NUMERIC", Length: "10,2"}}, Nullable: true, PrimaryKey: true},
		{Name: "b", Metadata: map[string]json.RawMessage{"x": json.RawMessage("1")}},
	}
	if diff := cmp.Diff(want, m.Schema); diff != "" {
		t.Errorf("schema, want - got +:\n%s", diff)
	}
}

func TestManifestErr(t *testing.T) {
	for _, test := range badManifests {
		t.Run("Table"+test.name, func(t *testing.T) {
			_, err := component.ParseTableManifest("m", []byte(test.text), component.JSON)
			wantProblem(t, err, test.path, test.word)
			if component.FaultOf(err) != component.UserFault {
				t.Errorf("%v is not the user's", err)
			}
		})
	}
	for _, test := range badFileManifests {
		t.Run("File"+test.name, func(t *testing.T) {
			_, err := component.ParseFileManifest("m", []byte(test.text), component.JSON)
			wantProblem(t, err, test.path, test.word)
		})
	}
	for name, data := range map[string][]byte{
		"Empty": nil, "Syntax": []byte(`{"a":`), "YAML": []byte("incremental: true"), "UTF8": []byte("{\"destination\":\"\xff\"}"),
		"Twice": []byte(`{"incremental":true,"incremental":false}`), "Deep": []byte(strings.Repeat("[", 100) + strings.Repeat("]", 100)),
		"Large": bytes.Repeat([]byte(" "), component.MaxManifest+1), "NUL": {'{', 0, '}'}, "Two": []byte(`{}{}`),
		"Number": []byte(`{"limit":1e999999999}`),
	} {
		t.Run("Err"+name, func(t *testing.T) {
			m, err := component.ParseTableManifest("NAME", data, component.JSON)
			if err == nil || !strings.HasPrefix(err.Error(), "NAME") || m != nil {
				t.Errorf("ParseTableManifest = %v, %v, want an error that begins with the name", m, err)
			}
			wantProblem(t, err, problemPath(err), "")
		})
	}
}

func problemPath(err error) string {
	if p, ok := err.(component.Problems); ok && len(p) > 0 {
		return p[0].Path
	}
	return ""
}

func TestFileManifest(t *testing.T) {
	m, err := component.ParseFileManifest("f", []byte(`[]`), component.JSON)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&component.FileManifest{Tags: []string{}, IsEncrypted: true}, m); diff != "" {
		t.Errorf("defaults, want - got +:\n%s", diff)
	}
}

func TestState(t *testing.T) {
	const text = `{"component":{"z":1.0,"#k":"v","e":{}},"storage":{"input":{"tables":[{"source":"a","lastImportDate":"d"}],"files":[{"tags":[{"name":"t","match":"include"}],"lastImportId":"7"}]}},"data_app":{"p":1}}`
	s, err := component.ParseState("s", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if s.Input.Tables[0].Source != "a" || s.Input.Files[0].LastImportID != "7" || s.Component.Get("z").Text != "1.0" {
		t.Errorf("state %+v", s)
	}
	if got, err := s.Marshal(); err != nil || string(got) != text {
		t.Errorf("Marshal() = %s, %v, want %s", got, err, text)
	}
	empty, err := component.ParseState("s", []byte(`{"component":[],"storage":[]}`))
	if err != nil || empty.Component.Kind != component.Object {
		t.Errorf("empty state %+v, %v", empty, err)
	}
	if got, _ := empty.Marshal(); string(got) != `{"component":{},"storage":{"input":{}}}` {
		t.Errorf("Marshal() = %s", got)
	}
	for _, test := range badStates {
		_, err := component.ParseState("s", []byte(test.text))
		wantProblem(t, err, test.path, test.word)
	}
}

func TestComponentState(t *testing.T) {
	for text, want := range map[string]string{`{"a":1.0}`: `{"a":1.0}`, `[]`: `{}`, `{}`: `{}`, `[1]`: `[1]`} {
		v, err := component.ParseComponentState("out/state.json", []byte(text), component.JSON)
		if err != nil || compact(t, v) != want {
			t.Errorf("ParseComponentState(%s) = %v, %v, want %s", text, v, err, want)
		}
	}
	if v, err := component.ParseComponentState("out/state.yml", []byte("a: [1, x]"), component.YAML); err != nil || compact(t, v) != `{"a":[1,"x"]}` {
		t.Errorf("ParseComponentState of YAML = %v, %v", v, err)
	}
	for _, text := range []string{``, `5`, `"x"`, `null`, `{`, "\xff", strings.Repeat(" ", component.MaxState+1)} {
		_, err := component.ParseComponentState("out/state.json", []byte(text), component.JSON)
		if component.FaultOf(err) != component.ApplicationFault || err == nil {
			t.Errorf("ParseComponentState(%.20q) = %v, want the application's error", text, err)
		}
	}
}

func TestUsage(t *testing.T) {
	u, err := component.ParseUsage("u", []byte(`[{"metric":"a","value":1.50},{"metric":"b","value":"0"}]`))
	want := []component.Usage{{json.RawMessage(`"a"`), json.RawMessage("1.50")}, {json.RawMessage(`"b"`), json.RawMessage(`"0"`)}}
	if diff := cmp.Diff(want, u); diff != "" || err != nil {
		t.Errorf("ParseUsage: %v %s", err, diff)
	}
	for _, test := range badUsages {
		_, err := component.ParseUsage("u", []byte(test.text))
		wantProblem(t, err, test.path, test.word)
		if component.FaultOf(err) != component.ApplicationFault {
			t.Errorf("%s: %v is not the application's", test.name, err)
		}
	}
}

func TestResultDoc(t *testing.T) {
	r, err := component.ParseResultDoc("r", []byte(`{"variables":{"a":1.0,"b":null,"c":"x"}}`))
	want := map[string]json.RawMessage{"a": json.RawMessage("1.0"), "b": json.RawMessage("null"), "c": json.RawMessage(`"x"`)}
	if err != nil || !cmp.Equal(want, r.Variables) {
		t.Errorf("ParseResultDoc = %v, %v", r, err)
	}
	for _, text := range []string{`{"variables":{"a":[1]}}`, `{"x":1}`, `[1]`, `{"variables":"x"}`, `{`} {
		if _, err := component.ParseResultDoc("r", []byte(text)); err == nil {
			t.Errorf("ParseResultDoc(%s) has no error", text)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, list := range allBad {
		for _, test := range list {
			f.Add([]byte(test.text))
		}
	}
	for _, list := range right {
		for _, text := range list {
			f.Add([]byte(text))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		component.ParseTableManifest("m", data, component.JSON)
		component.ParseTableManifest("m", data, component.YAML)
		component.ParseUsage("u", data)
		component.ParseDefinition("d", data)
		if s, err := component.ParseState("s", data); err == nil {
			if _, err := s.Marshal(); err != nil {
				t.Errorf("Marshal of %s: %v", data, err)
			}
		}
		v, err := component.ParseValue("c", data)
		if err != nil {
			return
		}
		c, err := component.ParseConfig("c", v)
		if err != nil {
			return
		}
		kept, err := json.Marshal(c)
		if err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		again := &component.Config{}
		if err := json.Unmarshal(kept, again); err != nil {
			t.Errorf("%s can't be read again: %v", kept, err)
		}
	})
}
