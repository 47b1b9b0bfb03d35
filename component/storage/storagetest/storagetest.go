// Package storagetest checks that a storage keeps the contract of package
// storage: Run is all that an implementation's test has to call. Faulty is a
// storage that fails when it is told to, for the tests of whoever uses one, and
// Killed runs a test's own process and kills it at a chosen point.
package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/csv"
)

// A Harness is what the suite needs to know of an implementation.
type Harness struct {
	// New opens a storage with nothing in it. What it is in is removed by the
	// test's cleanup.
	New func(t *testing.T) storage.Storage
	// Again opens another storage in the same place, as another process would.
	// nil: the same one is used.
	Again func(t *testing.T, s storage.Storage) storage.Storage
	// CellLimit is how large a value may be, in bytes, in what New opens; 0: the
	// suite does not look.
	CellLimit int64
}

// A rule is a sentence of the contract with what checks it.
type rule struct {
	name string
	text string
	run  func(t *testing.T, e *env)
}

func rules() []rule {
	return slices.Concat(tableRules(), loadRules(), exportRules(), keyRules(), columnRules(), deleteRules(), fileRules(), documentRules(), concurrencyRules())
}

// Rules returns the sentences that Run checks.
func Rules() []string {
	var list []string
	for _, r := range rules() {
		list = append(list, r.name+": "+r.text)
	}
	return list
}

// Run checks a storage.
func Run(t *testing.T, h Harness) {
	for _, r := range rules() {
		t.Run(r.name, func(t *testing.T) {
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("the rule is: %s", r.text)
				}
			})
			s := h.New(t)
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
			r.run(t, &env{T: t, Storage: s, h: h, ctx: t.Context()})
		})
	}
}

// An env is a storage in a test, with words for what tests do.
type env struct {
	*testing.T
	storage.Storage
	h     Harness
	ctx   context.Context
	loads int
}

// again opens the storage as another process would.
func (e *env) again() *env {
	e.Helper()
	if e.h.Again == nil {
		return e
	}
	s := e.h.Again(e.T, e.Storage)
	e.Cleanup(func() { _ = s.Close() })
	return &env{T: e.T, Storage: s, h: e.h, ctx: e.ctx, loads: 1000}
}

// rows is CSV of the shape that tests are written in: a line is a row, "|" is
// between fields.
func rows(lines ...string) []byte {
	var text []byte
	for _, l := range lines {
		text = append(text, csv.Line(strings.Split(l, "|"))...)
	}
	return text
}

// Slice is text as a load wants it, with one line before it.
func Slice(name string, text []byte) storage.Slice {
	return storage.Slice{
		Name: name, Skip: 1, Size: int64(len(text)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil },
	}
}

// load makes a load with a new id.
func (e *env) load(table, columns string, lines ...string) *storage.Load {
	e.loads++
	return &storage.Load{
		ID: fmt.Sprintf("%s/%d", e.Name(), e.loads), Table: table, Columns: strings.Split(columns, "|"),
		Slices: []storage.Slice{Slice("rows.csv", rows(lines...))},
	}
}

// Name is the test's: Storage has one too.
func (e *env) Name() string { return e.T.Name() }

// more is load for rows that are added.
func (e *env) more(table, columns string, lines ...string) *storage.Load {
	l := e.load(table, columns, lines...)
	l.Incremental = true
	return l
}

// do loads.
func (e *env) do(l *storage.Load) *storage.Loaded {
	e.Helper()
	done, err := e.Load(e.ctx, l)
	if err != nil {
		e.Fatalf("Load(%s): %v", l.Table, err)
	}
	return done
}

// refuse expects that a load fails, and that nothing of it stays.
func (e *env) refuse(l *storage.Load, kind caisson.Kind, words ...string) {
	e.Helper()
	before := e.all()
	_, err := e.Load(e.ctx, l)
	e.is(err, kind, words...)
	if after := e.all(); after != before {
		e.Errorf("after a load that failed there is\n%s\nwant what was there before\n%s", after, before)
	}
}

// is expects an error of a kind with words in it.
func (e *env) is(err error, kind caisson.Kind, words ...string) {
	e.Helper()
	if !errors.Is(err, kind) {
		e.Errorf("error = %v, want %v", err, kind)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			e.Errorf("error = %v, want it to say %q", err, w)
		}
	}
}

// get exports a table: its rows in order, "|" between fields.
func (e *env) get(table string, q *storage.Query) []string {
	e.Helper()
	x, err := e.Export(e.ctx, table, q)
	if err != nil {
		e.Fatalf("Export(%s): %v", table, err)
	}
	defer func() {
		if err := x.Close(); err != nil {
			e.Errorf("Close: %v", err)
		}
	}()
	return e.content(x)
}

func (e *env) content(x *storage.Export) []string {
	e.Helper()
	text := e.text(x)
	head, rest := csv.Cut(text)
	if want := csv.Line(x.Columns); !bytes.Equal(head, want) {
		e.Errorf("the first line is %q, want %q", head, want)
	}
	var list []string
	for len(rest) > 0 {
		var line []byte
		if line, rest = csv.Cut(rest); line == nil {
			e.Fatalf("rows are not in the one form at %q", rest)
		}
		list = append(list, strings.Join(csv.Values(line), "|"))
	}
	slices.Sort(list)
	return list
}

func (e *env) text(x *storage.Export) []byte {
	e.Helper()
	var text bytes.Buffer
	n, err := x.WriteTo(&text)
	if err != nil || n != int64(text.Len()) {
		e.Fatalf("WriteTo = %d, %v, want %d", n, err, text.Len())
	}
	if x.File != "" {
		e.sameFile(x.File, text.Bytes())
	}
	// What is in the one form is read as it is.
	var again bytes.Buffer
	if _, err := csv.NewReader(bytes.NewReader(text.Bytes()), csv.Options{}).WriteTo(&again); err != nil || !bytes.Equal(again.Bytes(), text.Bytes()) {
		e.Errorf("the rows are not in the one form: %v\n%q", err, text.Bytes())
	}
	return text.Bytes()
}

// want expects rows of a table, in any order.
func (e *env) want(table string, lines ...string) {
	e.Helper()
	e.wantQuery(table, nil, lines...)
}

func (e *env) wantQuery(table string, q *storage.Query, lines ...string) {
	e.Helper()
	slices.Sort(lines)
	if got := e.get(table, q); !slices.Equal(got, lines) {
		e.Errorf("%s has rows %q, want %q", table, got, lines)
	}
}

// table is what is known of a table.
func (e *env) table(id string) *storage.Table {
	e.Helper()
	t, err := e.Table(e.ctx, id)
	if err != nil {
		e.Fatalf("Table(%s): %v", id, err)
	}
	return t
}

// all is everything that a failed load could have changed.
func (e *env) all() string {
	e.Helper()
	tables, err := e.Tables(e.ctx)
	if err != nil {
		e.Fatalf("Tables: %v", err)
	}
	var b strings.Builder
	for _, t := range tables {
		fmt.Fprintf(&b, "%s %q %q %d %s %v %v: %q\n", t.ID, t.Columns, t.PrimaryKey, t.Rows,
			t.LastImport.UTC().Format(time.RFC3339Nano), keys(t.Metadata), len(t.ColumnMetadata), e.get(t.ID, nil))
	}
	return b.String()
}

func keys(list []storage.Metadata) []string {
	var names []string
	for _, m := range list {
		names = append(names, m.Provider+":"+m.Key+"="+string(m.Value))
	}
	return names
}
