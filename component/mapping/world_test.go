//go:build unix

package mapping_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/folder"
	"github.com/caissonrun/caisson/component/mapping"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/csv"
)

// now is the day of all tests, a Wednesday.
var now = time.Date(2026, 3, 18, 15, 4, 5, 0, time.UTC)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A world is a storage, a data folder, and a mapping between them.
type world struct {
	t   *testing.T
	st  *memory
	dir string
	f   *folder.Folder
	in  mapping.Input
	out mapping.Output
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, st: newMemory(), dir: filepath.Join(t.TempDir(), "W")}
	f, err := folder.Make(t.Context(), w.dir, nil)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	w.f = f
	w.in = mapping.Input{Storage: w.st, Folder: f, Now: now}
	w.out = mapping.Output{
		Storage: w.st, Folder: f, Now: now, LoadID: "task/1/row",
		Component: &component.Definition{ID: "keboola.ex-foo"},
		Who:       mapping.Who{Configuration: "123", Run: "7"},
	}
	return w
}

// write puts a file into out/.
func (w *world) write(name, contents string) {
	w.t.Helper()
	path := filepath.Join(w.dir, "data", "out", name)
	must(w.t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(w.t, os.WriteFile(path, []byte(contents), 0o644))
}

// read returns a file of in/.
func (w *world) read(name string) string {
	w.t.Helper()
	data, err := os.ReadFile(filepath.Join(w.dir, "data", "in", name))
	must(w.t, err)
	return string(data)
}

// mapTable adds a mapping as the configuration's parser makes it.
func (w *world) mapTable(source string, m component.TableManifest) {
	m.Delimiter, m.Enclosure = or(m.Delimiter, ","), or(m.Enclosure, `"`)
	m.DeleteWhereOperator = or(m.DeleteWhereOperator, "eq")
	w.out.Config.Tables = append(w.out.Config.Tables, component.OutputTable{Source: source, TableManifest: m})
}

func or(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

func (w *world) plan() *mapping.Plan {
	w.t.Helper()
	p, err := w.out.Plan(w.t.Context())
	must(w.t, err)
	return p
}

func (w *world) load() *mapping.Loaded {
	w.t.Helper()
	l, err := w.out.Load(w.t.Context(), w.plan())
	must(w.t, err)
	return l
}

// fails makes a plan that must be refused in these words.
func (w *world) fails(kind caisson.Kind, words string) {
	w.t.Helper()
	_, err := w.out.Plan(w.t.Context())
	refused(w.t, "Plan", err, kind, words)
	if len(w.st.loads) > 0 {
		w.t.Errorf("Plan loaded %v", slices.Collect(maps.Keys(w.st.loads)))
	}
}

func refused(t *testing.T, what string, err error, kind caisson.Kind, words string) {
	t.Helper()
	if !errors.Is(err, kind) || !strings.Contains(fmt.Sprint(err), words) {
		t.Errorf("%s = %v (%v), want %v with %q", what, err, caisson.KindOf(err), kind, words)
	}
	if err != nil && component.FaultOf(err) != component.UserFault {
		t.Errorf("%s = %v: it is the %s's error, want the user's", what, err, component.FaultOf(err))
	}
}

// memory is the least that is a storage: what mapping asks of one. Fault is
// asked before each call and after it.
type memory struct {
	mu       sync.Mutex
	tables   map[string]*memTable
	loads    map[string]*storage.Loaded
	puts     map[string]*storage.File
	files    []storage.File
	contents map[int64]string
	stamp    time.Time
	features storage.Features
	fault    func(call string, after bool) error
	last     []*storage.Load
}

type memTable struct {
	storage.Table
	rows  [][]string
	times []time.Time
}

func newMemory() *memory {
	return &memory{
		tables: map[string]*memTable{}, loads: map[string]*storage.Loaded{}, puts: map[string]*storage.File{},
		contents: map[int64]string{}, stamp: now, features: storage.Features{ChangedSince: true, Types: true, FileQuery: true},
		fault: func(string, bool) error { return nil },
	}
}

func (m *memory) Name() string               { return "memory:" }
func (m *memory) Features() storage.Features { return m.features }
func (m *memory) Close() error               { return nil }

func notFound(what string) error {
	return &caisson.Error{Item: what, Kind: caisson.ErrNotFound, Err: errors.New("it is not there")}
}

// call does f between two chances to fail.
func call[T any](m *memory, name string, f func() (T, error)) (T, error) {
	var zero T
	if err := m.fault(name, false); err != nil {
		return zero, err
	}
	m.mu.Lock()
	v, err := f()
	m.mu.Unlock()
	if err == nil {
		err = m.fault(name, true)
	}
	if err != nil {
		return zero, err
	}
	return v, nil
}

func (m *memory) Table(_ context.Context, id string) (*storage.Table, error) {
	return call(m, "Table", func() (*storage.Table, error) {
		if t, ok := m.tables[id]; ok {
			out := t.Table
			return &out, nil
		}
		return nil, notFound(id)
	})
}

func (m *memory) Tables(context.Context) ([]storage.Table, error) { return nil, caisson.ErrUnsupported }

func (m *memory) Export(_ context.Context, id string, q *storage.Query) (*storage.Export, error) {
	return call(m, "Export", func() (*storage.Export, error) {
		t, ok := m.tables[id]
		if !ok {
			return nil, notFound(id)
		}
		columns := q.Columns
		if columns == nil {
			columns = t.Columns
		}
		out := bytes.NewBuffer(csv.Line(columns))
		left := q.Limit
		for i, row := range t.rows {
			if !q.ChangedSince.IsZero() && !t.times[i].After(q.ChangedSince) || !q.ChangedUntil.IsZero() && t.times[i].After(q.ChangedUntil) {
				continue
			}
			if w := slices.Index(t.Columns, q.WhereColumn); w >= 0 && slices.Contains(q.WhereValues, row[w]) == q.WhereNot {
				continue
			}
			var values []string
			for _, c := range columns {
				values = append(values, row[slices.Index(t.Columns, c)])
			}
			out.Write(csv.Line(values))
			if left--; left == 0 {
				break
			}
		}
		return &storage.Export{Columns: columns, WriteTo: out.WriteTo, Close: func() error { return nil }}, nil
	})
}

// Load knows full and incremental loads, keys, and deletes by one column.
func (m *memory) Load(_ context.Context, l *storage.Load) (*storage.Loaded, error) {
	return call(m, "Load", func() (*storage.Loaded, error) {
		if done, ok := m.loads[l.ID]; ok {
			again := *done
			again.Again = true
			return &again, nil
		}
		rows, err := m.rows(l)
		if err != nil {
			return nil, err
		}
		m.last = append(m.last, l)
		m.stamp = m.stamp.Add(time.Second)
		t := m.tables[l.Table]
		if t == nil || !l.Incremental {
			old := t
			t = &memTable{Table: storage.Table{ID: l.Table, Columns: l.Columns, Created: now, Size: -1}}
			if old != nil {
				t.Created = old.Created
			}
			m.tables[l.Table] = t
		}
		t.PrimaryKey, t.LastImport, t.LastChange = l.PrimaryKey, m.stamp, m.stamp
		t.Metadata, t.ColumnMetadata = l.Metadata, l.ColumnMetadata
		for _, d := range l.Delete {
			t.drop(func(row []string) bool {
				f := d.Where[0]
				return slices.Contains(f.Values, row[slices.Index(t.Columns, f.Column)]) != f.Not
			})
		}
		for _, row := range rows {
			if len(t.PrimaryKey) > 0 {
				t.drop(func(old []string) bool { return t.key(old) == t.key(row) })
			}
			t.rows, t.times = append(t.rows, row), append(t.times, m.stamp)
		}
		t.Rows = int64(len(t.rows))
		m.loads[l.ID] = &storage.Loaded{Table: t.Table, Rows: int64(len(rows))}
		return m.loads[l.ID], nil
	})
}

func (m *memory) rows(l *storage.Load) (rows [][]string, err error) {
	for _, s := range l.Slices {
		r, err := s.Open()
		if err != nil {
			return nil, err
		}
		in := csv.NewReader(r, csv.Options{Name: s.Name, Skip: s.Skip, Width: len(l.Columns), Delimiter: l.Delimiter, Enclosure: l.Enclosure})
		for {
			row, err := in.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				r.Close()
				return nil, err
			}
			rows = append(rows, csv.Values(row))
		}
		r.Close()
	}
	return rows, nil
}

func (t *memTable) drop(gone func([]string) bool) {
	for i := 0; i < len(t.rows); {
		if gone(t.rows[i]) {
			t.rows, t.times = slices.Delete(t.rows, i, i+1), slices.Delete(t.times, i, i+1)
			continue
		}
		i++
	}
}

func (t *memTable) key(row []string) string {
	var key []string
	for _, c := range t.PrimaryKey {
		key = append(key, row[slices.Index(t.Columns, c)])
	}
	return strings.Join(key, "\x00")
}

func (m *memory) Files(_ context.Context, q *storage.FileQuery) ([]storage.File, error) {
	return call(m, "Files", func() ([]storage.File, error) {
		var out []storage.File
		for _, f := range slices.Backward(m.files) {
			has := func(tag string) bool { return slices.Contains(f.Tags, tag) }
			if slices.ContainsFunc(q.NotTags, has) || f.ID <= q.After || f.Created.Before(q.ChangedSince) ||
				q.IDs != nil && !slices.Contains(q.IDs, f.ID) || q.Query != "" && !strings.Contains(q.Query, f.Name) ||
				slices.ContainsFunc(q.Tags, func(tag string) bool { return !has(tag) }) {
				continue
			}
			if out = append(out, f); len(out) == q.Limit {
				break
			}
		}
		return out, nil
	})
}

func (m *memory) OpenFile(_ context.Context, id int64) (io.ReadCloser, error) {
	return call(m, "OpenFile", func() (io.ReadCloser, error) {
		if s, ok := m.contents[id]; ok {
			return io.NopCloser(strings.NewReader(s)), nil
		}
		return nil, notFound(fmt.Sprint(id))
	})
}

func (m *memory) PutFile(_ context.Context, f *storage.NewFile, r io.Reader) (*storage.File, error) {
	return call(m, "PutFile", func() (*storage.File, error) {
		if done, ok := m.puts[f.Load]; ok {
			return done, nil
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		made := &storage.File{
			ID: int64(len(m.files) + 1), Name: f.Name, Created: now, Tags: f.Tags, Size: int64(len(data)),
			Public: f.Public, Permanent: f.Permanent, Encrypted: f.Encrypted,
		}
		m.files, m.contents[made.ID], m.puts[f.Load] = append(m.files, *made), string(data), made
		return made, nil
	})
}

func (m *memory) TagFile(_ context.Context, id int64, tags []string) error {
	_, err := call(m, "TagFile", func() (bool, error) {
		for i := range m.files {
			if m.files[i].ID == id {
				m.files[i].Tags = append(m.files[i].Tags, tags...)
				return true, nil
			}
		}
		return false, notFound(fmt.Sprint(id))
	})
	return err
}

func (m *memory) Document(context.Context, string) ([]byte, string, error) {
	return nil, "", caisson.ErrUnsupported
}

func (m *memory) PutDocument(context.Context, string, []byte, string) (string, error) {
	return "", caisson.ErrUnsupported
}

// put makes a table of CSV text, with a key.
func (m *memory) put(id, text string, key ...string) *memTable {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	t := &memTable{Table: storage.Table{ID: id, Columns: strings.Split(lines[0], ","), PrimaryKey: key, Created: now, LastImport: now, LastChange: now, Size: int64(len(text))}}
	for _, line := range lines[1:] {
		t.rows, t.times = append(t.rows, strings.Split(line, ",")), append(t.times, now)
	}
	t.Rows = int64(len(t.rows))
	m.tables[id] = t
	return t
}

// text returns a table's rows, sorted.
func (m *memory) text(id string) string {
	t, ok := m.tables[id]
	if !ok {
		return "no table"
	}
	var lines []string
	for _, row := range t.rows {
		lines = append(lines, strings.Join(row, ","))
	}
	slices.Sort(lines)
	return strings.Join(append([]string{strings.Join(t.Columns, ",")}, lines...), "\n")
}
