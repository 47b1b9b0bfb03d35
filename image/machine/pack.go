//go:build unix

package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/qcow2"
	"github.com/caissonrun/caisson/internal/safefs"
)

// CreateRaw makes a raw disk of zeros in the new and empty file f, which takes
// no room until it is written to.
//
// Errors: ErrInvalid for a size that no disk has.
func CreateRaw(f *os.File, size caisson.Bytes) error {
	if size < sector || size%sector != 0 || size > qcow2.MaxSize {
		return invalid("a disk of %d bytes: it must be a multiple of %d, and at most %s", int64(size), sector, qcow2.MaxSize)
	}
	return f.Truncate(int64(size))
}

// Pack writes an archive of the raw disk in the file disk, an empty layer over
// it, and the description m. Holes of the disk are left out, and so are long
// runs of zeros. The same disk and description give the same bytes. Nobody may
// write to the disk meanwhile.
//
// Errors: ErrInvalid for a disk or a description that could not be read back.
func Pack(ctx context.Context, out io.Writer, disk *os.File, m *Machine) error {
	if err := pack(ctx, out, disk, m); err != nil {
		return safefs.Sorted("", "machine image", err)
	}
	return nil
}

func pack(ctx context.Context, out io.Writer, disk *os.File, m *Machine) error {
	info, err := disk.Stat()
	if err != nil {
		return err
	}
	layer, err := layerOver(caisson.Bytes(info.Size()))
	if err != nil {
		return err
	}
	if err := m.Check(); err != nil {
		return err
	}
	description, err := json.Marshal(m)
	if err != nil {
		return err
	}
	runs, err := dataRuns(ctx, disk, info.Size())
	if err != nil {
		return err
	}
	zw, err := zstd.NewWriter(out, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	defer zw.Close()
	w := &archiver{ctx: ctx, w: zw}
	w.sparse(DiskName, disk, info.Size(), runs)
	w.small(LayerName, layer)
	w.small(descriptionName, append(description, '\n'))
	w.write(make([]byte, 2*sector))
	return errors.Join(w.err, zw.Close())
}

// layerOver returns an empty layer over a raw disk.
func layerOver(size caisson.Bytes) ([]byte, error) {
	f, err := os.CreateTemp("", "caisson-layer-")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	defer os.Remove(f.Name())
	opts := &qcow2.Options{Size: size, BackingFile: DiskName, BackingFormat: FormatRaw, LazyRefcounts: true}
	if err := qcow2.Create(f, opts); err != nil {
		return nil, err
	}
	return os.ReadFile(f.Name())
}

// A run is a part of a disk that is not all zeros.
type run struct{ from, size int64 }

const (
	// leastGap is how long a run of zeros must be to be left out.
	leastGap = 1 << 20
	// maxRuns keeps the list of runs far below the megabyte that readers permit.
	maxRuns = 16 << 10
)

// dataRuns finds what is not zeros in a disk. Runs begin and end at a chunk of
// leastGap, or of more where that would be too many.
func dataRuns(ctx context.Context, disk *os.File, size int64) ([]run, error) {
	chunk := max(leastGap, (size/maxRuns/leastGap+1)*leastGap)
	var runs []run
	buf := make([]byte, leastGap)
	for at := int64(0); at < size; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		next, err := nextData(disk, at, size)
		if err != nil {
			return nil, err
		}
		if at = next / chunk * chunk; at >= size {
			break
		}
		length := min(chunk, size-at)
		zero, err := allZero(disk, at, length, buf)
		if err != nil {
			return nil, err
		}
		switch last := len(runs) - 1; {
		case zero:
		case last >= 0 && runs[last].from+runs[last].size == at:
			runs[last].size += length
		default:
			runs = append(runs, run{at, length})
		}
		at += length
	}
	return runs, nil
}

// nextData returns where at or after at the next byte is that is in no hole, or
// size. Where the file system does not know, it is at itself.
func nextData(disk *os.File, at, size int64) (int64, error) {
	next, err := unix.Seek(int(disk.Fd()), at, seekData)
	switch {
	case errors.Is(err, unix.ENXIO):
		return size, nil
	case err != nil:
		return at, nil
	}
	return max(at, next), nil
}

// allZero reads a part of a disk until something is not zero.
func allZero(disk *os.File, at, size int64, buf []byte) (bool, error) {
	for size > 0 {
		part := buf[:min(size, int64(len(buf)))]
		if _, err := disk.ReadAt(part, at); err != nil {
			return false, changed(err)
		}
		for _, b := range part {
			if b != 0 {
				return false, nil
			}
		}
		at, size = at+int64(len(part)), size-int64(len(part))
	}
	return true, nil
}

// changed is the error of a disk that became shorter meanwhile.
func changed(err error) error {
	if errors.Is(err, io.EOF) {
		return safefs.ErrChanged
	}
	return err
}

// An archiver writes a tar. The standard library's writer knows no sparse
// files, and these are all that there is here. After an error it does nothing.
type archiver struct {
	ctx context.Context
	w   io.Writer
	err error
}

func (a *archiver) write(b []byte) {
	if a.err == nil {
		_, a.err = a.w.Write(b)
	}
}

// small writes a member with these contents.
func (a *archiver) small(name string, data []byte) {
	a.header(name, '0', int64(len(data)))
	a.write(data)
	a.pad(int64(len(data)))
}

// sparse writes a file with holes, in the form of PAX that GNU tar has called
// 1.0: a list of the runs of data, and then the data.
func (a *archiver) sparse(name string, f *os.File, size int64, runs []run) {
	list := fmt.Appendf(nil, "%d\n", len(runs)+1)
	data := int64(0)
	for _, r := range runs {
		list = fmt.Appendf(list, "%d\n%d\n", r.from, r.size)
		data += r.size
	}
	list = fmt.Appendf(list, "%d\n0\n", size) // so that a hole at the end is not lost
	list = append(list, make([]byte, padding(int64(len(list))))...)
	extended := paxRecord("GNU.sparse.major", "1") + paxRecord("GNU.sparse.minor", "0") + paxRecord("GNU.sparse.name", name) +
		paxRecord("GNU.sparse.realsize", strconv.FormatInt(size, 10)) + paxRecord("size", strconv.FormatInt(int64(len(list))+data, 10))
	a.header("PaxHeaders.0/"+name, 'x', int64(len(extended)))
	a.write([]byte(extended))
	a.pad(int64(len(extended)))
	a.header("GNUSparseFile.0/"+name, '0', int64(len(list))+data)
	a.write(list)
	for _, r := range runs {
		a.copy(f, r)
	}
	a.pad(data)
}

// copy writes a run of a file.
func (a *archiver) copy(f *os.File, r run) {
	buf := make([]byte, chunkSize)
	for a.err == nil && r.size > 0 {
		if a.err = a.ctx.Err(); a.err != nil {
			return
		}
		part := buf[:min(r.size, int64(len(buf)))]
		if _, err := f.ReadAt(part, r.from); err != nil {
			a.err = changed(err)
			return
		}
		a.write(part)
		r.from, r.size = r.from+int64(len(part)), r.size-int64(len(part))
	}
}

func (a *archiver) pad(size int64) { a.write(make([]byte, padding(size))) }

// padding is what fills up the last block.
func padding(size int64) int64 { return (sector - size%sector) % sector }

// paxRecord is a record of an extended header, whose length counts itself.
func paxRecord(key, value string) string {
	rest := " " + key + "=" + value + "\n"
	length := len(rest)
	for len(strconv.Itoa(length))+len(rest) != length {
		length = len(strconv.Itoa(length)) + len(rest)
	}
	return strconv.Itoa(length) + rest
}

// header writes the header of a member, which is nobody's and of no time.
func (a *archiver) header(name string, kind byte, size int64) {
	b := make([]byte, sector)
	copy(b, name)
	copy(b[100:], "0000644\x00")
	copy(b[108:], "0000000\x00")
	copy(b[116:], "0000000\x00")
	if size < 1<<33 {
		copy(b[124:], fmt.Sprintf("%011o\x00", size))
	} else {
		// The extended header has the size as well.
		b[124] = 0x80
		for i, left := 135, size; i > 124 && left > 0; i, left = i-1, left>>8 {
			b[i] = byte(left)
		}
	}
	copy(b[136:], "00000000000\x00")
	copy(b[148:], "        ")
	b[156] = kind
	copy(b[257:], "ustar\x0000")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	a.write(b)
}
