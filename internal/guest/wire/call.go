package wire

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
)

// maxNotes is how many answers to a call may wait to be read.
const maxNotes = 16

// Streams is how many streams a call can have.
const Streams = 3

// A Call is one call of a session, at either side. Whoever opened it waits for
// answers; the other side gives them. Its streams work until its end.
type Call struct {
	mux *Mux
	id  uint32
	own bool // this side opened it

	Request Request // of a call that the other side has opened
	// In and Out are the call's streams, by number; nil where Shapes gives it none in
	// that direction.
	In    [Streams]*Inlet
	Out   [Streams]*Outlet
	notes chan note
	over  chan struct{} // closed when nothing more can be answered or heard

	mu      sync.Mutex
	part    []byte // of a message that is not whole yet
	partEnd bool
	ended   bool
	packets func(body []byte)
	kept    bool // its outlets outlive it
}

type note struct {
	end  bool
	body []byte
}

// ErrEnded is what a stream that was not ended ends with when its call has.
var ErrEnded = errors.New("the call has ended")

// offsetBody is the body of a KindConsumed.
func offsetBody(offset int64) []byte {
	return binary.LittleEndian.AppendUint64(nil, uint64(offset))
}

// newCall makes a call with the streams of its shape; one without outlets of its
// own gets none that way.
func newCall(m *Mux, id uint32, own bool, request Request) *Call {
	c := &Call{
		mux: m, id: id, own: own, Request: request,
		notes: make(chan note, maxNotes), over: make(chan struct{}),
	}
	shape := Shapes[request.Op]
	for n := range Streams {
		if shape.toOpener(n) && own || shape.fromOpener(n) && !own {
			c.In[n] = newInlet(c, uint8(n))
		}
		if shape.toOpener(n) && !own && !shape.Carried || shape.fromOpener(n) && own {
			c.Out[n] = NewOutlet()
		}
	}
	return c
}

// begin has the call's outlets carried from their beginning, those that are there.
func (c *Call) begin() {
	for n, o := range c.Out {
		if o != nil {
			_ = o.Bind(c, uint8(n), 0)
		}
	}
}

// Carry has the call carry an outlet from an offset on, as Outlet.Bind says: what a
// call that this side serves has in place of an outlet of its own. It is called by
// MuxOptions.Serve.
func (c *Call) Carry(stream int, o *Outlet, offset int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return ErrEnded
	}
	if err := o.Bind(c, uint8(stream), offset); err != nil {
		return err
	}
	c.Out[stream] = o
	return nil
}

// Next returns the next answer, and whether it is the last one.
//
// Errors: that of the answer, which is then the last; the context's, which leaves
// the call as it is; ErrSession if the session has ended.
func (c *Call) Next(ctx context.Context) (body []byte, last bool, err error) {
	select {
	case n := <-c.notes:
		return c.read(n)
	default:
	}
	select {
	case n := <-c.notes:
		return c.read(n)
	case <-ctx.Done():
		return nil, false, ctx.Err()
	case <-c.over:
	}
	// What came before the end counts.
	select {
	case n := <-c.notes:
		return c.read(n)
	default:
	}
	if err := c.mux.Why(); err != nil {
		return nil, true, err
	}
	return nil, true, ErrEnded
}

// read returns what an answer says. One that can't be read ends the session.
func (c *Call) read(n note) (body []byte, last bool, err error) {
	var a Answer
	if err := json.Unmarshal(n.body, &a); err != nil {
		c.mux.Stop(fmt.Errorf("an answer that can't be read: %q", cut(string(n.body))))
		return nil, true, c.mux.Why()
	}
	if a.Error != nil {
		return nil, true, a.Error
	}
	return a.Result, n.end, nil
}

// Context returns a context that ends with the call.
func (c *Call) Context() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		select {
		case <-c.over:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// Over is closed when the call has ended, was given up, or its session has ended.
func (c *Call) Over() <-chan struct{} { return c.over }

// Note gives an answer that is not the last.
func (c *Call) Note(result any) error { return c.answer(KindNote, result, nil) }

// End gives the last answer. The call's streams end, after what was written to
// them if that is drained.
func (c *Call) End(result any, failure error) error {
	err := c.answer(KindEnd, result, failure)
	c.finish(ErrEnded)
	return err
}

// Refuse gives the last answer at once, without waiting: an error that fits into a
// frame.
func (c *Call) Refuse(failure error) error {
	data, err := json.Marshal(Answer{Error: NewFailure(failure)})
	if err == nil && c.finish(ErrEnded) {
		c.mux.putAside(&Frame{Kind: KindEnd, Call: c.id, Body: data})
	}
	return err
}

func (c *Call) answer(kind Kind, result any, failure error) error {
	a := Answer{Error: NewFailure(failure)}
	if failure == nil && result != nil {
		data, err := json.Marshal(result)
		if err != nil {
			return err
		}
		a.Result = data
	}
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return c.mux.message(context.Background(), kind, c.id, data)
}

// Cancel gives the call up: the other side stops what it does for it.
func (c *Call) Cancel() {
	if c.finish(ErrEnded) {
		c.mux.putAside(&Frame{Kind: KindCancel, Call: c.id})
	}
}

// Keep has the call's outlets outlive it, to be bound to another one.
func (c *Call) Keep() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = true
}

// Datagrams has take called for what arrives outside of the streams; before, it is
// dropped. Take must not wait, nor keep the body.
func (c *Call) Datagrams(take func(body []byte)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.packets = take
}

// Datagram sends one datagram, which is lost if the session is busy.
func (c *Call) Datagram(body []byte) {
	if len(body) <= MaxBody {
		c.mux.trySend(&Frame{Kind: KindDatagram, Call: c.id, Body: append([]byte(nil), body...)})
	}
}

// finish ends the call at this side, once, and reports whether it did.
func (c *Call) finish(err error) bool {
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		return false
	}
	c.ended = true
	kept, outlets := c.kept, c.Out
	c.mu.Unlock()
	c.mux.forget(c)
	close(c.over)
	for n := range Streams {
		if in := c.In[n]; in != nil {
			in.end(err)
		}
		if out := outlets[n]; out != nil && kept {
			out.unbind(c, nil)
		} else if out != nil {
			out.unbind(c, err)
		}
	}
	return true
}

// take handles a frame of the call. An error ends the session.
func (c *Call) take(f *Frame) error {
	if f.Stream >= Streams {
		return fmt.Errorf("stream %d", f.Stream)
	}
	switch f.Kind {
	case KindNote, KindEnd:
		if !c.own {
			return errors.New("an answer to a call of its own")
		}
		return c.heard(f)
	case KindCancel:
		if c.own {
			return errors.New("it gives up a call that it has not made")
		}
		c.finish(ErrEnded)
	case KindData, KindEOF:
		in := c.In[f.Stream]
		if in == nil {
			return fmt.Errorf("bytes of stream %d, which the call does not have", f.Stream)
		}
		if f.Kind == KindEOF {
			in.end(nil)
			return nil
		}
		return in.add(f.Body)
	case KindConsumed, KindStop:
		return c.progress(f)
	case KindDatagram:
		c.mu.Lock()
		take := c.packets
		c.mu.Unlock()
		if take != nil {
			take(f.Body)
		}
	default:
		return fmt.Errorf("a frame of kind %d within a call", f.Kind)
	}
	return nil
}

// progress handles what the other side says about its reading.
func (c *Call) progress(f *Frame) error {
	out := c.Out[f.Stream]
	switch {
	case out == nil:
		return fmt.Errorf("it reads stream %d, which the call does not have", f.Stream)
	case f.Kind == KindStop:
		out.Fail(ErrStopped)
		return nil
	case len(f.Body) != 8:
		return errors.New("an offset of the wrong size")
	}
	return out.consumed(int64(binary.LittleEndian.Uint64(f.Body) &^ (1 << 63)))
}

// heard takes an answer, or a part of one.
func (c *Call) heard(f *Frame) error {
	if len(c.part) > 0 && c.partEnd != (f.Kind == KindEnd) || len(c.part)+len(f.Body) > c.mux.opts.MaxMessage {
		return errors.New("an answer that is too large, or not whole")
	}
	c.part, c.partEnd = append(c.part, f.Body...), f.Kind == KindEnd
	if f.More {
		return nil
	}
	n := note{end: c.partEnd, body: c.part}
	c.part = nil
	select {
	case c.notes <- n:
	default:
		return errors.New("more answers than anybody reads")
	}
	if n.end {
		c.finish(ErrEnded)
	}
	return nil
}
