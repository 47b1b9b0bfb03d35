package wire

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"
)

// errOverrun says that a side has sent more than it may.
var errOverrun = errors.New("more was sent than the window permits")

// An Inlet is the end of a stream at which bytes come out.
type Inlet struct {
	call   *Call
	stream uint8

	mu      sync.Mutex
	changed sync.Cond
	buf     []byte
	read    int64 // offset: taken by Read
	got     int64 // offset: arrived
	told    int64 // what of read the other side knows
	eof     bool
	closed  bool
	err     error // in place of an end of file
	late    bool
	timer   *time.Timer
}

func newInlet(c *Call, stream uint8) *Inlet {
	i := &Inlet{call: c, stream: stream}
	i.changed.L = &i.mu
	return i
}

// Read implements io.Reader.
func (i *Inlet) Read(p []byte) (int, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for {
		switch {
		case i.closed:
			return 0, io.ErrClosedPipe
		case len(i.buf) > 0:
			n := copy(p, i.buf)
			i.take(n)
			return n, nil
		case i.eof:
			return 0, io.EOF
		case i.err != nil:
			return 0, i.err
		case len(p) == 0:
			return 0, nil
		case i.late:
			return 0, os.ErrDeadlineExceeded
		}
		i.changed.Wait()
	}
}

// take removes n bytes, and has the other side told where that opens the window
// by a good part. The caller holds mu.
func (i *Inlet) take(n int) {
	i.buf = i.buf[n:]
	if len(i.buf) == 0 {
		i.buf = nil
	}
	i.read += int64(n)
	if i.read-i.told >= Window/4 || len(i.buf) == 0 && i.read-i.told >= Window/16 {
		i.told = i.read
		i.call.mux.tell(i)
	}
}

// Offset returns how many bytes were read.
func (i *Inlet) Offset() int64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.read
}

// Close says that nothing more is read.
func (i *Inlet) Close() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.closed {
		i.closed, i.buf = true, nil
		if !i.eof && i.err == nil {
			i.call.mux.tell(i)
		}
	}
	i.changed.Broadcast()
	return nil
}

// SetDeadline has a Read that waits then fail with os.ErrDeadlineExceeded. Zero:
// none.
func (i *Inlet) SetDeadline(t time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	expire(&i.timer, &i.late, &i.mu, &i.changed, t)
}

// news returns the frame that tells the other side what it is to know.
func (i *Inlet) news() *Frame {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return &Frame{Kind: KindStop, Call: i.call.id, Stream: i.stream}
	}
	return &Frame{Kind: KindConsumed, Call: i.call.id, Stream: i.stream, Body: offsetBody(i.told)}
}

// add takes what has arrived.
func (i *Inlet) add(p []byte) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.got += int64(len(p)); i.got-i.told > Window {
		return errOverrun
	}
	if i.eof {
		return errors.New("a stream goes on after its end")
	}
	if !i.closed {
		i.buf = append(i.buf, p...)
		i.changed.Broadcast()
	}
	return nil
}

// end notes that nothing more arrives. Nil is a regular end.
func (i *Inlet) end(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.err == nil && !i.eof {
		i.eof, i.err = err == nil, err
	}
	i.changed.Broadcast()
}
