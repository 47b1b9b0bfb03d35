package wire_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caissonrun/caisson/internal/guest/wire"
)

func TestFrames(t *testing.T) {
	want := []wire.Frame{
		{Kind: wire.KindData, Stream: 2, Call: 1<<31 + 5, Body: []byte("text")},
		{Kind: wire.KindEnd, Call: 7, More: true, Body: make([]byte, wire.MaxBody)},
		{Kind: wire.KindCancel, Call: 1},
	}
	var buf []byte
	for i := range want {
		buf = want[i].Append(buf)
	}
	r := wire.NewReader(iotest{bytes.NewReader(buf)})
	for i := range want {
		got, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if got.Kind != want[i].Kind || got.Stream != want[i].Stream || got.Call != want[i].Call || got.More != want[i].More || !bytes.Equal(got.Body, want[i].Body) {
			t.Errorf("frame %d: %+v", i, got)
		}
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last one: %v", err)
	}
}

// An iotest reads little at a time.
type iotest struct{ r io.Reader }

func (r iotest) Read(p []byte) (int, error) { return r.r.Read(p[:min(len(p), 7)]) }

func TestDamage(t *testing.T) {
	good := (&wire.Frame{Kind: wire.KindData, Call: 1, Body: []byte("text")}).Append(nil)
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		// What comes behind it lets a size that has grown be read.
		r := wire.NewReader(bytes.NewReader(append(bad, wire.Preamble...)))
		if f, err := r.Next(); !errors.Is(err, wire.ErrGarbage) {
			t.Errorf("byte %d: %+v, %v", i, f, err)
		}
	}
}

// TestGreeting finds a greeting behind anything, and behind a frame that was cut off
// anywhere.
func TestGreeting(t *testing.T) {
	hello := &wire.Hello{Nonce: wire.Nonce{1, 2, 3}, Lowest: 1, Highest: 3}
	frame := (&wire.Frame{Kind: wire.KindData, Call: 1, Body: bytes.Repeat(hello.Frame().Append(nil)[:30], 50)}).Append(nil)
	for cut := range frame {
		stream := append(bytes.Clone(frame[:cut]), wire.Preamble...)
		stream = hello.Frame().Append(stream)
		r := wire.NewReader(bytes.NewReader(stream))
		f, err := r.Greeting(wire.KindHello)
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if got, err := wire.ParseHello(f.Body); got != *hello || err != nil {
			t.Errorf("cut at %d: %+v, %v", cut, got, err)
		}
	}
}

// TestTornSession is the same for who has begun to read the frame that is cut off.
func TestTornSession(t *testing.T) {
	hello := &wire.Hello{Nonce: wire.Nonce{1}, Lowest: 1, Highest: 1}
	frame := (&wire.Frame{Kind: wire.KindData, Call: 1, Body: make([]byte, wire.MaxBody)}).Append(nil)
	stream := append(frame[:100:100], wire.Preamble...)
	r := wire.NewReader(bytes.NewReader(hello.Frame().Append(stream)))
	// The body is nothing but zeros, and so is the preamble: this frame is whole.
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); !errors.Is(err, wire.ErrGarbage) {
		t.Fatalf("the rest: %v", err)
	}
	if _, err := r.Greeting(wire.KindHello); err != nil {
		t.Fatal(err)
	}
}

func TestGreetings(t *testing.T) {
	for _, test := range []struct{ lowest, highest, want uint16 }{{1, 1, 1}, {0, 9, 1}, {2, 3, 0}, {0, 0, 0}} {
		h := wire.Hello{Nonce: wire.Nonce{5}, Lowest: test.lowest, Highest: test.highest}
		w, err := wire.ParseWelcome(h.Answer(wire.Nonce{6}).Frame().Body)
		if err != nil || w.Version != test.want || w.Nonce != h.Nonce || w.Boot != (wire.Nonce{6}) {
			t.Errorf("%+v: %+v, %v", test, w, err)
		}
	}
	if _, err := wire.ParseHello(make([]byte, 19)); err == nil {
		t.Error("a short hello was read")
	}
	if _, err := wire.ParseWelcome(make([]byte, 37)); err == nil {
		t.Error("a short welcome was read")
	}
}

// pair returns both sides of a session, which ends with the test.
func pair(t *testing.T, serve func(c *wire.Call)) (host, agent *wire.Mux) {
	t.Helper()
	a, b := net.Pipe()
	none := func(c *wire.Call) { _ = c.Refuse(errors.New("nothing is served")) }
	host = wire.NewMux(a, wire.MuxOptions{MaxMessage: 1 << 20, MaxCalls: 4, Serve: none})
	agent = wire.NewMux(b, wire.MuxOptions{Agent: true, MaxMessage: 1 << 20, MaxCalls: 4, Serve: serve})
	var both sync.WaitGroup
	both.Go(func() { _ = host.Run(wire.NewReader(a), func() { a.Close() }) })
	both.Go(func() { _ = agent.Run(wire.NewReader(b), func() { b.Close() }) })
	t.Cleanup(func() {
		host.Stop(errors.New("the test is over"))
		both.Wait()
	})
	return host, agent
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// echo serves calls with what comes in, twice.
func echo(c *wire.Call) {
	if c.In[0] == nil || c.Out[1] == nil || c.Out[2] == nil {
		_ = c.Refuse(errors.New("there is nothing to echo"))
		return
	}
	go func() {
		data, err := io.ReadAll(c.In[0])
		for _, out := range c.Out[1:] {
			go func() {
				_, _ = out.Write(data)
				_ = out.Close()
			}()
		}
		for _, out := range c.Out[1:] {
			out.Drained(c)
		}
		_ = c.End(len(data), err)
	}()
}

// TestCalls has several calls at once, whose streams are larger than their windows.
func TestCalls(t *testing.T) {
	host, _ := pair(t, echo)
	ctx := testContext(t)
	var all sync.WaitGroup
	for n := range 4 {
		all.Go(func() {
			c, err := host.Call(ctx, wire.OpSpawn, nil)
			if err != nil {
				t.Error(err)
				return
			}
			text := strings.Repeat(fmt.Sprint(n), 300_000+n)
			go func() {
				_, _ = io.WriteString(c.Out[0], text)
				_ = c.Out[0].Close()
			}()
			second := make(chan []byte)
			go func() {
				data, _ := io.ReadAll(c.In[2])
				second <- data
			}()
			first, err := io.ReadAll(c.In[1])
			if string(first) != text || string(<-second) != text || err != nil {
				t.Errorf("call %d: %d bytes, %v", n, len(first), err)
			}
			if body, last, err := c.Next(ctx); string(body) != fmt.Sprint(len(text)) || !last || err != nil {
				t.Errorf("call %d: %s, %v, %v", n, body, last, err)
			}
			if _, _, err := c.Next(ctx); !errors.Is(err, wire.ErrEnded) {
				t.Errorf("call %d: another answer: %v", n, err)
			}
		})
	}
	all.Wait()
}

// TestTooManyCalls refuses those beyond the limit, and takes more once there is room.
func TestTooManyCalls(t *testing.T) {
	host, _ := pair(t, func(*wire.Call) {})
	ctx := testContext(t)
	var open []*wire.Call
	for range 4 {
		c, err := host.Call(ctx, wire.OpPing, nil)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	fifth, err := host.Call(ctx, wire.OpPing, nil)
	if err != nil {
		t.Fatal(err)
	}
	var said *wire.Failure
	if _, _, err := fifth.Next(ctx); !errors.As(err, &said) || said.Kind != "exhausted" {
		t.Errorf("the fifth: %v", err)
	}
	open[0].Cancel()
	// The other side need not know at once.
	for ctx.Err() == nil {
		again, err := host.Call(ctx, wire.OpPing, nil)
		if err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		_, _, err = again.Next(short)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			return
		}
	}
	t.Error("no call is taken any more")
}

// TestLargeMessages sends requests and answers that take several frames, also one
// that is given up in between.
func TestLargeMessages(t *testing.T) {
	host, _ := pair(t, func(c *wire.Call) {
		go func() { _ = c.End(strings.Repeat("y", 500_000), nil) }()
	})
	ctx := testContext(t)
	for range 3 {
		stopped, cancel := context.WithCancel(ctx)
		go cancel()
		_, _ = host.Call(stopped, wire.OpPing, strings.Repeat("x", 500_000))
		c, err := host.Call(ctx, wire.OpPing, strings.Repeat("x", 500_000))
		if err != nil {
			t.Fatal(err)
		}
		if body, last, err := c.Next(ctx); len(body) != 500_002 || !last || err != nil {
			t.Errorf("%d bytes, %v, %v", len(body), last, err)
		}
	}
}

// TestDeadlines has what waits for the other side end.
func TestDeadlines(t *testing.T) {
	host, _ := pair(t, func(*wire.Call) {})
	c, err := host.Call(testContext(t), wire.OpSpawn, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.In[1].SetDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := c.In[1].Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read = %v", err)
	}
	c.Out[0].SetDeadline(time.Now().Add(10 * time.Millisecond))
	if n, err := c.Out[0].Write(make([]byte, 1<<20)); n != wire.Window || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Write = %d, %v", n, err)
	}
	c.Out[0].SetDeadline(time.Time{})
	go host.Stop(errors.New("over"))
	if _, err := c.Out[0].Write([]byte("x")); !errors.Is(err, wire.ErrSession) {
		t.Errorf("Write = %v", err)
	}
	if _, err := c.In[1].Read(make([]byte, 1)); !errors.Is(err, wire.ErrSession) {
		t.Errorf("Read = %v", err)
	}
}

// FuzzReader reads anything.
func FuzzReader(f *testing.F) {
	f.Add([]byte("\xc4sn\x9d"))
	f.Add((&wire.Frame{Kind: wire.KindHello, Body: make([]byte, 20)}).Append([]byte("noise")))
	f.Add((&wire.Frame{Kind: wire.KindData, Call: 1, Body: []byte("x")}).Append(nil))
	f.Fuzz(func(_ *testing.T, data []byte) {
		r := wire.NewReader(bytes.NewReader(data))
		for {
			if _, err := r.Next(); err != nil {
				break
			}
		}
		for {
			f, err := r.Greeting(wire.KindHello)
			if err != nil {
				return
			}
			_, _ = wire.ParseHello(f.Body)
			_, _ = wire.ParseWelcome(f.Body)
			_, _ = wire.ParseDatagram(f.Body)
		}
	})
}

// FuzzMux has a side that serves calls hear anything.
func FuzzMux(f *testing.F) {
	f.Add(uint8(wire.KindOpen), uint32(1), uint8(0), []byte(`{"op":"spawn"}`), uint8(wire.KindData), uint8(0), []byte("x"))
	f.Add(uint8(wire.KindOpen), uint32(5), uint8(0), []byte(`{"op":"get"}`), uint8(wire.KindStop), uint8(1), []byte(nil))
	f.Add(uint8(wire.KindOpen), uint32(5), uint8(0), []byte(`{"op":"get"}`), uint8(wire.KindConsumed), uint8(1), make([]byte, 8))
	f.Fuzz(func(_ *testing.T, kind uint8, call uint32, stream uint8, body []byte, kind2, stream2 uint8, body2 []byte) {
		if len(body) > wire.MaxBody || len(body2) > wire.MaxBody {
			return
		}
		buf := (&wire.Frame{Kind: wire.Kind(kind), Call: call, Stream: stream, Body: body}).Append(nil)
		for range 3 {
			buf = (&wire.Frame{Kind: wire.Kind(kind2), Call: call, Stream: stream2, Body: body2}).Append(buf)
		}
		m := wire.NewMux(io.Discard, wire.MuxOptions{Agent: true, MaxMessage: 1 << 20, MaxCalls: 4, Serve: echo})
		_ = m.Run(wire.NewReader(bytes.NewReader(buf)), func() {})
	})
}
