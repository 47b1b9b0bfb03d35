package objects

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"path/filepath"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage/csv"
)

const (
	// parts is into how many files rows are divided that memory has no place for.
	parts = 64
	// depth is how often parts are divided again.
	depth = 5
	// overhead is what a row costs in memory beside its bytes, about.
	overhead = 160
)

var (
	errTwice = errors.New("a key is there twice")
	errFull  = errors.New("more than memory has place for")
)

// upsert writes the rows that stay, those of the load in place of those of the
// same key, and behind them the other rows of the load.
func (b *build) upsert(ctx context.Context) error {
	if b.new || !b.l.Incremental {
		if ok, err := b.distinct(ctx); ok || err != nil {
			return err
		}
		// What was written has a key twice.
		b.out.close(false)
		b.out = nil
		if err := b.begin(ctx); err != nil {
			return err
		}
	}
	return b.combine(ctx, b.kept, b.fresh, 0)
}

// combine is upsert of two sources. Rows of the load that memory has no place
// for are divided by their keys into files, and those of the table with them, so
// that each part can be combined by itself.
func (b *build) combine(ctx context.Context, kept, fresh source, level int) error {
	batch := b.batch()
	err := fresh(ctx, batch.add)
	if errors.Is(err, errFull) {
		return b.divide(ctx, level, func(ctx context.Context, kept, fresh source) error {
			return b.combine(ctx, kept, fresh, level+1)
		}, kept, fresh)
	}
	if err != nil {
		return err
	}
	if err := kept(ctx, func(line []byte, stamp int64) error { return batch.replace(line, stamp, b.out) }); err != nil {
		return err
	}
	for _, row := range batch.rows {
		if row.line == nil {
			continue
		}
		if err := b.out.add(row.line, b.now.UnixMicro()); err != nil {
			return err
		}
	}
	return nil
}

// unique checks that no two rows have the same key. Errors: errTwice.
func (b *build) unique(ctx context.Context, rows source, level int) error {
	batch := b.batch()
	batch.strict = true
	err := rows(ctx, batch.add)
	if !errors.Is(err, errFull) {
		return err
	}
	return b.divide(ctx, level, func(ctx context.Context, rows, _ source) error {
		return b.unique(ctx, rows, level+1)
	}, rows, nil)
}

// A batch is rows in memory by their keys.
type batch struct {
	at     []int // of the key in a row
	limit  int64
	now    int64 // when rows of the load are changed
	strict bool  // keys only, each once
	size   int64
	byKey  map[string]int
	rows   []batchRow
	fields [][]byte
	key    []byte
}

type batchRow struct {
	line []byte // nil: it is written
	used bool
}

func (b *build) batch() *batch {
	batch := &batch{limit: b.s.o.Memory, now: b.now.UnixMicro(), byKey: map[string]int{}}
	for _, c := range b.key {
		batch.at = append(batch.at, index(b.columns, c))
	}
	return batch
}

// keyOf returns what tells a row from others, valid until the next call.
func (m *batch) keyOf(line []byte) []byte {
	m.fields = csv.Fields(line, m.fields[:0])
	m.key = order(m.key[:0], m.fields, m.at)
	return m.key
}

// add takes a row. The last one of a key stays. Errors: errFull, errTwice.
func (m *batch) add(line []byte, _ int64) error {
	key := m.keyOf(line)
	i, ok := m.byKey[string(key)]
	switch {
	case ok && m.strict:
		return errTwice
	case ok:
		m.size += int64(len(line) - len(m.rows[i].line))
		m.rows[i].line = append(m.rows[i].line[:0], line...)
	default:
		m.byKey[string(key)] = len(m.rows)
		m.size += int64(len(key)) + overhead
		row := batchRow{}
		if !m.strict {
			row.line = append([]byte(nil), line...)
			m.size += int64(len(line))
		}
		m.rows = append(m.rows, row)
	}
	// One row alone has to have its place.
	if m.size > m.limit && len(m.rows) > 1 {
		return errFull
	}
	return nil
}

// replace writes a row that was there, or the one that comes in its place.
func (m *batch) replace(line []byte, stamp int64, out *output) error {
	i, ok := m.byKey[string(m.keyOf(line))]
	if !ok {
		return out.old(line, stamp)
	}
	row := &m.rows[i]
	if row.used {
		// Rows of people's own can be there twice.
		out.changed = true
		return nil
	}
	row.used = true
	now := row.line
	row.line = nil
	if string(now) == string(line) {
		return out.old(line, stamp)
	}
	return out.add(now, m.now)
}

// divide writes rows into files by their keys and does what is to be done with
// each pair of them.
func (b *build) divide(ctx context.Context, level int, do func(ctx context.Context, kept, fresh source) error, sources ...source) error {
	if level == depth {
		return &caisson.Error{Item: fmt.Sprintf("table %q", b.old.id), Kind: caisson.ErrExhausted, Err: errors.New("its rows are too many to be told apart by their key")}
	}
	dir, err := b.dir()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	seed := maphash.MakeSeed()
	for i, s := range sources {
		if s == nil {
			continue
		}
		if err := b.spread(ctx, s, seed, dir, i); err != nil {
			return err
		}
	}
	for p := range parts {
		names := [2]string{partName(dir, 0, p), partName(dir, 1, p)}
		if err := do(ctx, partSource(names[0]), partSource(names[1])); err != nil {
			return err
		}
		// Its place on the disk may be needed for the next.
		for _, name := range names {
			if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

func partName(dir string, source, part int) string {
	return filepath.Join(dir, fmt.Sprintf("%d-%d", source, part))
}

// spread writes a source into its files, of which there are those that have a
// row.
func (b *build) spread(ctx context.Context, rows source, seed maphash.Seed, dir string, n int) (err error) {
	var to [parts]*partWriter
	defer func() {
		for _, w := range to {
			if w != nil {
				err = errors.Join(err, w.f.Close())
			}
		}
	}()
	keys := b.batch()
	err = rows(ctx, func(line []byte, stamp int64) error {
		p := maphash.Bytes(seed, keys.keyOf(line)) % parts
		if to[p] == nil {
			f, err := os.OpenFile(partName(dir, n, int(p)), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return err
			}
			to[p] = &partWriter{f: f, w: bufio.NewWriterSize(f, 64<<10)}
		}
		return to[p].write(line, stamp)
	})
	if err != nil {
		return err
	}
	for _, w := range to {
		if w != nil {
			err = errors.Join(err, w.w.Flush())
		}
	}
	return err
}

// A partWriter writes one file of spread.
type partWriter struct {
	f    *os.File
	w    *bufio.Writer
	head []byte
}

func (p *partWriter) write(line []byte, stamp int64) error {
	p.head = binary.AppendVarint(p.head[:0], stamp)
	p.head = binary.AppendUvarint(p.head, uint64(len(line)))
	if _, err := p.w.Write(p.head); err != nil {
		return err
	}
	_, err := p.w.Write(line)
	return err
}

// partSource is the rows in one file of spread.
func partSource(name string) source {
	return func(ctx context.Context, fn rowFunc) error {
		f, err := os.Open(name)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer f.Close()
		r := bufio.NewReaderSize(f, 256<<10)
		var line []byte
		for n := 0; ; n++ {
			if n%looked == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			stamp, err := binary.ReadVarint(r)
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			size, err := binary.ReadUvarint(r)
			if err != nil {
				return noEOF(err)
			}
			if uint64(cap(line)) < size {
				line = make([]byte, size)
			}
			line = line[:size]
			if _, err := io.ReadFull(r, line); err != nil {
				return noEOF(err)
			}
			if err := fn(line, stamp); err != nil {
				return err
			}
		}
	}
}
