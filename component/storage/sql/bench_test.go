package sql_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/caissonrun/caisson/component/storage"
)

// benchBytes is how much is loaded at once.
const benchBytes = 64 << 20

func benchRows() []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < benchBytes; i++ {
		fmt.Fprintf(&b, "\"%d\",\"name of number %d\",\"2020-01-01\",\"a text of some length, with a comma\",\"%d.5\"\n", i, i, i%1000)
	}
	return b.Bytes()
}

func benchLoad(id string, data []byte) *storage.Load {
	return &storage.Load{
		ID: id, Table: table, Columns: []string{"id", "name", "day", "note", "amount"},
		Slices: []storage.Slice{{Name: "b.csv", Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }}},
	}
}

func BenchmarkLoad(b *testing.B) {
	data := benchRows()
	for _, k := range kinds {
		for _, c := range []struct {
			name string
			key  []string
			more bool
		}{{"replace", nil, false}, {"key", []string{"id"}, false}, {"append", nil, true}, {"merge", []string{"id"}, true}} {
			b.Run(k.name+"/"+c.name, func(b *testing.B) {
				s := open(b, k.url(b))
				b.SetBytes(int64(len(data)))
				for i := 0; b.Loop(); i++ {
					l := benchLoad(fmt.Sprint(i), data)
					l.PrimaryKey, l.Incremental = c.key, c.more
					load(b, s, l)
				}
			})
		}
	}
}

func BenchmarkExport(b *testing.B) {
	data := benchRows()
	for _, k := range kinds {
		b.Run(k.name, func(b *testing.B) {
			s := open(b, k.url(b))
			load(b, s, benchLoad("1", data))
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				e, err := s.Export(b.Context(), table, nil)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := e.WriteTo(io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkFile(b *testing.B) {
	data := benchRows()
	for _, k := range kinds {
		b.Run(k.name, func(b *testing.B) {
			s := open(b, k.url(b))
			b.SetBytes(2 * int64(len(data)))
			for b.Loop() {
				f, err := s.PutFile(b.Context(), &storage.NewFile{Name: "f"}, bytes.NewReader(data))
				if err != nil {
					b.Fatal(err)
				}
				r, err := s.OpenFile(b.Context(), f.ID)
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, r); err != nil || n != int64(len(data)) {
					b.Fatal(n, err)
				}
			}
		})
	}
}
