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
		{"files/settled", "no settled file is found later with an id below one that was found before", func(_ *testing.T, e *env) {
			e.put("first", "1")
			var all sync.WaitGroup
			defer all.Wait()
			put := func(name string, r io.Reader) {
				if _, err := e.PutFile(e.ctx, &storage.NewFile{Load: name, Name: name}, r); err != nil {
					e.Errorf("PutFile(%q): %v", name, err)
				}
			}
			r, slow := io.Pipe()
			defer slow.Close()
			all.Go(func() { put("slow", r) })
			if _, err := slow.Write([]byte("2")); err != nil { // it is being added
				e.Fatal(err)
			}
			quick := make(chan struct{})
			all.Go(func() {
				defer close(quick)
				put("quick", strings.NewReader("3"))
			})
			select {
			case <-quick:
			case <-time.After(time.Second): // a storage may add one file after the other
			}
			found, last := map[string]bool{}, int64(0)
			look := func() {
				list, err := e.Files(e.ctx, &storage.FileQuery{After: last, Settled: true})
				if err != nil {
					e.Fatal(err)
				}
				for _, f := range list {
					found[f.Name], last = true, max(last, f.ID)
				}
			}
			look()
			slow.Close()
			all.Wait()
			look()
			if len(found) != 3 {
				e.Errorf("found %v, want all three", found)
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
