package tasklog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/caissonrun/caisson"
)

// readSize is how much a Reader reads at once: the largest record and some
// small ones.
const readSize = 2 * (headSize + MaxData)

// A Reader reads records, also while they are written. Its methods may not be
// called concurrently.
type Reader struct {
	file *os.File
	path string
	pos  int64  // of the next record
	buf  []byte // what was read of the file
	data []byte // the part of buf from pos on
}

// Open opens a log at pos, 0 or a Record.Pos.
//
// Errors: ErrNotFound if there is no log.
func Open(path string, pos int64) (*Reader, error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, &caisson.Error{Item: path, Kind: caisson.ErrNotFound, Err: errors.New("no such log")}
	}
	if err != nil {
		return nil, err
	}
	return &Reader{file: file, path: path, pos: pos}, nil
}

// Next returns the next record, or io.EOF where there is none yet: it may be
// called again later. The record's data belongs to the caller.
//
// Errors: ErrInvalid if the file is not a log or is of a newer version;
// ErrInternal if there is no record at that place: the log is damaged, or pos
// was not a Record.Pos.
func (r *Reader) Next() (Record, error) {
	_, rec, err := r.next()
	if err != nil {
		return Record{}, err
	}
	rec.Data = append([]byte(nil), rec.Data...)
	return rec, nil
}

// next is Next with the data still in the buffer.
func (r *Reader) next() (head, Record, error) {
	if r.pos < int64(len(Header)) {
		if err := r.skipHeader(); err != nil {
			return head{}, Record{}, err
		}
	}
	// What is read while the writer replaces a torn record is neither of the
	// two, so only what stays wrong is damage.
	for range 3 {
		h, rec, err := r.parse()
		if err != errDamaged {
			return h, rec, err
		}
		r.data = nil
	}
	return head{}, Record{}, &caisson.Error{
		Item: r.path, Kind: caisson.ErrInternal,
		Err: fmt.Errorf("log is damaged at byte %d", r.pos),
	}
}

var errDamaged = errors.New("damaged")

// parse reads the record at pos.
func (r *Reader) parse() (head, Record, error) {
	if err := r.fill(headSize); err != nil {
		return head{}, Record{}, err
	}
	h, ok := parseHead(r.data)
	if !ok {
		return head{}, Record{}, r.damaged(headSize)
	}
	size := headSize + h.length
	if err := r.fill(size); err != nil {
		return head{}, Record{}, err
	}
	// More may have been read, and then a torn record may have been replaced.
	if again, _ := parseHead(r.data); again != h {
		return head{}, Record{}, errDamaged
	}
	if sum(r.data, r.data[headSize:size]) != h.sum {
		return head{}, Record{}, r.damaged(size)
	}
	rec := Record{
		Stream: h.stream,
		Time:   time.Unix(0, h.time),
		Offset: h.offset,
		Data:   r.data[headSize:size:size],
		Pos:    r.pos + int64(size),
	}
	r.data = r.data[size:]
	r.pos = rec.Pos
	return h, rec, nil
}

// skipHeader checks and passes the file's header.
func (r *Reader) skipHeader() error {
	r.pos, r.data = 0, nil
	if err := r.fill(len(Header)); err != nil {
		return err
	}
	if string(r.data[:len(Header)]) != Header {
		return invalid(r.path, "not a log that this version can read")
	}
	r.data = r.data[len(Header):]
	r.pos = int64(len(Header))
	return nil
}

// fill has at least n bytes from pos on in r.data. Where the file has fewer
// it returns io.EOF and forgets them, since a torn record may be replaced.
func (r *Reader) fill(n int) error {
	if len(r.data) >= n {
		return nil
	}
	if r.buf == nil {
		r.buf = make([]byte, readSize)
	}
	got, err := r.file.ReadAt(r.buf, r.pos)
	if err != nil && err != io.EOF {
		r.data = nil
		return err
	}
	r.data = r.buf[:got]
	if got < n {
		r.data = nil
		return io.EOF
	}
	return nil
}

// damaged returns io.EOF if what can't be a record, of size bytes, is the end
// of the file, as it may be when the writer or the host died, and errDamaged
// otherwise.
func (r *Reader) damaged(size int) error {
	zeros := bytes.Count(r.data[:headSize], []byte{0}) == headSize
	r.data = nil
	info, err := r.file.Stat()
	if err != nil {
		return err
	}
	if zeros || info.Size() <= r.pos+int64(size) {
		return io.EOF
	}
	return errDamaged
}

// Close closes the file.
func (r *Reader) Close() error { return r.file.Close() }
