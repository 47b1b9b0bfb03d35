//go:build unix

package guest_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/guest"
	"github.com/caissonrun/caisson/internal/guest/wire"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/internal/safefs"
)

// soon is how long a call may take here that the agent does not answer.
const soon = 100 * time.Millisecond

// A fake is an agent that does what a test likes.
type fake struct {
	t    *testing.T
	conn net.Conn
	r    *wire.Reader
	done sync.WaitGroup
}

// newFake starts a fake that answers the greeting and then does as act says.
func newFake(t *testing.T, act func(f *fake)) *guest.Client {
	t.Helper()
	return newPatientFake(t, time.Minute, act)
}

// newPatientFake starts one whose host has that much patience.
func newPatientFake(t *testing.T, patience time.Duration, act func(f *fake)) *guest.Client {
	t.Helper()
	host, theirs := net.Pipe()
	f := &fake{t: t, conn: theirs, r: wire.NewReader(theirs)}
	f.done.Go(func() {
		if f.greet() {
			act(f)
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := guest.Dial(ctx, host, &guest.Options{Patience: patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		theirs.Close()
		f.done.Wait()
	})
	return c
}

// greet answers the greeting.
func (f *fake) greet() bool {
	g, err := f.r.Greeting(wire.KindHello)
	if err != nil {
		return false
	}
	h, err := wire.ParseHello(g.Body)
	if err != nil {
		f.t.Error(err)
	}
	return f.send(h.Answer(wire.Nonce{1}).Frame())
}

// send sends a frame.
func (f *fake) send(frame *wire.Frame) bool {
	_, err := f.conn.Write(frame.Append(nil))
	return err == nil
}

// opened returns the next call of the host's, and its number.
func (f *fake) opened() (request wire.Request, id uint32) {
	for {
		frame, err := f.r.Next()
		if err != nil {
			return request, 0
		}
		if frame.Kind == wire.KindOpen {
			_ = json.Unmarshal(frame.Body, &request)
			return request, frame.Call
		}
	}
}

// drain reads what the host sends.
func (f *fake) drain() { _, _ = io.Copy(io.Discard, f.conn) }

// answer returns an answer's frame.
func answer(kind wire.Kind, id uint32, body string) *wire.Frame {
	return &wire.Frame{Kind: kind, Call: id, Body: []byte(body)}
}

// TestSilence has an agent that answers nothing: every call ends.
func TestSilence(t *testing.T) {
	for name, act := range map[string]func(f *fake){
		"reads":         func(f *fake) { f.drain() },
		"does not read": func(*fake) {},
	} {
		t.Run(name, func(t *testing.T) {
			c := newFake(t, act)
			soonest, cancel := context.WithTimeout(context.Background(), soon)
			defer cancel()
			for what, err := range everyCall(soonest, c) {
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s = %v", what, err)
				}
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			for what, err := range everyCall(context.Background(), c) {
				if !errors.Is(err, caisson.ErrUnavailable) {
					t.Errorf("%s after Close = %v", what, err)
				}
			}
		})
	}
}

// everyCall makes each call and returns what it has ended with.
func everyCall(ctx context.Context, c *guest.Client) map[string]error {
	errs := map[string]error{}
	var more sync.Mutex
	var all sync.WaitGroup
	for name, call := range map[string]func() error{
		"Ping":     func() error { return c.Ping(ctx) },
		"Info":     func() error { _, err := c.Info(ctx); return err },
		"Setup":    func() error { return c.Setup(ctx, &guest.Setup{}) },
		"Spawn":    func() error { _, err := c.Spawn(ctx, &guest.Program{}); return err },
		"Attach":   func() error { _, err := c.Attach(ctx, 1, 5, 6); return err },
		"Programs": func() error { _, err := c.Programs(ctx); return err },
		"Kill":     func() error { return c.Kill(ctx) },
		"Stats":    func() error { _, err := c.Stats(ctx); return err },
		"FS":       func() error { _, err := c.FS(ctx); return err },
		"Tar":      func() error { return c.Tar(ctx, "a", io.Discard) },
		"Put":      func() error { return c.Put(ctx, "a", bytes.NewReader(make([]byte, 1<<20)), nil) },
		"Freeze":   func() error { return c.Freeze(ctx, true) },
		"Halt":     func() error { return c.Halt(ctx) },
		"Lookup":   func() error { _, err := c.Lookup(ctx, &guest.Who{User: "x"}); return err },
		"Write":    func() error { return c.WriteFile(ctx, &guest.File{Path: guest.Name("/a"), Data: make([]byte, 1<<18)}) },
		"Hosts":    func() error { return c.SetHosts(ctx, nil) },
		"Identity": func() error { return c.SetIdentity(ctx, &guest.Identity{}) },
		"Listen":   func() error { _, err := c.Listen(ctx, []isolate.Socket{{Port: 1}}, true); return err },
		"PowerOff": func() error {
			err := c.PowerOff(ctx, false)
			if c.Err() != nil {
				return c.Err()
			}
			return err
		},
	} {
		all.Go(func() {
			err := call()
			more.Lock()
			defer more.Unlock()
			errs[name] = err
		})
	}
	all.Wait()
	return errs
}

// TestNoGreeting has nobody, or somebody else, answer the greeting.
func TestNoGreeting(t *testing.T) {
	for name, act := range map[string]func(conn net.Conn){
		"nobody": func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) },
		"noise": func(conn net.Conn) {
			go func() { _, _ = io.Copy(io.Discard, conn) }()
			noise := bytes.Repeat([]byte{0xc4, 's', 'n', 0x9d, 2, 0, 0, 0, 0, 0, 0, 0, 0xff, 0, 0, 0}, 1000)
			for {
				if _, err := conn.Write(noise); err != nil {
					return
				}
			}
		},
		"another's answer": func(conn net.Conn) {
			go func() { _, _ = io.Copy(io.Discard, conn) }()
			old := (&wire.Welcome{Version: 1}).Frame().Append(nil)
			for {
				if _, err := conn.Write(old); err != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := runtime.NumGoroutine()
			host, theirs := net.Pipe()
			go act(theirs)
			ctx, cancel := context.WithTimeout(context.Background(), 3*soon)
			defer cancel()
			if _, err := guest.Dial(ctx, host, nil); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Dial = %v", err)
			}
			theirs.Close()
			for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("goroutines are left")
				}
			}
		})
	}
}

// TestLateGreeting finds the answer behind what is left of an earlier session, and
// where greetings were lost.
func TestLateGreeting(t *testing.T) {
	host, theirs := net.Pipe()
	f := &fake{t: t, conn: theirs, r: wire.NewReader(theirs)}
	f.done.Go(func() {
		// Two greetings are lost.
		for range 2 {
			if _, err := f.r.Greeting(wire.KindHello); err != nil {
				t.Error(err)
			}
		}
		old := (&wire.Hello{Nonce: wire.Nonce{9}, Lowest: 1, Highest: 1}).Answer(wire.Nonce{2}).Frame().Append(nil)
		torn := (&wire.Frame{Kind: wire.KindData, Call: 7, Body: make([]byte, 1000)}).Append(nil)
		for _, part := range [][]byte{[]byte("[    0.000000] Linux"), torn[:500], old, old[:20], {0xc4, 0xc4, 's'}} {
			_, _ = theirs.Write(part)
		}
		f.greet()
		_, id := f.opened()
		f.send(answer(wire.KindEnd, id, "{}"))
		f.drain()
	})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := guest.Dial(ctx, host, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Ping(ctx); err != nil {
		t.Error(err)
	}
	c.Close()
	f.done.Wait()
}

func TestOtherVersion(t *testing.T) {
	host, theirs := net.Pipe()
	defer theirs.Close()
	f := &fake{t: t, conn: theirs, r: wire.NewReader(theirs)}
	f.done.Go(func() {
		g, err := f.r.Greeting(wire.KindHello)
		if err != nil {
			t.Error(err)
			return
		}
		h, _ := wire.ParseHello(g.Body)
		f.send((&wire.Welcome{Nonce: h.Nonce, Lowest: 7, Highest: 9}).Frame())
		f.drain()
	})
	_, err := guest.Dial(context.Background(), host, nil)
	if !errors.Is(err, caisson.ErrUnsupported) || !strings.Contains(err.Error(), "versions 7 to 9") {
		t.Errorf("Dial = %v", err)
	}
	f.done.Wait()
}

// TestLies has the agent break a rule after it was asked for something: the session
// ends, and every call with it.
func TestLies(t *testing.T) {
	big := strings.Repeat("x", wire.MaxBody)
	offset := func(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }
	for name, lie := range map[string]func(f *fake, id uint32){
		"no JSON":           func(f *fake, id uint32) { f.send(answer(wire.KindEnd, id, "}")) },
		"no program":        func(f *fake, id uint32) { f.send(answer(wire.KindNote, id, `{"result":7}`)) },
		"ended at once":     func(f *fake, id uint32) { f.send(answer(wire.KindEnd, id, `{"result":{"id":1}}`)) },
		"unknown call":      func(f *fake, id uint32) { f.send(answer(wire.KindEnd, id+50, "{}")) },
		"call 0":            func(f *fake, _ uint32) { f.send(answer(wire.KindEnd, 0, "{}")) },
		"unknown stream":    func(f *fake, id uint32) { f.send(&wire.Frame{Kind: wire.KindData, Call: id, Stream: 200}) },
		"stream of no call": func(f *fake, id uint32) { f.send(&wire.Frame{Kind: wire.KindData, Call: id, Body: []byte("x")}) },
		"unknown frame":     func(f *fake, id uint32) { f.send(&wire.Frame{Kind: 99, Call: id}) },
		"noise":             func(f *fake, _ uint32) { _, _ = f.conn.Write(make([]byte, 1000)) },
		"another call":      func(f *fake, _ uint32) { f.send(answer(wire.KindOpen, 1, `{"op":"accept"}`)) },
		"no call":           func(f *fake, _ uint32) { f.send(answer(wire.KindOpen, 1<<31+1, `nonsense`)) },
		"cancelled":         func(f *fake, id uint32) { f.send(answer(wire.KindCancel, id, "")) },
		"greeting": func(f *fake, _ uint32) {
			f.send((&wire.Welcome{Nonce: wire.Nonce{5}}).Frame())
		},
		"read what was not sent": func(f *fake, id uint32) {
			f.send(&wire.Frame{Kind: wire.KindConsumed, Call: id, Body: offset(1 << 62)})
		},
		"offset of 3 bytes": func(f *fake, id uint32) {
			f.send(&wire.Frame{Kind: wire.KindConsumed, Call: id, Body: []byte("abc")})
		},
		"endless answer": func(f *fake, id uint32) {
			for f.send(&wire.Frame{Kind: wire.KindEnd, Call: id, Body: []byte(big), More: true}) {
			}
		},
		"endless answers": func(f *fake, id uint32) {
			f.send(answer(wire.KindNote, id, `{"result":{"id":1}}`))
			for f.send(answer(wire.KindNote, id, `{"result":{"code":300}}`)) {
			}
		},
		"endless output": func(f *fake, id uint32) {
			for f.send(&wire.Frame{Kind: wire.KindData, Call: id, Stream: 1, Body: []byte(big)}) {
			}
		},
		"output after the end": func(f *fake, id uint32) {
			f.send(&wire.Frame{Kind: wire.KindEOF, Call: id, Stream: 1})
			f.send(&wire.Frame{Kind: wire.KindData, Call: id, Stream: 1, Body: []byte("x")})
		},
		"endless calls": func(f *fake, _ uint32) {
			for i := uint32(1); f.send(answer(wire.KindOpen, 1<<31+i, `{"op":"accept","params":{"key":1}}`)); i++ {
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newFake(t, func(f *fake) {
				_, id := f.opened()
				lie(f, id)
				f.drain()
			})
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			proc, err := c.Spawn(ctx, &guest.Program{Program: isolate.Program{Args: []string{"x"}}})
			if err == nil {
				_, _, err = proc.Wait(ctx)
			}
			if !errors.Is(err, caisson.ErrUnavailable) {
				t.Errorf("got %v", err)
			}
			select {
			case <-c.Done():
			case <-ctx.Done():
				t.Error("the session goes on")
			}
		})
	}
}

// always answers every call with the same.
func always(text string) func(f *fake) {
	return func(f *fake) {
		for {
			_, id := f.opened()
			if id == 0 {
				return
			}
			f.send(answer(wire.KindEnd, id, text))
		}
	}
}

// TestFalsePerson has the agent name users that there can't be, or that were ruled out.
func TestFalsePerson(t *testing.T) {
	for name, said := range map[string]string{
		"nobody":            ``,
		"no user":           `7`,
		"a negative id":     `{"user":{"uid":-1,"gid":1}}`,
		"no change":         `{"user":{"uid":1,"gid":4294967295}}`,
		"a huge id":         `{"user":{"uid":1,"gid":1,"groups":[1099511627776]}}`,
		"too many groups":   `{"user":{"uid":1,"gid":1,"groups":[` + strings.Repeat("1,", 1000) + `1]}}`,
		"a relative home":   `{"user":{"uid":1,"gid":1},"home":"etc"}`,
		"NUL":               `{"user":{"uid":1,"gid":1},"home":"/a\u0000b"}`,
		"a long home":       `{"user":{"uid":1,"gid":1},"home":"/` + strings.Repeat("x", 5000) + `"}`,
		"a long name":       `{"user":{"uid":1,"gid":1},"name":"` + strings.Repeat("x", 5000) + `"}`,
		"root, ruled out":   `{"user":{"uid":0,"gid":1}}`,
		"not even an error": `null`,
	} {
		t.Run(name, func(t *testing.T) {
			text := `{"result":` + said + `}`
			if said == "" {
				text = "{}"
			}
			c := newFake(t, always(text))
			p, err := c.Lookup(context.Background(), &guest.Who{Standard: &guest.Owner{UID: 1000, GID: 1000}})
			if !errors.Is(err, caisson.ErrUnavailable) {
				t.Errorf("Lookup = %+v, %v", p, err)
			}
			<-c.Done()
		})
	}
}

// TestTwice has the agent answer twice what has one answer.
func TestTwice(t *testing.T) {
	c := newFake(t, func(f *fake) {
		_, id := f.opened()
		f.send(answer(wire.KindNote, id, `{"result":{"user":{"uid":1,"gid":1}}}`))
		f.send(answer(wire.KindEnd, id, `{"result":{"user":{"uid":2,"gid":2}}}`))
		f.drain()
	})
	if p, err := c.Lookup(context.Background(), &guest.Who{}); !errors.Is(err, caisson.ErrUnavailable) {
		t.Errorf("Lookup = %+v, %v", p, err)
	}
}

// TestFalseFlush has the agent say that less than nothing was printed.
func TestFalseFlush(t *testing.T) {
	c := newFake(t, func(f *fake) {
		_, id := f.opened()
		f.send(answer(wire.KindNote, id, `{"result":{"id":1,"pid":2}}`))
		always(`{"result":{"stdout":-1}}`)(f)
	})
	proc, err := c.Spawn(context.Background(), &guest.Program{Program: isolate.Program{Args: []string{"x"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close()
	if _, _, err := proc.Flush(context.Background()); !errors.Is(err, caisson.ErrUnavailable) {
		t.Errorf("Flush = %v", err)
	}
	if _, _, err := proc.Wait(context.Background()); !errors.Is(err, caisson.ErrUnavailable) {
		t.Errorf("Wait = %v", err)
	}
}

// TestFalseFiles refuses files before anybody is asked.
func TestFalseFiles(t *testing.T) {
	c := newFake(t, func(f *fake) {
		if request, id := f.opened(); id != 0 {
			t.Errorf("the agent is asked for %+v", request)
		}
	})
	for name, f := range map[string]*guest.File{
		"relative":           {Path: guest.Name("etc/hosts")},
		"the root":           {Path: guest.Name("/")},
		"nothing":            {},
		"leading up":         {Path: guest.Name("/etc/../init")},
		"NUL":                {Path: guest.Name("/a\x00b")},
		"too large":          {Path: guest.Name("/a"), Data: make([]byte, 4<<20+1)},
		"too large for once": {Path: guest.Name("/a"), Data: make([]byte, 1<<20+1), Once: true},
	} {
		if err := c.WriteFile(context.Background(), f); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("%s: WriteFile = %v", name, err)
		}
	}
}

// TestReplaced has another agent take the place of the one that the session is with:
// the session ends at once, whatever it waited for.
func TestReplaced(t *testing.T) {
	c := newFake(t, func(f *fake) {
		f.opened()
		f.send((&wire.Welcome{Lowest: 1, Highest: 1, Boot: wire.Nonce{9}}).Frame())
		f.drain()
	})
	if err := c.Ping(context.Background()); !errors.Is(err, caisson.ErrUnavailable) {
		t.Errorf("Ping = %v", err)
	}
}

// TestErrorText makes what an agent says fit to be shown.
func TestErrorText(t *testing.T) {
	c := newFake(t, func(f *fake) {
		for {
			_, id := f.opened()
			if id == 0 {
				return
			}
			text, _ := json.Marshal("\x1b[2J\n" + strings.Repeat("long", 5000))
			f.send(answer(wire.KindEnd, id, `{"error":{"kind":"internal","errno":-7,"exec":9,"message":`+string(text)+`}}`))
		}
	})
	err := c.Ping(context.Background())
	if err == nil || strings.ContainsAny(err.Error(), "\x1b\n") || len(err.Error()) > 2000 || errors.Is(err, caisson.ErrInternal) {
		t.Errorf("got %q", err)
	}
}

// entry is what an agent says about a file.
func entry(name string, mode os.FileMode, size int64) string {
	data, _ := json.Marshal(&wire.FileInfo{Name: wire.Name(name), Mode: uint32(mode), Size: size})
	return string(data)
}

// TestFalseListing has a folder hold what none can.
func TestFalseListing(t *testing.T) {
	for name, text := range map[string]string{
		"twice":       entry("a", 0, 0) + "\n" + entry("b", 0, 0) + "\n" + entry("a", 0, 0),
		"parent":      entry("..", 0, 0),
		"nothing":     entry("", 0, 0),
		"absolute":    entry("/etc", 0, 0),
		"path":        entry("a/b", 0, 0),
		"NUL":         entry("a\x00", 0, 0),
		"long name":   entry(strings.Repeat("x", 256), 0, 0),
		"mode":        entry("a", 1<<20|os.ModeTemporary, 0),
		"size":        entry("a", 0, -1),
		"long line":   strings.Repeat("x", 10000),
		"no JSON":     "{",
		"other types": `{"name":5}`,
	} {
		t.Run(name, func(t *testing.T) {
			c := newFake(t, func(f *fake) { f.stream(text) })
			files, err := c.FS(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if list, err := files.ReadDir("."); err == nil {
				t.Errorf("got %v", list)
			}
		})
	}
}

// stream answers a ping, and then calls with the stream.
func (f *fake) stream(text string) {
	for {
		request, id := f.opened()
		if id == 0 {
			return
		}
		if request.Op == wire.OpPing {
			f.send(answer(wire.KindEnd, id, "{}"))
			continue
		}
		for part := range slices.Chunk([]byte(text), wire.MaxBody) {
			f.send(&wire.Frame{Kind: wire.KindData, Call: id, Stream: 1, Body: part})
		}
		f.send(&wire.Frame{Kind: wire.KindEOF, Call: id, Stream: 1})
		f.send(answer(wire.KindEnd, id, "{}"))
	}
}

// TestEndlessListing ends by the number of entries, or by the time.
func TestEndlessListing(t *testing.T) {
	c := newPatientFake(t, soon, func(f *fake) { f.endless(func(i int) string { return entry(fmt.Sprint(i), 0, 0) + "\n" }) })
	files, err := c.FS(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := files.ReadDir("."); !errors.Is(err, caisson.ErrUnavailable) && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, caisson.ErrExhausted) {
		t.Errorf("ReadDir = %v", err)
	}
}

// endless answers a ping, and then sends without end, as the window permits.
func (f *fake) endless(text func(i int) string) {
	var id uint32
	for {
		var request wire.Request
		if request, id = f.opened(); request.Op != wire.OpPing {
			break
		}
		f.send(answer(wire.KindEnd, id, "{}"))
	}
	read, sent := 0, 0
	for i := 0; ; i++ {
		part := text(i)
		for sent+len(part)-read > wire.Window {
			frame, err := f.r.Next()
			if err != nil || frame.Kind == wire.KindStop || frame.Kind == wire.KindCancel {
				f.drain()
				return
			}
			if frame.Kind == wire.KindConsumed {
				read = int(binary.LittleEndian.Uint64(frame.Body))
			}
		}
		sent += len(part)
		if !f.send(&wire.Frame{Kind: wire.KindData, Call: id, Stream: 1, Body: []byte(part)}) {
			return
		}
	}
}

// TestFalseFile has a file be longer than it says, or never come.
func TestFalseFile(t *testing.T) {
	for name, test := range map[string]struct {
		info string
		text string
		want string
	}{
		"longer":  {entry("x", 0, 3), strings.Repeat("abcdef", 1000), "abc"},
		"shorter": {entry("x", 0, 300), "abc", "abc"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newFake(t, func(f *fake) {
				_, id := f.opened()
				f.send(answer(wire.KindEnd, id, "{}"))
				_, id = f.opened()
				f.send(answer(wire.KindNote, id, `{"result":`+test.info+`}`))
				f.send(&wire.Frame{Kind: wire.KindData, Call: id, Stream: 1, Body: []byte(test.text)})
				f.send(&wire.Frame{Kind: wire.KindEOF, Call: id, Stream: 1})
				f.send(answer(wire.KindEnd, id, "{}"))
				f.drain()
			})
			files, err := c.FS(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			file, err := files.Open("some/file")
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			if text, err := io.ReadAll(file); string(text) != test.want || err != nil {
				t.Errorf("got %q, %v", text, err)
			}
		})
	}
	t.Run("silent", func(t *testing.T) {
		c := newPatientFake(t, time.Second, func(f *fake) {
			_, id := f.opened()
			f.send(answer(wire.KindEnd, id, "{}"))
			_, id = f.opened()
			f.send(answer(wire.KindNote, id, `{"result":`+entry("x", 0, 3)+`}`))
			f.drain()
		})
		files, err := c.FS(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		file, err := files.Open("x")
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if _, err := io.ReadAll(file); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("reading = %v", err)
		}
	})
}

// archive returns a tar stream of entries.
func archive(list ...tar.Header) string {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range list {
		_ = w.WriteHeader(&h)
		_, _ = w.Write(make([]byte, h.Size))
	}
	w.Close()
	return b.String()
}

// TestFalseArchive has a tar stream hold what would do harm where it is unpacked.
func TestFalseArchive(t *testing.T) {
	for name, text := range map[string]string{
		"parent":    archive(tar.Header{Name: "../x", Typeflag: tar.TypeReg}),
		"absolute":  archive(tar.Header{Name: "/etc/x", Typeflag: tar.TypeReg}),
		"within":    archive(tar.Header{Name: "a/../../x", Typeflag: tar.TypeReg}),
		"device":    archive(tar.Header{Name: "a", Typeflag: tar.TypeBlock}),
		"hard link": archive(tar.Header{Name: "a", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}),
		"cut off":   archive(tar.Header{Name: "a", Typeflag: tar.TypeReg, Size: 5000})[:3000],
		"no tar":    strings.Repeat("x", 5000),
	} {
		t.Run(name, func(t *testing.T) {
			c := newFake(t, func(f *fake) { f.stream(text) })
			if err := c.Tar(context.Background(), "a", io.Discard); !errors.Is(err, caisson.ErrInvalid) {
				t.Errorf("Tar = %v", err)
			}
			dir := t.TempDir()
			root, err := safefs.Open(dir, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			if err := c.Fetch(context.Background(), "a", root, ".", nil); !errors.Is(err, caisson.ErrInvalid) {
				t.Errorf("Fetch = %v", err)
			}
		})
	}
}

// TestFalseOrder has entries of a tar stream be what no walk finds: who unpacks them
// one after the other would write through a link.
func TestFalseOrder(t *testing.T) {
	link := tar.Header{Name: "a/l", Typeflag: tar.TypeSymlink, Linkname: "/etc"}
	folder := func(name string) tar.Header { return tar.Header{Name: name + "/", Typeflag: tar.TypeDir} }
	file := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg} }
	for _, test := range []struct {
		name string
		list []tar.Header
		good bool
	}{
		{"Walk", []tar.Header{folder("a"), file("a/b"), link, folder("a/m"), file("a/m/n"), file("a/z")}, true},
		{"Siblings", []tar.Header{file("a"), folder("b"), file("b/c"), file("c")}, true},
		{"Empty", nil, true},
		{"BelowLink", []tar.Header{folder("a"), link, file("a/l/passwd")}, false},
		{"BelowFile", []tar.Header{file("a"), file("a/b")}, false},
		{"FolderForLink", []tar.Header{folder("a"), link, folder("a/l"), file("a/l/passwd")}, false},
		{"LinkForFolder", []tar.Header{folder("a"), folder("a/l"), link, file("a/l/passwd")}, false},
		{"LinkTwice", []tar.Header{folder("a"), link, link}, false},
		{"Back", []tar.Header{file("b"), file("a")}, false},
		{"NoFolder", []tar.Header{file("a/b")}, false},
		{"Deeper", []tar.Header{folder("a"), file("a/b/c")}, false},
		{"Elsewhere", []tar.Header{folder("a"), file("b/c")}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newFake(t, func(f *fake) { f.stream(archive(test.list...)) })
			err := c.Tar(context.Background(), "a", io.Discard)
			if test.good && err != nil || !test.good && !errors.Is(err, caisson.ErrInvalid) {
				t.Errorf("Tar = %v", err)
			}
		})
	}
}

// TestEndlessArchive ends with its context.
func TestEndlessArchive(t *testing.T) {
	one := func(n int) string {
		text := archive(tar.Header{Name: fmt.Sprintf("%09d", n), Typeflag: tar.TypeReg, Size: 512})
		return text[:1024] // without the end
	}
	c := newFake(t, func(f *fake) { f.endless(one) })
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	if err := c.Tar(ctx, "a", io.Discard); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Tar = %v", err)
	}
}

// FuzzClient has an agent say anything once it is greeted. Every call ends.
func FuzzClient(f *testing.F) {
	for _, frame := range []*wire.Frame{
		answer(wire.KindNote, 1, `{"result":{"id":1,"pid":2}}`), answer(wire.KindEnd, 2, `{"error":{"message":"x"}}`),
		{Kind: wire.KindData, Call: 1, Stream: 1, Body: []byte("text")},
		{Kind: wire.KindEOF, Call: 3, Stream: 1},
		{Kind: wire.KindConsumed, Call: 1, Body: make([]byte, 8)},
		{Kind: wire.KindStop, Call: 1},
		answer(wire.KindOpen, 1<<31+1, `{"op":"accept","params":{"key":1,"local":"1.2.3.4:5","remote":"1.2.3.4:5"}}`),
		{Kind: wire.KindDatagram, Call: 4, Body: make([]byte, 30)},
		{Kind: wire.KindData, Call: 2, Stream: 1, Body: []byte(entry("a", 0, 1) + "\n")},
		answer(wire.KindEnd, 3, `{"result":{"user":{"uid":-1,"gid":1e300,"groups":[1]},"home":"/x"}}`),
		(&wire.Welcome{}).Frame(),
	} {
		f.Add(uint8(frame.Kind), frame.Call, frame.Stream, frame.Body, uint8(frame.Kind), frame.Call, frame.Body)
	}
	f.Fuzz(func(t *testing.T, kind uint8, call uint32, stream uint8, body []byte, kind2 uint8, call2 uint32, body2 []byte) {
		c := newFake(t, func(f *fake) {
			go func() { _, _ = io.Copy(io.Discard, onlyReader{f.conn}) }()
			if len(body) <= wire.MaxBody && len(body2) <= wire.MaxBody {
				f.send(&wire.Frame{Kind: wire.Kind(kind), Call: call, Stream: stream, Body: body})
				f.send(&wire.Frame{Kind: wire.Kind(kind2), Call: call2, Stream: stream, Body: body2})
			}
			f.conn.Close()
		})
		everyCall(context.Background(), c)
		<-c.Done()
	})
}

type onlyReader struct{ io.Reader }
