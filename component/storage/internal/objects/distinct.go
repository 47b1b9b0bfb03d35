package objects

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"hash/maphash"
	"os"
	"slices"
)

// distinct writes the rows of a load, where none stay, as long as no two have
// the same key, which is the rule. It reports false if two may have: then the
// rows must be told apart by their keys.
func (b *build) distinct(ctx context.Context) (ok bool, err error) {
	seen := &hashes{b: b, limit: int(b.s.o.Memory / 16)} // a slice grows to twice its size
	defer func() { err = errors.Join(err, seen.close()) }()
	keys := b.batch()
	seed := maphash.MakeSeed()
	err = b.fresh(ctx, func(line []byte, stamp int64) error {
		if err := seen.add(maphash.Bytes(seed, keys.keyOf(line))); err != nil {
			return err
		}
		return b.out.add(line, stamp)
	})
	if err != nil {
		return false, err
	}
	twice, err := seen.twice()
	return err == nil && !twice, err
}

// hashes are those of keys: in memory, or in files by their lowest bits. Where
// no two of them are the same, no two keys are.
type hashes struct {
	b      *build
	limit  int
	memory []uint64
	dir    string // empty: all are in memory
	files  [parts]*os.File
	to     [parts]*bufio.Writer
}

func (h *hashes) add(sum uint64) error {
	if h.dir != "" {
		return h.write(sum)
	}
	if h.memory = append(h.memory, sum); len(h.memory) <= h.limit {
		return nil
	}
	return h.spill()
}

func (h *hashes) write(sum uint64) error {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], sum)
	_, err := h.to[sum%parts].Write(b[:])
	return err
}

func (h *hashes) spill() (err error) {
	if h.dir, err = h.b.dir(); err != nil {
		return err
	}
	for p := range parts {
		if h.files[p], err = os.OpenFile(partName(h.dir, 0, p), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
			return err
		}
		h.to[p] = bufio.NewWriterSize(h.files[p], 64<<10)
	}
	for _, sum := range h.memory {
		if err := h.write(sum); err != nil {
			return err
		}
	}
	h.memory = nil
	return nil
}

// twice reports whether two are the same.
func (h *hashes) twice() (bool, error) {
	if h.dir == "" {
		return same(h.memory), nil
	}
	var sums []uint64
	for p := range parts {
		if err := h.to[p].Flush(); err != nil {
			return false, err
		}
		data, err := os.ReadFile(partName(h.dir, 0, p))
		if err != nil {
			return false, err
		}
		sums = sums[:0]
		for ; len(data) >= 8; data = data[8:] {
			sums = append(sums, binary.LittleEndian.Uint64(data))
		}
		if same(sums) {
			return true, nil
		}
	}
	return false, nil
}

func same(sums []uint64) bool {
	slices.Sort(sums)
	n := len(sums)
	return len(slices.Compact(sums)) < n
}

func (h *hashes) close() (err error) {
	for _, f := range h.files {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	if h.dir == "" {
		return err
	}
	return errors.Join(err, os.RemoveAll(h.dir))
}
