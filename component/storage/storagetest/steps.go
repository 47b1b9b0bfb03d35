package storagetest

import (
	"context"
	"errors"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
)

// A step is something that writes, and that can be repeated.
type step struct {
	name string
	do   func(s storage.Storage) error
}

// prepare makes what steps change: a table whose rows were changed at different
// times, and a file.
func prepare(e *env) {
	l := e.load(people, "id|name", "1|Ada", "2|Bob")
	l.PrimaryKey = []string{"id"}
	e.do(l)
	e.do(e.more(people, "id|name", "3|Cyd"))
	e.put("first", "1")
}

func steps() []step {
	load := func(l *storage.Load) func(s storage.Storage) error {
		return func(s storage.Storage) error {
			_, err := s.Load(context.Background(), l)
			return err
		}
	}
	upsert := &storage.Load{
		ID: "step/upsert", Table: people, Columns: []string{"id", "name", "age"}, Incremental: true,
		Slices: []storage.Slice{Slice("rows", rows("2|Bill|40", "4|Dan|50"))},
		Delete: []storage.Delete{{Where: []storage.Filter{{Column: "id", Values: []string{"1"}}}}},
	}
	full := &storage.Load{
		ID: "step/full", Table: people, Columns: []string{"id", "name"},
		Slices: []storage.Slice{Slice("rows", rows("7|Gil"))},
	}
	fresh := &storage.Load{
		ID: "step/new", Table: "in.c-new.things", Columns: []string{"id"}, PrimaryKey: []string{"id"},
		Slices: []storage.Slice{Slice("rows", rows("1", "2"))},
	}
	return []step{
		{"upsert", load(upsert)},
		{"full", load(full)},
		{"new", load(fresh)},
		{"file", func(s storage.Storage) error {
			_, err := s.PutFile(context.Background(), &storage.NewFile{Load: "step/file", Name: "second", Tags: []string{"t"}}, strings.NewReader("2"))
			return err
		}},
		{"tag", func(s storage.Storage) error { return s.TagFile(context.Background(), 1, []string{"done"}) }},
		{"document", func(s storage.Storage) error {
			_, err := s.PutDocument(context.Background(), "state/one", []byte("{}"), "")
			if errors.Is(err, caisson.ErrExists) {
				return nil
			}
			return err
		}},
	}
}
