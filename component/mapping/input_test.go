//go:build unix

package mapping_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/mapping"
	"github.com/caissonrun/caisson/component/storage"
)

func (w *world) fetch() *mapping.Fetched {
	w.t.Helper()
	f, err := w.in.Run(w.t.Context())
	must(w.t, err)
	return f
}

const people = "id,name,age\n1,Ann,30\n2,Bob,20\n3,Cid,30\n"

func TestInputTables(t *testing.T) {
	old := now.AddDate(0, 0, -5)
	tests := []struct {
		name  string
		table component.InputTable
		rows  int64 // of sandbox mode
		file  string
		want  string
	}{
		{"All", component.InputTable{}, 0, "in.c-m.people", `"id","name","age"|"1","Ann","30"|"2","Bob","20"|"3","Cid","30"|`},
		{"Destination", component.InputTable{Destination: "x.csv", Limit: 1}, 0, "x.csv", `"id","name","age"|"1","Ann","30"|`},
		{"ColumnsInOrder", component.InputTable{Columns: []string{"age", "ID"}, Limit: 1}, 0, "in.c-m.people", `"age","id"|"30","1"|`},
		{"ColumnTypes", component.InputTable{ColumnTypes: []component.ColumnType{{Source: "name", Type: "VARCHAR"}}, Limit: 1}, 0, "in.c-m.people", `"name"|"Ann"|`},
		{"BothColumns", component.InputTable{Columns: []string{"name", "id"}, ColumnTypes: []component.ColumnType{{Source: "id"}, {Source: "name"}}, Limit: 1}, 0, "in.c-m.people", `"name","id"|"Ann","1"|`},
		{"Where", component.InputTable{WhereColumn: "age", WhereValues: []string{"20", "40"}}, 0, "in.c-m.people", `"id","name","age"|"2","Bob","20"|`},
		{"WhereNot", component.InputTable{WhereColumn: "age", WhereValues: []string{"30"}, WhereOperator: "ne"}, 0, "in.c-m.people", `"id","name","age"|"2","Bob","20"|`},
		{"Days", component.InputTable{Days: 2}, 0, "in.c-m.people", `"id","name","age"|"3","Cid","30"|`},
		{"ChangedSince", component.InputTable{ChangedSince: "-2 days"}, 0, "in.c-m.people", `"id","name","age"|"3","Cid","30"|`},
		{"ChangedSinceLong", component.InputTable{ChangedSince: "2020-01-01"}, 0, "in.c-m.people", `"id","name","age"|"1","Ann","30"|"2","Bob","20"|"3","Cid","30"|`},
		{"AdaptiveFirst", component.InputTable{ChangedSince: "adaptive"}, 0, "in.c-m.people", `"id","name","age"|"1","Ann","30"|"2","Bob","20"|"3","Cid","30"|`},
		{"Sandbox", component.InputTable{}, 2, "in.c-m.people", `"id","name","age"|"1","Ann","30"|"2","Bob","20"|`},
		{"SandboxAndLimit", component.InputTable{Limit: 1}, 2, "in.c-m.people", `"id","name","age"|"1","Ann","30"|`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			table := w.st.put("in.c-m.people", people, "id")
			table.times[0], table.times[1] = old, old
			tt.table.Source = "in.c-m.people"
			w.in.Config.Tables, w.in.Rows = []component.InputTable{tt.table}, tt.rows
			w.fetch()
			if got := strings.ReplaceAll(w.read("tables/"+tt.file), "\n", "|"); got != tt.want {
				t.Errorf("file = %s, want %s", got, tt.want)
			}
		})
	}
}

func TestInputManifest(t *testing.T) {
	w := newWorld(t)
	table := w.st.put("in.c-m.people", people, "id")
	table.Metadata = []storage.Metadata{{ID: "7", Key: "KBC.description", Value: json.RawMessage(`"words"`), Provider: "user", Time: now}}
	table.ColumnMetadata = map[string][]storage.Metadata{"age": {{ID: "8", Key: "k", Value: json.RawMessage("true"), Provider: "x", Time: now}}}
	w.in.Config.Tables = []component.InputTable{{Source: "in.c-m.people", Destination: "p.csv", Columns: []string{"age", "id"}}}
	w.fetch()
	var m map[string]any
	must(t, json.Unmarshal([]byte(w.read("tables/p.csv.manifest")), &m))
	note := map[string]any{"id": "7", "key": "KBC.description", "value": "words", "provider": "user", "timestamp": "2026-03-18T15:04:05+0000"}
	for key, want := range map[string]any{
		"id": "in.c-m.people", "name": "people", "primary_key": []any{"id"}, "columns": []any{"age", "id"},
		"created": "2026-03-18T15:04:05+0000", "last_change_date": "2026-03-18T15:04:05+0000", "last_import_date": "2026-03-18T15:04:05+0000",
		"metadata": []any{note}, "description": "words", "schema": []any{}, "distribution_key": []any{},
		"rows_count": 3.0,
	} {
		if fmt.Sprint(m[key]) != fmt.Sprint(want) {
			t.Errorf("%s = %v, want %v", key, m[key], want)
		}
	}
	columns := m["column_metadata"].(map[string]any)
	if len(columns) != 2 || len(columns["id"].([]any)) != 0 || columns["age"].([]any)[0].(map[string]any)["value"] != true {
		t.Errorf("column_metadata = %v, want an entry for each column", columns)
	}
}

// TestAdaptive goes on with a state: only what is new comes.
func TestAdaptive(t *testing.T) {
	w := newWorld(t)
	w.st.put("in.c-m.people", "id\n1\n").LastImport = now.Add(123456789)
	w.in.Config.Tables = []component.InputTable{{Source: "in.c-m.people", ChangedSince: "adaptive"}}
	w.in.State = w.fetch().State
	if got := w.in.State.Tables[0].LastImportDate; got != "2026-03-18T15:04:05.123456789Z" {
		t.Errorf("lastImportDate = %s", got)
	}
	table := w.st.tables["in.c-m.people"]
	table.LastImport = table.LastImport.Add(1000)
	table.rows, table.times = append(table.rows, []string{"2"}), append(table.times, table.LastImport)
	w.fetch()
	if got, want := w.read("tables/in.c-m.people"), "\"id\"\n\"2\"\n"; got != want {
		t.Errorf("file = %q, want %q", got, want)
	}
}

func TestInputRefused(t *testing.T) {
	tests := []struct {
		name  string
		table component.InputTable
		kind  caisson.Kind
		words string
	}{
		{"NoSuchTable", component.InputTable{Source: "in.c-m.nobody"}, caisson.ErrNotFound, "in.c-m.nobody"},
		{"NoTableID", component.InputTable{Source: "people"}, caisson.ErrInvalid, "STAGE.BUCKET.TABLE"},
		{"NoSource", component.InputTable{}, caisson.ErrInvalid, "table"},
		{"LeavesTheFolder", component.InputTable{Destination: "../x"}, caisson.ErrInvalid, "../x"},
		{"Absolute", component.InputTable{Destination: "/etc/passwd"}, caisson.ErrInvalid, "/etc/passwd"},
		{"ParentFolder", component.InputTable{Destination: ".."}, caisson.ErrInvalid, ".."},
		{"NUL", component.InputTable{Destination: "a\x00b"}, caisson.ErrInvalid, "control"},
		{"Manifest", component.InputTable{Destination: "x.manifest"}, caisson.ErrInvalid, "manifest"},
		{"NoColumn", component.InputTable{Columns: []string{"id", "nothing"}}, caisson.ErrInvalid, `no columns "nothing"; it has "id", "name", "age"`},
		{"NoWhereColumn", component.InputTable{WhereColumn: "nothing", WhereValues: []string{"1"}}, caisson.ErrInvalid, `no column "nothing"`},
		{"WhereColumnWithoutValues", component.InputTable{WhereColumn: "id"}, caisson.ErrInvalid, "where_column needs where_values"},
		{"WhereValuesWithoutColumn", component.InputTable{WhereValues: []string{"1"}}, caisson.ErrInvalid, "where_values needs where_column"},
		{"WhereOperator", component.InputTable{WhereColumn: "id", WhereValues: []string{"1"}, WhereOperator: "gt"}, caisson.ErrInvalid, "neither eq nor ne"},
		{"DaysAndChangedSince", component.InputTable{Days: 1, ChangedSince: "-1 day"}, caisson.ErrInvalid, "only one of days and changed_since"},
		{"NoDate", component.InputTable{ChangedSince: "soon"}, caisson.ErrInvalid, "not a date"},
		{"SurplusColumns", component.InputTable{Columns: []string{"id", "name"}, ColumnTypes: []component.ColumnType{{Source: "id"}}}, caisson.ErrInvalid, `columns has more: "name"`},
		{"SurplusTypes", component.InputTable{Columns: []string{"id"}, ColumnTypes: []component.ColumnType{{Source: "id"}, {Source: "name"}}}, caisson.ErrInvalid, `column_types has more: "name"`},
		{"TooLarge", component.InputTable{}, caisson.ErrInvalid, "exceeds the input mapping's limit of 10 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.st.put("in.c-m.people", people, "id")
			if tt.name != "NoSource" && tt.table.Source == "" {
				tt.table.Source = "in.c-m.people"
			}
			if tt.name == "TooLarge" {
				w.in.MaxTable = 10
			}
			w.in.Config.Tables = []component.InputTable{{Source: "in.c-m.people", Destination: "good"}, tt.table}
			_, err := w.in.Run(t.Context())
			refused(t, "Run", err, tt.kind, tt.words)
			entries, _ := os.ReadDir(filepath.Join(w.dir, "data/in/tables"))
			if len(entries) > 0 {
				t.Errorf("%s was fetched all the same", entries[0].Name())
			}
		})
	}
}

func TestOneDestination(t *testing.T) {
	w := newWorld(t)
	w.st.put("in.c-m.a", "x\n1\n")
	w.st.put("in.c-m.b", "x\n2\n")
	w.in.Config.Tables = []component.InputTable{{Source: "in.c-m.a", Destination: "t"}, {Source: "in.c-m.b", Destination: "t"}}
	f := w.fetch()
	if got := w.read("tables/t"); got != "\"x\"\n\"2\"\n" || len(f.Tables) != 1 || len(f.State.Tables) != 2 {
		t.Errorf("file = %q, fetched %+v", got, f)
	}
	if len(f.Warnings) != 1 || !strings.Contains(f.Warnings[0], "in.c-m.a and in.c-m.b have the same destination") {
		t.Errorf("warnings = %q", f.Warnings)
	}
	w.in.Strict = true
	_, err := w.in.Run(t.Context())
	refused(t, "Run", err, caisson.ErrInvalid, "the same destination")
}

// addFile puts a file into the storage.
func (w *world) addFile(name, contents string, tags ...string) int64 {
	f, err := w.st.PutFile(context.Background(), &storage.NewFile{Load: fmt.Sprint(len(w.st.files)), Name: name, Tags: tags}, strings.NewReader(contents))
	must(w.t, err)
	return f.ID
}

func TestInputFiles(t *testing.T) {
	tests := []struct {
		name string
		file component.InputFile
		want []int64
	}{
		{"Tags", component.InputFile{Tags: []string{"a", "b"}}, []int64{2}},
		{"SourceTags", component.InputFile{Source: &component.FileSource{Tags: []component.SourceTag{{Name: "a", Match: "include"}, {Name: "b", Match: "exclude"}}}}, []int64{3, 1}},
		{"Query", component.InputFile{Query: `name:two`}, []int64{2}},
		{"QueryAndSourceTags", component.InputFile{Query: `name:two name:three`, Source: &component.FileSource{Tags: []component.SourceTag{{Name: "b", Match: "exclude"}}}}, []int64{3}},
		{"IDs", component.InputFile{FileIDs: []int64{1, 3}}, []int64{3, 1}},
		{"Limit", component.InputFile{Tags: []string{"a"}, Limit: 2}, []int64{3, 2}},
		{"ChangedSince", component.InputFile{Tags: []string{"a"}, ChangedSince: "-1 day"}, []int64{3}},
		{"Adaptive", component.InputFile{Tags: []string{"a"}, ChangedSince: "adaptive"}, []int64{3, 2}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.addFile("one", "1", "a")
			w.addFile("two", "22", "a", "b")
			w.addFile("three", "333", "a", "c")
			w.st.files[0].Created, w.st.files[1].Created = now.AddDate(0, 0, -2), now.AddDate(0, 0, -2)
			w.in.State.Files = []component.FileState{{Tags: []component.SourceTag{{Name: "a"}}, LastImportID: "1"}}
			tt.file.Overwrite = true
			w.in.Config.Files = []component.InputFile{tt.file}
			var got []int64
			for _, f := range w.fetch().Files {
				got = append(got, f.ID)
				if text := w.read("files/" + f.Name); int64(len(text)) != f.ID || f.Bytes != f.ID {
					t.Errorf("%s = %q", f.Name, text)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("files = %v, want %v", got, tt.want)
			}
		})
	}
}

func TestInputFileManifest(t *testing.T) {
	w := newWorld(t)
	w.addFile("../a/b\n.csv", "x", "t")
	w.addFile("twice.manifest", "y", "t")
	w.in.Config.Files = []component.InputFile{{Tags: []string{"t"}, Overwrite: true, ProcessedTags: []string{"seen"}}, {FileIDs: []int64{1}, Overwrite: true}}
	f := w.fetch()
	if got := w.read("files/1_.._a_b_.csv"); got != "x" || w.read("files/2_twice.manifest_") != "y" || len(f.Files) != 2 {
		t.Errorf("files = %+v", f.Files)
	}
	want := `{"id":1,"name":"../a/b\n.csv","created":"2026-03-18T15:04:05+0000","is_public":false,"is_encrypted":false,"is_sliced":false,"tags":["t"],"max_age_days":0,"size_bytes":1}`
	var got bytes.Buffer
	must(t, json.Compact(&got, []byte(w.read("files/1_.._a_b_.csv.manifest"))))
	if s := strings.ReplaceAll(got.String(), `\/`, "/"); s != want {
		t.Errorf("manifest = %s, want %s", s, want)
	}
	if s := f.State.Files; len(s) != 1 || s[0].LastImportID != "2" || s[0].Tags[0].Name != "t" {
		t.Errorf("state = %+v", s)
	}

	// Files get their tags at the end, whether they are still there or not.
	w.st.files = w.st.files[:1]
	must(t, mapping.MarkFiles(t.Context(), w.st, f.Processed))
	if got := w.st.files[0].Tags; !slices.Equal(got, []string{"t", "seen"}) {
		t.Errorf("tags = %v", got)
	}
}

func TestSlicedFile(t *testing.T) {
	w := newWorld(t)
	var out bytes.Buffer
	archive := tar.NewWriter(&out)
	for _, name := range []string{"part1", "../../part2"} {
		must(t, archive.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: 1, Mode: 0o600}))
		_, err := archive.Write([]byte("x"))
		must(t, err)
	}
	must(t, archive.Close())
	w.addFile("s", out.String(), "t")
	w.st.files[0].Sliced = true
	w.in.Config.Files = []component.InputFile{{Tags: []string{"t"}, Overwrite: true}}
	w.fetch()
	if w.read("files/1_s/part1") != "x" || w.read("files/1_s/part2") != "x" || !strings.Contains(w.read("files/1_s.manifest"), `"is_sliced": true`) {
		t.Error("the slices are not in a folder of the file's name")
	}

	w.st.contents[1] = linkTar(t)
	if _, err := w.in.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("Run = %v, want that a slice is no regular file", err)
	}
}

func linkTar(t *testing.T) string {
	t.Helper()
	var out bytes.Buffer
	archive := tar.NewWriter(&out)
	must(t, archive.WriteHeader(&tar.Header{Name: "x", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}))
	must(t, archive.Close())
	return out.String()
}

func TestInputFilesRefused(t *testing.T) {
	source := &component.FileSource{Tags: []component.SourceTag{{Name: "a", Match: "include"}}}
	tests := []struct {
		name  string
		file  component.InputFile
		kind  caisson.Kind
		words string
	}{
		{"Nothing", component.InputFile{Overwrite: true}, caisson.ErrInvalid, "at least one of tags, source.tags, query and file_ids"},
		{"BothTags", component.InputFile{Tags: []string{"a"}, Source: source, Overwrite: true}, caisson.ErrInvalid, "only one of tags and source.tags"},
		{"IDsAndTags", component.InputFile{FileIDs: []int64{1}, Tags: []string{"a"}, Overwrite: true}, caisson.ErrInvalid, "file_ids can only stand beside"},
		{"IDsAndLimit", component.InputFile{FileIDs: []int64{1}, Limit: 3, Overwrite: true}, caisson.ErrInvalid, "file_ids can only stand beside"},
		{"QueryAndChangedSince", component.InputFile{Query: "name:x", ChangedSince: "-1 day", Overwrite: true}, caisson.ErrInvalid, "changed_since can't stand beside query"},
		{"NoDate", component.InputFile{Tags: []string{"a"}, ChangedSince: "soon", Overwrite: true}, caisson.ErrInvalid, "not a date"},
		{"Overwrite", component.InputFile{Tags: []string{"a"}}, caisson.ErrInvalid, "overwrite can't be turned off"},
		{"NoSuchFile", component.InputFile{FileIDs: []int64{99}, Overwrite: true}, caisson.ErrNotFound, "there is no file 99"},
		{"FilterByRun", component.InputFile{Tags: []string{"a"}, FilterByRunID: true, Overwrite: true}, caisson.ErrUnsupported, "filter_by_run_id"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.in.Config.Files = []component.InputFile{tt.file}
			_, err := w.in.Run(t.Context())
			refused(t, "Run", err, tt.kind, tt.words)
		})
	}
}

// TestInputFaults lets every call of the storage fail: the error is not the
// user's, and the next run is whole.
func TestInputFaults(t *testing.T) {
	outage := &caisson.Error{Kind: caisson.ErrUnavailable, Err: errors.New("the storage is away")}
	for fails := 0; ; fails++ {
		w := newWorld(t)
		w.st.put("in.c-m.people", people, "id")
		w.addFile("f", "text", "a")
		w.in.Config.Tables = []component.InputTable{{Source: "in.c-m.people", Destination: "p"}}
		w.in.Config.Files = []component.InputFile{{Tags: []string{"a"}, Overwrite: true}}
		n, failed := 0, false
		w.st.fault = func(string, bool) error {
			if n++; n-1 == fails {
				failed = true
				return outage
			}
			return nil
		}
		_, err := w.in.Run(t.Context())
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
		w.fetch()
		if w.read("files/1_f") != "text" || !strings.Contains(w.read("tables/p"), "Cid") {
			t.Errorf("call %d fails: the next run is not whole", fails)
		}
	}
}

// TestFileThatCannotBeRead is the application's error, though a file that is
// gone could be the user's elsewhere.
func TestFileThatCannotBeRead(t *testing.T) {
	w := newWorld(t)
	id := w.addFile("f", "text", "a")
	delete(w.st.contents, id)
	w.in.Config.Files = []component.InputFile{{Tags: []string{"a"}, Overwrite: true}}
	_, err := w.in.Run(t.Context())
	if component.FaultOf(err) != component.ApplicationFault || !strings.Contains(fmt.Sprint(err), `file "f" (1)`) {
		t.Errorf("Run = %v (%s), want the application's error about the file", err, component.FaultOf(err))
	}
}

// TestBrokenExport is a storage that fails in the middle of a table: no half of
// it is left under the table's name.
func TestBrokenExport(t *testing.T) {
	w := newWorld(t)
	w.st.put("in.c-m.people", people, "id")
	w.in.Storage = broken{w.st}
	w.in.Config.Tables = []component.InputTable{{Source: "in.c-m.people"}}
	if _, err := w.in.Run(t.Context()); !errors.Is(err, caisson.ErrUnavailable) {
		t.Errorf("Run = %v, want ErrUnavailable", err)
	}
	entries, err := os.ReadDir(filepath.Join(w.dir, "data/in/tables"))
	must(t, err)
	if len(entries) > 0 {
		t.Errorf("%s was left", entries[0].Name())
	}
}

func TestStoppedRun(t *testing.T) {
	w := newWorld(t)
	w.st.put("in.c-m.people", people, "id")
	w.in.Config.Tables = []component.InputTable{{Source: "in.c-m.people"}}
	w.write("tables/in.c-m.t.csv", "a\n1\n")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.in.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v, want that it was cancelled", err)
	}
	if _, err := w.out.Load(ctx, w.plan()); !errors.Is(err, context.Canceled) {
		t.Errorf("Load = %v, want that it was cancelled", err)
	}
	if len(w.st.loads) > 0 {
		t.Error("something was loaded")
	}
}

func TestCheck(t *testing.T) {
	all := storage.Features{ChangedSince: true, Types: true, FileQuery: true}
	table := func(in component.InputTable) *component.StorageConfig {
		in.Source = or(in.Source, "in.c-m.t")
		return &component.StorageConfig{Input: component.Input{Tables: []component.InputTable{in}}}
	}
	file := func(in component.InputFile) *component.StorageConfig {
		return &component.StorageConfig{Input: component.Input{Files: []component.InputFile{in}}}
	}
	output := func(destination string) *component.StorageConfig {
		return &component.StorageConfig{Output: component.Output{Tables: []component.OutputTable{{TableManifest: component.TableManifest{Destination: destination}}}}}
	}
	deletes := func(d component.DeleteWhere) *component.StorageConfig {
		return &component.StorageConfig{Output: component.Output{Tables: []component.OutputTable{{TableManifest: component.TableManifest{DeleteWhere: []component.DeleteWhere{d}}}}}}
	}
	tests := []struct {
		name     string
		features storage.Features
		config   *component.StorageConfig
		kind     caisson.Kind // 0: none
		words    string
	}{
		{"OK", all, table(component.InputTable{ChangedSince: "adaptive"}), 0, ""},
		{"NoTableID", all, table(component.InputTable{Source: "people"}), caisson.ErrInvalid, "storage.input.tables[0].source"},
		{"LeavesTheFolder", all, table(component.InputTable{Destination: "../x"}), caisson.ErrInvalid, "storage.input.tables[0].destination"},
		{"Destination", all, output("people"), caisson.ErrInvalid, "storage.output.tables[0].destination"},
		{"NoDestination", all, output(""), 0, ""},
		{"Bucket", all, &component.StorageConfig{Output: component.Output{DefaultBucket: "main"}}, caisson.ErrInvalid, "storage.output.default_bucket"},
		{"Days", storage.Features{}, table(component.InputTable{Days: 1}), caisson.ErrUnsupported, "storage.input.tables[0]"},
		{"ChangedSince", storage.Features{}, table(component.InputTable{ChangedSince: "-1 day"}), caisson.ErrUnsupported, "does not know when rows were changed"},
		{"NoDate", all, table(component.InputTable{ChangedSince: "soon"}), caisson.ErrInvalid, "changed_since"},
		{"NoFileDate", all, file(component.InputFile{ChangedSince: "soon"}), caisson.ErrInvalid, "storage.input.files[0].changed_since"},
		{"Branch", all, table(component.InputTable{SourceBranchID: "7"}), caisson.ErrUnsupported, "branches"},
		{"Parquet", all, table(component.InputTable{FileType: "parquet"}), caisson.ErrUnsupported, "parquet"},
		{"Query", storage.Features{}, file(component.InputFile{Query: "x"}), caisson.ErrUnsupported, "can't search"},
		{"Run", all, file(component.InputFile{FilterByRunID: true}), caisson.ErrUnsupported, "filter_by_run_id"},
		{"DeleteByTime", storage.Features{}, deletes(component.DeleteWhere{ChangedUntil: "-1 day"}), caisson.ErrUnsupported, "storage.output.tables[0].delete_where[0]"},
		{"DeleteByNoDate", all, deletes(component.DeleteWhere{ChangedUntil: "soon"}), caisson.ErrInvalid, "delete_where[0].changed_until"},
		{"Workspace", all, deletes(component.DeleteWhere{Filters: []component.WhereFilter{{FromWorkspace: &component.WorkspaceValues{}}}}), caisson.ErrUnsupported, "no workspaces"},
		{"Types", storage.Features{}, &component.StorageConfig{Output: component.Output{DataTypeSupport: "authoritative"}}, caisson.ErrUnsupported, "text only"},
		{"Nulls", all, &component.StorageConfig{Output: component.Output{TreatValuesAsNull: []string{"NULL"}}}, caisson.ErrUnsupported, "treat_values_as_null"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := mapping.Check(tt.features, tt.config)
			if tt.kind == 0 {
				must(t, err)
				return
			}
			refused(t, "Check", err, tt.kind, tt.words)
		})
	}
	both := table(component.InputTable{Days: 1, FileType: "parquet"})
	if err := mapping.Check(storage.Features{}, both); strings.Count(fmt.Sprint(err), "\n") != 1 {
		t.Errorf("Check = %v, want both problems", err)
	}
}

// broken is a storage whose exports end too early.
type broken struct{ *memory }

func (b broken) Export(ctx context.Context, id string, q *storage.Query) (*storage.Export, error) {
	e, err := b.memory.Export(ctx, id, q)
	if err == nil {
		e.WriteTo = func(w io.Writer) (int64, error) {
			n, _ := w.Write([]byte("\"id\"\n"))
			return int64(n), &caisson.Error{Kind: caisson.ErrUnavailable, Err: errors.New("cut off")}
		}
	}
	return e, err
}

// TestSecondsOfState: what has no parts of seconds is read, too.
func TestSecondsOfState(t *testing.T) {
	w := newWorld(t)
	w.st.put("in.c-m.people", "id\n1\n")
	w.in.State.Tables = []component.TableState{{Source: "in.c-m.people", LastImportDate: now.Add(-time.Hour).Format("2006-01-02T15:04:05-0700")}}
	w.in.Config.Tables = []component.InputTable{{Source: "in.c-m.people", ChangedSince: "adaptive"}}
	w.fetch()
	if got, want := w.read("tables/in.c-m.people"), "\"id\"\n\"1\"\n"; got != want {
		t.Errorf("file = %q, want %q", got, want)
	}
}
