package wire

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"
)

// Window is how many bytes of a stream may be on their way, or waiting to be read.
const Window = 64 << 10

// ErrStopped says that nobody reads the stream any more.
var ErrStopped = errors.New("the other side does not read any more")

// An Outlet is the end of a stream at which bytes go in. It keeps what the other
// side has not read yet, Window at most, so that another session can go on where
// one was cut off. Only one goroutine may Write at a time.
type Outlet struct {
	mu      sync.Mutex
	changed sync.Cond // any of what follows
	buf     []byte    // not read by the other side
	base    int64     // the stream's offset of buf[0]
	sent    int64     // offset: what was sent in this binding
	eof     bool      // nothing follows
	told    bool      // the other side knows that
	err     error     // why nothing can be written any more
	late    bool      // the deadline is over
	timer   *time.Timer
	call    *Call // that carries it now; nil: none, and Write waits
	stream  uint8
}

// NewOutlet returns an Outlet that nothing carries yet.
func NewOutlet() *Outlet {
	o := &Outlet{}
	o.changed.L = &o.mu
	return o
}

// Write implements io.Writer. It waits while the window is full.
func (o *Outlet) Write(p []byte) (n int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		switch {
		case o.err != nil:
			return n, o.err
		case o.eof:
			return n, io.ErrClosedPipe
		case len(p) == 0:
			return n, nil
		case o.late:
			return n, os.ErrDeadlineExceeded
		}
		if room := min(Window-len(o.buf), len(p)); room > 0 {
			o.buf = append(o.buf, p[:room]...)
			n, p = n+room, p[room:]
			o.changed.Broadcast()
			continue
		}
		o.changed.Wait()
	}
}

// Close says that nothing follows. What was written is still sent.
func (o *Outlet) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.eof = true
	o.changed.Broadcast()
	return nil
}

// Fail has every Write fail from now on, and drops what was not sent.
func (o *Outlet) Fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.err, o.buf = err, nil
	}
	o.changed.Broadcast()
}

// Drained waits until the other side has been told all that there is by this call,
// or never will be.
func (o *Outlet) Drained(c *Call) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.err == nil && !o.told && o.call == c {
		o.changed.Wait()
	}
}

// Kept returns the offset from which on the stream can be bound again.
func (o *Outlet) Kept() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.base
}

// SetDeadline has a Write that waits then fail with os.ErrDeadlineExceeded. Zero:
// none.
func (o *Outlet) SetDeadline(t time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	expire(&o.timer, &o.late, &o.mu, &o.changed, t)
}

// expire sets a deadline's timer. The caller holds mu.
func expire(timer **time.Timer, late *bool, mu *sync.Mutex, changed *sync.Cond, t time.Time) {
	if *timer != nil {
		(*timer).Stop()
		*timer = nil
	}
	*late = !t.IsZero() && !t.After(time.Now())
	changed.Broadcast()
	if t.IsZero() || *late {
		return
	}
	var own *time.Timer
	own = time.AfterFunc(time.Until(t), func() {
		mu.Lock()
		defer mu.Unlock()
		if *timer == own {
			*late = true
			changed.Broadcast()
		}
	})
	*timer = own
}

// Bind has a call carry the stream from an offset on, which the other side has
// read up to.
//
// Errors: an error if that part is not kept.
func (o *Outlet) Bind(c *Call, stream uint8, offset int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if offset < o.base || offset > o.base+int64(len(o.buf)) {
		return errors.New("the stream can't go on there")
	}
	o.trim(offset)
	o.call, o.stream, o.sent, o.told = c, stream, offset, false
	o.changed.Broadcast()
	// Without a session it stays as it is.
	_ = c.mux.Go(func() { o.carry(c) })
	return nil
}

// unbind lets go of the call. A stream that is not kept fails.
func (o *Outlet) unbind(c *Call, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.call != c && o.call != nil {
		return
	}
	o.call = nil
	if err != nil && o.err == nil {
		o.err, o.buf = err, nil
	}
	o.changed.Broadcast()
}

// carry sends what comes in, as long as the call carries it.
func (o *Outlet) carry(c *Call) {
	var chunk []byte
	for {
		o.mu.Lock()
		for o.call == c && o.err == nil && o.sent == o.base+int64(len(o.buf)) && !o.eof {
			o.changed.Wait()
		}
		if o.call != c || o.err != nil {
			o.mu.Unlock()
			return
		}
		at := int(o.sent - o.base)
		chunk = append(chunk[:0], o.buf[at:min(len(o.buf), at+MaxBody)]...)
		o.sent += int64(len(chunk))
		stream := o.stream
		o.mu.Unlock()

		frame := &Frame{Kind: KindData, Call: c.id, Stream: stream, Body: chunk}
		if len(chunk) == 0 {
			frame.Kind = KindEOF
		}
		if c.mux.send(context.Background(), frame) != nil {
			return
		}
		if frame.Kind == KindEOF {
			o.mu.Lock()
			o.told = o.call == c
			o.changed.Broadcast()
			o.mu.Unlock()
			return
		}
	}
}

// consumed notes how far the other side has read.
func (o *Outlet) consumed(offset int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if offset < o.base || offset > o.sent {
		if o.err != nil {
			return nil
		}
		return errors.New("it has read what was not sent")
	}
	o.trim(offset)
	o.changed.Broadcast()
	return nil
}

// trim drops what the other side has read. The caller holds mu.
func (o *Outlet) trim(offset int64) {
	if o.err != nil {
		return
	}
	o.buf = o.buf[:copy(o.buf, o.buf[offset-o.base:])]
	o.base = offset
	if len(o.buf) == 0 {
		// Streams that are quiet cost nothing.
		o.buf = nil
	}
}
