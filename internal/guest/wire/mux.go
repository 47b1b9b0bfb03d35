package wire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
)

// ErrSession is part of every error that comes of a session's end.
var ErrSession = errors.New("the connection between host and guest has ended")

// agentIDs are the numbers of the calls that the agent makes.
const agentIDs = 1 << 31

// queue is how many frames may wait to be sent.
const queue = 16

// MuxOptions says how a side takes part in a session.
type MuxOptions struct {
	Agent bool // this side is the agent
	// MaxMessage bounds a request or an answer that arrives, in bytes.
	MaxMessage int
	// MaxCalls is how many calls of the other side's may be open. More are refused.
	MaxCalls int
	// Serve begins to serve a call of the other side's. It must not wait. Nil: none is
	// served.
	Serve func(c *Call)
	// Begin reads what comes before the session, once frames can be sent. Nil: nothing
	// does.
	Begin func(r *Reader) error
	// Greeting is called for greetings that arrive within the session; an error ends
	// it. It must not wait. Nil: they are an error.
	Greeting func(f *Frame) error
}

// A Mux is a session: many calls over one stream.
type Mux struct {
	opts MuxOptions
	w    io.Writer
	done chan struct{} // closed when the session has ended
	out  chan []byte
	news chan struct{} // there is something in unread or aside

	opening chan struct{} // held by who makes a call

	owned sync.WaitGroup // goroutines of the session

	mu     sync.Mutex
	err    error
	calls  map[uint32]*Call
	next   uint32 // the number of this side's next call
	last   uint32 // that of the other side's last one
	theirs int    // calls of the other side that are open
	part   *Frame // a request of which more is to come; its body is what there is
	unread map[*Inlet]struct{}
	aside  []*Frame // ends of calls, which whoever ends them does not wait with
}

// NewMux returns a session that Run serves; calls can be made at once.
func NewMux(w io.Writer, opts MuxOptions) *Mux {
	m := &Mux{
		opts: opts, w: w, done: make(chan struct{}), out: make(chan []byte, queue), news: make(chan struct{}, 1),
		opening: make(chan struct{}, 1),
		calls:   map[uint32]*Call{}, unread: map[*Inlet]struct{}{}, next: 1, last: agentIDs,
	}
	if opts.Agent {
		m.next, m.last = m.last+1, 0
	}
	return m
}

// Run serves the session until something of it breaks a rule, the stream ends, or
// Stop is called, and returns why. Abort has a Read and a Write that wait return.
// All goroutines of the session have ended when it returns, but those that wait for
// something of the outside.
func (m *Mux) Run(r *Reader, abort func()) error {
	m.Go(m.write)
	m.Go(func() {
		<-m.done
		abort()
	})
	if m.opts.Begin != nil {
		if err := m.opts.Begin(r); err != nil {
			m.Stop(err)
		}
	}
	for m.Why() == nil {
		f, err := r.Next()
		if err == nil {
			err = m.take(f)
		}
		if err != nil {
			m.Stop(err)
		}
	}
	m.owned.Wait()
	return m.Why()
}

// Go runs f as a goroutine of the session: one that ends with it. It reports
// whether there is a session still; otherwise f is not run.
func (m *Mux) Go(f func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return false
	}
	m.owned.Go(f)
	return true
}

// Done is closed when the session has ended.
func (m *Mux) Done() <-chan struct{} { return m.done }

// Stop ends the session, and its calls, for a reason; the first one counts.
func (m *Mux) Stop(why error) {
	m.mu.Lock()
	if m.err != nil {
		m.mu.Unlock()
		return
	}
	if errors.Is(why, ErrSession) {
		m.err = why
	} else {
		m.err = fmt.Errorf("%w: %w", ErrSession, why)
	}
	calls := m.calls
	m.calls = map[uint32]*Call{}
	close(m.done)
	m.mu.Unlock()
	for _, c := range calls {
		c.finish(m.err)
	}
}

// Why returns what the session has ended for, an ErrSession; nil while it has not.
func (m *Mux) Why() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// write sends what is to be sent.
func (m *Mux) write() {
	for {
		select {
		case <-m.done:
			return
		case <-m.news:
			list := m.collect()
			// What it is about was queued before, and has to arrive before.
			if !m.flush() {
				return
			}
			for _, f := range list {
				if !m.put(f.Append(nil)) {
					return
				}
			}
		case buf := <-m.out:
			if !m.put(buf) {
				return
			}
		}
	}
}

// flush sends what is queued now.
func (m *Mux) flush() bool {
	for range len(m.out) {
		if !m.put(<-m.out) {
			return false
		}
	}
	return true
}

func (m *Mux) put(buf []byte) bool {
	if _, err := m.w.Write(buf); err != nil {
		m.Stop(err)
		return false
	}
	return true
}

// collect returns what the other side is to know about reading and about calls that
// have ended.
func (m *Mux) collect() (list []*Frame) {
	m.mu.Lock()
	unread, aside := m.unread, m.aside
	m.unread, m.aside = map[*Inlet]struct{}{}, nil
	m.mu.Unlock()
	for i := range unread {
		list = append(list, i.news())
	}
	return append(list, aside...)
}

// tell has the other side be told what has become of an inlet. It does not wait,
// and may be called with the inlet's lock held.
func (m *Mux) tell(i *Inlet) {
	m.mu.Lock()
	if m.err == nil && m.calls[i.call.id] == i.call {
		m.unread[i] = struct{}{}
	}
	m.mu.Unlock()
	m.wake()
}

// maxAside is how many ends of calls may wait while the other side does not read.
const maxAside = 4096

// putAside has a frame sent without waiting.
func (m *Mux) putAside(f *Frame) {
	m.mu.Lock()
	full := len(m.aside) >= maxAside
	if m.err == nil && !full {
		m.aside = append(m.aside, f)
	}
	m.mu.Unlock()
	if full {
		m.Stop(errors.New("it does not read"))
	}
	m.wake()
}

func (m *Mux) wake() {
	select {
	case m.news <- struct{}{}:
	default:
	}
}

// send queues a frame. Besides ctx the session's end bounds it.
func (m *Mux) send(ctx context.Context, f *Frame) error {
	select {
	case m.out <- f.Append(nil):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-m.done:
		return m.Why()
	}
}

// trySend queues a frame if there is room.
func (m *Mux) trySend(f *Frame) bool {
	select {
	case m.out <- f.Append(nil):
		return true
	default:
		return false
	}
}

// Greet queues a greeting behind what comes before it, unless the session is busy: it is
// repeated anyway.
func (m *Mux) Greet(before []byte, f *Frame) {
	select {
	case m.out <- f.Append(slices.Clone(before)):
	default:
	}
}

// message sends a message in as many frames as it takes.
func (m *Mux) message(ctx context.Context, kind Kind, id uint32, data []byte) error {
	for {
		n := min(len(data), MaxBody)
		f := &Frame{Kind: kind, Call: id, Body: data[:n], More: n < len(data)}
		if err := m.send(ctx, f); err != nil || !f.More {
			return err
		}
		data = data[n:]
	}
}

// A Prepared call has its streams, and is not made yet.
type Prepared struct{ *Call }

// Prepare returns a call that Make makes. In between it can be given datagrams and
// where its streams go on.
//
// Errors: ErrSession; an error if params can't be sent.
func (m *Mux) Prepare(op string, params any) (*Prepared, error) {
	request := Request{Op: op}
	if params != nil {
		data, err := json.Marshal(params)
		if err != nil {
			return nil, err
		}
		request.Params = data
	}
	return &Prepared{newCall(m, 0, true, request)}, nil
}

// Continue has what arrives by a stream begin at an offset.
func (p *Prepared) Continue(stream int, offset int64) {
	in := p.In[stream]
	in.read, in.got, in.told = offset, offset, offset
}

// Make makes the call. Ctx bounds the sending.
//
// Errors: ErrSession; the context's.
func (p *Prepared) Make(ctx context.Context) (*Call, error) {
	data, err := json.Marshal(&p.Request)
	if err != nil {
		return nil, err
	}
	c, m := p.Call, p.mux
	// Requests arrive in the order of their numbers, and each in one piece.
	select {
	case m.opening <- struct{}{}:
		defer func() { <-m.opening }()
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-m.done:
		return nil, m.Why()
	}
	m.mu.Lock()
	if m.err != nil {
		defer m.mu.Unlock()
		return nil, m.err
	}
	c.id = m.next
	m.next++
	if m.next&^uint32(agentIDs) == 0 {
		m.mu.Unlock()
		m.Stop(errors.New("it has had all the calls that there can be"))
		return nil, m.Why()
	}
	m.calls[c.id] = c
	m.mu.Unlock()
	if err := m.message(ctx, KindOpen, c.id, data); err != nil {
		// What was sent of it the other side drops when the next one comes.
		c.finish(err)
		return nil, err
	}
	c.begin()
	return c, nil
}

// Call makes a call. Ctx bounds the sending.
//
// Errors: ErrSession; the context's; an error if params can't be sent.
func (m *Mux) Call(ctx context.Context, op string, params any) (*Call, error) {
	p, err := m.Prepare(op, params)
	if err != nil {
		return nil, err
	}
	return p.Make(ctx)
}

// forget takes a call off the list.
func (m *Mux) forget(c *Call) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.calls[c.id] != c {
		return
	}
	delete(m.calls, c.id)
	if !c.own {
		m.theirs--
	}
}

// take handles a frame. An error ends the session.
func (m *Mux) take(f *Frame) error {
	switch f.Kind {
	case KindHello, KindWelcome:
		if m.opts.Greeting == nil {
			return errors.New("a greeting in a session")
		}
		return m.opts.Greeting(f)
	case KindOpen:
		return m.opened(f)
	}
	m.mu.Lock()
	c := m.calls[f.Call]
	known := c != nil || m.known(f.Call)
	m.mu.Unlock()
	switch {
	case c != nil:
		if err := c.take(f); err != nil {
			return fmt.Errorf("call %d, %s: %w", f.Call, c.Request.Op, err)
		}
	case !known:
		return fmt.Errorf("a frame of call %d, which there never was", f.Call)
	}
	// A call that has ended may still be spoken of by who did not know.
	return nil
}

// known reports whether there has been such a call. The caller holds mu.
func (m *Mux) known(id uint32) bool {
	if own := id&agentIDs != 0 == m.opts.Agent; own {
		return id < m.next && id&^uint32(agentIDs) != 0
	}
	return id <= m.last && id&^uint32(agentIDs) != 0
}

// opened takes a request, or a part of one.
func (m *Mux) opened(f *Frame) error {
	if m.opts.Serve == nil {
		return errors.New("a call that this side does not serve")
	}
	data, err := m.request(f)
	if err != nil || f.More {
		return err
	}
	var request Request
	if err := json.Unmarshal(data, &request); err != nil {
		return fmt.Errorf("a request that can't be read: %q", cut(string(data)))
	}
	c := newCall(m, f.Call, false, request)
	m.mu.Lock()
	if m.theirs >= m.opts.MaxCalls {
		m.mu.Unlock()
		return c.Refuse(tooManyCalls(m.opts.MaxCalls))
	}
	m.theirs++
	m.calls[c.id] = c
	m.mu.Unlock()
	c.begin()
	m.opts.Serve(c)
	return nil
}

// request returns what has come of a request.
func (m *Mux) request(f *Frame) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.part == nil || m.part.Call != f.Call {
		if f.Call&agentIDs != 0 == m.opts.Agent || f.Call <= m.last {
			return nil, fmt.Errorf("a call of number %d", f.Call)
		}
		m.part, m.last = &Frame{Call: f.Call}, f.Call
	}
	if len(m.part.Body)+len(f.Body) > m.opts.MaxMessage {
		return nil, errors.New("a request that is too large")
	}
	m.part.Body = append(m.part.Body, f.Body...)
	data := m.part.Body
	if !f.More {
		m.part = nil
	}
	return data, nil
}
