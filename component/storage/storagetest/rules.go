package storagetest

import (
	"fmt"
	"slices"
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
