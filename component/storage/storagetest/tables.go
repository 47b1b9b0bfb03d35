package storagetest

import (
	"encoding/json"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
)

// sameFile expects a file with a table's contents.
func (e *env) sameFile(path string, want []byte) {
	e.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != string(want) {
		e.Errorf("File holds %q, %v, want what WriteTo writes, %q", got, err, want)
	}
}

const people = "in.c-main.people"

func tableRules() []rule {
	return []rule{
		{"table/absent", "what is not there is ErrNotFound; a list of nothing is empty", func(_ *testing.T, e *env) {
			_, err := e.Table(e.ctx, people)
			e.is(err, caisson.ErrNotFound, people)
			_, err = e.Export(e.ctx, people, nil)
			e.is(err, caisson.ErrNotFound, people)
			if list, err := e.Tables(e.ctx); err != nil || len(list) != 0 {
				e.Errorf("Tables = %v, %v, want none", list, err)
			}
		}},
		{"table/id", "an id that is none is ErrInvalid, and leads nowhere", func(_ *testing.T, e *env) {
			for _, id := range []string{"", "people", "in.people", "x.c-main.people", "in.c-main.a.b", "in.c-main.", "in..people", "in.c-main.../../x", "in.c-main.a/b", "in.c-main.a\x00b", "in.c-main.ä", "in.c-main." + strings.Repeat("x", 300)} {
				_, err := e.Table(e.ctx, id)
				e.is(err, caisson.ErrInvalid)
				_, err = e.Export(e.ctx, id, nil)
				e.is(err, caisson.ErrInvalid)
				e.refuse(e.load(id, "a", "1"), caisson.ErrInvalid)
			}
		}},
		{"table/known", "a table tells its columns, key, times, rows and metadata, also to another process", func(_ *testing.T, e *env) {
			before := time.Now().Add(-time.Second)
			l := e.load(people, "id|name", "1|Ada", "2|Bob")
			l.PrimaryKey = []string{"id"}
			l.Metadata = []storage.Metadata{{Key: "k", Value: json.RawMessage(`"v"`), Provider: "p"}}
			l.ColumnMetadata = map[string][]storage.Metadata{"name": {{Key: "type", Value: json.RawMessage("true"), Provider: "p"}}}
			l.BucketMetadata = []storage.Metadata{{Key: "KBC.createdBy.component.id", Value: json.RawMessage(`"x"`), Provider: "system"}}
			done := e.do(l)
			if done.Rows != 2 || done.Again || done.Table.ID != people {
				e.Errorf("Load = %+v", done)
			}
			t := e.again().table(people)
			if t.ID != people || t.Name != "people" || !slices.Equal(t.Columns, []string{"id", "name"}) || !slices.Equal(t.PrimaryKey, []string{"id"}) {
				e.Errorf("Table = %+v", t)
			}
			if t.Rows != 2 && t.Rows != -1 {
				e.Errorf("Rows = %d, want 2", t.Rows)
			}
			for name, at := range map[string]time.Time{"Created": t.Created, "LastChange": t.LastChange, "LastImport": t.LastImport} {
				if at.Before(before) || at.After(time.Now().Add(time.Second)) {
					e.Errorf("%s = %v, want about now", name, at)
				}
			}
			if got := keys(t.Metadata); !slices.Equal(got, []string{`p:k="v"`}) || t.Metadata[0].Time.Before(before) || t.Metadata[0].ID == "" {
				e.Errorf("Metadata = %+v", t.Metadata)
			}
			if got := keys(t.ColumnMetadata["name"]); !slices.Equal(got, []string{"p:type=true"}) {
				e.Errorf("ColumnMetadata = %+v", t.ColumnMetadata)
			}
		}},
		{"table/metadata", "metadata replaces what has the same key and provider, and nothing else", func(_ *testing.T, e *env) {
			l := e.load(people, "id", "1")
			l.Metadata = []storage.Metadata{{Key: "a", Value: json.RawMessage("1"), Provider: "p"}, {Key: "b", Value: json.RawMessage("1"), Provider: "p"}}
			l.ColumnMetadata = map[string][]storage.Metadata{"id": {{Key: "x", Value: json.RawMessage("1"), Provider: "p"}}}
			e.do(l)
			l = e.more(people, "id")
			l.Metadata = []storage.Metadata{{Key: "a", Value: json.RawMessage("2"), Provider: "p"}, {Key: "a", Value: json.RawMessage("3"), Provider: "q"}}
			l.ColumnMetadata = map[string][]storage.Metadata{"id": {{Key: "y", Value: json.RawMessage("2"), Provider: "p"}}}
			e.do(l)
			t := e.table(people)
			got := keys(t.Metadata)
			slices.Sort(got)
			if want := []string{"p:a=2", "p:b=1", "q:a=3"}; !slices.Equal(got, want) {
				e.Errorf("Metadata = %q, want %q", got, want)
			}
			got = keys(t.ColumnMetadata["id"])
			slices.Sort(got)
			if want := []string{"p:x=1", "p:y=2"}; !slices.Equal(got, want) {
				e.Errorf("ColumnMetadata = %q, want %q", got, want)
			}
		}},
		{"table/list", "tables are listed in the order of their ids", func(_ *testing.T, e *env) {
			for _, id := range []string{"out.c-b.t", "in.c-b.t", "in.c-a.z", "in.c-a.b"} {
				e.do(e.load(id, "a", "1"))
			}
			list, err := e.Tables(e.ctx)
			if err != nil {
				e.Fatal(err)
			}
			var ids []string
			for _, t := range list {
				ids = append(ids, t.ID)
			}
			if want := []string{"in.c-a.b", "in.c-a.z", "in.c-b.t", "out.c-b.t"}; !slices.Equal(ids, want) {
				e.Errorf("Tables = %q, want %q", ids, want)
			}
		}},
	}
}

func loadRules() []rule {
	return []rule{
		{"load/full", "a load that is not incremental replaces all rows", func(_ *testing.T, e *env) {
			e.do(e.load(people, "id|name", "1|Ada", "2|Bob"))
			e.do(e.load(people, "id|name", "3|Cyd"))
			e.want(people, "3|Cyd")
			e.do(e.load(people, "id|name"))
			e.want(people)
		}},
		{"load/append", "an incremental load into a table without a key adds rows", func(_ *testing.T, e *env) {
			e.do(e.more(people, "id|name", "1|Ada"))
			e.do(e.more(people, "id|name", "1|Ada", "2|Bob"))
			e.want(people, "1|Ada", "1|Ada", "2|Bob")
			if t := e.table(people); t.Rows != 3 && t.Rows != -1 {
				e.Errorf("Rows = %d, want 3", t.Rows)
			}
		}},
		{"load/again", "a load whose id is done is not done again, by whichever process", func(_ *testing.T, e *env) {
			l := e.more(people, "id", "1", "2")
			first := e.do(l)
			e.do(e.more(people, "id", "3"))
			again := e.again().do(l)
			if first.Again || !again.Again || again.Rows != 2 || again.Table.ID != people {
				e.Errorf("Load = %+v, want Again with 2 rows", again)
			}
			e.want(people, "1", "2", "3")
			// The same of a full load: what came after it stays.
			l = e.load(people, "id", "4")
			e.do(l)
			e.do(e.more(people, "id", "5"))
			e.do(l)
			e.want(people, "4", "5")
		}},
		{"load/slices", "rows of all slices are loaded; one may have nothing", func(_ *testing.T, e *env) {
			l := e.load(people, "id", "1")
			l.Slices = append(l.Slices, Slice("empty", nil), Slice("no last line end", []byte("2\n3")))
			if done := e.do(l); done.Rows != 3 {
				e.Errorf("Rows = %d, want 3", done.Rows)
			}
			e.want(people, "1", "2", "3")
			l = e.load(people, "id")
			l.Slices = nil
			e.do(l)
			e.want(people)
		}},
		{"load/values", "values come back as they are, whatever is in them", func(_ *testing.T, e *env) {
			values := []string{"", " ", "\t", `"`, `""`, `\N`, `\`, `\.`, "NULL", "a\nb", "a\r\nb", "\r", "ä€😀", ",", ";", "'", "\u0001", strings.Repeat("x", 1<<17), "0", "-0.10", "1e400"}
			l := e.load(people, "id|value")
			var text []byte
			var want []string
			for _, v := range values {
				text = append(text, rows("k|"+v)...)
				want = append(want, "k|"+v)
			}
			l.Slices = []storage.Slice{Slice("values", text)}
			e.do(l)
			e.want(people, want...)
		}},
		{"load/forms", "delimiter and enclosure are those of the load; lines end with LF or CRLF", func(_ *testing.T, e *env) {
			l := e.load(people, "a|b")
			l.Slices = []storage.Slice{Slice("crlf", []byte("1,\"2\"\r\n\"3\",4\r\n"))}
			e.do(l)
			e.want(people, "1|2", "3|4")
			l = e.load(people, "a|b")
			l.Delimiter, l.Enclosure = '\t', '\''
			l.Slices = []storage.Slice{Slice("tab", []byte("1\t'it''s \"x\"'\n'2\t3'\t\"\n"))}
			e.do(l)
			e.want(people, `1|it's "x"`, "2\t3|\"")
			l = e.load(people, "a|b", "1|2")
			l.Delimiter, l.Enclosure = ';', ';'
			e.refuse(l, caisson.ErrInvalid)
		}},
		{"load/misfit", "rows that don't fit are ErrInvalid with slice and line, and nothing is loaded", func(_ *testing.T, e *env) {
			e.do(e.load(people, "a|b", "1|2"))
			for name, text := range map[string]string{
				"short": "1,2\n3\n", "long": "1,2\n3,4,5\n", "open": "1,2\n\"3,4\n", "NUL": "1,2\n3,\x00\n", "UTF-8": "1,2\n3,\xff\n", "quote": "1,2\n3,4\"\n",
			} {
				for _, incremental := range []bool{true, false} {
					l := e.load(people, "a|b")
					l.Incremental = incremental
					l.Slices = []storage.Slice{Slice("good.csv", rows("8|9")), Slice("bad.csv", []byte(text))}
					e.Logf("%s, incremental %v", name, incremental)
					e.refuse(l, caisson.ErrInvalid, "bad.csv", "line 3")
				}
			}
			// Nor does it leave a table that was not there.
			l := e.load("in.c-main.new", "a|b")
			l.Slices = []storage.Slice{Slice("bad.csv", []byte("1\n"))}
			e.refuse(l, caisson.ErrInvalid)
		}},
		{"load/broken", "where a slice can't be read nothing is loaded", func(_ *testing.T, e *env) {
			e.do(e.load(people, "a", "1"))
			l := e.load(people, "a", "2")
			broken := &os.PathError{Op: "read", Path: "rows.csv", Err: os.ErrDeadlineExceeded}
			l.Slices = append(l.Slices, storage.Slice{Name: "broken", Open: func() (io.ReadCloser, error) { return nil, broken }})
			before := e.all()
			if _, err := e.Load(e.ctx, l); err == nil || !strings.Contains(err.Error(), "broken") {
				e.Errorf("error = %v, want the slice's", err)
			}
			if after := e.all(); after != before {
				e.Errorf("after it there is\n%s\nwant\n%s", after, before)
			}
		}},
		{"load/limit", "a value beyond the limit is ErrInvalid", func(_ *testing.T, e *env) {
			if e.h.CellLimit == 0 {
				return
			}
			e.do(e.load(people, "a", strings.Repeat("x", int(e.h.CellLimit))))
			e.refuse(e.load(people, "a", strings.Repeat("x", int(e.h.CellLimit)+1)), caisson.ErrInvalid, "rows.csv", "line 2")
		}},
		{"load/columns", "columns have names, each one, of which _timestamp is none", func(_ *testing.T, e *env) {
			for _, columns := range []string{"", "a|", "a|A", "a|_TimeStamp"} {
				e.refuse(e.load(people, columns), caisson.ErrInvalid)
			}
			l := e.load(people, "a", "1")
			l.Columns = nil
			e.refuse(l, caisson.ErrInvalid)
			l = e.load(people, "a", "1")
			l.PrimaryKey = []string{"b"}
			e.refuse(l, caisson.ErrInvalid, `"b"`)
		}},
	}
}
