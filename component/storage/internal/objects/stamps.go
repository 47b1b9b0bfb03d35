package objects

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// V.rows says when rows were changed, in microseconds since 1970, in the order
// of the rows. It is pairs of variable-length integers: how many rows, and the
// difference to the time before. A load makes one pair, wherever its rows lie
// together.

// stampsMark begins V.rows.
const stampsMark = "caisson rows 1\n"

// A stampWriter writes the times of rows to what create makes, if they differ.
type stampWriter struct {
	create func() (io.Writer, error)
	w      *bufio.Writer // nil while all are the same
	stamp  int64
	rows   int64 // of stamp
	last   int64 // that was written
}

func (s *stampWriter) add(stamp, rows int64) error {
	if stamp == s.stamp || s.rows == 0 {
		s.stamp = stamp
		s.rows += rows
		return nil
	}
	if err := s.flush(); err != nil {
		return err
	}
	s.stamp, s.rows = stamp, rows
	return nil
}

func (s *stampWriter) flush() error {
	if s.w == nil {
		w, err := s.create()
		if err != nil {
			return err
		}
		s.w = bufio.NewWriter(w)
		if _, err := s.w.WriteString(stampsMark); err != nil {
			return err
		}
	}
	pair := binary.AppendUvarint(nil, uint64(s.rows))
	pair = binary.AppendVarint(pair, s.stamp-s.last)
	s.last = s.stamp
	_, err := s.w.Write(pair)
	return err
}

// finish reports whether the times of rows differ; if not, stamp is that of all.
func (s *stampWriter) finish() (bool, error) {
	if s.w == nil {
		return false, nil
	}
	if err := s.flush(); err != nil {
		return true, err
	}
	return true, s.w.Flush()
}

// A stampReader answers the time of one row after the other. Without r it is
// always stamp.
type stampReader struct {
	r     *bufio.Reader
	stamp int64
	left  uint64
}

func newStampReader(r io.Reader) (*stampReader, error) {
	s := &stampReader{r: bufio.NewReader(r)}
	mark := make([]byte, len(stampsMark))
	if _, err := io.ReadFull(s.r, mark); err != nil {
		return nil, noEOF(err)
	}
	if string(mark) != stampsMark {
		return nil, fmt.Errorf("the times of its rows begin with %q", mark)
	}
	return s, nil
}

func (s *stampReader) next() (int64, error) {
	if s.r == nil {
		return s.stamp, nil
	}
	for s.left == 0 {
		rows, err := binary.ReadUvarint(s.r)
		if err != nil {
			return 0, noEOF(err)
		}
		step, err := binary.ReadVarint(s.r)
		if err != nil {
			return 0, noEOF(err)
		}
		s.left, s.stamp = rows, s.stamp+step
	}
	s.left--
	return s.stamp, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
