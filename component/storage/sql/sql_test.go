package sql_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/sql"
)

func wantRows(t *testing.T, s *sql.Storage, q *storage.Query, want ...string) {
	t.Helper()
	got := strings.Split(strings.TrimSuffix(export(t, s, table, q), "\n"), "\n")[1:]
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("rows for %+v = %q, want %q", q, got, want)
	}
}

func wantError(t *testing.T, err error, kind caisson.Kind, words ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Fatalf("error = %v (kind %v), want kind %v", err, caisson.KindOf(err), kind)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error = %q, want it to say %q", err, w)
		}
	}
}

func TestLoadReplaces(t *testing.T) {
	each(t, func(t *testing.T, s *sql.Storage, _ string) {
		l := people("1", `1,Anna`, `2,"O""Hara, with, commas`+"\nand lines"+`"`, `3,`)
		done := load(t, s, l)
		if done.Rows != 3 || done.Again || done.Table.Rows != 3 {
			t.Errorf("Loaded = %+v", done)
		}
		want := "\"id\",\"name\"\n\"1\",\"Anna\"\n\"2\",\"O\"\"Hara, with, commas\nand lines\"\n\"3\",\"\"\n"
		if got := export(t, s, table, nil); got != want {
			t.Errorf("Export = %q, want %q", got, want)
		}
		load(t, s, people("2", "9,Zoe"))
		wantRows(t, s, nil, `"9","Zoe"`)
		info, err := s.Table(t.Context(), table)
		if err != nil || info.Rows != 1 || !slices.Equal(info.Columns, []string{"id", "name"}) || info.Name != "people" || info.LastImport.IsZero() {
			t.Errorf("Table = %+v, %v", info, err)
		}
	})
}

// TestLoadAgain holds that a load that was done is not done again.
func TestLoadAgain(t *testing.T) {
	each(t, func(t *testing.T, s *sql.Storage, at string) {
		first := people("task/1/row/0", "1,Anna")
		first.Incremental = true
		a := load(t, s, first)
		b := load(t, open(t, at), first)
		if !b.Again || b.Rows != 1 || !b.Table.LastImport.Equal(a.Table.LastImport) {
			t.Errorf("second Load = %+v, want what the first was: %+v", b, a)
		}
		wantRows(t, s, nil, `"1","Anna"`)
		other := people("task/1/row/0", "1,Anna")
		other.Table = "in.c-main.other"
		_, err := s.Load(t.Context(), other)
		wantError(t, err, caisson.ErrInvalid, table)
	})
}

// TestMerge holds that the last row of a key wins, that an equal row keeps its
// time, and that rows are counted.
func TestMerge(t *testing.T) {
	each(t, func(t *testing.T, s *sql.Storage, _ string) {
		l := people("1", "1,Anna", "2,Ben", "1,Ann")
		l.PrimaryKey = []string{"id"}
		first := load(t, s, l)
		if first.Table.Rows != 2 || !slices.Equal(first.Table.PrimaryKey, []string{"id"}) {
			t.Errorf("first load = %+v", first.Table)
		}
		wantRows(t, s, nil, `"1","Ann"`, `"2","Ben"`)
		l = people("2", "2,Ben", "3,Cleo", "1,Ana", "3,Chloe")
		l.Incremental = true
		second := load(t, s, l)
		if second.Table.Rows != 3 {
			t.Errorf("rows after the merge = %d, want 3", second.Table.Rows)
		}
		wantRows(t, s, nil, `"1","Ana"`, `"2","Ben"`, `"3","Chloe"`)
		wantRows(t, s, &storage.Query{ChangedSince: first.Table.LastImport}, `"1","Ana"`, `"3","Chloe"`)
		wantRows(t, s, &storage.Query{ChangedUntil: first.Table.LastImport}, `"2","Ben"`)
		wantRows(t, s, &storage.Query{ChangedSince: second.Table.LastImport})
	})
}

func TestMergeKeyOnly(t *testing.T) {
	each(t, func(t *testing.T, s *sql.Storage, _ string) {
		for _, id := range []string{"1", "2"} {
			l := people(id, "1,Anna", "1,Anna", "2,Ben")
			l.PrimaryKey, l.Incremental = []string{"id", "name"}, true
			if done := load(t, s, l); done.Table.Rows != 2 {
				t.Errorf("rows = %d, want 2", done.Table.Rows)
			}
		}
		wantRows(t, s, nil, `"1","Anna"`, `"2","Ben"`)
	})
}

func TestAppend(t *testing.T) {
	each(t, func(t *testing.T, s *sql.Storage, _ string) {
		load(t, s, people("1", "1,Anna"))
		l := people("2", "1,Anna", "2,Ben")
		l.Incremental = true
		if done := load(t, s, l); done.Table.Rows != 3 {
			t.Errorf("rows = %d, want 3", done.Table.Rows)
		}
		wantRows(t, s, nil, `"1","Anna"`, `"1","Anna"`, `"2","Ben"`)
	})
}

func TestDelete(t *testing.T) {
	each(t, func(t *testing.T, s *sql.Storage, _ string) {
		first := load(t, s, people("1", "1,Anna", "2,Ben", "3,O'Hara"))
		l := people("2", "4,Dora")
		l.Incremental = true
		l.Delete = []storage.Delete{
			{Where: []storage.Filter{{Column: "ID", Values: []string{"1", "3"}}, {Column: "name", Values: []string{"O'Hara"}, Not: true}}},
			{ChangedSince: first.Table.LastImport},
		}
		if done := load(t, s, l); done.Table.Rows != 3 {
			t.Errorf("rows = %d, want 3", done.Table.Rows)
		}
		wantRows(t, s, nil, `"2","Ben"`, `"3","O'Hara"`, `"4","Dora"`)
		// Nothing is deleted where the rows are not right.
		bad := people("3", "only one")
		bad.Incremental, bad.Delete = true, []storage.Delete{{Where: []storage.Filter{{Column: "id", Values: []string{"2"}}}}}
		_, err := s.Load(t.Context(), bad)
		wantError(t, err, caisson.ErrInvalid, "people.csv", "line 1")
		wantRows(t, s, nil, `"2","Ben"`, `"3","O'Hara"`, `"4","Dora"`)
	})
}

func TestColumns(t *testing.T) {
	each(t, func(t *testing.T, s *sql.Storage, _ string) {
		load(t, s, people("1", "1,Anna"))
		l := &storage.Load{
			ID: "2", Table: table, Columns: []string{"NAME", "Id", "age"}, AddColumns: []string{"note"}, Incremental: true,
			Slices: []storage.Slice{text("a.csv", "Ben,2,30")},
		}
		load(t, s, l)
		wantRows(t, s, nil, `"1","Anna","",""`, `"2","Ben","30",""`)
		wantRows(t, s, &storage.Query{Columns: []string{"age", "name"}, WhereColumn: "name", WhereValues: []string{"Ben"}}, `"30","Ben"`)
		wantRows(t, s, &storage.Query{Columns: []string{"id"}, WhereColumn: "name", WhereValues: []string{"Ben"}, WhereNot: true}, `"1"`)
		_, err := s.Load(t.Context(), people("3", "1,Anna"))
		wantError(t, err, caisson.ErrInvalid, `"age"`)
		_, err = s.Export(t.Context(), table, &storage.Query{Columns: []string{"nothing"}})
		wantError(t, err, caisson.ErrInvalid, `"nothing"`)
		_, err = s.Export(t.Context(), table, &storage.Query{Columns: []string{"_timestamp"}})
		wantError(t, err, caisson.ErrInvalid)
	})
}

// TestHostileNames holds that names and values are never part of a statement.
func TestHostileNames(t *testing.T) {
	names := []string{
		`a"b`, `'; DROP TABLE "in.c-main.people"; --`, "new\nline", `back\slash`, `$1`, `?`, `%s`, "ěščř", "select", "a b", `"`, `''`,
		"rowid", "a,b",
	}
	each(t, func(t *testing.T, s *sql.Storage, _ string) {
		value := `x'); DROP TABLE people; -- \' $$ ` + "\t\\."
		row := strings.TrimSuffix(strings.Repeat(`"`+value+`",`, len(names)), ",")
		for i, key := range names {
			l := &storage.Load{
				ID: key, Table: table, Columns: names, Incremental: true, PrimaryKey: []string{key}, SetPrimaryKey: true,
				Slices: []storage.Slice{text("a.csv", row)},
			}
			done := load(t, s, l)
			if done.Table.Rows != 1 || !slices.Equal(done.Table.Columns, names) {
				t.Errorf("load %d: %+v", i, done.Table)
			}
			q := &storage.Query{WhereColumn: key, WhereValues: []string{value, "'"}, Columns: []string{key}}
			if got := export(t, s, table, q); !strings.HasSuffix(got, "\"\n\""+value+"\"\n") {
				t.Errorf("Export by %q = %q", key, got)
			}
		}
	})
}

func TestRefusedNames(t *testing.T) {
	each(t, func(t *testing.T, s *sql.Storage, _ string) {
		for _, columns := range [][]string{{"a", "A"}, {"_TimeStamp"}, {""}, {"a\x00b"}, {"\xff"}, {}} {
			_, err := s.Load(t.Context(), &storage.Load{ID: "1", Table: table, Columns: columns})
			wantError(t, err, caisson.ErrInvalid)
		}
		for _, id := range []string{"", "a", "in.c-main", "in.c-main.a.b", "sys.c-main.a", "in..a", "pg_catalog.pg_authid", `in.c-".x`} {
			_, err := s.Load(t.Context(), &storage.Load{ID: "1", Table: id, Columns: []string{"a"}})
			wantError(t, err, caisson.ErrInvalid)
			_, err = s.Export(t.Context(), id, nil)
			wantError(t, err, caisson.ErrInvalid)
		}
		_, err := s.Export(t.Context(), table, nil)
		wantError(t, err, caisson.ErrNotFound, table)
	})
}

func TestFaultyRows(t *testing.T) {
	cases := []struct {
		name  string
		lines []string
		say   string
	}{
		{"Ragged", []string{"1,Anna", "2"}, "line 12"},
		{"Quote", []string{"1,Anna", "2,B\"en"}, "line 12"},
		{"Unicode", []string{"1,Anna", "2,\"a\nb\"", "3,\xff"}, "line 14"},
		{"NUL", []string{"1,\x00"}, "line 11"},
		{"Unclosed", []string{"1,\"Anna"}, "line 11"},
	}
	each(t, func(t *testing.T, s *sql.Storage, _ string) {
		load(t, s, people("0", "7,Kept"))
		for _, c := range cases {
			for _, incremental := range []bool{false, true} {
				l := people(c.name, c.lines...)
				l.Incremental, l.Slices[0].Skip = incremental, 10
				l.Slices = append([]storage.Slice{text("good.csv", "1,x")}, l.Slices...)
				_, err := s.Load(t.Context(), l)
				wantError(t, err, caisson.ErrInvalid, "people.csv", c.say)
				wantRows(t, s, nil, `"7","Kept"`)
			}
		}
	})
}

// TestUnreadSlice holds that the error of a slice is not taken for one of the
// database.
func TestUnreadSlice(t *testing.T) {
	each(t, func(t *testing.T, s *sql.Storage, _ string) {
		l := people("1")
		l.Slices[0].Open = func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(strings.NewReader("1,Anna\n"), broken{io.ErrUnexpectedEOF})), nil
		}
		_, err := s.Load(t.Context(), l)
		if !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, caisson.ErrUnavailable) || !strings.Contains(err.Error(), "people.csv") {
			t.Errorf("Load = %v", err)
		}
		if _, err := s.Table(t.Context(), table); !errors.Is(err, caisson.ErrNotFound) {
			t.Errorf("Table = %v, want none", err)
		}
		load(t, s, people("1", "1,Anna"))
	})
}

type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

func TestKeyChanges(t *testing.T) {
	each(t, func(t *testing.T, s *sql.Storage, _ string) {
		change := func(id string, incremental bool, key []string, lines ...string) *storage.Loaded {
			l := people(id, lines...)
			l.Incremental, l.SetPrimaryKey, l.PrimaryKey = incremental, true, key
			return load(t, s, l)
		}
		change("1", false, nil, "1,Anna", "1,Ben")
		done := change("2", true, []string{"id"}, "2,Cleo")
		if len(done.Warnings) != 1 || len(done.Table.PrimaryKey) != 0 {
			t.Errorf("a key that rows are against: %q, key %q", done.Warnings, done.Table.PrimaryKey)
		}
		done = change("3", true, []string{"name", "id"}, "1,Anna")
		if len(done.Warnings) != 1 || len(done.Table.PrimaryKey) != 2 || done.Table.Rows != 3 {
			t.Errorf("a key that rows have: %q, %+v", done.Warnings, done.Table)
		}
		if done = change("4", true, []string{"id", "name"}); len(done.Warnings) != 0 {
			t.Errorf("the same key in another order: %q", done.Warnings)
		}
		done = change("5", false, []string{"ID"}, "1,Anna", "1,Ben")
		if len(done.Warnings) != 1 || !slices.Equal(done.Table.PrimaryKey, []string{"id"}) || done.Table.Rows != 1 {
			t.Errorf("a key with all rows replaced: %q, %+v", done.Warnings, done.Table)
		}
		wantRows(t, s, nil, `"1","Ben"`)
		done = change("6", true, nil, "1,Ben")
		if len(done.Table.PrimaryKey) != 0 || done.Table.Rows != 2 {
			t.Errorf("no key: %+v", done.Table)
		}
		l := people("7", "1,x")
		l.SetPrimaryKey, l.PrimaryKey = true, []string{"nothing"}
		_, err := s.Load(t.Context(), l)
		wantError(t, err, caisson.ErrInvalid, `"nothing"`)
	})
}

// TestExportIsFixed holds that an Export shows the table as it was, whatever is
// loaded meanwhile, and that nobody waits for it.
func TestExportIsFixed(t *testing.T) {
	each(t, func(t *testing.T, s *sql.Storage, at string) {
		l := people("1", "1,Anna", "2,Ben")
		l.PrimaryKey = []string{"id"}
		load(t, s, l)
		e, err := s.Export(t.Context(), table, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		load(t, open(t, at), people("2", "3,Cleo", "3,Chloe"))
		wantRows(t, s, nil, `"3","Chloe"`)
		var b bytes.Buffer
		if _, err := e.WriteTo(&b); err != nil || b.String() != "\"id\",\"name\"\n\"1\",\"Anna\"\n\"2\",\"Ben\"\n" {
			t.Errorf("WriteTo = %q, %v", b.String(), err)
		}
		if _, err := e.WriteTo(&b); err == nil {
			t.Error("a second WriteTo has no error")
		}
	})
}

func TestExportEnds(t *testing.T) {
	each(t, func(t *testing.T, s *sql.Storage, _ string) {
		load(t, s, people("1", "1,Anna"))
		// More than there are connections.
		for range 40 {
			e, err := s.Export(t.Context(), table, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(e.Close(), e.Close()); err != nil {
				t.Fatal(err)
			}
		}
		failed := errors.New("the disk is full")
		e, err := s.Export(t.Context(), table, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.WriteTo(refusing{failed}); !errors.Is(err, failed) {
			t.Errorf("WriteTo = %v, want the writer's error", err)
		}
		_ = e.Close()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Export(ctx, table, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("Export = %v, want it cancelled", err)
		}
		wantRows(t, s, nil, `"1","Anna"`)
	})
}

type refusing struct{ err error }

func (r refusing) Write([]byte) (int, error) { return 0, r.err }

func TestLimit(t *testing.T) {
	each(t, func(t *testing.T, s *sql.Storage, _ string) {
		load(t, s, people("1", "1,a", "2,b", "3,c"))
		if got := export(t, s, table, &storage.Query{Limit: 2}); strings.Count(got, "\n") != 3 {
			t.Errorf("Export with a limit of 2 = %q", got)
		}
	})
}

func TestMetadata(t *testing.T) {
	each(t, func(t *testing.T, s *sql.Storage, _ string) {
		note := func(key, value string) storage.Metadata {
			return storage.Metadata{Key: key, Value: []byte(value), Provider: "p"}
		}
		l := people("1", "1,a")
		l.Metadata = []storage.Metadata{note("a", "1"), note("b", `"x"`)}
		l.ColumnMetadata = map[string][]storage.Metadata{"ID": {note("c", "true")}}
		load(t, s, l)
		l = people("2", "1,a")
		l.Metadata = []storage.Metadata{note("a", "2"), {Key: "a", Value: []byte("3"), Provider: "q"}}
		load(t, s, l)
		got, err := s.Table(t.Context(), table)
		if err != nil {
			t.Fatal(err)
		}
		var text []string
		ids := map[string]bool{}
		for _, m := range append(got.Metadata, got.ColumnMetadata["id"]...) {
			text = append(text, m.Provider+"/"+m.Key+"="+string(m.Value))
			ids[m.ID] = true
		}
		if want := []string{"p/a=2", `p/b="x"`, "q/a=3", "p/c=true"}; !slices.Equal(text, want) || len(ids) != 4 {
			t.Errorf("metadata = %q with ids %v, want %q", text, ids, want)
		}
	})
}

func TestTables(t *testing.T) {
	each(t, func(t *testing.T, s *sql.Storage, _ string) {
		if got, err := s.Tables(t.Context()); err != nil || len(got) != 0 {
			t.Errorf("Tables of an empty storage = %v, %v", got, err)
		}
		for _, id := range []string{"out.c-x.a", "in.c-main.b-2", "in.c-main.a_1"} {
			l := people(id, "1,a")
			l.Table = id
			load(t, s, l)
		}
		got, err := s.Tables(t.Context())
		var ids []string
		for _, table := range got {
			ids = append(ids, table.ID)
			if table.Rows != 1 || !slices.Equal(table.Columns, []string{"id", "name"}) {
				t.Errorf("%+v", table)
			}
		}
		if want := []string{"in.c-main.a_1", "in.c-main.b-2", "out.c-x.a"}; err != nil || !slices.Equal(ids, want) {
			t.Errorf("Tables = %q, %v, want %q", ids, err, want)
		}
	})
}

func TestDocuments(t *testing.T) {
	each(t, func(t *testing.T, s *sql.Storage, _ string) {
		_, _, err := s.Document(t.Context(), "a")
		wantError(t, err, caisson.ErrNotFound, "a")
		v1, err := s.PutDocument(t.Context(), "a", []byte("one\x00"), "")
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.PutDocument(t.Context(), "a", nil, "")
		wantError(t, err, caisson.ErrExists)
		v2, err := s.PutDocument(t.Context(), "a", nil, v1)
		if err != nil || v2 == v1 {
			t.Fatalf("PutDocument = %q, %v", v2, err)
		}
		for _, old := range []string{v1, "", "nonsense", "0"} {
			_, err = s.PutDocument(t.Context(), "a", nil, old)
			wantError(t, err, caisson.ErrExists)
		}
		_, err = s.PutDocument(t.Context(), "b", nil, v1)
		wantError(t, err, caisson.ErrExists)
		data, version, err := s.Document(t.Context(), "a")
		if err != nil || len(data) != 0 || version != v2 {
			t.Errorf("Document = %q, %q, %v", data, version, err)
		}
		_, _, err = s.Document(t.Context(), "never")
		wantError(t, err, caisson.ErrNotFound)
	})
}

func TestFiles(t *testing.T) {
	each(t, func(t *testing.T, s *sql.Storage, _ string) {
		big := bytes.Repeat([]byte("0123456789\x00\xff"), 300_000)
		put := func(load, name string, data []byte, tags ...string) *storage.File {
			t.Helper()
			f, err := s.PutFile(t.Context(), &storage.NewFile{Load: load, Name: name, Tags: tags, Permanent: true}, bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
		a := put("l1", "a", big, "x", "y", "x")
		b := put("", "b", nil, "x")
		if again := put("l1", "a", []byte("never read"), "z"); again.ID != a.ID || again.Size != int64(len(big)) || len(again.Tags) != 2 {
			t.Errorf("PutFile of the same load = %+v, want %+v", again, a)
		}
		if !a.Permanent || a.Public || b.ID <= a.ID {
			t.Errorf("files %+v, %+v", a, b)
		}
		for _, f := range []struct {
			id   int64
			want []byte
		}{{a.ID, big}, {b.ID, nil}} {
			r, err := s.OpenFile(t.Context(), f.id)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, f.want) {
				t.Errorf("file %d: %d bytes, %v, want %d", f.id, len(got), err, len(f.want))
			}
			_ = r.Close()
		}
		_, err := s.OpenFile(t.Context(), 99)
		wantError(t, err, caisson.ErrNotFound, "99")
		wantError(t, s.TagFile(t.Context(), 99, []string{"t"}), caisson.ErrNotFound)
		if err := s.TagFile(t.Context(), b.ID, []string{"it's", "x"}); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			q    storage.FileQuery
			want []int64
		}{
			{storage.FileQuery{}, []int64{b.ID, a.ID}},
			{storage.FileQuery{Tags: []string{"x", "y"}}, []int64{a.ID}},
			{storage.FileQuery{Tags: []string{"it's"}}, []int64{b.ID}},
			{storage.FileQuery{NotTags: []string{"y"}}, []int64{b.ID}},
			{storage.FileQuery{IDs: []int64{a.ID, 77}}, []int64{a.ID}},
			{storage.FileQuery{After: a.ID}, []int64{b.ID}},
			{storage.FileQuery{Limit: 1}, []int64{b.ID}},
			{storage.FileQuery{Query: `tags:"y"`, Limit: 1}, []int64{a.ID}},
			{storage.FileQuery{ChangedSince: time.Now().Add(time.Hour)}, nil},
			{storage.FileQuery{Tags: []string{"' OR 1=1 --"}}, nil},
		} {
			files, err := s.Files(t.Context(), &c.q)
			var ids []int64
			for _, f := range files {
				ids = append(ids, f.ID)
			}
			if err != nil || !slices.Equal(ids, c.want) {
				t.Errorf("Files(%+v) = %v, %v, want %v", c.q, ids, err, c.want)
			}
		}
		// A file whose source breaks is not there.
		_, err = s.PutFile(t.Context(), &storage.NewFile{Load: "l2", Name: "c"},
			io.MultiReader(bytes.NewReader(big), broken{io.ErrUnexpectedEOF}))
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("PutFile = %v", err)
		}
		if files, err := s.Files(t.Context(), nil); err != nil || len(files) != 2 {
			t.Errorf("Files = %v, %v", files, err)
		}
	})
}
