package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
)

func exportRules() []rule {
	return []rule{
		{"export/columns", "columns are selected in the order that is asked for", func(_ *testing.T, e *env) {
			e.do(e.load(people, "id|name|age", "1|Ada|36", "2|Bob|40"))
			e.wantQuery(people, &storage.Query{Columns: []string{"age", "id"}}, "36|1", "40|2")
			e.wantQuery(people, &storage.Query{Columns: []string{"AGE"}}, "36", "40")
			for _, columns := range [][]string{{"id", "x"}, {"id", "id"}} {
				_, err := e.Export(e.ctx, people, &storage.Query{Columns: columns})
				e.is(err, caisson.ErrInvalid)
			}
		}},
		{"export/where", "rows are selected by the values of a column", func(_ *testing.T, e *env) {
			e.do(e.load(people, "id|name", "1|Ada", "2|Bob", "3|", `4|say "x"`))
			e.wantQuery(people, &storage.Query{WhereColumn: "name", WhereValues: []string{"Ada", "", `say "x"`, "none"}}, "1|Ada", "3|", `4|say "x"`)
			e.wantQuery(people, &storage.Query{WhereColumn: "name", WhereValues: []string{"Ada", ""}, WhereNot: true}, "2|Bob", `4|say "x"`)
			e.wantQuery(people, &storage.Query{Columns: []string{"id"}, WhereColumn: "name", WhereValues: []string{"Bob"}}, "2")
			e.wantQuery(people, &storage.Query{WhereColumn: "name", WhereValues: []string{"ada"}})
			_, err := e.Export(e.ctx, people, &storage.Query{WhereColumn: "x", WhereValues: []string{"1"}})
			e.is(err, caisson.ErrInvalid, `"x"`)
		}},
		{"export/limit", "a limit is how many rows there are at most", func(_ *testing.T, e *env) {
			e.do(e.load(people, "id", "1", "1", "1", "2"))
			if got := e.get(people, &storage.Query{Limit: 3}); len(got) != 3 {
				e.Errorf("rows = %q, want 3", got)
			}
			e.wantQuery(people, &storage.Query{Limit: 1, WhereColumn: "id", WhereValues: []string{"2"}}, "2")
			e.wantQuery(people, &storage.Query{Limit: 9}, "1", "1", "1", "2")
		}},
		{"export/changed", "ChangedSince gives what was changed after a LastImport, or is refused", func(_ *testing.T, e *env) {
			e.do(e.more(people, "id|name", "1|Ada"))
			first := e.table(people).LastImport
			q := &storage.Query{ChangedSince: first}
			if !e.Features().ChangedSince {
				_, err := e.Export(e.ctx, people, q)
				e.is(err, caisson.ErrUnsupported)
				return
			}
			e.wantQuery(people, q)
			e.do(e.more(people, "id|name", "2|Bob", "3|Cyd"))
			second := e.table(people).LastImport
			e.do(e.more(people, "id|name", "4|Dan"))
			e.wantQuery(people, q, "2|Bob", "3|Cyd", "4|Dan")
			e.wantQuery(people, &storage.Query{ChangedSince: second}, "4|Dan")
			e.wantQuery(people, &storage.Query{ChangedUntil: second}, "1|Ada", "2|Bob", "3|Cyd")
			e.wantQuery(people, &storage.Query{ChangedSince: first, ChangedUntil: second}, "2|Bob", "3|Cyd")
			e.wantQuery(people, &storage.Query{ChangedSince: time.Now().Add(time.Hour)})
			e.wantQuery(people, &storage.Query{ChangedSince: first, Columns: []string{"name"}, WhereColumn: "id", WhereValues: []string{"3"}}, "Cyd")
		}},
		{"export/held", "an Export is what the table was when it was opened", func(_ *testing.T, e *env) {
			e.do(e.load(people, "id", "1"))
			x, err := e.Export(e.ctx, people, nil)
			if err != nil {
				e.Fatal(err)
			}
			y, err := e.Export(e.ctx, people, &storage.Query{WhereColumn: "id", WhereValues: []string{"1"}})
			if err != nil {
				e.Fatal(err)
			}
			other := e.again()
			other.do(other.load(people, "id", "2"))
			other.do(other.load(people, "id", "3"))
			for _, x := range []*storage.Export{x, y} {
				if got := e.content(x); !slices.Equal(got, []string{"1"}) {
					e.Errorf("rows = %q, want those of before the load", got)
				}
				for range 2 {
					if err := x.Close(); err != nil {
						e.Errorf("Close: %v", err)
					}
				}
			}
			e.want(people, "3")
		}},
	}
}

func keyRules() []rule {
	keyed := func(e *env, lines ...string) *storage.Load {
		l := e.more(people, "id|name", lines...)
		l.PrimaryKey = []string{"id"}
		return l
	}
	return []rule{
		{"key/upsert", "in a table with a key a row of a load takes the place of the one with the same key", func(_ *testing.T, e *env) {
			e.do(keyed(e, "1|Ada", "2|Bob"))
			e.do(e.more(people, "id|name", "2|Bill", "3|Cyd"))
			e.want(people, "1|Ada", "2|Bill", "3|Cyd")
			if t := e.table(people); t.Rows != 3 && t.Rows != -1 {
				e.Errorf("Rows = %d, want 3", t.Rows)
			}
		}},
		{"key/last", "of rows with the same key the last one of a load stays, also in a full load", func(_ *testing.T, e *env) {
			if done := e.do(keyed(e, "1|Ada", "2|Bob", "1|Eve")); done.Rows != 3 {
				e.Errorf("Rows = %d, want 3, those in the slices", done.Rows)
			}
			e.want(people, "1|Eve", "2|Bob")
			l := e.load(people, "id|name", "1|A")
			l.Slices = append(l.Slices, Slice("second", rows("1|B", "2|C")))
			e.do(l)
			e.want(people, "1|B", "2|C")
		}},
		{"key/compound", "a key of two columns is both of them", func(_ *testing.T, e *env) {
			l := e.load(people, "a|b|v", "1|1|x", "1|2|y", "11||z", "1|1,|q")
			l.PrimaryKey = []string{"b", "a"}
			e.do(l)
			e.do(e.more(people, "a|b|v", "1|2|new", "|11|w"))
			e.want(people, "1|1|x", "1|2|new", "11||z", "1|1,|q", "|11|w")
		}},
		{"key/same", "a row that is the same keeps the time of its change", func(_ *testing.T, e *env) {
			e.do(keyed(e, "1|Ada", "2|Bob"))
			at := e.table(people).LastImport
			e.do(e.more(people, "id|name", "1|Ada", "2|Bill", "3|Cyd"))
			e.want(people, "1|Ada", "2|Bill", "3|Cyd")
			if e.Features().ChangedSince {
				e.wantQuery(people, &storage.Query{ChangedSince: at}, "2|Bill", "3|Cyd")
			}
			at = e.table(people).LastImport
			e.do(e.more(people, "id|name", "1|Ada"))
			if e.Features().ChangedSince {
				e.wantQuery(people, &storage.Query{ChangedSince: at})
			}
			if now := e.table(people).LastImport; !now.After(at) {
				e.Errorf("LastImport = %v, want it after %v though no row was changed", now, at)
			}
		}},
		{"key/kept", "without SetPrimaryKey a table keeps its key; with it, it gets another one, and a warning", func(_ *testing.T, e *env) {
			e.do(keyed(e, "1|Ada", "2|Bob"))
			l := e.more(people, "id|name", "2|Bill")
			l.PrimaryKey = []string{"name"}
			e.do(l)
			e.want(people, "1|Ada", "2|Bill")
			l = e.more(people, "id|name", "3|Bill")
			l.PrimaryKey, l.SetPrimaryKey = []string{"NAME"}, true
			if done := e.do(l); len(done.Warnings) != 1 || !slices.Equal(done.Table.PrimaryKey, []string{"name"}) {
				e.Errorf("Load = %+v, want the key name and a warning", done)
			}
			e.want(people, "1|Ada", "3|Bill")
			l = e.more(people, "id|name", "3|Bill")
			l.SetPrimaryKey = true
			if done := e.do(l); len(done.Table.PrimaryKey) != 0 {
				e.Errorf("key = %q, want none", done.Table.PrimaryKey)
			}
			e.want(people, "1|Ada", "3|Bill", "3|Bill")
		}},
		{"key/ambiguous", "a key that can't tell rows apart is not taken, with a warning; the load is done", func(_ *testing.T, e *env) {
			e.do(keyed(e, "1|Ada", "2|Ada"))
			l := e.more(people, "id|name", "2|Bob")
			l.PrimaryKey, l.SetPrimaryKey = []string{"name"}, true
			if done := e.do(l); len(done.Warnings) != 1 || !slices.Equal(done.Table.PrimaryKey, []string{"id"}) {
				e.Errorf("Load = %+v, want the key id and a warning", done)
			}
			e.want(people, "1|Ada", "2|Bob")
		}},
		{"key/order", "a key of the same columns in another order is the same", func(_ *testing.T, e *env) {
			l := e.load(people, "a|b", "1|2")
			l.PrimaryKey = []string{"a", "b"}
			e.do(l)
			l = e.more(people, "a|b", "1|3")
			l.PrimaryKey, l.SetPrimaryKey = []string{"b", "a"}, true
			if done := e.do(l); len(done.Warnings) != 0 {
				e.Errorf("warnings = %q, want none", done.Warnings)
			}
			e.want(people, "1|2", "1|3")
		}},
		{"key/many", "many rows are told apart as well as few", func(_ *testing.T, e *env) {
			const n = 20000
			text := func(from, to int, value string) (text []byte) {
				for i := from; i < to; i++ {
					text = append(text, rows(fmt.Sprintf("%d|%s%d", i, value, i%7))...)
				}
				return text
			}
			l := keyed(e)
			l.Slices = []storage.Slice{Slice("first", text(0, n, "a"))}
			e.do(l)
			l = e.more(people, "id|name")
			l.Slices = []storage.Slice{Slice("second", text(n/2, n+n/2, "b")), Slice("third", text(n/4, n/2, "a"))}
			e.do(l)
			got := e.get(people, nil)
			if len(got) != n+n/2 {
				e.Fatalf("%d rows, want %d", len(got), n+n/2)
			}
			for _, row := range got {
				var i, j int
				var c rune
				if _, err := fmt.Sscanf(row, "%d|%c%d", &i, &c, &j); err != nil || j != i%7 || (c == 'b') != (i >= n/2) {
					e.Fatalf("row %q is wrong", row)
				}
			}
		}},
	}
}

func columnRules() []rule {
	return []rule{
		{"columns/added", "columns of the load that the table has not are added, empty where rows are there", func(_ *testing.T, e *env) {
			e.do(e.more(people, "id|name", "1|Ada"))
			done := e.do(e.more(people, "id|name|age|city", "2|Bob|40|Rome"))
			if !slices.Equal(done.Table.Columns, []string{"id", "name", "age", "city"}) {
				e.Errorf("Columns = %q", done.Table.Columns)
			}
			e.want(people, "1|Ada||", "2|Bob|40|Rome")
			l := e.load(people, "id|name|age|city", "3|Cyd|1|Oslo")
			l.AddColumns = []string{"zip", "ID"}
			e.do(l)
			e.want(people, "3|Cyd|1|Oslo|")
		}},
		{"columns/order", "columns are matched by their names, whatever their order and case; a table keeps its own", func(_ *testing.T, e *env) {
			e.do(e.more(people, "id|name", "1|Ada"))
			done := e.do(e.more(people, "NAME|Id", "Bob|2"))
			if !slices.Equal(done.Table.Columns, []string{"id", "name"}) {
				e.Errorf("Columns = %q, want id and name", done.Table.Columns)
			}
			e.want(people, "1|Ada", "2|Bob")
		}},
		{"columns/missing", "columns that the load has not are ErrInvalid, also in a full load", func(_ *testing.T, e *env) {
			e.do(e.load(people, "id|lat|long", "1|2|3"))
			e.refuse(e.more(people, "id", "2"), caisson.ErrInvalid, "lat", "long", "delimiter")
			e.refuse(e.load(people, "id", "2"), caisson.ErrInvalid, "lat", "long", "delimiter")
		}},
		{"columns/upsert", "columns are added by a load with a key as well", func(_ *testing.T, e *env) {
			l := e.load(people, "id|name", "1|Ada", "2|Bob")
			l.PrimaryKey = []string{"id"}
			e.do(l)
			e.do(e.more(people, "age|id|name", "9|2|Bill"))
			e.want(people, "1|Ada|", "2|Bill|9")
		}},
		{"columns/types", "types of columns hold where the storage has types; elsewhere all is text", func(_ *testing.T, e *env) {
			l := e.load(people, "id|name", "1|Ada")
			l.Types = map[string]storage.Type{"id": {Base: "INTEGER"}}
			e.do(l)
			e.want(people, "1|Ada")
			if e.Features().Types {
				e.refuse(e.more(people, "id|name", "x|Bob"), caisson.ErrInvalid)
				return
			}
			e.do(e.more(people, "id|name", "x|Bob"))
			e.want(people, "1|Ada", "x|Bob")
		}},
	}
}

func deleteRules() []rule {
	return []rule{
		{"delete/where", "rows that every part of a Delete is true of go before the load", func(_ *testing.T, e *env) {
			e.do(e.load(people, "id|name|age", "1|Ada|36", "2|Bob|36", "3|Bob|40"))
			l := e.more(people, "id|name|age", "4|Bob|36")
			l.Delete = []storage.Delete{
				{Where: []storage.Filter{{Column: "name", Values: []string{"Bob"}}, {Column: "AGE", Values: []string{"36", "x"}}}},
				{Where: []storage.Filter{{Column: "id", Values: []string{"2", "3", "4"}, Not: true}}},
			}
			e.do(l)
			e.want(people, "3|Bob|40", "4|Bob|36")
			l = e.more(people, "id|name|age")
			l.Delete = []storage.Delete{{Where: []storage.Filter{{Column: "x", Values: []string{"1"}}}}}
			e.refuse(l, caisson.ErrInvalid, `"x"`)
		}},
		{"delete/key", "a row that was deleted can come back by the same load", func(_ *testing.T, e *env) {
			l := e.load(people, "id|name", "1|Ada", "2|Bob")
			l.PrimaryKey = []string{"id"}
			e.do(l)
			l = e.more(people, "id|name", "2|Bill")
			l.Delete = []storage.Delete{{Where: []storage.Filter{{Column: "id", Values: []string{"1", "2"}}}}}
			e.do(l)
			e.want(people, "2|Bill")
		}},
		{"delete/nothing", "a Delete of a table that is not there does nothing", func(_ *testing.T, e *env) {
			l := e.more(people, "id", "1")
			l.Delete = []storage.Delete{{Where: []storage.Filter{{Column: "id", Values: []string{"1"}}}}}
			e.do(l)
			e.want(people, "1")
		}},
		{"delete/changed", "rows are deleted by the time of their change", func(_ *testing.T, e *env) {
			if !e.Features().ChangedSince {
				return
			}
			e.do(e.more(people, "id", "1"))
			at := e.table(people).LastImport
			e.do(e.more(people, "id", "2"))
			l := e.more(people, "id", "3")
			l.Delete = []storage.Delete{{ChangedUntil: at}}
			e.do(l)
			e.want(people, "2", "3")
			l = e.more(people, "id", "4")
			l.Delete = []storage.Delete{{ChangedSince: at, Where: []storage.Filter{{Column: "id", Values: []string{"2"}}}}}
			e.do(l)
			e.want(people, "3", "4")
		}},
		{"delete/failed", "where the load fails no row is deleted", func(_ *testing.T, e *env) {
			e.do(e.load(people, "id|name", "1|Ada"))
			l := e.more(people, "id|name")
			l.Slices = []storage.Slice{Slice("bad.csv", []byte("1\n"))}
			l.Delete = []storage.Delete{{Where: []storage.Filter{{Column: "id", Values: []string{"1"}}}}}
			e.refuse(l, caisson.ErrInvalid)
		}},
	}
}

// put adds a file.
func (e *env) put(name, content string, tags ...string) *storage.File {
	e.Helper()
	e.loads++
	f, err := e.PutFile(e.ctx, &storage.NewFile{Load: fmt.Sprintf("%s/%d", e.Name(), e.loads), Name: name, Tags: tags}, strings.NewReader(content))
	if err != nil {
		e.Fatalf("PutFile(%q): %v", name, err)
	}
	return f
}

func (e *env) read(id int64) string {
	e.Helper()
	r, err := e.OpenFile(e.ctx, id)
	if err != nil {
		e.Fatalf("OpenFile(%d): %v", id, err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		e.Fatal(err)
	}
	return string(data)
}

// names is the files that a query chooses.
func (e *env) names(q *storage.FileQuery) string {
	e.Helper()
	list, err := e.Files(e.ctx, q)
	if err != nil {
		e.Fatalf("Files(%+v): %v", q, err)
	}
	var names []string
	for _, f := range list {
		names = append(names, f.Name)
	}
	return strings.Join(names, " ")
}

func fileRules() []rule {
	return []rule{
		{"files/put", "a file comes back with its name, tags, size and contents, newest first", func(_ *testing.T, e *env) {
			a := e.put("a.txt", "hello", "x", "y", "x")
			b, err := e.PutFile(e.ctx, &storage.NewFile{Load: "b", Name: `../../e vil/"\ä` + "\n", Public: true, Permanent: true, Encrypted: true}, strings.NewReader(""))
			if err != nil {
				e.Fatal(err)
			}
			list, err := e.again().Files(e.ctx, nil)
			if err != nil || len(list) != 2 || list[0].ID != b.ID || list[1].ID != a.ID || b.ID <= a.ID || a.ID <= 0 {
				e.Fatalf("Files = %+v, %v", list, err)
			}
			f := list[1]
			if f.Name != "a.txt" || !slices.Equal(f.Tags, []string{"x", "y"}) || f.Size != 5 || f.Created.IsZero() || f.Public || f.Sliced {
				e.Errorf("file = %+v", f)
			}
			f = list[0]
			if f.Name != `../../e vil/"\ä`+"\n" || f.Size != 0 || !f.Public || !f.Permanent || !f.Encrypted {
				e.Errorf("file = %+v", f)
			}
			if e.read(a.ID) != "hello" || e.read(b.ID) != "" {
				e.Errorf("contents = %q, %q", e.read(a.ID), e.read(b.ID))
			}
		}},
		{"files/again", "a load that is done makes no second file", func(_ *testing.T, e *env) {
			f := &storage.NewFile{Load: "the load", Name: "a", Tags: []string{"t"}}
			one, err := e.PutFile(e.ctx, f, strings.NewReader("one"))
			if err != nil {
				e.Fatal(err)
			}
			two, err := e.again().PutFile(e.ctx, f, strings.NewReader("two"))
			if err != nil || two.ID != one.ID || two.Size != 3 {
				e.Errorf("PutFile = %+v, %v, want %+v", two, err, one)
			}
			if e.names(nil) != "a" || e.read(one.ID) != "one" {
				e.Errorf("files = %q, %q", e.names(nil), e.read(one.ID))
			}
		}},
		{"files/broken", "a file whose contents can't be read is not there, and can be put later", func(_ *testing.T, e *env) {
			broken := errors.New("broken")
			f := &storage.NewFile{Load: "the load", Name: "a"}
			_, err := e.PutFile(e.ctx, f, io.MultiReader(strings.NewReader("half"), failing{broken}))
			if !errors.Is(err, broken) {
				e.Errorf("PutFile = %v, want the reader's error", err)
			}
			if got := e.names(nil); got != "" {
				e.Errorf("files = %q, want none", got)
			}
			if _, err := e.PutFile(e.ctx, f, strings.NewReader("all")); err != nil || e.names(nil) != "a" {
				e.Errorf("PutFile = %v, files %q", err, e.names(nil))
			}
		}},
		{"files/query", "files are chosen by tags, ids and time", func(_ *testing.T, e *env) {
			a := e.put("a", "1", "x")
			b := e.put("b", "1", "x", "y")
			c := e.put("c", "1", "y")
			for _, q := range []struct {
				q    storage.FileQuery
				want string
			}{
				{storage.FileQuery{}, "c b a"},
				{storage.FileQuery{Tags: []string{"x"}}, "b a"},
				{storage.FileQuery{Tags: []string{"x", "y"}}, "b"},
				{storage.FileQuery{Tags: []string{"x"}, NotTags: []string{"y"}}, "a"},
				{storage.FileQuery{Tags: []string{"X"}}, ""},
				{storage.FileQuery{IDs: []int64{a.ID, c.ID, 1 << 40}}, "c a"},
				{storage.FileQuery{After: a.ID}, "c b"},
				{storage.FileQuery{After: a.ID, Tags: []string{"x"}}, "b"},
				{storage.FileQuery{Limit: 2}, "c b"},
				{storage.FileQuery{Limit: 1, Tags: []string{"x"}}, "b"},
				{storage.FileQuery{ChangedSince: b.Created.Add(-time.Hour)}, "c b a"},
				{storage.FileQuery{ChangedSince: time.Now().Add(time.Hour)}, ""},
			} {
				if got := e.names(&q.q); got != q.want {
					e.Errorf("Files(%+v) = %q, want %q", q.q, got, q.want)
				}
			}
		}},
		{"files/search", "files are chosen by a query, or it is refused", func(_ *testing.T, e *env) {
			e.put("a", "1", "x")
			e.put("b", "1", "x", "y")
			q := &storage.FileQuery{Query: `tags:"x" AND NOT tags:"y"`}
			if !e.Features().FileQuery {
				_, err := e.Files(e.ctx, q)
				e.is(err, caisson.ErrUnsupported)
				return
			}
			if got := e.names(q); got != "a" {
				e.Errorf("Files = %q, want a", got)
			}
			_, err := e.Files(e.ctx, &storage.FileQuery{Query: "tags:("})
			e.is(err, caisson.ErrInvalid)
		}},
		{"files/tag", "tags are added to a file, each once", func(_ *testing.T, e *env) {
			f := e.put("a", "1", "x")
			for range 2 {
				if err := e.TagFile(e.ctx, f.ID, []string{"done", "x"}); err != nil {
					e.Fatal(err)
				}
			}
			list, err := e.again().Files(e.ctx, &storage.FileQuery{IDs: []int64{f.ID}})
			if err != nil || len(list) != 1 || !slices.Equal(list[0].Tags, []string{"x", "done"}) {
				e.Errorf("Files = %+v, %v, want tags x and done", list, err)
			}
			e.is(e.TagFile(e.ctx, f.ID+1, []string{"t"}), caisson.ErrNotFound)
			_, err = e.OpenFile(e.ctx, f.ID+1)
			e.is(err, caisson.ErrNotFound)
		}},
		{"files/large", "a file larger than any buffer comes back", func(_ *testing.T, e *env) {
			content := bytes.Repeat([]byte("0123456789abcdef\n"), 1<<19)
			f, err := e.PutFile(e.ctx, &storage.NewFile{Load: "large", Name: "large"}, bytes.NewReader(content))
			if err != nil {
				e.Fatal(err)
			}
			if got := e.read(f.ID); got != string(content) || f.Size != int64(len(content)) {
				e.Errorf("%d bytes, Size %d, want %d", len(got), f.Size, len(content))
			}
		}},
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func documentRules() []rule {
	return []rule{
		{"documents/versions", "a document is replaced only by who knows its version", func(_ *testing.T, e *env) {
			const name = "state/keboola.ex-db/123/row ä"
			_, _, err := e.Document(e.ctx, name)
			e.is(err, caisson.ErrNotFound)
			_, err = e.PutDocument(e.ctx, name, []byte("x"), "no such version")
			e.is(err, caisson.ErrExists)
			one, err := e.PutDocument(e.ctx, name, []byte(`{"a":1}`), "")
			if err != nil || one == "" {
				e.Fatalf("PutDocument = %q, %v", one, err)
			}
			_, err = e.PutDocument(e.ctx, name, []byte("x"), "")
			e.is(err, caisson.ErrExists)
			data, version, err := e.again().Document(e.ctx, name)
			if err != nil || string(data) != `{"a":1}` || version != one {
				e.Errorf("Document = %q, %q, %v", data, version, err)
			}
			two, err := e.again().PutDocument(e.ctx, name, nil, one)
			if err != nil || two == one || two == "" {
				e.Fatalf("PutDocument = %q, %v", two, err)
			}
			_, err = e.PutDocument(e.ctx, name, []byte("x"), one)
			e.is(err, caisson.ErrExists)
			if data, _, err := e.Document(e.ctx, name); err != nil || len(data) != 0 {
				e.Errorf("Document = %q, %v, want nothing in it", data, err)
			}
		}},
		{"documents/names", "documents of different names are different, whatever is in the names", func(_ *testing.T, e *env) {
			names := []string{"a", "A.json", "a b", "a%20b", "b", "b/c", "b/c/d", "b/c.json", "b/c.json/d", "b/.c", "b/..", "c/ä", "c:d", "c\\d"}
			for _, n := range names {
				if _, err := e.PutDocument(e.ctx, n, []byte(n), ""); err != nil {
					e.Errorf("PutDocument(%q): %v", n, err)
				}
			}
			for _, n := range names {
				if data, _, err := e.Document(e.ctx, n); err != nil || string(data) != n {
					e.Errorf("Document(%q) = %q, %v", n, data, err)
				}
			}
			_, err := e.PutDocument(e.ctx, "", nil, "")
			e.is(err, caisson.ErrInvalid)
		}},
	}
}

func concurrencyRules() []rule {
	return []rule{
		{"concurrent/loads", "loads of one table at the same time are all done", func(_ *testing.T, e *env) {
			a, b := e, e.again()
			var wg sync.WaitGroup
			for i := range 8 {
				e := []*env{a, b}[i%2]
				l := e.more(people, "id", fmt.Sprint(i))
				wg.Go(func() {
					if _, err := e.Load(e.ctx, l); err != nil {
						e.Errorf("Load: %v", err)
					}
				})
			}
			wg.Wait()
			e.want(people, "0", "1", "2", "3", "4", "5", "6", "7")
		}},
		{"concurrent/same", "a load that is done by two at the same time is done once", func(_ *testing.T, e *env) {
			a, b := e, e.again()
			l := e.more(people, "id", "1")
			var wg sync.WaitGroup
			again := make([]bool, 4)
			for i := range again {
				wg.Go(func() {
					done, err := []*env{a, b}[i%2].Load(e.ctx, l)
					if err != nil {
						e.Errorf("Load: %v", err)
						return
					}
					again[i] = done.Again
				})
			}
			wg.Wait()
			e.want(people, "1")
			slices.SortFunc(again, func(a, b bool) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
			if !slices.Equal(again, []bool{false, true, true, true}) {
				e.Errorf("Again = %v, want one that did it", again)
			}
		}},
		{"concurrent/read", "who reads while others load sees one version, whole", func(_ *testing.T, e *env) {
			const n = 300
			version := func(i int) *storage.Load {
				var text []byte
				for range n {
					text = append(text, rows(fmt.Sprint(i))...)
				}
				l := e.load(people, "id")
				l.Slices = []storage.Slice{Slice("rows.csv", text)}
				return l
			}
			e.do(version(0))
			loads := []*storage.Load{version(1), version(2), version(3), version(4), version(5), version(6)}
			var wg sync.WaitGroup
			wg.Go(func() {
				other := e.again()
				for _, l := range loads {
					if _, err := other.Load(e.ctx, l); err != nil {
						e.Errorf("Load: %v", err)
					}
				}
			})
			for range 30 {
				for _, q := range []*storage.Query{nil, {Columns: []string{"id"}, Limit: 2 * n}} {
					got := e.get(people, q)
					if len(got) != n || len(slices.Compact(got)) != 1 {
						e.Errorf("%d rows, want %d of one version", len(got), n)
					}
				}
			}
			wg.Wait()
			e.want(people, slices.Repeat([]string{"6"}, n)...)
		}},
		{"concurrent/files", "files that are put at the same time have ids of their own", func(_ *testing.T, e *env) {
			a, b := e, e.again()
			var wg sync.WaitGroup
			ids := make([]int64, 8)
			for i := range ids {
				wg.Go(func() {
					f, err := []*env{a, b}[i%2].PutFile(e.ctx, &storage.NewFile{Load: fmt.Sprint("load ", i), Name: "f"}, strings.NewReader(fmt.Sprint(i)))
					if err != nil {
						e.Errorf("PutFile: %v", err)
						return
					}
					ids[i] = f.ID
				})
			}
			wg.Wait()
			for i, id := range ids {
				if got := e.read(id); got != fmt.Sprint(i) {
					e.Errorf("file %d = %q, want %d", id, got, i)
				}
			}
		}},
		{"concurrent/file", "a file that is put by two at the same time, by the same load, is there once", func(_ *testing.T, e *env) {
			a, b := e, e.again()
			var wg sync.WaitGroup
			ids := make([]int64, 4)
			for i := range ids {
				wg.Go(func() {
					f, err := []*env{a, b}[i%2].PutFile(e.ctx, &storage.NewFile{Load: "the load", Name: "f"}, strings.NewReader("content"))
					if err != nil {
						e.Errorf("PutFile: %v", err)
						return
					}
					ids[i] = f.ID
				})
			}
			wg.Wait()
			if len(slices.Compact(ids)) != 1 || e.names(nil) != "f" || e.read(ids[0]) != "content" {
				e.Errorf("ids %v, files %q, want one", ids, e.names(nil))
			}
		}},
		{"concurrent/documents", "of those who replace the same version of a document one does", func(_ *testing.T, e *env) {
			a, b := e, e.again()
			version, err := e.PutDocument(e.ctx, "d", []byte("0"), "")
			if err != nil {
				e.Fatal(err)
			}
			var wg sync.WaitGroup
			errs := make([]error, 6)
			for i := range errs {
				wg.Go(func() {
					_, errs[i] = []*env{a, b}[i%2].PutDocument(e.ctx, "d", fmt.Append(nil, "by ", i), version)
				})
			}
			wg.Wait()
			won := -1
			for i, err := range errs {
				switch {
				case err == nil && won >= 0:
					e.Errorf("%d and %d both replaced it", won, i)
				case err == nil:
					won = i
				default:
					e.is(err, caisson.ErrExists)
				}
			}
			if data, _, err := e.Document(e.ctx, "d"); err != nil || string(data) != fmt.Sprint("by ", won) {
				e.Errorf("Document = %q, %v, want that of %d", data, err, won)
			}
		}},
	}
}
