package component_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
)

func parse(t testing.TB, text string) *component.Config {
	t.Helper()
	c, err := component.ParseConfig("config.json", value(t, text))
	if err != nil {
		t.Fatalf("ParseConfig(%s): %v", text, err)
	}
	return c
}

// compact returns a configuration's config.json without spaces.
func compact(t testing.TB, v *component.Value) string {
	t.Helper()
	out, err := v.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestConfigFile checks config.json as the reference has verified it.
func TestConfigFile(t *testing.T) {
	for name, test := range map[string]struct{ config, want string }{
		"Empty": {
			`{}`,
			`{"shared_code_row_ids":[],"parameters":{},"image_parameters":{},"action":"run","storage":{},"authorization":{}}`,
		},
		"EmptyListsOfPHP": {
			`{"parameters":[],"storage":[],"authorization":[],"image_parameters":[]}`,
			`{"parameters":{},"storage":{},"authorization":{},"image_parameters":{},"shared_code_row_ids":[],"action":"run"}`,
		},
		"Mappings": {
			`{"storage":{"input":{"tables":[{"source":"in.c-main.sample","destination":"source.csv"}]},"output":{"tables":[{"source":"a.csv","destination":"out.c-m.a"}],"files":[{"source":"f"}]}},"parameters":{"a":{}}}`,
			`{"storage":{"input":{"tables":[{"source":"in.c-main.sample","destination":"source.csv","columns":[],"column_types":[],"where_values":[],"where_operator":"eq","overwrite":false,"keep_internal_timestamp_column":true}],"files":[]},` +
				`"output":{"tables":[{"source":"a.csv","destination":"out.c-m.a","incremental":false,"primary_key":[],"columns":[],"distribution_key":[],"delete_where_values":[],"delete_where_operator":"eq","delimiter":",","enclosure":"\"","metadata":[],"column_metadata":[],"write_always":false,"tags":[],"schema":[]}],` +
				`"files":[{"source":"f","tags":[],"is_public":false,"is_permanent":false,"is_encrypted":true,"notify":false}]}},` +
				`"parameters":{"a":{}},"shared_code_row_ids":[],"image_parameters":{},"action":"run","authorization":{}}`,
		},
		"InputFiles": {
			`{"storage":{"input":{"files":[{"tags":["a"],"query":""},{"source":{"tags":[{"name":"b"}]},"tags":[]}]}}}`,
			`{"storage":{"input":{"files":[{"tags":["a"],"overwrite":true},{"source":{"tags":[{"name":"b","match":"include"}]},"overwrite":true}],"tables":[]}},"shared_code_row_ids":[],"parameters":{},"image_parameters":{},"action":"run","authorization":{}}`,
		},
		"RuntimeAndProcessorsGo": {
			`{"runtime":{"image_tag":"1","x":2},"processors":{"before":[{"definition":{"component":"p"}}]},"artifacts":{"options":{}},"variables_id":12,"action":"x"}`,
			`{"artifacts":{"options":{"zip":true}},"variables_id":12,"action":"run","shared_code_row_ids":[],"parameters":{},"image_parameters":{},"storage":{},"authorization":{}}`,
		},
		"Authorization": {
			`{"authorization":{"oauth_api":{"id":"1","version":3,"credentials":{"#data":"x","z":[]}},"workspace":{"host":"h","password":"p"},"context":"c"},"runtime":{"backend":{"context":"wlm"}}}`,
			`{"authorization":{"oauth_api":{"credentials":{"#data":"x","z":[]}},"context":"wlm"},"shared_code_row_ids":[],"parameters":{},"image_parameters":{},"action":"run","storage":{}}`,
		},
		"ImageParametersOfUserGo": {
			`{"image_parameters":{"mine":1},"parameters":{"l":1.50,"n":null}}`,
			`{"image_parameters":{},"parameters":{"l":1.50,"n":null},"shared_code_row_ids":[],"action":"run","storage":{},"authorization":{}}`,
		},
		"NullsAndScalars": {
			`{"storage":{"input":{"tables":[{"source":5,"days":null,"where_operator":"","columns":null,"destination":null}]},"output":null}}`,
			`{"storage":{"input":{"tables":[{"source":5,"days":0,"where_operator":"eq","columns":[],"destination":null,"column_types":[],"where_values":[],"overwrite":false,"keep_internal_timestamp_column":true}],"files":[]},"output":{"tables":[],"files":[]}},` +
				`"shared_code_row_ids":[],"parameters":{},"image_parameters":{},"action":"run","authorization":{}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := parse(t, test.config)
			if diff := cmp.Diff(test.want, compact(t, c.File(&component.FileOptions{}))); diff != "" {
				t.Errorf("File, want - got +:\n%s", diff)
			}
			// It survives being kept.
			kept, err := json.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			again := &component.Config{}
			if err := json.Unmarshal(kept, again); err != nil {
				t.Fatal(err)
			}
			if got := compact(t, again.File(&component.FileOptions{})); got != test.want {
				t.Errorf("kept and read again: %s", got)
			}
		})
	}
	t.Run("Options", func(t *testing.T) {
		got := compact(t, parse(t, `{}`).File(&component.FileOptions{Action: "test", ImageParameters: value(t, `{"#k":"v"}`)}))
		if !strings.Contains(got, `"action":"test"`) || !strings.Contains(got, `"image_parameters":{"#k":"v"}`) {
			t.Errorf("File: %s", got)
		}
	})
	t.Run("Processor", func(t *testing.T) {
		c := parse(t, `{"processors":{"after":[{"definition":{"component":"p","tag":"2"},"parameters":{"b":1,"a":{}}}]}}`)
		p := c.Processors.After[0]
		want := `{"shared_code_row_ids":[],"parameters":{"b":1,"a":{}},"image_parameters":{"i":1},"action":"run","storage":{},"authorization":{}}`
		got := compact(t, p.File(&component.FileOptions{ImageParameters: value(t, `{"i":1}`)}))
		if got != want || p.Component != "p" || p.Tag != "2" {
			t.Errorf("processor %+v: %s", p, got)
		}
	})
}

func TestConfigTyped(t *testing.T) {
	c := parse(t, `{"storage":{
		"input":{"tables":[{"source":"in.c-b.t","limit":5,"column_types":[{"source":"a"},{"source":"b","nullable":true}],"where_column":"x","where_values":[1,true,"y"],"where_operator":"ne"}],
		         "files":[{"file_ids":[3,"4"],"processed_tags":["p"]}]},
		"output":{"default_bucket":"out.c-x","tables":[{"source":"a","primary_key":[" id ","","id","b"],"delimiter":null,"metadata":[{"key":"k","value":false}],
		           "column_metadata":{"c":[{"key":"k","value":1.50}]},"delete_where":[{"where_filters":[{"column":"c","values_from_set":[1]}]}]},
		           {"source":"b","schema":[{"name":"n","data_type":{"base":{"type":"STRING"}},"metadata":{"m":1}}],"table_metadata":{"t":null}}],
		           "table_files":{}}}}`)
	in := c.Storage.Input.Tables[0]
	if diff := cmp.Diff([]string{"a", "b"}, in.Columns); diff != "" {
		t.Errorf("columns of column_types: %s", diff)
	}
	if diff := cmp.Diff([]string{"1", "true", "y"}, in.WhereValues); diff != "" || in.WhereOperator != "ne" || in.Limit != 5 || in.FileName() != "in.c-b.t" {
		t.Errorf("input table %+v", in)
	}
	f := c.Storage.Input.Files[0]
	if diff := cmp.Diff([]int64{3, 4}, f.FileIDs); diff != "" || !f.Overwrite {
		t.Errorf("input file %+v", f)
	}
	a, b := c.Storage.Output.Tables[0], c.Storage.Output.Tables[1]
	if diff := cmp.Diff([]string{"id", "b"}, a.PrimaryKey); diff != "" || len(a.Warnings) != 1 || a.Delimiter != "," || a.Enclosure != `"` {
		t.Errorf("output table %+v", a)
	}
	if string(a.Metadata[0].Value) != "false" || string(a.ColumnMetadata["c"][0].Value) != "1.50" {
		t.Errorf("metadata %s %s", a.Metadata[0].Value, a.ColumnMetadata["c"][0].Value)
	}
	if w := a.DeleteWhere[0].Filters[0]; w.Operator != "eq" || w.Values[0] != "1" {
		t.Errorf("delete_where %+v", w)
	}
	if n := b.Schema[0]; !n.Nullable || n.DataType["base"].Type != "STRING" || string(n.Metadata["m"]) != "1" {
		t.Errorf("schema %+v", n)
	}
	if tf := c.Storage.Output.TableFiles; tf == nil || !tf.IsPermanent {
		t.Errorf("table_files %+v", tf)
	}
	if c := parse(t, `{}`); c.Storage.Output.TableFiles != nil {
		t.Error("table_files although nobody asked for them")
	}
}

func TestRuntime(t *testing.T) {
	d := definition(t, `{"id":"c","data":{"definition":{"type":"dockerhub","uri":"a/b","tag":"1","digest":"`+strings.Repeat("a", 64)+`"},"memory":"256m","process_timeout":60}}`)
	for name, test := range map[string]struct {
		config string
		tag    string
		time   time.Duration
		memory caisson.Bytes
		cpus   caisson.CPUs
		limit  int
	}{
		"Defaults":   {`{}`, "", time.Minute, 256e6, 2000, 0},
		"ImageTag":   {`{"runtime":{"image_tag":"2","process_timeout":5}}`, "2", 5 * time.Second, 256e6, 2000, 0},
		"Tag":        {`{"runtime":{"image_tag":"2","tag":"3","backend":{"type":"xsmall"}}}`, "3", time.Minute, 128e6, 1000, 0},
		"Medium":     {`{"runtime":{"backend":{"type":"medium"},"process_timeout":null}}`, "", time.Minute, 512e6, 4000, 0},
		"Large":      {`{"runtime":{"backend":{"type":"large"}}}`, "", time.Minute, 1817600000, 14000, 0},
		"BackendNil": {`{"runtime":{"backend":null,"parallelism":"infinity","safe":null}}`, "", time.Minute, 256e6, 2000, 0},
		"Limit":      {`{"runtime":{"backend":{"type":"large"}}}`, "", time.Minute, 1000e6, 14000, 1000},
	} {
		t.Run(name, func(t *testing.T) {
			c := parse(t, test.config)
			memory, cpus, err := c.Resources(d, test.limit)
			if err != nil || memory != test.memory || cpus != test.cpus || c.Tag("") != test.tag || c.Timeout(d) != test.time {
				t.Errorf("memory %d, cpus %d, tag %q, timeout %v, %v", memory, cpus, c.Tag(""), c.Timeout(d), err)
			}
			if c.Tag("job") != "job" {
				t.Errorf("Tag(job) = %q", c.Tag("job"))
			}
		})
	}
	if _, _, err := parse(t, `{}`).Resources(d, 64001); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("Resources over the limit = %v, want ErrInvalid", err)
	}
	if got := d.Image.Reference(""); got != "a/b:1@sha256:"+strings.Repeat("a", 64) {
		t.Errorf("Reference() = %s", got)
	}
	if got := d.Image.Reference("5"); got != "a/b:5" {
		t.Errorf("Reference(5) = %s", got)
	}
}

// A bad is a file that is refused: where, and by which words. Schema says that
// the JSON Schema refuses it, too.
type bad struct {
	name, text, path, word string
	schema                 bool
}

var badConfigs = []bad{
	{"Root", `[1]`, "", "mapping", true},
	{"UnknownRoot", `{"foo":1}`, "foo", "unknown key", true},
	{"UnknownSuggested", `{"params":{}}`, "params", `"parameters"`, true},
	{"UnknownStorage", `{"storage":{"inputs":{}}}`, "storage.inputs", "unknown key", true},
	{"UnknownInputTable", `{"storage":{"input":{"tables":[{"source":"a","foo":1}]}}}`, "storage.input.tables[0].foo", "unknown key", true},
	{"UnknownOutputTable", `{"storage":{"output":{"tables":[{"source":"a","escaped_by":"x"}]}}}`, "storage.output.tables[0].escaped_by", "unknown key", true},
	{"UnknownInputFile", `{"storage":{"input":{"files":[{"tags":["a"],"foo":1}]}}}`, "storage.input.files[0].foo", "unknown key", true},
	{"UnknownOutputFile", `{"storage":{"output":{"files":[{"source":"a","destination":"x"}]}}}`, "storage.output.files[0].destination", "unknown key", true},
	{"UnknownProcessor", `{"processors":{"before":[{"definition":{"component":"a"},"x":1}]}}`, "processors.before[0].x", "unknown key", true},
	{"UnknownAuthorization", `{"authorization":{"foo":1}}`, "authorization.foo", "unknown key", true},
	{"UnknownArtifacts", `{"artifacts":{"foo":1}}`, "artifacts.foo", "unknown key", true},
	{"InputTableNoSource", `{"storage":{"input":{"tables":[{"destination":"a"}]}}}`, "storage.input.tables[0]", `"source" is missing`, true},
	{"InputTableEmptySource", `{"storage":{"input":{"tables":[{"source":""}]}}}`, "storage.input.tables[0].source", "empty", true},
	{"OutputTableNoSource", `{"storage":{"output":{"tables":[{"destination":"a.b.c"}]}}}`, "storage.output.tables[0]", `"source" is missing`, true},
	{"OutputFileNoSource", `{"storage":{"output":{"files":[{"tags":[]}]}}}`, "storage.output.files[0]", `"source" is missing`, true},
	{"DaysText", `{"storage":{"input":{"tables":[{"source":"a","days":"2"}]}}}`, "storage.input.tables[0].days", "without quotes: 2", true},
	{"DaysAndChangedSince", `{"storage":{"input":{"tables":[{"source":"a","days":2,"changed_since":"-1 day"}]}}}`, "storage.input.tables[0].changed_since", `"days"`, true},
	{"LimitText", `{"storage":{"input":{"tables":[{"source":"a","limit":"2"}]}}}`, "storage.input.tables[0].limit", "without quotes", true},
	{"WhereNoValues", `{"storage":{"input":{"tables":[{"source":"a","where_column":"x"}]}}}`, "storage.input.tables[0].where_column", `"where_values"`, true},
	{"WhereEmptyValues", `{"storage":{"input":{"tables":[{"source":"a","where_column":"x","where_values":[]}]}}}`, "storage.input.tables[0].where_column", `"where_values"`, true},
	{"WhereNoColumn", `{"storage":{"input":{"tables":[{"source":"a","where_values":["x"]}]}}}`, "storage.input.tables[0].where_values", `"where_column"`, true},
	{"WhereOperator", `{"storage":{"input":{"tables":[{"source":"a","where_operator":"gt"}]}}}`, "storage.input.tables[0].where_operator", `"gt"`, true},
	{"ColumnsSurplus", `{"storage":{"input":{"tables":[{"source":"a","columns":["x","y"],"column_types":[{"source":"x"}]}]}}}`, "storage.input.tables[0].columns", `"y"`, false},
	{"ColumnTypesSurplus", `{"storage":{"input":{"tables":[{"source":"a","columns":["x"],"column_types":[{"source":"x"},{"source":"z"}]}]}}}`, "storage.input.tables[0].column_types", `"z"`, false},
	{"ColumnTypeNoSource", `{"storage":{"input":{"tables":[{"source":"a","column_types":[{"type":"x"}]}]}}}`, "storage.input.tables[0].column_types[0]", `"source" is missing`, true},
	{"BoolText", `{"storage":{"input":{"tables":[{"source":"a","overwrite":"true"}]}}}`, "storage.input.tables[0].overwrite", "want true or false", true},
	{"BoolNumber", `{"storage":{"output":{"tables":[{"source":"a","incremental":1}]}}}`, "storage.output.tables[0].incremental", "want true or false", true},
	{"FileType", `{"storage":{"input":{"tables":[{"source":"a","file_type":"xml"}]}}}`, "storage.input.tables[0].file_type", `"xml"`, true},
	{"FilesNothing", `{"storage":{"input":{"files":[{"overwrite":true}]}}}`, "storage.input.files[0]", "chooses no files", false},
	{"FilesEmptyTags", `{"storage":{"input":{"files":[{"tags":[]}]}}}`, "storage.input.files[0]", "chooses no files", false},
	{"FilesTagsAndSource", `{"storage":{"input":{"files":[{"tags":["a"],"source":{"tags":[{"name":"b"}]}}]}}}`, "storage.input.files[0].source", `"tags"`, true},
	{"FilesIDsAndTags", `{"storage":{"input":{"files":[{"file_ids":[1],"tags":["a"]}]}}}`, "storage.input.files[0].tags", `"file_ids"`, false},
	{"FilesIDsAndLimit", `{"storage":{"input":{"files":[{"file_ids":[1],"limit":2}]}}}`, "storage.input.files[0].limit", `"file_ids"`, false},
	{"FilesIDsText", `{"storage":{"input":{"files":[{"file_ids":["x"]}]}}}`, "storage.input.files[0].file_ids[0]", "number", true},
	{"FilesQueryAndSince", `{"storage":{"input":{"files":[{"query":"a","changed_since":"-1 day"}]}}}`, "storage.input.files[0].changed_since", `"query"`, true},
	{"FilesOverwrite", `{"storage":{"input":{"files":[{"tags":["a"],"overwrite":false}]}}}`, "storage.input.files[0].overwrite", "can't be turned off", false},
	{"FilesMatch", `{"storage":{"input":{"files":[{"source":{"tags":[{"name":"a","match":"maybe"}]}}]}}}`, "storage.input.files[0].source.tags[0].match", `"maybe"`, true},
	{"FilesTagNoName", `{"storage":{"input":{"files":[{"source":{"tags":[{"match":"include"}]}}]}}}`, "storage.input.files[0].source.tags[0]", `"name" is missing`, true},
	{"DeleteWhereNoValues", `{"storage":{"output":{"tables":[{"source":"a","delete_where_column":"x"}]}}}`, "storage.output.tables[0].delete_where_column", `"delete_where_values"`, true},
	{"DeleteWhereOperator", `{"storage":{"output":{"tables":[{"source":"a","delete_where_operator":"lt"}]}}}`, "storage.output.tables[0].delete_where_operator", `"lt"`, true},
	{"DeleteWhereBoth", `{"storage":{"output":{"tables":[{"source":"a","delete_where_column":"x","delete_where_values":["1"],"delete_where":[{"changed_since":"-1 day"}]}]}}}`, "storage.output.tables[0].delete_where_column", `"delete_where"`, true},
	{"DeleteWhereNothing", `{"storage":{"output":{"tables":[{"source":"a","delete_where":[{}]}]}}}`, "storage.output.tables[0].delete_where[0]", "chooses no rows", false},
	{"DeleteWhereTwoSources", `{"storage":{"output":{"tables":[{"source":"a","delete_where":[{"where_filters":[{"column":"c","values_from_set":["1"],"values_from_storage":{"bucket_id":"b","table":"t"}}]}]}]}}}`, "storage.output.tables[0].delete_where[0].where_filters[0]", "exactly one", false},
	{"DeleteWhereNoSource", `{"storage":{"output":{"tables":[{"source":"a","delete_where":[{"where_filters":[{"column":"c"}]}]}]}}}`, "storage.output.tables[0].delete_where[0].where_filters[0]", "exactly one", false},
	{"SchemaAndKey", `{"storage":{"output":{"tables":[{"source":"a","primary_key":["x"],"schema":[{"name":"x"}]}]}}}`, "storage.output.tables[0].primary_key", `"schema"`, true},
	{"ReadOnly", `{"storage":{"input":{"read_only_storage_access":"yes"}}}`, "storage.input.read_only_storage_access", "true or false", true},
	{"DefaultBucket", `{"storage":{"output":{"default_bucket":["a"]}}}`, "storage.output.default_bucket", "a list", true},
	{"TableFiles", `{"storage":{"output":{"table_files":{"is_permanent":"no"}}}}`, "storage.output.table_files.is_permanent", "true or false", true},
	{"SharedCode", `{"shared_code_row_ids":"a"}`, "shared_code_row_ids", "a list", true},
	{"Processors", `{"processors":[{"definition":{}}]}`, "processors", "a list", true},
	{"Storage", `{"storage":"all"}`, "storage", "is the text", true},
	{"Strategy", `{"storage":{"output":{"tables":[{"source":"a","deduplication_strategy":"merge"}]}}}`, "storage.output.tables[0].deduplication_strategy", `"merge"`, true},
	{"DataTypeSupport", `{"storage":{"output":{"data_type_support":"x"}}}`, "storage.output.data_type_support", `"x"`, true},
	{"TableModifications", `{"storage":{"output":{"table_modifications":"x"}}}`, "storage.output.table_modifications", `"x"`, true},
	{"TimeoutZero", `{"runtime":{"process_timeout":0}}`, "runtime.process_timeout", "1 to 86400", true},
	{"TimeoutLong", `{"runtime":{"process_timeout":86401}}`, "runtime.process_timeout", "1 to 86400", true},
	{"TimeoutText", `{"runtime":{"process_timeout":"9"}}`, "runtime.process_timeout", "without quotes", true},
	{"Backend", `{"runtime":{"backend":{"type":"huge"}}}`, "runtime.backend.type", `"huge"`, true},
	{"Parallelism", `{"runtime":{"parallelism":1}}`, "runtime.parallelism", "2 to 100", true},
	{"SafeText", `{"runtime":{"safe":"yes"}}`, "runtime.safe", "want true or false", true},
	{"WorkspaceNoID", `{"runtime":{"backend":{"workspace_credentials":{"type":"snowflake"}}}}`, "runtime.backend.workspace_credentials", `"id" is missing`, true},
	{"ProcessorNoComponent", `{"processors":{"after":[{"definition":{"tag":"1"}}]}}`, "processors.after[0].definition", `"component" is missing`, true},
	{"ProcessorNoDefinition", `{"processors":{"after":[{"parameters":{}}]}}`, "processors.after[0]", `"definition" is missing`, true},
	{"AppProxyNoRules", `{"authorization":{"app_proxy":{"auth_providers":[]}}}`, "authorization.app_proxy", `"auth_rules" is missing`, true},
	{"AppProxyEmptyRules", `{"authorization":{"app_proxy":{"auth_providers":[],"auth_rules":[]}}}`, "authorization.app_proxy.auth_rules", "empty", true},
	{"AppProxyAuth", `{"authorization":{"app_proxy":{"auth_providers":[],"auth_rules":[{"type":"t","auth_required":true}]}}}`, "authorization.app_proxy.auth_rules[0]", `"auth_required"`, false},
	{"AppProxyUnknown", `{"authorization":{"app_proxy":{"auth_providers":[{"id":"a","type":"t"}],"auth_rules":[{"type":"t","auth_required":true,"auth":["b"]}]}}}`, "authorization.app_proxy.auth_rules", `"b"`, false},
	{"ArtifactsRuns", `{"artifacts":{"runs":{"enabled":true}}}`, "artifacts.runs", "date_since", false},
	{"ArtifactsCustom", `{"artifacts":{"custom":{"enabled":true,"filter":{"limit":1}}}}`, "artifacts.custom", "component_id", false},
	{"ListForText", `{"action":["run"]}`, "action", "a list", true},
	{"NUL", `{"storage":{"input":{"tables":[{"source":"a\u0000b"}]}}}`, "storage.input.tables[0].source", "NUL", true},
}

func TestConfigErr(t *testing.T) {
	for _, test := range badConfigs {
		t.Run(test.name, func(t *testing.T) {
			_, err := component.ParseConfig("config.json", value(t, test.text))
			wantProblem(t, err, test.path, test.word)
			if component.FaultOf(err) != component.UserFault {
				t.Errorf("FaultOf(%v) = %s, want the user's", err, component.FaultOf(err))
			}
		})
	}
}

// wantProblem checks that err names the path and says the word.
func wantProblem(t testing.TB, err error, path, word string) {
	t.Helper()
	var problems component.Problems
	if !errors.As(err, &problems) {
		t.Errorf("error %v, want Problems", err)
		return
	}
	if !errors.Is(err, caisson.ErrInvalid) || caisson.KindOf(err) != caisson.ErrInvalid {
		t.Errorf("error %v is not of kind ErrInvalid", err)
	}
	for _, p := range problems {
		if p.Path == path && strings.Contains(p.Message, word) {
			return
		}
	}
	t.Errorf("error %v, want one at %q with %q", err, path, word)
}

func TestConfigErrAllAtOnce(t *testing.T) {
	_, err := component.ParseConfig("c.json", value(t, `{"foo":1,"storage":{"input":{"tables":[{"days":"2"}]},"output":{"tables":[{"source":"x","incremental":"no"}]}},"runtime":{"process_timeout":-1}}`))
	for _, path := range []string{"foo", "storage.input.tables[0]", "storage.input.tables[0].days", "storage.output.tables[0].incremental", "runtime.process_timeout"} {
		wantProblem(t, err, path, "")
	}
}

func TestConfigErrKeepsSecrets(t *testing.T) {
	for _, text := range []string{
		`{"runtime":{"backend":{"workspace_credentials":{"id":"1","type":"snowflake","#password":["hunter2x"]}}}}`,
		`{"runtime":{"backend":{"workspace_credentials":{"id":"1","type":"snowflake","#password":"hunter2x\u0000"}}}}`,
		`{"authorization":{"workspace":{"password":{"a":"hunter2x"}}}}`,
	} {
		if _, err := component.ParseConfig("", value(t, text)); err == nil || strings.Contains(err.Error(), "hunter2x") {
			t.Errorf("ParseConfig(%s) = %v, want an error without the secret", text, err)
		}
	}
}
