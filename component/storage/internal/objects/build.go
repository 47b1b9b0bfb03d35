package objects

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/csv"
)

// A build makes the next version of a table.
type build struct {
	s   *Storage
	l   *storage.Load
	old *table
	new bool // there was no table

	columns []string
	key     []string
	newKey  bool  // the key of the rows that are there has to be checked
	arrange []int // where each column is in the load's rows, -1: nowhere; nil: they are the same
	widen   []byte
	deletes []func(fields [][]byte, stamp int64) bool
	now     time.Time

	out       *output
	scratch   string // a folder; empty: there is none yet
	loaded    int64  // rows in the slices
	warnings  []string
	same      bool // no row is another one
	committed bool // perhaps: see commit
}

// plan decides what the table will be like.
func (s *Storage) plan(old *table, l *storage.Load) (*build, error) {
	b := &build{s: s, l: l, old: old, new: old.version == "" && !old.theirs, now: s.now()}
	if last := old.record.LastImport; !b.now.After(last) {
		b.now = last.Add(time.Microsecond) // clocks go back, imports don't
	}
	if err := b.planColumns(); err != nil {
		return nil, err
	}
	if err := b.planKey(); err != nil {
		return nil, err
	}
	if err := b.planDeletes(); err != nil {
		return nil, err
	}
	if err := checkColumns(old.id, b.columns); err != nil {
		return nil, err
	}
	for c := range l.ColumnMetadata {
		if index(b.columns, c) < 0 {
			return nil, invalid(old.id, "there is metadata of column %q, which it does not have", c)
		}
	}
	return b, nil
}

func (b *build) planColumns() error {
	had := b.old.record.Columns
	b.columns = slices.Clone(had)
	for _, c := range slices.Concat(b.l.Columns, b.l.AddColumns) {
		if index(b.columns, c) < 0 {
			b.columns = append(b.columns, c)
		}
	}
	var missing []string
	same := len(b.columns) == len(b.l.Columns)
	for i, c := range b.columns {
		at := index(b.l.Columns, c)
		if at < 0 && index(b.l.AddColumns, c) < 0 {
			missing = append(missing, c)
		}
		b.arrange = append(b.arrange, at)
		same = same && at == i
	}
	if len(missing) > 0 {
		return invalid(b.old.id, "columns %s are missing in the rows to be loaded, the table has %s; check the delimiter (%q)",
			quoted(missing), quoted(had), delimiter(b.l))
	}
	if same {
		b.arrange = nil
	}
	b.widen = bytes.Repeat([]byte(`,""`), len(b.columns)-len(had))
	return nil
}

func delimiter(l *storage.Load) byte {
	if l.Delimiter == 0 {
		return ','
	}
	return l.Delimiter
}

func quoted(names []string) string {
	list := make([]string, len(names))
	for i, n := range names {
		list[i] = fmt.Sprintf("%q", n)
	}
	return strings.Join(list, ", ")
}

func (b *build) planKey() error {
	b.key = b.old.record.PrimaryKey
	if !b.new && !b.l.SetPrimaryKey {
		return nil
	}
	for _, c := range b.l.PrimaryKey {
		if index(b.columns, c) < 0 {
			return invalid(b.old.id, "column %q of the primary key is not in it; it has %s", c, quoted(b.columns))
		}
	}
	key := named(b.columns, b.l.PrimaryKey)
	if b.new || equalSet(key, b.key) {
		if b.new {
			b.key = key
		}
		return nil
	}
	b.warnings = append(b.warnings, fmt.Sprintf("primary key of table %q is changed from %q to %q", b.old.id, strings.Join(b.key, ","), strings.Join(key, ",")))
	b.key = key
	b.newKey = b.l.Incremental && len(key) > 0
	return nil
}

func equalSet(a, b []string) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(c string) bool { return !slices.Contains(b, c) })
}

func (b *build) planDeletes() error {
	if b.new || !b.l.Incremental {
		return nil // nothing is there, or nothing stays
	}
	for _, d := range b.l.Delete {
		parts := []func([][]byte, int64) bool{between(d.ChangedSince, d.ChangedUntil)}
		for _, f := range d.Where {
			at := index(b.old.record.Columns, f.Column)
			if at < 0 {
				return invalid(b.old.id, "rows can't be deleted by column %q, which it does not have", f.Column)
			}
			parts = append(parts, filter(at, f.Values, f.Not))
		}
		b.deletes = append(b.deletes, func(fields [][]byte, stamp int64) bool {
			for _, part := range parts {
				if !part(fields, stamp) {
					return false
				}
			}
			return true
		})
	}
	return nil
}

// between is true of rows that were changed after one time and not after the
// other.
func between(since, until time.Time) func([][]byte, int64) bool {
	return func(_ [][]byte, stamp int64) bool {
		return (since.IsZero() || stamp > since.UnixMicro()) && (until.IsZero() || stamp <= until.UnixMicro())
	}
}

// filter is true of rows whose field is one of values, or with not, none.
func filter(at int, values []string, not bool) func([][]byte, int64) bool {
	set := make(map[string]bool, len(values))
	for _, v := range values {
		set[string(csv.Field(v))] = true
	}
	return func(fields [][]byte, _ int64) bool { return set[string(fields[at])] != not }
}

// run builds the objects.
func (b *build) run(ctx context.Context) error {
	if err := b.checkKey(ctx); err != nil {
		return err
	}
	if err := b.begin(ctx); err != nil {
		return err
	}
	var err error
	switch {
	case len(b.key) > 0:
		err = b.upsert(ctx)
	default:
		err = b.join(ctx)
	}
	if err != nil {
		return err
	}
	b.same = b.l.Incremental && !b.new && !b.old.theirs && len(b.widen) == 0 && !b.out.changed
	if b.same {
		return nil // the objects that are there stay
	}
	return b.out.commit()
}

// checkKey keeps the former key if rows that stay are not told apart by the new
// one.
func (b *build) checkKey(ctx context.Context) error {
	if !b.newKey {
		return nil
	}
	err := b.unique(ctx, b.kept, 0)
	if !errors.Is(err, errTwice) {
		return err
	}
	b.warnings = []string{fmt.Sprintf("primary key of table %q stays %q: rows that are there are the same in %q",
		b.old.id, strings.Join(b.old.record.PrimaryKey, ","), strings.Join(b.key, ","))}
	b.key = b.old.record.PrimaryKey
	return nil
}

// join writes rows that are there, if they stay, and those of the load behind
// them.
func (b *build) join(ctx context.Context) error {
	if b.l.Incremental && !b.new {
		if err := b.keep(ctx); err != nil {
			return err
		}
	}
	if b.arrange == nil {
		return blocks(ctx, b.l, b.s.o.CellLimit, func(rows []byte, n int64) error {
			b.loaded += n
			return b.out.block(rows, n, b.now.UnixMicro())
		})
	}
	return b.fresh(ctx, b.out.add)
}

// keep writes the rows that stay, as they are where nothing changes in them.
func (b *build) keep(ctx context.Context) error {
	t := b.old
	if t.theirs || t.record.Stamps != "" || len(b.widen) > 0 || len(b.deletes) > 0 {
		return b.kept(ctx, b.out.old)
	}
	if c, ok := b.out.data.(Copier); ok {
		if err := c.CopyFrom(ctx, b.out.folder+"/"+t.record.Data); err != nil {
			return err
		}
		b.out.buf = b.out.buf[:0] // the header is in the copy
		b.out.rows = t.record.Rows
		if b.out.rows == 0 {
			return nil
		}
		return b.out.stamps.add(t.record.Changed.UnixMicro(), b.out.rows)
	}
	r, err := b.s.openRows(ctx, t)
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		rows, more, err := r.csv.Block()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := b.out.oldBlock(rows, more, t.record.Changed.UnixMicro()); err != nil {
			return err
		}
	}
}

// kept is the rows of the table that stay, with its new columns.
func (b *build) kept(ctx context.Context, fn rowFunc) error {
	if b.new || !b.l.Incremental {
		return nil
	}
	var fields [][]byte
	var wide []byte
	return b.s.rows(b.old)(ctx, func(line []byte, stamp int64) error {
		if len(b.deletes) > 0 {
			fields = csv.Fields(line, fields[:0])
			if slices.ContainsFunc(b.deletes, func(d func([][]byte, int64) bool) bool { return d(fields, stamp) }) {
				b.drop()
				return nil
			}
		}
		if len(b.widen) > 0 {
			wide = append(append(append(wide[:0], line[:len(line)-1]...), b.widen...), '\n')
			line = wide
		}
		return fn(line, stamp)
	})
}

// drop notes that a row went.
func (b *build) drop() {
	if b.out != nil {
		b.out.changed = true
	}
}

// fresh is the rows of the load with the table's columns.
func (b *build) fresh(ctx context.Context, fn rowFunc) error {
	b.loaded = 0
	var fields [][]byte
	var ordered []byte
	stamp := b.now.UnixMicro()
	return blocks(ctx, b.l, b.s.o.CellLimit, func(rows []byte, n int64) error {
		b.loaded += n
		for len(rows) > 0 {
			var line []byte
			line, rows = csv.Cut(rows)
			if b.arrange != nil {
				fields = csv.Fields(line, fields[:0])
				ordered = order(ordered[:0], fields, b.arrange)
				line = ordered
			}
			if err := fn(line, stamp); err != nil {
				return err
			}
		}
		return nil
	})
}

// order appends a row of some of the fields.
func order(dst []byte, fields [][]byte, at []int) []byte {
	for i, a := range at {
		if i > 0 {
			dst = append(dst, ',')
		}
		if a < 0 {
			dst = append(dst, '"', '"')
			continue
		}
		dst = append(dst, fields[a]...)
	}
	return append(dst, '\n')
}

// record is TABLE.json of what was built.
func (b *build) record() record {
	old := &b.old.record
	r := *old
	r.Format, r.ID, r.Columns, r.PrimaryKey = format, b.old.id.String(), b.columns, b.key
	if b.new {
		r.Created = b.now
	}
	r.LastChange, r.LastImport = b.now, b.now
	if !b.same {
		b.renew(&r)
	}
	r.Metadata = merge(old.Metadata, b.l.Metadata, b.now)
	r.ColumnMetadata = map[string][]storage.Metadata{}
	for c, list := range old.ColumnMetadata {
		r.ColumnMetadata[c] = list
	}
	for c, list := range b.l.ColumnMetadata {
		c = b.columns[index(b.columns, c)]
		r.ColumnMetadata[c] = merge(r.ColumnMetadata[c], list, b.now)
	}
	loads := old.Loads
	if len(loads) >= remembered {
		loads = loads[len(loads)-remembered+1:]
	}
	r.Loads = append(slices.Clone(loads), done{ID: b.l.ID, Rows: b.loaded, Warnings: b.warnings})
	return r
}

// renew has the record name the new objects.
func (b *build) renew(r *record) {
	old := &b.old.record
	r.Rows, r.Data, r.Print = b.out.rows, b.out.name, b.out.print
	r.Stamps, r.Changed, r.Before = b.out.stampsName, time.UnixMicro(b.out.stamps.stamp).UTC(), old.Print
	if b.out.rows == 0 {
		r.Changed = b.now
	}
	r.Replaced = nil
	if b.s.o.Linger == 0 {
		return
	}
	for _, o := range old.Replaced {
		if b.now.Sub(o.Time) < b.s.o.Linger {
			r.Replaced = append(r.Replaced, o)
		}
	}
	for _, name := range []string{old.Data, old.Stamps} {
		if name != "" {
			r.Replaced = append(r.Replaced, replaced{Name: name, Time: b.now})
		}
	}
}

// dir returns a new folder below the build's scratch folder.
func (b *build) dir() (string, error) {
	if b.scratch == "" {
		dir, err := b.s.store.Scratch()
		if err != nil {
			return "", err
		}
		b.scratch = dir
	}
	return os.MkdirTemp(b.scratch, "")
}

// close removes what was built in vain, and what it was built with.
func (b *build) close() {
	if b.scratch != "" {
		_ = os.RemoveAll(b.scratch)
	}
	if b.out == nil {
		return
	}
	b.out.close(b.committed && !b.same)
}

// begin begins the objects.
func (b *build) begin(ctx context.Context) error {
	v := rand.Text()
	o := &output{ctx: ctx, s: b.s, folder: folder(b.old.id), name: v + ".csv"}
	data, err := b.s.store.Create(ctx, o.folder+"/"+o.name)
	if err != nil {
		return err
	}
	o.data = data
	o.stamps.create = func() (io.Writer, error) {
		object, err := b.s.store.Create(ctx, o.folder+"/"+v+".rows")
		if err != nil {
			return nil, err
		}
		o.times = object
		return object, nil
	}
	o.buf = make([]byte, 0, outputBuffer)
	b.out = o
	return o.write(csv.Line(b.columns))
}
