//go:build unix

package safefs

import (
	"bytes"
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// sparseBlock is how long a run of zeros must at least be to become a hole, and
// how its beginning is aligned: the usual block of a file system.
const sparseBlock = 4096

var zeros [sparseBlock]byte

// CopySparse copies src to the empty file dst; blocks of zeros become holes. It
// returns how many bytes src had.
func CopySparse(dst *os.File, src io.Reader) (int64, error) { return copySparse(dst, src) }

// copySparse copies src to the empty file dst; blocks of zeros become holes.
func copySparse(dst *os.File, src io.Reader) (int64, error) {
	buf := make([]byte, 32*sparseBlock)
	var size int64
	for {
		n, err := io.ReadFull(src, buf)
		if _, writeErr := WriteSparse(dst, buf[:n], size); writeErr != nil {
			return size, writeErr
		}
		size += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return size, dst.Truncate(size)
		}
		if err != nil {
			return size, err
		}
	}
}

// WriteSparse writes data at offset, where dst has nothing yet, but for the
// blocks that are all zeros. It returns how many bytes it has written.
func WriteSparse(dst *os.File, data []byte, offset int64) (written int64, err error) {
	for len(data) > 0 {
		run := 0
		for run < len(data) && !allZero(data[run:]) {
			run = min(run+sparseBlock, len(data))
		}
		if run > 0 {
			n, err := dst.WriteAt(data[:run], offset)
			if written += int64(n); err != nil {
				return written, err
			}
		}
		next := min(run+sparseBlock, len(data))
		data, offset = data[next:], offset+int64(next)
	}
	return written, nil
}

// allZero reports whether the first block of data is.
func allZero(data []byte) bool {
	block := data[:min(sparseBlock, len(data))]
	return bytes.Equal(block, zeros[:len(block)])
}

// Chtimes sets the time of last change of name itself. A time that the system
// does not have, and the zero time, change nothing.
func (r *Root) Chtimes(name string, t time.Time) error {
	ts, err := unix.TimeToTimespec(t)
	if err != nil || t.IsZero() {
		return nil
	}
	place, err := r.openParentOrRoot("utimes", name)
	if err != nil {
		return err
	}
	defer unix.Close(place.fd)
	err = unix.UtimesNanoAt(place.fd, place.base, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	return pathErr("utimes", name, err)
}
