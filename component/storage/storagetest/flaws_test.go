//go:build unix

package storagetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/file"
)

// A flaw is one way in which a storage can be wrong, and a rule that must find
// it.
type flaw struct {
	name string
	find string
	make func(s storage.Storage) storage.Storage
}

// wrong is a storage with something of it replaced.
type wrong struct {
	storage.Storage
	load     func(ctx context.Context, l *storage.Load) (*storage.Loaded, error)
	export   func(ctx context.Context, id string, q *storage.Query) (*storage.Export, error)
	table    func(ctx context.Context, id string) (*storage.Table, error)
	tables   func(ctx context.Context) ([]storage.Table, error)
	files    func(ctx context.Context, q *storage.FileQuery) ([]storage.File, error)
	putFile  func(ctx context.Context, f *storage.NewFile, r io.Reader) (*storage.File, error)
	tagFile  func(ctx context.Context, id int64, tags []string) error
	document func(ctx context.Context, name string, data []byte, version string) (string, error)
}

func (w *wrong) Load(ctx context.Context, l *storage.Load) (*storage.Loaded, error) {
	if w.load != nil {
		c := *l
		return w.load(ctx, &c)
	}
	return w.Storage.Load(ctx, l)
}

func (w *wrong) Export(ctx context.Context, id string, q *storage.Query) (*storage.Export, error) {
	if w.export != nil {
		c := storage.Query{}
		if q != nil {
			c = *q
		}
		return w.export(ctx, id, &c)
	}
	return w.Storage.Export(ctx, id, q)
}

func (w *wrong) Table(ctx context.Context, id string) (*storage.Table, error) {
	if w.table != nil {
		return w.table(ctx, id)
	}
	return w.Storage.Table(ctx, id)
}

func (w *wrong) Tables(ctx context.Context) ([]storage.Table, error) {
	if w.tables != nil {
		return w.tables(ctx)
	}
	return w.Storage.Tables(ctx)
}

func (w *wrong) Files(ctx context.Context, q *storage.FileQuery) ([]storage.File, error) {
	if w.files != nil && q != nil {
		c := *q
		return w.files(ctx, &c)
	}
	return w.Storage.Files(ctx, q)
}

func (w *wrong) PutFile(ctx context.Context, f *storage.NewFile, r io.Reader) (*storage.File, error) {
	if w.putFile != nil {
		c := *f
		return w.putFile(ctx, &c, r)
	}
	return w.Storage.PutFile(ctx, f, r)
}

func (w *wrong) TagFile(ctx context.Context, id int64, tags []string) error {
	if w.tagFile != nil {
		return w.tagFile(ctx, id, tags)
	}
	return w.Storage.TagFile(ctx, id, tags)
}

func (w *wrong) PutDocument(ctx context.Context, name string, data []byte, version string) (string, error) {
	if w.document != nil {
		return w.document(ctx, name, data, version)
	}
	return w.Storage.PutDocument(ctx, name, data, version)
}

// loads is a storage that changes what is to be loaded.
func loads(change func(l *storage.Load)) func(storage.Storage) storage.Storage {
	return func(s storage.Storage) storage.Storage {
		return &wrong{Storage: s, load: func(ctx context.Context, l *storage.Load) (*storage.Loaded, error) {
			change(l)
			return s.Load(ctx, l)
		}}
	}
}

// queries is a storage that changes what is asked.
func queries(change func(q *storage.Query)) func(storage.Storage) storage.Storage {
	return func(s storage.Storage) storage.Storage {
		return &wrong{Storage: s, export: func(ctx context.Context, id string, q *storage.Query) (*storage.Export, error) {
			change(q)
			return s.Export(ctx, id, q)
		}}
	}
}

// written is a storage that changes what it writes.
func written(change func(text []byte) []byte) func(storage.Storage) storage.Storage {
	return func(s storage.Storage) storage.Storage {
		return &wrong{Storage: s, export: func(ctx context.Context, id string, q *storage.Query) (*storage.Export, error) {
			x, err := s.Export(ctx, id, q)
			if err != nil {
				return nil, err
			}
			write := x.WriteTo
			x.File = ""
			x.WriteTo = func(w io.Writer) (int64, error) {
				var b bytes.Buffer
				if _, err := write(&b); err != nil {
					return 0, err
				}
				n, err := w.Write(change(b.Bytes()))
				return int64(n), err
			}
			return x, nil
		}}
	}
}

func flaws() []flaw { return slices.Concat(flawsOfLoads(), flawsOfReads(), flawsOfFiles()) }

func flawsOfLoads() []flaw {
	return []flaw{
		{"a full load adds", "load/full", loads(func(l *storage.Load) { l.Incremental = true })},
		{"an incremental load replaces", "load/append", loads(func(l *storage.Load) { l.Incremental = false })},
		{"loads are forgotten", "load/again", loads(func(l *storage.Load) { l.ID = rand.Text() })},
		{"again is not told", "load/again", func(s storage.Storage) storage.Storage {
			return &wrong{Storage: s, load: func(ctx context.Context, l *storage.Load) (*storage.Loaded, error) {
				done, err := s.Load(ctx, l)
				if err == nil {
					done.Again = false
				}
				return done, err
			}}
		}},
		{"the last slice is lost", "load/slices", loads(func(l *storage.Load) {
			if n := len(l.Slices); n > 1 {
				l.Slices = l.Slices[:n-1]
			}
		})},
		{"slices are loaded one by one", "load/misfit", func(s storage.Storage) storage.Storage {
			return &wrong{Storage: s, load: func(ctx context.Context, l *storage.Load) (*storage.Loaded, error) {
				var done *storage.Loaded
				var err error
				for i := range l.Slices {
					c := *l
					c.Slices, c.ID, c.Incremental = l.Slices[i:i+1], rand.Text(), l.Incremental || i > 0
					if done, err = s.Load(ctx, &c); err != nil {
						return nil, err
					}
				}
				return done, nil
			}}
		}},
		{"lines are not told", "load/misfit", func(s storage.Storage) storage.Storage {
			return &wrong{Storage: s, load: func(ctx context.Context, l *storage.Load) (*storage.Loaded, error) {
				done, err := s.Load(ctx, l)
				if err != nil {
					err = caisson.ErrInvalid
				}
				return done, err
			}}
		}},
		{"another delimiter is not seen", "load/forms", loads(func(l *storage.Load) { l.Delimiter = 0 })},
		{"nothing is deleted", "delete/where", loads(func(l *storage.Load) { l.Delete = nil })},
		{"a part of a Delete is enough", "delete/where", loads(func(l *storage.Load) {
			for i, d := range l.Delete {
				l.Delete[i].Where = d.Where[:1]
			}
		})},
		{"rows are deleted by a load of their own", "delete/failed", func(s storage.Storage) storage.Storage {
			return &wrong{Storage: s, load: func(ctx context.Context, l *storage.Load) (*storage.Loaded, error) {
				first := *l
				first.ID, first.Slices = rand.Text(), nil
				if len(l.Delete) > 0 {
					if _, err := s.Load(ctx, &first); err != nil {
						return nil, err
					}
				}
				return s.Load(ctx, l)
			}}
		}},
		{"there are no keys", "key/upsert", loads(func(l *storage.Load) { l.PrimaryKey = nil })},
		{"the first row stays", "key/last", loads(func(l *storage.Load) { slices.Reverse(l.Slices) })},
		{"keys are not changed", "key/kept", loads(func(l *storage.Load) { l.SetPrimaryKey = false })},
		{"every load sets the key", "key/kept", loads(func(l *storage.Load) { l.SetPrimaryKey = true })},
		{"all rows of a load are changed", "key/same", loads(func(l *storage.Load) {
			if l.Incremental && len(l.PrimaryKey) == 0 {
				l.Delete = []storage.Delete{{Where: []storage.Filter{{Column: "id", Values: []string{"1", "2"}}}}}
			}
		})},
		{"columns are not added", "columns/added", loads(func(l *storage.Load) { l.AddColumns = nil })},
		{"missing columns are empty", "columns/missing", loads(func(l *storage.Load) { l.AddColumns = []string{"lat", "long"} })},
		{"metadata is lost", "table/known", loads(func(l *storage.Load) { l.Metadata = nil })},
	}
}

func flawsOfReads() []flaw {
	return []flaw{
		{"what is absent is denied", "table/absent", func(s storage.Storage) storage.Storage {
			return &wrong{Storage: s, table: func(ctx context.Context, id string) (*storage.Table, error) {
				t, err := s.Table(ctx, id)
				if err != nil {
					err = caisson.ErrDenied
				}
				return t, err
			}}
		}},
		{"tables are in no order", "table/list", func(s storage.Storage) storage.Storage {
			return &wrong{Storage: s, tables: func(ctx context.Context) ([]storage.Table, error) {
				list, err := s.Tables(ctx)
				slices.Reverse(list)
				return list, err
			}}
		}},
		{"columns are in the table's order", "export/columns", queries(func(q *storage.Query) { slices.Sort(q.Columns); slices.Reverse(q.Columns) })},
		{"not is not seen", "export/where", queries(func(q *storage.Query) { q.WhereNot = false })},
		{"a limit is not seen", "export/limit", queries(func(q *storage.Query) { q.Limit = 0 })},
		{"changed since is at or after", "export/changed", queries(func(q *storage.Query) {
			if !q.ChangedSince.IsZero() {
				q.ChangedSince = q.ChangedSince.Add(-time.Microsecond)
			}
		})},
		{"changed until is before", "export/changed", queries(func(q *storage.Query) {
			if !q.ChangedUntil.IsZero() {
				q.ChangedUntil = q.ChangedUntil.Add(-time.Microsecond)
			}
		})},
		{"spaces are lost", "load/values", written(func(text []byte) []byte { return bytes.ReplaceAll(text, []byte(`" "`), []byte(`""`)) })},
		{"CR LF becomes LF", "load/values", written(func(text []byte) []byte { return bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")) })},
		{"lines end with CR LF", "load/full", written(func(text []byte) []byte { return bytes.ReplaceAll(text, []byte("\"\n"), []byte("\"\r\n")) })},
		{"numbers have no quotes", "load/full", written(func(text []byte) []byte { return bytes.ReplaceAll(text, []byte(`"3"`), []byte("3")) })},
		{"an Export is what the table is when it is read", "export/held", func(s storage.Storage) storage.Storage {
			return &wrong{Storage: s, export: func(ctx context.Context, id string, q *storage.Query) (*storage.Export, error) {
				x, err := s.Export(ctx, id, q)
				if err != nil {
					return nil, err
				}
				x.File = ""
				x.WriteTo = func(w io.Writer) (int64, error) {
					now, err := s.Export(ctx, id, q)
					if err != nil {
						return 0, err
					}
					defer now.Close()
					return now.WriteTo(w)
				}
				return x, nil
			}}
		}},
	}
}

func flawsOfFiles() []flaw {
	return []flaw{
		{"one tag is enough", "files/query", func(s storage.Storage) storage.Storage {
			return &wrong{Storage: s, files: func(ctx context.Context, q *storage.FileQuery) ([]storage.File, error) {
				q.Tags = q.Tags[:min(1, len(q.Tags))]
				return s.Files(ctx, q)
			}}
		}},
		{"a limit counts before tags", "files/query", func(s storage.Storage) storage.Storage {
			return &wrong{Storage: s, files: func(ctx context.Context, q *storage.FileQuery) ([]storage.File, error) {
				limit := q.Limit
				q.Limit = 0
				list, err := s.Files(ctx, q)
				newest, _ := s.Files(ctx, &storage.FileQuery{Limit: limit})
				if limit > 0 {
					list = slices.DeleteFunc(list, func(f storage.File) bool {
						return !slices.ContainsFunc(newest, func(n storage.File) bool { return n.ID == f.ID })
					})
				}
				return list, err
			}}
		}},
		{"what is being added is passed by", "files/settled", func(s storage.Storage) storage.Storage {
			return &wrong{Storage: s, files: func(ctx context.Context, q *storage.FileQuery) ([]storage.File, error) {
				q.Settled = false
				return s.Files(ctx, q)
			}}
		}},
		{"a file is put twice", "files/again", func(s storage.Storage) storage.Storage {
			return &wrong{Storage: s, putFile: func(ctx context.Context, f *storage.NewFile, r io.Reader) (*storage.File, error) {
				f.Load = ""
				return s.PutFile(ctx, f, r)
			}}
		}},
		{"half a file stays", "files/broken", func(s storage.Storage) storage.Storage {
			return &wrong{Storage: s, putFile: func(ctx context.Context, f *storage.NewFile, r io.Reader) (*storage.File, error) {
				data, broken := io.ReadAll(r)
				file, err := s.PutFile(ctx, f, bytes.NewReader(data))
				return file, errors.Join(broken, err)
			}}
		}},
		{"tags are lost", "files/tag", func(s storage.Storage) storage.Storage {
			return &wrong{Storage: s, tagFile: func(context.Context, int64, []string) error { return nil }}
		}},
		{"versions are not looked at", "documents/versions", func(s storage.Storage) storage.Storage { return careless(s) }},
		{"the last who replaces wins", "concurrent/documents", func(s storage.Storage) storage.Storage { return careless(s) }},
		{"names lose their case", "documents/names", func(s storage.Storage) storage.Storage {
			return &wrong{Storage: s, document: func(ctx context.Context, name string, data []byte, version string) (string, error) {
				return s.PutDocument(ctx, strings.ToLower(name), data, version)
			}}
		}},
	}
}

// careless replaces documents whatever their version is.
func careless(s storage.Storage) storage.Storage {
	return &wrong{Storage: s, document: func(ctx context.Context, name string, data []byte, _ string) (string, error) {
		for {
			_, now, err := s.Document(ctx, name)
			if err != nil && !errors.Is(err, caisson.ErrNotFound) {
				return "", err
			}
			v, err := s.PutDocument(ctx, name, data, now)
			if !errors.Is(err, caisson.ErrExists) {
				return v, err
			}
		}
	}}
}

const flawVariable = "CAISSON_STORAGETEST_FLAW"

// TestFlaws sees that each flaw is found by its rule. A flawed storage is tested
// in a process of its own, which has to fail.
func TestFlaws(t *testing.T) {
	if name := os.Getenv(flawVariable); name != "" {
		Run(t, flawed(t, name))
		return
	}
	names := map[string]bool{}
	for _, r := range rules() {
		names[r.name] = true
	}
	for _, f := range flaws() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			if !names[f.find] {
				t.Fatalf("there is no rule %q", f.find)
			}
			cmd := exec.Command(os.Args[0], "-test.run", "^TestFlaws$/^"+strings.ReplaceAll(f.find, "/", "$/^")+"$", "-test.v")
			cmd.Env = append(os.Environ(), flawVariable+"="+f.name)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL: TestFlaws/"+f.find) {
				t.Errorf("%s does not find it: %v\n%s", f.find, err, out)
			}
		})
	}
}

func flawed(t *testing.T, name string) Harness {
	list := flaws()
	i := slices.IndexFunc(list, func(f flaw) bool { return f.name == name })
	if i < 0 {
		t.Fatalf("there is no flaw %q", name)
	}
	return Harness{New: func(t *testing.T) storage.Storage {
		s, err := file.Open(t.TempDir(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return list[i].make(s)
	}}
}

// A faulty storage fails at the call that it is told, and says which.
func TestFaulty(t *testing.T) {
	s, err := file.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l := &storage.Load{ID: "1", Table: people, Columns: []string{"id"}, Slices: []storage.Slice{Slice("rows", rows("1"))}}
	for _, late := range []bool{false, true} {
		f := &Faulty{Storage: s, At: 2, Late: late, Err: caisson.ErrExhausted}
		if _, err := f.Tables(t.Context()); err != nil {
			t.Errorf("the first call: %v", err)
		}
		if _, err := f.Load(t.Context(), l); !errors.Is(err, caisson.ErrExhausted) || !strings.Contains(err.Error(), "call 2, Load "+people) {
			t.Errorf("the second call: %v", err)
		}
		list, err := f.Tables(t.Context())
		if err != nil || (len(list) == 1) != late {
			t.Errorf("tables = %v, %v, want that the load was done: %v", list, err, late)
		}
		if got := len(f.Calls()); got != 3 {
			t.Errorf("%d calls, want 3", got)
		}
	}
	down := &Faulty{Storage: s, At: 1, Down: true}
	for range 2 {
		if _, err := down.Tables(t.Context()); !errors.Is(err, caisson.ErrUnavailable) {
			t.Errorf("while it is down: %v", err)
		}
	}
}
