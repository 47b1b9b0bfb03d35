//go:build unix

package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/connpair"
	"github.com/caissonrun/caisson/internal/guest/wire"
)

const (
	// maxShares is how many connections of Share there may be.
	maxShares = 64
	// maxRelayed is how many calls of theirs may be open at the agent, which leaves
	// room for the client's own, and maxSharedCalls those of one.
	maxRelayed     = 512
	maxSharedCalls = 64
	// maxSharedRequest bounds a request of theirs: a path.
	maxSharedRequest = 64 << 10
	// greetTime is how long whoever has one may take to greet.
	greetTime = 30 * time.Second
)

// relayed are the calls that another process can make. It is never changed.
var relayed = map[string]bool{
	wire.OpPing: true, wire.OpStat: true, wire.OpLstat: true, wire.OpReadLink: true, wire.OpList: true, wire.OpOpen: true,
	wire.OpGet: true, wire.OpPut: true,
}

// Share lets another process see to the guest's files: it returns a connection at
// which that Dials a Client of its own. Of that one FS, Tar, Fetch, Put, Ping and
// Boot work; everything else is ErrUnsupported. It ends with this session.
//
// Errors: ErrExhausted if there are too many already.
func (c *Client) Share() (*os.File, error) {
	c.mu.Lock()
	full := c.shares >= maxShares
	if !full {
		c.shares++
	}
	c.mu.Unlock()
	if full {
		return nil, c.sorted(caisson.OpFiles, tooMany("%d connections for files are open already", maxShares))
	}
	leave := func() {
		c.mu.Lock()
		c.shares--
		c.mu.Unlock()
	}
	ours, theirs, err := connpair.New()
	if err != nil {
		leave()
		return nil, c.sorted(caisson.OpFiles, err)
	}
	r := &relay{client: c, conn: ours}
	if !c.mux.Go(func() {
		r.run()
		leave()
	}) {
		leave()
		ours.Close()
		theirs.Close()
		return nil, c.Err()
	}
	return theirs, nil
}

func tooMany(format string, most int) *caisson.Error {
	return &caisson.Error{Kind: caisson.ErrExhausted, Err: fmt.Errorf(format, most)}
}

// A relay is a session in which this process is the agent: it passes calls on to the
// guest's.
type relay struct {
	client *Client
	conn   net.Conn
	mux    *wire.Mux
	hello  wire.Hello
}

// run serves the session until one of both ends.
func (r *relay) run() {
	r.mux = wire.NewMux(r.conn, wire.MuxOptions{
		Agent: true, MaxMessage: maxSharedRequest, MaxCalls: maxSharedCalls, Serve: r.call, Begin: r.greet, Greeting: r.greeted,
	})
	r.mux.Go(func() {
		select {
		case <-r.client.mux.Done():
			r.mux.Stop(r.client.mux.Why())
		case <-r.mux.Done():
		}
	})
	_ = r.mux.Run(wire.NewReader(r.conn), func() { _ = r.conn.Close() })
}

// greet waits for the greeting and answers it.
func (r *relay) greet(from *wire.Reader) error {
	if err := r.conn.SetReadDeadline(time.Now().Add(greetTime)); err != nil {
		return err
	}
	f, err := from.Greeting(wire.KindHello)
	if err != nil {
		return err
	}
	if r.hello, err = wire.ParseHello(f.Body); err != nil {
		return err
	}
	r.welcome()
	return r.conn.SetReadDeadline(time.Time{})
}

func (r *relay) welcome() { r.mux.Greet(nil, r.hello.Answer(r.client.boot).Frame()) }

// greeted answers a greeting that is repeated.
func (r *relay) greeted(f *wire.Frame) error {
	if h, err := wire.ParseHello(f.Body); f.Kind != wire.KindHello || err != nil || h != r.hello {
		return errors.New("another greeting")
	}
	r.welcome()
	return nil
}

// call begins to serve a call.
func (r *relay) call(in *wire.Call) {
	if !relayed[in.Request.Op] {
		_ = in.Refuse(&caisson.Error{Kind: caisson.ErrUnsupported, Err: errors.New("this connection is for files alone")})
		return
	}
	if r.client.relayed.Add(1) > maxRelayed {
		r.client.relayed.Add(-1)
		_ = in.Refuse(tooMany("%d calls about files are open already", maxRelayed))
		return
	}
	if !r.mux.Go(func() {
		r.pass(in)
		r.client.relayed.Add(-1)
	}) {
		r.client.relayed.Add(-1)
	}
}

// pass makes the same call at the agent, and brings back what comes of it.
func (r *relay) pass(in *wire.Call) {
	ctx, cancel := in.Context()
	defer cancel()
	var params any
	if len(in.Request.Params) > 0 {
		params = in.Request.Params
	}
	out, err := r.client.mux.Call(ctx, in.Request.Op, params)
	if err != nil {
		r.end(in, nil, err)
		return
	}
	// Whoever gives up a call gives up this one.
	stop := context.AfterFunc(ctx, out.Cancel)
	var there, back sync.WaitGroup
	for n := range wire.Streams {
		if in.In[n] != nil && out.Out[n] != nil {
			there.Go(func() { flow(out.Out[n], in.In[n]) })
		}
		if in.Out[n] != nil && out.In[n] != nil {
			back.Go(func() { flow(in.Out[n], out.In[n]) })
		}
	}
	result, err := r.answers(ctx, in, out)
	if err == nil {
		// The end comes after all that was sent.
		back.Wait()
		for _, o := range in.Out {
			if o != nil {
				o.Drained(in)
			}
		}
	}
	r.end(in, result, err)
	stop()
	out.Cancel()
	there.Wait()
	back.Wait()
}

// answers passes on what the agent says before its last answer, and returns that.
func (r *relay) answers(ctx context.Context, in, out *wire.Call) (json.RawMessage, error) {
	for {
		body, last, err := out.Next(ctx)
		if err != nil || last {
			return body, err
		}
		if err := in.Note(json.RawMessage(body)); err != nil {
			return nil, err
		}
	}
}

// end gives the last answer. One that the agent has not given is that its session has
// ended.
func (r *relay) end(in *wire.Call, result json.RawMessage, err error) {
	if errors.Is(err, wire.ErrSession) {
		r.mux.Stop(err)
		return
	}
	var value any
	if len(result) > 0 {
		value = result
	}
	_ = in.End(value, err)
}

// flow copies a stream to its end. Where nobody reads it any more, its source is told.
func flow(to *wire.Outlet, from *wire.Inlet) {
	buf := make([]byte, wire.MaxBody)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				_ = from.Close()
				return
			}
		}
		switch {
		case err == io.EOF:
			_ = to.Close()
			return
		case err != nil:
			// It was cut off, and so is the other one.
			to.Fail(err)
			return
		}
	}
}
