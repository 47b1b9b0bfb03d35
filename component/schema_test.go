package component_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"github.com/caissonrun/caisson/component"
)

func compile(t testing.TB, name string) *jsonschema.Schema {
	t.Helper()
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(component.Schema(name)))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", parsed); err != nil {
		t.Fatal(err)
	}
	out, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// parsers reads each kind of file as Schema names it.
var parsers = map[string]func(t testing.TB, text string) error{
	"definition": func(_ testing.TB, text string) error {
		_, err := component.ParseDefinition("f", []byte(text))
		return err
	},
	"configuration": func(t testing.TB, text string) error {
		_, err := component.ParseConfig("f", value(t, text))
		return err
	},
	"state": func(_ testing.TB, text string) error {
		_, err := component.ParseState("f", []byte(text))
		return err
	},
	"usage": func(_ testing.TB, text string) error {
		_, err := component.ParseUsage("f", []byte(text))
		return err
	},
	"table-manifest": func(_ testing.TB, text string) error {
		_, err := component.ParseTableManifest("f", []byte(text), component.JSON)
		return err
	},
	"file-manifest": func(_ testing.TB, text string) error {
		_, err := component.ParseFileManifest("f", []byte(text), component.JSON)
		return err
	},
}

// right are files that are right, by schema.
var right = map[string][]string{
	"definition": {
		`{"id":"a","data":{"definition":{"type":"dockerhub","uri":"a"}}}`,
		`{"id":"a","x":1,"data":{"y":2,"definition":{"type":"command","command":["a",""],"env":{"A":1,"B":null}},"memory":"2G","image_parameters":{"#a":"b"},"logging":{"verbosity":{"100":"verbose"}},"staging_storage":{"input":"workspace-bigquery"}}}`,
		`{"id":"a","data":{"definition":{"type":"builder","uri":"a","build_options":{"parent_type":"dockerhub","repository":{"uri":"u"},"entry_point":"e","commands":["a"],"parameters":[{"name":"#n","type":"enumeration","values":["x"]}]}}}}`,
	},
	"configuration": {
		`{}`,
		`{"parameters":{"a":[1,null]},"storage":null,"shared_code_row_ids":[1,"b"],"variables_id":5,"action":"x"}`,
		`{"parameters":[],"storage":{"input":{"tables":[{"source":"a","days":null,"where_operator":null,"columns":[],"column_types":[],"where_values":[],"where_column":"","changed_since":"adaptive","limit":0}],"files":[{"tags":[],"source":{"tags":[{"name":"b"}]},"processed_tags":[]},{"query":"x","limit":1}]}}}`,
		`{"storage":{"output":{"tables":[{"source":"a","primary_key":[],"schema":[{"name":"x","data_type":{"base":{"type":"STRING","length":5},"snowflake":{"type":"V"}},"nullable":false,"metadata":{"a":true}}],"delete_where":[{"changed_since":"-1 day","where_filters":[{"column":"c","values_from_set":[]}]}]}],"files":[{"source":"a","tags":["x"]}],"table_files":{"tags":["a"],"is_permanent":false}}}}`,
		`{"runtime":{"safe":null,"process_timeout":86400,"parallelism":"infinity","backend":{"type":"large","x":1,"workspace_credentials":{"id":1,"type":"snowflake","y":2}},"extra":[1]},"processors":{"before":[],"after":[{"definition":{"component":"a","tag":1},"parameters":{}}]}}`,
		`{"authorization":{"oauth_api":{"id":1,"credentials":{"a":1}},"app_proxy":{"auth_providers":[{"id":"a","type":"t","z":1}],"auth_rules":[{"type":"t","auth_required":true,"auth":["a"]},{"type":"t","auth_required":false}]}},"artifacts":{"options":{"zip":false},"runs":{"enabled":true,"filter":{"limit":3}},"shared":{"enabled":true}}}`,
	},
	"state": {
		`{}`, `{"component":{"a":{}},"storage":{"input":{"tables":[{"source":"a","lastImportDate":"2020"}],"files":[{"tags":[{"name":"a","match":"exclude"}],"lastImportId":"5"}]}},"data_app":{"x":1}}`,
		`{"component":[1]}`,
	},
	"usage": {`[]`, `[{"metric":"API calls","value":150},{"metric":"x","value":0},{"metric":1,"value":"1.5"},{"metric":"b","value":false}]`},
	"table-manifest": {
		`{}`, `{"destination":"in.c-a.b","primary_key":["a"],"incremental":true,"columns":["a"],"delimiter":"\t","enclosure":"","delete_where_column":"a","delete_where_values":["1"],"delete_where_operator":"ne","metadata":[{"key":"k","value":true}],"column_metadata":{"a":[{"key":"k","value":1.5}]},"distribution_key":["a"],"write_always":true,"tags":["t"],"deduplication_strategy":"upsert","unload_strategy":"x","manifest_type":"out","has_header":true,"description":"d","table_metadata":{"a":"b"}}`,
		`{"schema":[{"name":"a","data_type":{"base":{"type":"INTEGER","default":"0"}},"primary_key":true,"description":"x"}],"columns":[],"primary_key":[]}`,
	},
	"file-manifest": {`{}`, `{"tags":["a"],"is_public":true,"is_permanent":true,"is_encrypted":false,"notify":true}`},
}

var badManifests = []bad{
	{"InputManifest", `{"id":"in.c-a.b","uri":"u","name":"b"}`, "id", "unknown key", true},
	{"EscapedBy", `{"escaped_by":"\\"}`, "escaped_by", "unknown key", true},
	{"Destination", `{"destination":["a"]}`, "destination", "a list", true},
	{"Incremental", `{"incremental":"true"}`, "incremental", "true or false", true},
	{"PrimaryKey", `{"primary_key":"id"}`, "primary_key", "a list", true},
	{"PrimaryKeyElement", `{"primary_key":[["id"]]}`, "primary_key[0]", "a list", true},
	{"DeleteWhere", `{"delete_where_column":"a"}`, "delete_where_column", `"delete_where_values"`, true},
	{"DeleteWhereOperator", `{"delete_where_operator":"gt"}`, "delete_where_operator", `"gt"`, true},
	{"DistributionKey", `{"distribution_key":[""]}`, "distribution_key[0]", "empty", true},
	{"Tags", `{"tags":[""]}`, "tags[0]", "empty", true},
	{"MetadataKey", `{"metadata":[{"value":1}]}`, "metadata[0]", `"key" is missing`, true},
	{"MetadataValue", `{"metadata":[{"key":"a","value":{}}]}`, "metadata[0].value", "a mapping", true},
	{"MetadataMapping", `{"metadata":{"a":"b"}}`, "metadata", "a mapping", true},
	{"ColumnMetadata", `{"column_metadata":[{"key":"a"}]}`, "column_metadata", "a list", true},
	{"SchemaAndColumns", `{"columns":["a"],"schema":[{"name":"a"}]}`, "columns", `"schema"`, true},
	{"SchemaAndMetadata", `{"metadata":[{"key":"a","value":1}],"schema":[{"name":"a"}]}`, "metadata", `"schema"`, true},
	{"SchemaAndColumnMetadata", `{"column_metadata":{"a":[{"key":"a","value":1}]},"schema":[{"name":"a"}]}`, "column_metadata", `"schema"`, true},
	{"HasHeader", `{"has_header":"yes"}`, "has_header", "true or false", true},
	{"WriteAlways", `{"write_always":1}`, "write_always", "true or false", true},
	{"Columns", `{"columns":"a,b"}`, "columns", "a list", true},
	{"TableMetadata", `{"table_metadata":{"a":[1]}}`, "table_metadata.a", "a list", true},
	{"SchemaAndKey", `{"primary_key":["a"],"schema":[{"name":"a"}]}`, "primary_key", `"schema"`, true},
	{"SchemaAndDistributionKey", `{"distribution_key":["a"],"schema":[{"name":"a"}]}`, "distribution_key", `"schema"`, true},
	{"SchemaName", `{"schema":[{"nullable":true}]}`, "schema[0]", `"name" is missing`, true},
	{"SchemaBase", `{"schema":[{"name":"a","data_type":{"snowflake":{"type":"x"}}}]}`, "schema[0].data_type", `"base" is missing`, true},
	{"SchemaBackend", `{"schema":[{"name":"a","data_type":{"base":{"type":"x"},"oracle":{"type":"x"}}}]}`, "schema[0].data_type.oracle", "unknown key", true},
	{"SchemaType", `{"schema":[{"name":"a","data_type":{"base":{"length":1}}}]}`, "schema[0].data_type.base", `"type" is missing`, true},
	{"SchemaDescription", `{"schema":[{"name":"a","description":"x","metadata":{"KBC.description":"y"}}]}`, "schema[0].description", "KBC.description", false},
	{"Description", `{"description":"x","table_metadata":{"KBC.description":"y"}}`, "description", "KBC.description", false},
	{"Strategy", `{"deduplication_strategy":"x"}`, "deduplication_strategy", `"x"`, true},
	{"Root", `"x"`, "", "mapping", true},
}

var badFileManifests = []bad{
	{"Unknown", `{"id":5}`, "id", "unknown key", true},
	{"Tags", `{"tags":"a"}`, "tags", "a list", true},
	{"Public", `{"is_public":1}`, "is_public", "true or false", true},
	{"Encrypted", `{"is_encrypted":null}`, "is_encrypted", "no value", true},
}

var badStates = []bad{
	{"Root", `{"foo":{}}`, "foo", "unknown key", true},
	{"Component", `{"component":"x"}`, "component", "mapping", true},
	{"Table", `{"storage":{"input":{"tables":[{"source":"a"}]}}}`, "storage.input.tables[0]", `"lastImportDate" is missing`, true},
	{"File", `{"storage":{"input":{"files":[{"tags":[]}]}}}`, "storage.input.files[0]", `"lastImportId" is missing`, true},
	{"Storage", `{"storage":{"output":{}}}`, "storage.output", "unknown key", true},
}

var badUsages = []bad{
	{"Mapping", `{"metric":"a","value":1}`, "", "a mapping", true},
	{"Unknown", `[{"metric":"a","value":1,"x":2}]`, "[0].x", "unknown key", true},
	{"NoMetric", `[{"value":1}]`, "[0]", `"metric" is missing`, true},
	{"NoValue", `[{"metric":"a"}]`, "[0]", `"value" is missing`, true},
	{"EmptyMetric", `[{"metric":"","value":1}]`, "[0].metric", "empty", true},
	{"NullValue", `[{"metric":"a","value":null}]`, "[0].value", "no value", true},
	{"ListValue", `[{"metric":"a","value":[1]}]`, "[0].value", "a list", true},
	{"Text", `[5]`, "[0]", "mapping", true},
}

var allBad = map[string][]bad{
	"definition": badDefinitions, "configuration": badConfigs, "state": badStates, "usage": badUsages,
	"table-manifest": badManifests, "file-manifest": badFileManifests,
}

func TestSchemas(t *testing.T) {
	var names []string
	for _, s := range component.Schemas() {
		names = append(names, s[0])
		schema := compile(t, s[0])
		plain := func(text string) any {
			out, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
		for _, text := range right[s[0]] {
			if err := schema.Validate(plain(text)); err != nil {
				t.Errorf("%s: the schema refuses %s: %v", s[0], text, err)
			}
			if err := parsers[s[0]](t, text); err != nil {
				t.Errorf("%s: the parser refuses %s: %v", s[0], text, err)
			}
		}
		if len(right[s[0]]) == 0 || len(allBad[s[0]]) == 0 {
			t.Errorf("%s: nothing is tried", s[0])
		}
		for _, test := range allBad[s[0]] {
			if err := schema.Validate(plain(test.text)); (err != nil) != test.schema {
				t.Errorf("%s %s: schema = %v, want an error: %v\n%s", s[0], test.name, err, test.schema, test.text)
			}
			if err := parsers[s[0]](t, test.text); err == nil {
				t.Errorf("%s %s: the parser takes %s", s[0], test.name, test.text)
			}
		}
	}
	if !slices.Equal(names, []string{"definition", "configuration", "state", "usage", "table-manifest", "file-manifest"}) {
		t.Errorf("schemas %v", names)
	}
	if component.Schema("x") != nil {
		t.Error("Schema(x) is not nil")
	}
}

// TestYAML checks that a configuration in YAML is the one in JSON.
func TestYAML(t *testing.T) {
	for _, text := range right["configuration"] {
		var plain any
		if err := yaml.Load([]byte(text), &plain); err != nil {
			t.Fatal(err)
		}
		data, err := yaml.Marshal(plain)
		if err != nil {
			t.Fatal(err)
		}
		v, err := component.ParseValue("c.yaml", data)
		if err != nil {
			t.Errorf("ParseValue(%s): %v", data, err)
			continue
		}
		if _, err := component.ParseConfig("c.yaml", v); err != nil {
			t.Errorf("ParseConfig(%s): %v", data, err)
		}
	}
}
