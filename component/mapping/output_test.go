//go:build unix

package mapping_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/mapping"
	"github.com/caissonrun/caisson/component/storage"
)

func TestDestination(t *testing.T) {
	tests := []struct {
		name                       string
		file, manifest, mapping    string
		bucket                     string
		want                       string
		origin                     mapping.Origin
		fails                      string
		mapped, componentHasBucket bool
	}{
		{name: "Mapping", file: "a.csv", manifest: "in.c-x.manifest", mapping: "out.c-x.mapping", mapped: true, bucket: "in.c-d", want: "out.c-x.mapping", origin: mapping.FromMapping},
		{name: "MappingIsNoTableID", file: "a.csv", mapping: "plain", mapped: true, bucket: "in.c-d", fails: "no table id"},
		{name: "ManifestTableID", file: "a.csv", manifest: "in.c-x.t", bucket: "in.c-d", want: "in.c-x.t", origin: mapping.FromManifest},
		{name: "ManifestWithAMappingThatHasNone", file: "a.csv", manifest: "in.c-x.t", mapped: true, want: "in.c-x.t", origin: mapping.FromManifest},
		{name: "ManifestNameInDefaultBucket", file: "a.csv", manifest: "t", bucket: "in.c-d", want: "in.c-d.t", origin: mapping.FromBucket},
		{name: "FileName", file: "in.c-x.t.csv", want: "in.c-x.t", origin: mapping.FromName},
		{name: "FileNameInDefaultBucket", file: "a.csv", bucket: "in.c-d", want: "in.c-d.a", origin: mapping.FromBucket},
		{name: "FileNameWithoutSuffix", file: "a", bucket: "in.c-d", want: "in.c-d.a", origin: mapping.FromBucket},
		{name: "ComponentsBucket", file: "a.csv", componentHasBucket: true, want: "in.c-keboola-ex-foo-123.a", origin: mapping.FromBucket},
		{name: "NoBucket", file: "a.csv", fails: "there is no table for it"},
		{name: "DotsInTheName", file: "foo.bar.csv", bucket: "in.c-d", fails: "not a valid table id"},
		{name: "NoStage", file: "a.csv", mapping: "sys.c-x.t", mapped: true, fails: "stage"},
		{name: "PathInTheID", file: "a.csv", mapping: "in.c-x/y.t", mapped: true, fails: "letters"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.write("tables/"+tt.file, "a,b\n1,2\n")
			if tt.manifest != "" {
				w.write("tables/"+tt.file+".manifest", fmt.Sprintf(`{"destination": %q}`, tt.manifest))
			}
			if tt.mapped {
				w.mapTable(tt.file, component.TableManifest{Destination: tt.mapping})
			}
			w.out.Config.DefaultBucket = tt.bucket
			w.out.Component.DefaultBucket, w.out.Component.DefaultBucketStage = tt.componentHasBucket, "in"
			if tt.fails != "" {
				w.fails(caisson.ErrInvalid, tt.fails)
				return
			}
			load := w.plan().Tables[0]
			if load.Table != tt.want || load.Origins["table"] != tt.origin {
				t.Errorf("table = %s from %s, want %s from %s", load.Table, load.Origins["table"], tt.want, tt.origin)
			}
		})
	}
}

func TestDefaultBucketNeedsConfiguration(t *testing.T) {
	w := newWorld(t)
	w.out.Component.DefaultBucket, w.out.Who.Configuration = true, ""
	w.fails(caisson.ErrInvalid, "named after the configuration")
}

// TestMerge holds the rules of how a mapping is laid over a manifest.
func TestMerge(t *testing.T) {
	const manifest = `{"destination": "in.c-m.t", "primary_key": ["a"], "incremental": true, "delimiter": "\t", "enclosure": "'",
		"delete_where_column": "a", "delete_where_values": ["1"], "delete_where_operator": "ne", "write_always": true,
		"metadata": [{"key": "k", "value": "manifest"}, {"key": "only", "value": true}],
		"column_metadata": {"a": [{"key": "k", "value": "manifest"}, {"key": "n", "value": 1.5}], "b": []}}`
	t.Run("ManifestAlone", func(t *testing.T) {
		w := newWorld(t)
		w.write("tables/a.csv", "a\tb\n1\t2\n")
		w.write("tables/a.csv.manifest", manifest)
		l := w.plan().Tables[0]
		if !l.Incremental || l.Delimiter != "\t" || l.Enclosure != "'" || !l.WriteAlways || !slices.Equal(l.PrimaryKey, []string{"a"}) ||
			l.Origins["primary_key"] != mapping.FromManifest || l.Origins["incremental"] != mapping.FromManifest || l.Origins["columns"] != mapping.FromHeader {
			t.Errorf("load = %+v", l)
		}
		if want := []storage.Delete{{Where: []storage.Filter{{Column: "a", Values: []string{"1"}, Not: true}}}}; fmt.Sprint(l.Delete) != fmt.Sprint(want) {
			t.Errorf("delete = %v, want %v", l.Delete, want)
		}
	})
	t.Run("MappingCantTakeBackButTheKey", func(t *testing.T) {
		w := newWorld(t)
		w.write("tables/a.csv", "a\tb\n1\t2\n")
		w.write("tables/a.csv.manifest", manifest)
		w.mapTable("a.csv", component.TableManifest{PrimaryKey: []string{}})
		p := w.plan()
		l := p.Tables[0]
		if !l.Incremental || l.Delimiter != "\t" || l.Enclosure != "'" || !l.Delete[0].Where[0].Not || !l.WriteAlways || l.Table != "in.c-m.t" {
			t.Errorf("load = %+v", l)
		}
		if len(l.PrimaryKey) != 0 || l.Origins["primary_key"] != mapping.FromMapping {
			t.Errorf("primary key = %v from %s, want none from the mapping", l.PrimaryKey, l.Origins["primary_key"])
		}
		if !slices.ContainsFunc(p.Warnings, func(s string) bool { return strings.Contains(s, "the manifest's (a) does not count") }) {
			t.Errorf("warnings = %q, want one about the key", p.Warnings)
		}
	})
	t.Run("MappingWins", func(t *testing.T) {
		w := newWorld(t)
		w.write("tables/a.csv", "a;b\n1;2\n")
		w.write("tables/a.csv.manifest", manifest)
		w.mapTable("a.csv", component.TableManifest{
			Destination: "out.c-m.u", PrimaryKey: []string{"b"}, Delimiter: ";", Enclosure: "0", // not truthy
			DeleteWhereColumn: "b", DeleteWhereValues: []string{"2"},
			Metadata:       []component.Metadata{{Key: "k", Value: json.RawMessage(`"mapping"`)}},
			ColumnMetadata: map[string][]component.Metadata{"a": {{Key: "k", Value: json.RawMessage(`"mapping"`)}}},
		})
		l := w.plan().Tables[0]
		if l.Table != "out.c-m.u" || !slices.Equal(l.PrimaryKey, []string{"b"}) || l.Delimiter != ";" || l.Enclosure != "'" || !l.Incremental {
			t.Errorf("load = %+v", l)
		}
		if f := l.Delete[0].Where[0]; f.Column != "b" || f.Values[0] != "2" || !f.Not {
			t.Errorf("delete = %+v", f)
		}
		if got := notesOf(l.Metadata, "keboola.ex-foo"); got != `k="mapping" only=true` {
			t.Errorf("metadata = %s", got)
		}
		if got := notesOf(l.ColumnMeta["a"], "keboola.ex-foo"); got != `k="mapping" n=1.5` {
			t.Errorf("column_metadata = %s", got)
		}
		if l.Origins["metadata"] != mapping.FromBoth || l.Origins["delimiter"] != mapping.FromMapping || l.Origins["enclosure"] != mapping.FromManifest {
			t.Errorf("origins = %v", l.Origins)
		}
	})
}

func notesOf(list []storage.Metadata, provider string) string {
	var out []string
	for _, n := range list {
		if n.Provider == provider {
			out = append(out, n.Key+"="+string(n.Value))
		}
	}
	return strings.Join(out, " ")
}

const schema = `{"destination": "in.c-m.t", "schema": [
	{"name": "id", "data_type": {"base": {"type": "integer", "length": "10"}}, "nullable": false, "primary_key": true, "description": "the id"},
	{"name": "Full Name", "metadata": {"a": 1}}]}`

func TestSchema(t *testing.T) {
	t.Run("IsHeaderless", func(t *testing.T) {
		w := newWorld(t)
		w.write("tables/a.csv", "1,x\n2,y\n")
		w.write("tables/a.csv.manifest", schema)
		w.load()
		if got, want := w.st.text("in.c-m.t"), "id,Full_Name\n1,x\n2,y"; got != want {
			t.Errorf("table = %q, want %q", got, want)
		}
		l := w.st.last[0]
		if !slices.Equal(l.PrimaryKey, []string{"id"}) || len(l.Types) != 0 {
			t.Errorf("load = %+v, want the key id and no types", l)
		}
		if got := notesOf(l.ColumnMetadata["id"], "keboola.ex-foo"); got != `KBC.description="the id" KBC.datatype.basetype="INTEGER" KBC.datatype.nullable=false KBC.datatype.length="10"` {
			t.Errorf("column metadata = %s", got)
		}
		if got := notesOf(l.ColumnMetadata["Full_Name"], "keboola.ex-foo"); got != `a=1` {
			t.Errorf("column metadata = %s", got)
		}
	})
	t.Run("MappingAddsKeys", func(t *testing.T) {
		w := newWorld(t)
		w.write("tables/a.csv", "1,x\n")
		w.write("tables/a.csv.manifest", schema)
		w.mapTable("a.csv", component.TableManifest{PrimaryKey: []string{"Full Name"}})
		if l := w.plan().Tables[0]; !slices.Equal(l.PrimaryKey, []string{"id", "Full_Name"}) {
			t.Errorf("primary key = %v", l.PrimaryKey)
		}
		w.out.Config.Tables[0].PrimaryKey = []string{"nothing"}
		w.fails(caisson.ErrInvalid, `primary key column "nothing" is not in the manifest's schema`)
	})
	t.Run("Types", func(t *testing.T) {
		w := newWorld(t)
		w.write("tables/a.csv", "1,x\n")
		w.write("tables/a.csv.manifest", schema)
		w.out.DataTypes = "hints"
		if l := w.plan().Tables[0]; len(l.Types) != 0 || len(l.ColumnMeta["id"]) == 0 {
			t.Errorf("with hints the types are %v, and notes %v", l.Types, l.ColumnMeta)
		}
		w.out.DataTypes = "authoritative"
		w.fails(caisson.ErrInvalid, `data type is missing for columns: "Full Name"`)
		w.mapTable("a.csv", component.TableManifest{Schema: []component.Column{
			{Name: "Full Name", Nullable: true, DataType: map[string]component.DataType{"base": {Type: "STRING"}}},
		}})
		l := w.plan().Tables[0]
		want := map[string]storage.Type{"id": {Base: "INTEGER", Length: "10", NotNull: true}, "Full_Name": {Base: "STRING"}}
		if fmt.Sprint(l.Types) != fmt.Sprint(want) {
			t.Errorf("types = %v, want %v", l.Types, want)
		}
		w.st.features.Types = false
		w.fails(caisson.ErrUnsupported, "text only")
	})
	t.Run("ErrMissing", func(t *testing.T) {
		w := newWorld(t)
		w.write("tables/in.c-m.t.csv", "a\n1\n")
		for _, w.out.DataTypes = range []string{"hints", "authoritative"} {
			w.fails(caisson.ErrInvalid, "its schema is missing")
		}
	})
	t.Run("ErrBesideColumns", func(t *testing.T) {
		for name, m := range map[string]component.TableManifest{
			"columns":         {Columns: []string{"id"}},
			"metadata":        {Metadata: []component.Metadata{{Key: "a", Value: json.RawMessage("1")}}},
			"column_metadata": {ColumnMetadata: map[string][]component.Metadata{"id": {{Key: "a", Value: json.RawMessage("1")}}}},
		} {
			w := newWorld(t)
			w.write("tables/a.csv", "1,x\n")
			w.write("tables/a.csv.manifest", schema)
			w.mapTable("a.csv", m)
			w.fails(caisson.ErrInvalid, "only one of schema and "+name)
		}
	})
}

func TestHeader(t *testing.T) {
	tests := []struct {
		name, text, manifest, want string
	}{
		{"First line", "a,b\n1,2\n", `{}`, "a,b\n1,2"},
		{"CRLF and quotes", "\"a\",\"b \"\"q\"\"\"\r\n1,2\r\n", `{}`, "a,b_q\n1,2"},
		{"Over two lines", "\"a\nx\",b\n1,2\n", `{}`, "a_x,b\n1,2"},
		{"Byte order mark", "\ufeffa,b\n1,2\n", `{}`, "a,b\n1,2"},
		{"Byte order mark without header", "\ufeff1,2\n", `{"columns": ["a", "b"]}`, "a,b\n1,2"},
		{"Columns", "1,2\n", `{"columns": ["a", "b"]}`, "a,b\n1,2"},
		{"Columns and has_header", "x,y\n1,2\n", `{"columns": ["a", "b"], "has_header": true}`, "a,b\n1,2"},
		{"No columns given", "a,b\n1,2\n", `{"columns": []}`, "a,b\n1,2"},
		{"Header alone", "a,b", `{}`, "a,b"},
		{"Nothing, with columns", "", `{"columns": ["a", "b"]}`, "a,b"},
		{"Other characters", "'a';'b'\n'1;';'it''s'\n", `{"delimiter": ";", "enclosure": "'"}`, "a,b\n1;,it's"},
		{"Webalized", "Country Name,_ž_,oid,emoji😀name\n1,2,3,4\n", `{}`, "Country_Name,z,oid_,emoji_name\n1,2,3,4"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, packed := range []bool{false, true} {
				w := newWorld(t)
				text := tt.text
				if packed {
					text = zip(text)
				}
				w.write("tables/in.c-m.t.csv", text)
				w.write("tables/in.c-m.t.csv.manifest", tt.manifest)
				w.load()
				if got := w.st.text("in.c-m.t"); got != tt.want {
					t.Errorf("gzip %v: table = %q, want %q", packed, got, tt.want)
				}
			}
		})
	}
}

// TestForgottenHasHeader: a header that is loaded as a row is worth a warning.
func TestForgottenHasHeader(t *testing.T) {
	w := newWorld(t)
	w.write("tables/in.c-m.t.csv", "b,A\n1,2\n")
	w.write("tables/in.c-m.t.csv.manifest", `{"columns": ["a", "b"]}`)
	w.write("tables/in.c-m.u.csv", "\"not read\n")
	w.write("tables/in.c-m.u.csv.manifest", `{"columns": ["a", "b"]}`)
	var about []string
	for _, s := range w.plan().Warnings {
		if strings.Contains(s, "looks like a header") {
			about = append(about, s)
		}
	}
	if len(about) != 1 || !strings.Contains(about[0], "in.c-m.t.csv") {
		t.Errorf("warnings = %q, want one about the header of in.c-m.t.csv", about)
	}
}

func zip(text string) string {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	z.Write([]byte(text))
	z.Close()
	return out.String()
}

func TestSlices(t *testing.T) {
	w := newWorld(t)
	w.write("tables/t/part 1", "1,2\n")
	w.write("tables/t/part.gz", zip("3,4\r\n5,6"))
	w.write("tables/t/.hidden", "no data")
	w.write("tables/t/folder/x", "no data")
	w.write("tables/.hidden.csv", "no data")
	w.write("tables/t.manifest", `{"destination": "in.c-m.t", "columns": ["a", "b"], "has_header": true}`)
	p := w.plan()
	if !slices.ContainsFunc(p.Warnings, func(s string) bool { return strings.Contains(s, "has_header") }) {
		t.Errorf("warnings = %q, want one about has_header", p.Warnings)
	}
	w.load()
	if got, want := w.st.text("in.c-m.t"), "a,b\n1,2\n3,4\n5,6"; got != want {
		t.Errorf("table = %q, want %q", got, want)
	}

	w = newWorld(t)
	w.write("tables/t/part", "1,2\n")
	w.write("tables/t.manifest", `{"destination": "in.c-m.t"}`)
	w.fails(caisson.ErrInvalid, "columns must be in its manifest or mapping")
}

// TestRefused has every way in which out/ can be wrong.
func TestRefused(t *testing.T) {
	type files map[string]string
	tests := []struct {
		name  string
		files files
		set   func(w *world)
		kind  caisson.Kind
		words string
	}{
		{"OrphanedManifests", files{"a.csv.manifest": "{}", "b.csv.manifest": "{}"}, nil, caisson.ErrInvalid, `orphaned table manifests, with no data beside them: "a.csv.manifest", "b.csv.manifest"`},
		{"MissingSources", nil, func(w *world) {
			w.mapTable("x", component.TableManifest{})
			w.mapTable("y", component.TableManifest{})
		}, caisson.ErrNotFound, `table sources not found: "x", "y"`},
		{"BadManifest", files{"a.csv": "a\n", "a.csv.manifest": "{nope"}, nil, caisson.ErrInvalid, "a.csv.manifest"},
		{"UnknownKey", files{"a.csv": "a\n", "a.csv.manifest": `{"id": "in.c-m.t"}`}, nil, caisson.ErrInvalid, `id`},
		{"InputManifestCopied", files{"a.csv": "a\n", "a.csv.manifest": `{"id": "x", "uri": "y", "name": "z"}`}, nil, caisson.ErrInvalid, "uri"},
		{"HugeManifest", files{"a.csv": "a\n", "a.csv.manifest": `{"destination": "` + strings.Repeat("x", 17<<20) + `"}`}, nil, caisson.ErrInvalid, "a.csv.manifest"},
		{"Timestamp", files{"in.c-m.t.csv": "a,_TimeStamp\n1,2\n"}, nil, caisson.ErrInvalid, `system column "_TimeStamp" can't be imported`},
		{"TimestampInManifest", files{"in.c-m.t.csv": "1\n", "in.c-m.t.csv.manifest": `{"columns": ["_timestamp"]}`}, nil, caisson.ErrInvalid, `system column "_timestamp"`},
		{"EmptyFile", files{"in.c-m.t.csv": ""}, nil, caisson.ErrInvalid, "it is empty"},
		{"NoName", files{"in.c-m.t.csv": "a,,c\n"}, nil, caisson.ErrInvalid, "column 2 has no name"},
		{"NothingLeftOfName", files{"in.c-m.t.csv": "a,日本\n"}, nil, caisson.ErrInvalid, "nothing is left of the name"},
		{"LongName", files{"in.c-m.t.csv": strings.Repeat("x", 256) + "\n"}, nil, caisson.ErrInvalid, "column 1 has a name of 256 bytes"},
		{"SameNames", files{"in.c-m.t.csv": "a b,A-B\n"}, nil, caisson.ErrInvalid, `columns 1 and 2 ("a b" and "A-B") have the same name`},
		{"NotUTF8", files{"in.c-m.t.csv": "\"a\nx\",b\xff\n"}, nil, caisson.ErrInvalid, "line 2"},
		{"UTF16", files{"in.c-m.t.csv": "\xff\xfea\x00,\x00"}, nil, caisson.ErrInvalid, "UTF-16"},
		{"NUL", files{"in.c-m.t.csv": "a\x00,b\n"}, nil, caisson.ErrInvalid, "NUL"},
		{"OpenQuote", files{"in.c-m.t.csv": "a,\"b\n1,2\n"}, nil, caisson.ErrInvalid, "does not end"},
		{"HugeHeader", files{"in.c-m.t.csv": `"` + strings.Repeat("x", 8<<20) + "\"\n"}, nil, caisson.ErrInvalid, "line 1"},
		{"HugeHeaderOfManyColumns", files{"in.c-m.t.csv": strings.Repeat("column,", 1<<20) + "\n"}, nil, caisson.ErrInvalid, "line 1"},
		{"DamagedGzip", files{"in.c-m.t.csv": zip("a,b\n1,2\n")[:12]}, nil, caisson.ErrInvalid, "gzip data are damaged"},
		{"Delimiter", files{"in.c-m.t.csv": "a\n", "in.c-m.t.csv.manifest": `{"delimiter": "||"}`}, nil, caisson.ErrInvalid, "one ASCII character"},
		{"SameCharacters", files{"in.c-m.t.csv": "a\n", "in.c-m.t.csv.manifest": `{"delimiter": ";", "enclosure": ";"}`}, nil, caisson.ErrInvalid, "different"},
		{"KeyIsNoColumn", files{"in.c-m.t.csv": "a,b\n", "in.c-m.t.csv.manifest": `{"primary_key": ["c"]}`}, nil, caisson.ErrInvalid, `columns of the primary key are missing in it: "c"`},
		{"MetadataOfNoColumn", files{"in.c-m.t.csv": "a,b\n", "in.c-m.t.csv.manifest": `{"column_metadata": {"c": [{"key": "k", "value": "v"}]}}`}, nil, caisson.ErrInvalid, `column_metadata is about a column "c"`},
		{"ColumnsMissing", files{"in.c-m.t.csv": "id\n1\n"}, func(w *world) { w.st.put("in.c-m.t", "id,lat,long\n") }, caisson.ErrInvalid, `are missing in it: "lat", "long"; expected are "id", "lat", "long"; check whether "," is its delimiter`},
		{"HasHeaderOfOtherWidth", files{"in.c-m.t.csv": "a,b\n", "in.c-m.t.csv.manifest": `{"columns": ["a"], "has_header": true}`}, nil, caisson.ErrInvalid, "its header has 2 columns instead of 1"},
		{"TwoDeletes", files{"in.c-m.t.csv": "a\n", "in.c-m.t.csv.manifest": `{"delete_where_column": "a", "delete_where_values": ["1"]}`}, func(w *world) {
			w.mapTable("in.c-m.t.csv", component.TableManifest{DeleteWhere: []component.DeleteWhere{{ChangedSince: "-1 day"}}})
		}, caisson.ErrInvalid, "only one of delete_where and delete_where_column"},
		{"DeleteWithoutValues", files{"in.c-m.t.csv": "a\n"}, func(w *world) {
			w.mapTable("in.c-m.t.csv", component.TableManifest{DeleteWhereColumn: "a"})
		}, caisson.ErrInvalid, "needs delete_where_values"},
		{"DeleteOfNoColumn", files{"in.c-m.t.csv": "a\n", "in.c-m.t.csv.manifest": `{"delete_where_column": "b", "delete_where_values": ["1"]}`}, func(w *world) { w.st.put("in.c-m.t", "a\n") }, caisson.ErrInvalid, `by a column "b"`},
		{"DeleteOfEverything", files{"in.c-m.t.csv": "a\n"}, func(w *world) {
			w.mapTable("in.c-m.t.csv", component.TableManifest{DeleteWhere: []component.DeleteWhere{{}}})
		}, caisson.ErrInvalid, "would remove every row"},
		{"DeleteByNoDate", files{"in.c-m.t.csv": "a\n"}, func(w *world) {
			w.mapTable("in.c-m.t.csv", component.TableManifest{DeleteWhere: []component.DeleteWhere{{ChangedSince: "soon"}}})
		}, caisson.ErrInvalid, `"soon": not a date`},
		{"DeleteByWorkspace", files{"in.c-m.t.csv": "a\n"}, func(w *world) {
			w.mapTable("in.c-m.t.csv", component.TableManifest{DeleteWhere: []component.DeleteWhere{{Filters: []component.WhereFilter{{Column: "a", FromWorkspace: &component.WorkspaceValues{Table: "x"}}}}}})
		}, caisson.ErrUnsupported, "no workspaces"},
		{"DeleteByTimeThatIsNotKnown", files{"in.c-m.t.csv": "a\n"}, func(w *world) {
			w.st.features.ChangedSince = false
			w.mapTable("in.c-m.t.csv", component.TableManifest{DeleteWhere: []component.DeleteWhere{{ChangedSince: "-1 day"}}})
		}, caisson.ErrUnsupported, "does not know when rows were changed"},
		{"Strict", files{"in.c-m.t.csv": "a\n"}, func(w *world) { w.out.Strict = true }, caisson.ErrInvalid, "strict mapping"},
		{"NoModifications", files{"in.c-m.t.csv": "a,b\n"}, func(w *world) {
			w.st.put("in.c-m.t", "a\n")
			w.out.Config.TableModifications = "none"
		}, caisson.ErrInvalid, `columns would be added`},
		{"NoDestructiveModifications", files{"in.c-m.t.csv": "a,b\n"}, func(w *world) {
			w.st.put("in.c-m.t", "a\n", "a")
			w.out.Config.TableModifications = "non-destructive"
		}, caisson.ErrInvalid, `primary key of in.c-m.t would be changed from "a" to none`},
		{"UnloadStrategy", files{"in.c-m.t.csv": "a\n", "in.c-m.t.csv.manifest": `{"unload_strategy": "direct-grant"}`}, nil, caisson.ErrInvalid, "workspaces"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			for name, text := range tt.files {
				w.write("tables/"+name, text)
			}
			if tt.set != nil {
				tt.set(w)
			}
			w.fails(tt.kind, tt.words)
		})
	}
}

// TestHostile has what a component can make of out/ that is no data at all.
func TestHostile(t *testing.T) {
	for name, make := range map[string]func(dir string) error{
		"Symlink":        func(dir string) error { return os.Symlink("/etc/passwd", filepath.Join(dir, "in.c-m.t.csv")) },
		"SymlinkFolder":  func(dir string) error { return os.Symlink("/etc", filepath.Join(dir, "in.c-m.t")) },
		"Fifo":           func(dir string) error { return syscall.Mkfifo(filepath.Join(dir, "in.c-m.t.csv"), 0o600) },
		"LineBreak":      func(dir string) error { return os.WriteFile(filepath.Join(dir, "a\nb.csv"), nil, 0o600) },
		"NoText":         func(dir string) error { return os.WriteFile(filepath.Join(dir, "a\xff.csv"), nil, 0o600) },
		"ManifestIsLink": func(dir string) error { return os.Symlink("/etc/passwd", filepath.Join(dir, "in.c-m.t.csv.manifest")) },
		"SliceIsLink": func(dir string) error {
			return errors.Join(os.Mkdir(filepath.Join(dir, "t"), 0o700), os.Symlink("/etc/passwd", filepath.Join(dir, "t", "1")))
		},
	} {
		for _, part := range []string{"tables", "files"} {
			if part == "files" && strings.Contains(name, "Slice") {
				continue // folders in out/files do not count
			}
			t.Run(name+"In"+part, func(t *testing.T) {
				w := newWorld(t)
				must(t, make(filepath.Join(w.dir, "data/out", part)))
				w.fails(caisson.ErrInvalid, "out/"+part)
			})
		}
	}
	t.Run("ChangedAfterThePlan", func(t *testing.T) {
		w := newWorld(t)
		w.write("tables/in.c-m.t.csv", "a,b\n1,2\n")
		p := w.plan()
		w.write("tables/in.c-m.t.csv", "a,b\n1,2\n3,4\n")
		_, err := w.out.Load(t.Context(), p)
		refused(t, "Load", err, caisson.ErrInvalid, "in.c-m.t.csv")
		if len(w.st.tables) != 0 {
			t.Error("something was loaded")
		}
	})
	t.Run("ChangedWhileItIsRead", func(t *testing.T) {
		w := newWorld(t)
		w.write("tables/in.c-m.t.csv", "a,b\n"+strings.Repeat("1,2\n", 1<<20))
		w.write("files/f", strings.Repeat("x", 4<<20))
		p := w.plan()
		begun := 0
		w.out.Progress = func(p mapping.Progress) {
			// Somebody writes when a part of it is read.
			if begun++; !p.Done && p.Bytes < p.Total {
				name := map[bool]string{true: "files/f", false: "tables/in.c-m.t.csv"}[p.File]
				f, err := os.OpenFile(filepath.Join(w.dir, "data/out", name), os.O_WRONLY, 0)
				must(t, err)
				_, err = f.WriteAt([]byte("9"), 5)
				must(t, errors.Join(err, f.Close()))
			}
		}
		files := p.Files
		p.Files = nil
		_, err := w.out.Load(t.Context(), p)
		refused(t, "Load", err, caisson.ErrInvalid, "in.c-m.t.csv")
		p.Files, p.Tables = files, nil
		_, err = w.out.Load(t.Context(), p)
		refused(t, "Load", err, caisson.ErrInvalid, "files/f")
		if begun == 0 || len(w.st.tables)+len(w.st.files) != 0 {
			t.Errorf("something was loaded, after %d reports", begun)
		}
	})
	t.Run("CutGzip", func(t *testing.T) {
		w := newWorld(t)
		packed := zip("a,b\n" + strings.Repeat("1,2\n", 1000))
		w.write("tables/in.c-m.t.csv", packed[:len(packed)-5])
		_, err := w.out.Load(t.Context(), w.plan())
		refused(t, "Load", err, caisson.ErrInvalid, "gzip data are damaged")
		if len(w.st.tables) != 0 {
			t.Error("something was loaded")
		}
	})
	t.Run("BadRow", func(t *testing.T) {
		w := newWorld(t)
		w.write("tables/in.c-m.t.csv", "a,b\n1,2\n\"x\ny\",\xff\n")
		w.write("tables/in.c-m.good.csv", "a\n1\n")
		l, err := w.out.Load(t.Context(), w.plan())
		refused(t, "Load", err, caisson.ErrInvalid, "in.c-m.t.csv: line 4")
		if len(l.Tables) != 1 || w.st.text("in.c-m.t") != "no table" {
			t.Errorf("loaded %+v, want the good table alone", l.Tables)
		}
	})
}

func TestLoad(t *testing.T) {
	w := newWorld(t)
	w.st.put("in.c-m.old", "ID,name\n1,one\n2,two\n", "ID")
	w.write("tables/old.csv", "id,name,new\n2,zwei,x\n3,drei,y\n")
	w.write("tables/two.csv", "a\n1\n")
	w.write("tables/name.csv", "a\n1\n")
	w.mapTable("old.csv", component.TableManifest{Destination: "in.c-m.old", Incremental: true, PrimaryKey: []string{"id"}, Description: "words"})
	w.mapTable("two.csv", component.TableManifest{Destination: "in.c-m.x"})
	w.mapTable("two.csv", component.TableManifest{Destination: "in.c-m.y"})
	w.out.Config.DefaultBucket = "out.c-d"
	w.out.Who.Row, w.out.Who.Branch = "row", "b"
	p := w.plan()
	if l := p.Tables[1]; l.New || l.OldKey != nil || !slices.Equal(l.PrimaryKey, []string{"ID"}) || !slices.Equal(l.Columns, []string{"ID", "name", "new"}) {
		t.Errorf("load = %+v, want the columns as the table spells them", l)
	}
	if len(p.Tables) != 4 {
		t.Fatalf("%d loads, want 4", len(p.Tables))
	}
	done, err := w.out.Load(t.Context(), p)
	must(t, err)
	if got := len(done.Tables); got != 4 {
		t.Errorf("%d tables, want 4", got)
	}
	for table, key := range map[string]string{"in.c-m.x": "KBC.createdBy.component.id", "in.c-m.old": "KBC.lastUpdatedBy.component.id"} {
		if got := w.st.tables[table].Metadata; len(got) == 0 || got[0].Key != key || got[0].Provider != "system" || string(got[0].Value) != `"keboola.ex-foo"` {
			t.Errorf("metadata of %s = %+v, want %s first", table, got, key)
		}
	}
	if got := notesOf(w.st.tables["in.c-m.old"].Metadata, "keboola.ex-foo"); got != `KBC.description="words"` {
		t.Errorf("metadata = %s", got)
	}
	if got := notesOf(w.st.tables["in.c-m.old"].Metadata, "system"); got != `KBC.lastUpdatedBy.component.id="keboola.ex-foo" KBC.lastUpdatedBy.configuration.id="123" KBC.lastUpdatedBy.configurationRow.id="row" KBC.lastUpdatedBy.branch.id="b"` {
		t.Errorf("metadata = %s", got)
	}
	if w.st.text("out.c-d.name") != "a\n1" || w.st.text("in.c-m.x") != "a\n1" || w.st.text("in.c-m.y") != "a\n1" {
		t.Error("a table is missing")
	}

	// The plan is kept as JSON; doing it again changes nothing.
	data, err := json.Marshal(p)
	must(t, err)
	var again mapping.Plan
	must(t, json.Unmarshal(data, &again))
	done, err = w.out.Load(t.Context(), &again)
	must(t, err)
	for _, table := range done.Tables {
		if !table.Again {
			t.Errorf("%s was loaded twice", table.Table)
		}
	}
}

func TestDelete(t *testing.T) {
	w := newWorld(t)
	w.st.put("in.c-m.t", "a,b\n1,x\n2,y\n3,z\n")
	w.st.put("in.c-m.gone", "Key,v\n1,x\n1,x\n3,y\n")
	w.write("tables/in.c-m.t.csv", "a,b\n9,n\n")
	w.mapTable("in.c-m.t.csv", component.TableManifest{Incremental: true, DeleteWhere: []component.DeleteWhere{
		{Filters: []component.WhereFilter{{Column: "A", Operator: "eq", FromStorage: &component.StorageValues{BucketID: "in.c-m", Table: "gone", Column: "Key"}}}},
		{ChangedSince: "-2 days", ChangedUntil: "2026-03-18", Filters: []component.WhereFilter{{Column: "b", Operator: "ne", Values: []string{"y"}}}},
	}})
	l := w.plan().Tables[0]
	want := []storage.Delete{
		{Where: []storage.Filter{{Column: "a", Values: []string{"1", "3"}}}},
		{ChangedSince: now.AddDate(0, 0, -2), ChangedUntil: now.Truncate(24 * 3600 * 1e9), Where: []storage.Filter{{Column: "b", Values: []string{"y"}, Not: true}}},
	}
	if fmt.Sprint(l.Delete) != fmt.Sprint(want) {
		t.Errorf("delete = %v, want %v", l.Delete, want)
	}
	w.out.Config.Tables[0].DeleteWhere[0].Filters[0].FromStorage.Table = "nothing"
	w.fails(caisson.ErrNotFound, "values_from_storage in.c-m.nothing")
}

func TestFailed(t *testing.T) {
	w := newWorld(t)
	w.out.Failed, w.out.Strict = true, true
	w.write("tables/in.c-m.always.csv", "a\n1\n")
	w.write("tables/in.c-m.always.csv.manifest", `{"write_always": true}`)
	w.write("tables/in.c-m.mapped.csv", "a\n1\n")
	w.write("tables/in.c-m.never.csv", "a\n1\n")
	w.write("tables/in.c-m.bad.csv", "")
	w.write("tables/in.c-m.bad.csv.manifest", `{"write_always": true}`)
	w.write("files/x.txt", "x")
	w.mapTable("in.c-m.mapped.csv", component.TableManifest{WriteAlways: true})
	w.mapTable("missing", component.TableManifest{})
	l := w.load()
	if len(l.Tables) != 2 || l.Tables[0].Table != "in.c-m.always" || l.Tables[1].Table != "in.c-m.mapped" || len(l.Files) != 0 {
		t.Errorf("loaded %+v, %+v, want the two that are always written", l.Tables, l.Files)
	}
}

// TestFailedAfterLoads is an output mapping that fails after it has loaded a
// table with write_always: that is not loaded again.
func TestFailedAfterLoads(t *testing.T) {
	w := newWorld(t)
	w.write("tables/in.c-m.always.csv", "a\n1\n")
	w.write("tables/in.c-m.always.csv.manifest", `{"write_always": true, "incremental": true}`)
	w.write("tables/in.c-m.bad.csv", "a,b\n1\n")
	if _, err := w.out.Load(t.Context(), w.plan()); !errors.Is(err, caisson.ErrInvalid) {
		t.Fatalf("Load = %v, want ErrInvalid", err)
	}
	w.out.Failed = true
	w.load()
	if got, want := w.st.text("in.c-m.always"), "a\n1"; got != want {
		t.Errorf("table = %q, want %q", got, want)
	}
}

func TestFiles(t *testing.T) {
	w := newWorld(t)
	w.out.Who.Row, w.out.Who.Branch = "row", "b"
	w.write("files/a.txt", "A")
	w.write("files/a.txt.manifest", `{"tags": ["manifest"], "is_public": true}`)
	w.write("files/b.txt", "B")
	w.write("files/b.txt.manifest", `{"tags": ["manifest"], "is_permanent": true, "is_encrypted": false}`)
	w.write("files/c.txt", "C")
	w.write("files/.hidden", "no data")
	w.write("files/folder/x", "no data")
	w.out.Config.Files = []component.OutputFile{{Source: "a.txt", FileManifest: component.FileManifest{Tags: []string{"mapping"}, IsEncrypted: true}}}
	l := w.load()
	system := []string{"branchId: b", "componentId: keboola.ex-foo", "configurationId: 123", "configurationRowId: row", "runId: 7"}
	for i, want := range []storage.File{
		{Name: "a.txt", Tags: append(slices.Clone(system), "mapping"), Encrypted: true},
		{Name: "b.txt", Tags: append(slices.Clone(system), "manifest"), Permanent: true},
		{Name: "c.txt", Tags: system, Encrypted: true},
	} {
		at := slices.IndexFunc(w.st.files, func(f storage.File) bool { return f.Name == want.Name })
		if at < 0 {
			t.Fatalf("there is no %s", want.Name)
		}
		got := w.st.files[at]
		slices.Sort(want.Tags)
		if !slices.Equal(got.Tags, want.Tags) || got.Public != want.Public || got.Permanent != want.Permanent || got.Encrypted != want.Encrypted {
			t.Errorf("file = %+v, want %+v", got, want)
		}
		if l.Files[i].Source != want.Name || w.st.contents[got.ID] != strings.ToUpper(want.Name[:1]) {
			t.Errorf("file %d = %+v", i, l.Files[i])
		}
	}
	if len(l.Files) != 3 {
		t.Errorf("%d files, want 3", len(l.Files))
	}

	t.Run("ErrMissing", func(t *testing.T) {
		w := newWorld(t)
		w.out.Config.Files = []component.OutputFile{{Source: "x"}}
		w.fails(caisson.ErrNotFound, `files not found: "x"`)
	})
	t.Run("ErrOrphan", func(t *testing.T) {
		w := newWorld(t)
		w.write("files/x.manifest", "{}")
		w.fails(caisson.ErrInvalid, `orphaned file manifests, with no data beside them: "x.manifest"`)
	})
	t.Run("ErrUnknownKey", func(t *testing.T) {
		w := newWorld(t)
		w.write("files/x", "")
		w.write("files/x.manifest", `{"id": 1}`)
		w.fails(caisson.ErrInvalid, "id")
	})
	t.Run("ErrStrict", func(t *testing.T) {
		w := newWorld(t)
		w.out.Strict = true
		w.write("files/x", "")
		w.fails(caisson.ErrInvalid, "strict mapping")
	})
	t.Run("TableFiles", func(t *testing.T) {
		w := newWorld(t)
		w.out.Component.Features = []string{component.FeatureFilesAllowed}
		w.out.Config.TableFiles = &component.TableFiles{Tags: []string{"t"}, IsPermanent: true}
		w.write("tables/x.csv", "a\n1\n")
		w.load()
		if len(w.st.tables) != 0 || len(w.st.files) != 1 || !w.st.files[0].Permanent || !slices.Contains(w.st.files[0].Tags, "t") {
			t.Errorf("files = %+v, tables = %v", w.st.files, w.st.tables)
		}
	})
}

// TestProblemsAtOnce: what can be told at once is told at once.
func TestProblemsAtOnce(t *testing.T) {
	w := newWorld(t)
	w.write("tables/in.c-m.a.csv", "")
	w.write("tables/in.c-m.b.csv", "x,_timestamp\n")
	w.write("files/x.manifest", "{}")
	for _, words := range []string{"in.c-m.a.csv", "in.c-m.b.csv", "x.manifest"} {
		w.fails(caisson.ErrInvalid, words)
	}
}

// TestLargeManifest has thousands of columns, keys and notes.
func TestLargeManifest(t *testing.T) {
	w := newWorld(t)
	var notes, columns, schema []string
	for i := range 5000 {
		notes = append(notes, fmt.Sprintf(`{"key": "k%d", "value": 1}`, i))
		columns = append(columns, fmt.Sprintf("Column %d", i))
		schema = append(schema, fmt.Sprintf(`{"name": "Column %d", "primary_key": true, "metadata": {"a": %d}}`, i, i))
	}
	w.write("tables/in.c-m.a.csv", "a\n")
	w.write("tables/in.c-m.a.csv.manifest", `{"metadata": [`+strings.Join(notes, ",")+`], "column_metadata": {"a": [`+strings.Join(notes, ",")+`]}}`)
	w.mapTable("in.c-m.a.csv", component.TableManifest{ColumnMetadata: map[string][]component.Metadata{"a": {{Key: "k7", Value: json.RawMessage("2")}}}})
	w.write("tables/in.c-m.b.csv", "")
	w.write("tables/in.c-m.b.csv.manifest", `{"schema": [`+strings.Join(schema, ",")+`]}`)
	w.write("tables/in.c-m.c.csv", strings.Join(columns, ",")+"\n")
	w.st.put("in.c-m.b", strings.ReplaceAll(strings.Join(columns, ","), " ", "_")+"\n")
	p := w.plan()
	if n := len(p.Tables[0].ColumnMeta["a"]); n != len(notes) {
		t.Errorf("%d notes, want %d", n, len(notes))
	}
	if n := len(p.Tables[1].PrimaryKey); n != len(schema) {
		t.Errorf("a key of %d, want %d", n, len(schema))
	}
	if len(p.Warnings) > 50 {
		t.Errorf("%d warnings", len(p.Warnings))
	}
}

func TestTwoLoadsOfOneTable(t *testing.T) {
	w := newWorld(t)
	w.write("tables/a.csv", "x\n1\n")
	w.write("tables/b.csv", "x\n2\n")
	w.mapTable("a.csv", component.TableManifest{Destination: "in.c-m.t"})
	w.mapTable("b.csv", component.TableManifest{Destination: "in.c-m.T", Incremental: true})
	w.mapTable("b.csv", component.TableManifest{Destination: "in.c-m.t", Incremental: true})
	w.out.Parallel = 8
	w.load()
	var order []string
	for _, l := range w.st.last {
		order = append(order, l.Slices[0].Name)
	}
	if !slices.Equal(order, []string{"a.csv", "b.csv", "b.csv"}) {
		t.Errorf("order = %v, want that of the plan", order)
	}
	w.out.Config.Tables[2].Incremental = false
	if p := w.plan(); !slices.ContainsFunc(p.Warnings, func(s string) bool { return strings.Contains(s, "replaces in in.c-m.t") }) {
		t.Errorf("warnings = %q, want one about what is replaced", p.Warnings)
	}
}

// TestFaults lets every call of the storage fail, before and after it has had its
// effect: nothing is half loaded, and doing it again does it once.
func TestFaults(t *testing.T) {
	outage := &caisson.Error{Kind: caisson.ErrUnavailable, Err: errors.New("the storage is away")}
	for fails := 0; ; fails++ {
		w := newWorld(t)
		w.st.put("in.c-m.old", "a,b\n1,x\n", "a")
		w.write("tables/in.c-m.old.csv", "a,b\n1,y\n2,z\n")
		w.write("tables/in.c-m.old.csv.manifest", `{"incremental": true, "primary_key": ["a"]}`)
		w.write("tables/in.c-m.log.csv", "a\n1\n")
		w.write("tables/in.c-m.log.csv.manifest", `{"incremental": true}`)
		w.write("files/f.txt", "f")
		w.out.Parallel = 1
		n, failed := 0, false
		w.st.fault = func(string, bool) error {
			n++
			if n-1 == fails {
				failed = true
				return outage
			}
			return nil
		}
		_, err := func() (*mapping.Loaded, error) {
			p, err := w.out.Plan(t.Context())
			if err != nil {
				return nil, err
			}
			return w.out.Load(t.Context(), p)
		}()
		if !failed {
			must(t, err)
			if fails < 8 {
				t.Errorf("only %d calls", fails)
			}
			return
		}
		if !errors.Is(err, caisson.ErrUnavailable) || component.FaultOf(err) != component.ApplicationFault {
			t.Errorf("call %d fails: %v, want that the storage is away", fails, err)
		}
		w.load()
		if got, want := w.st.text("in.c-m.old"), "a,b\n1,y\n2,z"; got != want {
			t.Errorf("call %d fails: table = %q, want %q", fails, got, want)
		}
		if got, want := w.st.text("in.c-m.log"), "a\n1"; got != want {
			t.Errorf("call %d fails: table = %q, want %q", fails, got, want)
		}
		if len(w.st.files) != 1 {
			t.Errorf("call %d fails: %d files, want 1", fails, len(w.st.files))
		}
	}
}

func TestProgress(t *testing.T) {
	w := newWorld(t)
	w.write("tables/in.c-m.t.csv", "a,b\n1,2\n3,4\n")
	w.write("files/x", "12345")
	var seen []mapping.Progress
	w.out.Progress = func(p mapping.Progress) { seen = append(seen, p) }
	w.load()
	var last mapping.Progress
	for _, p := range seen {
		if p.Table == "in.c-m.t" {
			last = p
		}
	}
	if want := (mapping.Progress{Output: true, Name: "in.c-m.t.csv", Table: "in.c-m.t", Bytes: 12, Total: 12, Rows: 2, Done: true}); last != want {
		t.Errorf("progress = %+v, want %+v", last, want)
	}
}

// FuzzPlan hands a plan and a load whatever a component may write.
func FuzzPlan(f *testing.F) {
	f.Add(`{"destination": "in.c-m.t", "primary_key": ["a"], "incremental": true}`, "a,b\n1,2\n")
	f.Add(schema, "1,x\n")
	f.Add(`{"columns": ["a", "_Timestamp"], "has_header": true, "delimiter": "\t", "enclosure": "'"}`, "\ufeffa\tb\r\n")
	f.Add(`{"delete_where": [{"changed_since": "-1 day", "where_filters": [{"column": "a", "operator": "ne", "values_from_set": ["1"]}]}]}`, zip("a\n1\n"))
	f.Fuzz(func(t *testing.T, manifest, text string) {
		w := newWorld(t)
		w.st.put("in.c-m.t", "a,B\n1,2\n", "a")
		w.write("tables/in.c-m.t.csv", text)
		w.write("tables/in.c-m.t.csv.manifest", manifest)
		w.mapTable("in.c-m.t.csv", component.TableManifest{PrimaryKey: []string{"A"}})
		p, err := w.out.Plan(t.Context())
		if err != nil {
			if component.FaultOf(err) != component.UserFault {
				t.Errorf("Plan = %v: it is the %s's error", err, component.FaultOf(err))
			}
			return
		}
		l := p.Tables[0]
		if len(missingOf(l.PrimaryKey, l.Columns)) > 0 || slices.ContainsFunc(l.Columns, func(c string) bool { return c == "" || strings.EqualFold(c, "_timestamp") }) {
			t.Errorf("load = %+v", l)
		}
	})
}

func missingOf(want, have []string) (out []string) {
	for _, s := range want {
		if !slices.Contains(have, s) {
			out = append(out, s)
		}
	}
	return out
}
