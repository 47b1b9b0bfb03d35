package tasklog

import (
	"io"
	"os"
	"strconv"
	"time"

	"github.com/caissonrun/caisson"
)

// A Writer appends records to a log file. One process writes a log at a time.
// Its methods may not be called concurrently.
type Writer struct {
	file    *os.File
	end     int64    // where the next record goes
	offsets [4]int64 // by stream: bytes so far, lost ones included

	limit   int64 // of written; 0: none
	written int64 // output bytes in the log
	over    bool  // the limit's marker was written

	lost     int64 // bytes that could not be written, not yet told in the log
	allLost  int64 // bytes that could not be written, ever
	lostWhy  error
	buf      []byte
	unsynced bool
}

// Create opens the log for appending and makes it if need be, mode 0600. A
// torn last record of a writer that was killed is cut off. After limit bytes
// of output (0: no limit) the rest is dropped and a System record says so
// once. What an existing log holds counts.
//
// Errors: ErrInvalid if path is a file but not a log.
func Create(path string, limit caisson.Bytes) (*Writer, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	w := &Writer{file: file, limit: int64(limit)}
	if err := w.open(path); err != nil {
		file.Close()
		return nil, err
	}
	return w, nil
}

// open takes up the log where its last writer left it.
func (w *Writer) open(path string) error {
	size, err := w.file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if size < int64(len(Header)) {
		return w.begin(path, size)
	}
	if err := w.scan(path); err != nil {
		return err
	}
	if w.end < size {
		return w.file.Truncate(w.end)
	}
	return nil
}

// begin writes the header. A shorter beginning of it is a torn one.
func (w *Writer) begin(path string, size int64) error {
	var start [len(Header)]byte
	if _, err := w.file.ReadAt(start[:size], 0); err != nil {
		return err
	}
	if string(start[:size]) != Header[:size] {
		return invalid(path, "not a log")
	}
	if _, err := w.file.WriteAt([]byte(Header), 0); err != nil {
		return err
	}
	w.end = int64(len(Header))
	w.unsynced = true
	return nil
}

// scan reads the records that the log has and finds the end of the last whole
// one.
func (w *Writer) scan(path string) error {
	r := Reader{file: w.file, path: path}
	for {
		h, rec, err := r.next()
		if err == io.EOF || caisson.KindOf(err) == caisson.ErrInternal {
			// What follows a damaged record can't be found any more.
			w.end = r.pos
			return nil
		}
		if err != nil {
			return err
		}
		w.offsets[h.stream] = h.offset + int64(h.length)
		if h.stream != System {
			w.written += int64(len(rec.Data))
		}
		w.over = w.over || h.flags&flagLimit != 0
	}
}

// Write appends one record, or several if data is large. It keeps no
// reference to data.
//
// An error means that a part of data is lost for the log, for instance because
// the disk is full. The log stays whole, later writes may succeed again, and
// the first that does is preceded by a System record that tells how much was
// lost.
func (w *Writer) Write(stream Stream, now time.Time, data []byte) error {
	var first error
	for len(data) > 0 {
		part := data[:min(len(data), MaxData)]
		data = data[len(part):]
		if err := w.write(stream, now, part); err != nil && first == nil {
			first = err
		}
	}
	return first
}

func (w *Writer) write(stream Stream, now time.Time, data []byte) error {
	if stream == System {
		return w.append(now, head{stream: System}, data)
	}
	if w.limit > 0 && w.written+int64(len(data)) > w.limit {
		return w.writeLast(stream, now, data)
	}
	return w.append(now, head{stream: stream}, data)
}

// writeLast writes what the limit leaves of data, and the marker.
func (w *Writer) writeLast(stream Stream, now time.Time, data []byte) error {
	if w.over {
		w.offsets[stream] += int64(len(data))
		return nil
	}
	fits := max(w.limit-w.written, 0)
	if fits > 0 {
		if err := w.append(now, head{stream: stream}, data[:fits]); err != nil {
			w.offsets[stream] += int64(len(data)) - fits
			return err
		}
	}
	w.offsets[stream] += int64(len(data)) - fits
	text := "log limit of " + caisson.Bytes(w.limit).String() + " reached: further output is dropped\n"
	err := w.append(now, head{stream: System, flags: flagLimit}, []byte(text))
	w.over = err == nil
	return err
}

// append writes one record, after one that tells of earlier losses if there
// were any. Both are one write, so that a reader seldom sees a part.
func (w *Writer) append(now time.Time, h head, data []byte) error {
	h.time = now.UnixNano()
	w.buf = w.buf[:0]
	said := w.offsets[System]
	if w.lost > 0 {
		said += w.appendLost(h.time)
	}
	h.offset = w.offsets[h.stream]
	if h.stream == System {
		h.offset = said
		said += int64(len(data))
	} else {
		w.offsets[h.stream] += int64(len(data))
	}
	w.buf = appendRecord(w.buf, h, data)

	if err := w.flush(); err != nil {
		w.lose(h.stream, len(data), err)
		return err
	}
	w.offsets[System] = said
	if h.stream != System {
		w.written += int64(len(data))
	}
	return nil
}

// appendLost adds the record that tells of losses to the buffer and returns
// how long its text is.
func (w *Writer) appendLost(now int64) int64 {
	text := strconv.FormatInt(w.lost, 10) + " bytes of output were lost: " + w.lostWhy.Error() + "\n"
	w.buf = appendRecord(w.buf, head{stream: System, time: now, offset: w.offsets[System]}, []byte(text))
	return int64(len(text))
}

// flush writes the buffer to the end of the log, whole or not at all.
func (w *Writer) flush() error {
	if _, err := w.file.WriteAt(w.buf, w.end); err != nil {
		// Where the cut fails, the next record overwrites the torn one.
		_ = w.file.Truncate(w.end)
		return err
	}
	w.end += int64(len(w.buf))
	w.unsynced = true
	w.lost = 0
	return nil
}

// lose counts output that could not be written.
func (w *Writer) lose(stream Stream, n int, err error) {
	if stream == System {
		return
	}
	w.lost += int64(n)
	w.allLost += int64(n)
	w.lostWhy = cause(err)
}

// cause takes the path out of an error, since the log is for the task's owner.
func cause(err error) error {
	if pe, ok := err.(*os.PathError); ok {
		return pe.Err
	}
	return err
}

// Lost returns how many bytes of output could not be written, and why the last
// of them could not. What the limit dropped is not among them.
func (w *Writer) Lost() (int64, error) { return w.allLost, w.lostWhy }

// Offset returns how many bytes of a stream there were so far, those that are
// not in the log included.
func (w *Writer) Offset(stream Stream) int64 { return w.offsets[stream] }

// Full reports whether the limit was reached.
func (w *Writer) Full() bool { return w.over }

// Sync tells of losses that the log does not tell of yet, if there is space
// again, and makes what was written durable. It does nothing if that is so
// already.
func (w *Writer) Sync() error {
	if w.lost > 0 {
		w.buf = w.buf[:0]
		said := w.appendLost(time.Now().UnixNano())
		if err := w.flush(); err != nil {
			return err
		}
		w.offsets[System] += said
	}
	if !w.unsynced {
		return nil
	}
	err := w.file.Sync()
	w.unsynced = err != nil
	return err
}

// Close closes the file.
func (w *Writer) Close() error { return w.file.Close() }
