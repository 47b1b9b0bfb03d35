//go:build unix

package mapping

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/caissonrun/caisson/component/storage"
)

// Load does what a plan of the same folder says: files first, then tables. It
// can be repeated after an error or a crash; what is loaded already stays so.
// What was loaded is returned with an error, too.
//
// Errors: those of all loads, joined.
func (o *Output) Load(ctx context.Context, p *Plan) (*Loaded, error) {
	l := &loader{Output: o, meter: &meter{call: o.Progress}}
	files := make([]*LoadedFile, len(p.Files))
	err := l.together(len(p.Files), func(i int) (err error) {
		files[i], err = l.file(ctx, &p.Files[i])
		return err
	})
	tables := make([]*LoadedTable, len(p.Tables))
	if err == nil {
		groups := byTable(p.Tables)
		err = l.together(len(groups), func(g int) error {
			for _, i := range groups[g] {
				var err error
				if tables[i], err = l.table(ctx, &p.Tables[i]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return l.sum(p, files, tables), err
}

// size returns how many bytes there are in a table's slices.
func (t *TableLoad) size() int64 {
	var sum int64
	for i := range t.Slices {
		sum += t.Slices[i].File.Size
	}
	return sum
}

// byTable groups loads by their table: those of one table are done in order.
func byTable(loads []TableLoad) [][]int {
	var groups [][]int
	at := map[string]int{}
	for i := range loads {
		key := strings.ToLower(loads[i].Table)
		g, ok := at[key]
		if !ok {
			g = len(groups)
			at[key] = g
			groups = append(groups, nil)
		}
		groups[g] = append(groups[g], i)
	}
	return groups
}

// A loader is one call of Load.
type loader struct {
	*Output
	meter *meter

	mu       sync.Mutex
	warnings []string
}

// together calls f for each of n, as many at once as there may be, and returns
// all errors in the order of the calls. One that fails does not end the others.
func (l *loader) together(n int, f func(i int) error) error {
	return together(l.Parallel, n, f)
}

func together(parallel, n int, f func(i int) error) error {
	if parallel <= 0 {
		parallel = DefaultParallel
	}
	errs := make([]error, n)
	slots := make(chan struct{}, parallel)
	var all sync.WaitGroup
	for i := range n {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			errs[i] = f(i)
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func (l *loader) file(ctx context.Context, f *FileLoad) (*LoadedFile, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c := l.meter.count(Progress{Output: true, File: true, Name: f.Source, Total: f.File.Size})
	r, err := openOutput(l.Folder, f.Part, &f.File, c)
	if err != nil {
		return nil, fmt.Errorf("file %q: %w", f.Source, err)
	}
	defer r.Close()
	made, err := l.Storage.PutFile(ctx, &storage.NewFile{
		Load: f.ID, Name: f.Name, Tags: f.Tags,
		Public: f.Said.IsPublic, Permanent: f.Said.IsPermanent, Encrypted: f.Said.IsEncrypted,
	}, r)
	if err != nil {
		return nil, fmt.Errorf("file %q: %w", f.Source, err)
	}
	c.done(0)
	return &LoadedFile{Source: f.Source, Part: f.Part, ID: made.ID, Name: made.Name, Tags: made.Tags}, nil
}

func (l *loader) table(ctx context.Context, t *TableLoad) (*LoadedTable, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c := l.meter.count(Progress{Output: true, Name: t.Source, Table: t.Table, Total: t.size()})
	load := &storage.Load{
		ID: t.ID, Table: t.Table, Columns: t.Columns, Delimiter: t.Delimiter[0], Enclosure: t.Enclosure[0],
		Incremental: t.Incremental, PrimaryKey: t.PrimaryKey, SetPrimaryKey: true, Delete: t.Delete, Insert: t.Insert,
		Types: t.Types, Metadata: t.Metadata, ColumnMetadata: t.ColumnMeta, BucketMetadata: t.BucketCreated,
	}
	for i := range t.Slices {
		s := &t.Slices[i]
		load.Slices = append(load.Slices, storage.Slice{
			Name: s.File.Name, Skip: s.Lines, Size: -1,
			Open: func() (io.ReadCloser, error) { return s.open(l.Folder, c) },
		})
	}
	done, err := l.Storage.Load(ctx, load)
	if err != nil {
		return nil, fmt.Errorf("table %s, from %q: %w", t.Table, t.Source, err)
	}
	c.done(done.Rows)
	l.warn(done.Warnings)
	return &LoadedTable{Source: t.Source, Table: t.Table, Rows: done.Rows, Columns: done.Table.Columns, Again: done.Again}, nil
}

func (l *loader) warn(warnings []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.warnings = append(l.warnings, warnings...)
}

func (l *loader) sum(p *Plan, files []*LoadedFile, tables []*LoadedTable) *Loaded {
	out := &Loaded{Files: []LoadedFile{}, Tables: []LoadedTable{}, Warnings: append(slices.Clone(p.Warnings), l.warnings...)}
	for _, f := range files {
		if f != nil {
			out.Files = append(out.Files, *f)
		}
	}
	for _, t := range tables {
		if t != nil {
			out.Tables = append(out.Tables, *t)
		}
	}
	return out
}
