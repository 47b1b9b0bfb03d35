package qmp_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/machine/qmp"
)

const greeting = `{"QMP": {"version": {"qemu": {"micro": 3, "minor": 2, "major": 7}, "package": "Debian"}, "capabilities": ["oob"]}}` + "\r\n"

// An asked is a command as the other side gets it.
type asked struct {
	Execute   string
	Arguments json.RawMessage
	ID        int64
}

// A peer plays QEMU: it greets, and answers each command with what its function
// returns; an empty text is no answer.
func peer(t *testing.T, first string, respond func(asked) string) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		defer theirs.Close()
		if _, err := io.WriteString(theirs, first); err != nil {
			return
		}
		for lines := bufio.NewScanner(theirs); lines.Scan(); {
			var a asked
			if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
				t.Errorf("a command that is no JSON: %s", lines.Bytes())
			}
			answer := fmt.Sprintf(`{"return": {}, "id": %d}`, a.ID)
			if a.Execute != "qmp_capabilities" {
				answer = respond(a)
			}
			if _, err := io.WriteString(theirs, answer+"\r\n"); err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { theirs.Close(); wg.Wait() })
	return ours
}

// within is a context that ends long after what it is for.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// open makes a client of a peer.
func open(t *testing.T, o *qmp.Options, respond func(asked) string) *qmp.Client {
	t.Helper()
	before := runtime.NumGoroutine()
	c, err := qmp.New(within(t), peer(t, greeting, respond), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
		for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before+1 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		if n := runtime.NumGoroutine(); n > before+1 {
			t.Errorf("%d goroutines after Close, %d before", n, before)
		}
	})
	return c
}

func TestDo(t *testing.T) {
	var events []string
	c := open(t, &qmp.Options{Event: func(e qmp.Event) { events = append(events, e.Name+string(e.Data)) }}, func(a asked) string {
		switch a.Execute {
		case "query-status":
			return `{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}` + "\r\n" +
				`{"event": "RESET", "data": {"guest": true}}` + "\r\n" +
				fmt.Sprintf(`{"return": {"running": true, "status": "running", "new": 1}, "id": %d}`, a.ID)
		case "screendump":
			return fmt.Sprintf(`{"id": %d, "return": {}, "x": %q}`, a.ID, a.Arguments)
		}
		class := map[string]string{"absent": "CommandNotFound", "device": "DeviceNotFound"}[a.Execute]
		return fmt.Sprintf(`{"error": {"class": %q, "desc": "it is\nnot so"}, "id": %d}`, class, a.ID)
	})
	if v := c.Version(); v != (qmp.Version{Major: 7, Minor: 2, Micro: 3, Package: "Debian"}) || v.String() != "7.2.3" {
		t.Errorf("Version() = %+v, want 7.2.3 of Debian", v)
	}
	s, err := c.Status(within(t))
	if err != nil || s != (qmp.Status{Running: true, Status: "running"}) {
		t.Errorf("Status() = %+v, %v, want running", s, err)
	}
	if got := strings.Join(events, " "); got != `STOP RESET{"guest": true}` {
		t.Errorf("events = %s, want STOP and RESET with its data", got)
	}
	if err := c.Screendump(within(t), "/x", true); err != nil {
		t.Errorf("Screendump() = %v", err)
	}
	for command, kind := range map[string]caisson.Kind{"absent": caisson.ErrUnsupported, "device": caisson.ErrNotFound, "other": caisson.ErrInvalid} {
		err := c.Do(within(t), command, nil, nil)
		if !errors.Is(err, kind) || strings.Contains(err.Error(), "\n") {
			t.Errorf("Do(%s) = %v, want %v on one line", command, err, kind)
		}
	}
}

// TestDeadline holds that a QEMU that does not answer costs a call its deadline
// and nothing else: the next one is answered.
func TestDeadline(t *testing.T) {
	var late []int64
	c := open(t, nil, func(a asked) string {
		if a.Execute == "stop" {
			late = append(late, a.ID)
			return ""
		}
		return fmt.Sprintf("{\"return\": {}, \"id\": %d}\r\n{\"return\": {}, \"id\": %d}", late[0], a.ID)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := c.Pause(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Pause() = %v, want that the deadline is over", err)
	}
	if err := c.Continue(within(t)); err != nil {
		t.Errorf("Continue() = %v, want an answer behind the late one", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if err := c.Continue(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Continue() = %v, want that it was cancelled", err)
	}
	if err := c.Continue(within(t)); err != nil {
		t.Errorf("Continue() = %v, want that the connection lives", err)
	}
}

// TestManyAtOnce holds that each caller gets his own answer.
func TestManyAtOnce(t *testing.T) {
	c := open(t, nil, func(a asked) string { return fmt.Sprintf(`{"return": %s, "id": %d}`, a.Arguments, a.ID) })
	var wg sync.WaitGroup
	for n := range 50 {
		wg.Go(func() {
			var got struct{ N int }
			if err := c.Do(within(t), "echo", map[string]int{"n": n}, &got); err != nil || got.N != n {
				t.Errorf("Do(%d) = %d, %v", n, got.N, err)
			}
		})
	}
	wg.Wait()
}

func TestHostileGreeting(t *testing.T) {
	tests := []struct{ name, first, err string }{
		{"Nothing", "", "it has ended"},
		{"Text", "SSH-2.0-OpenSSH\r\n", "a message that is none"},
		{"NoVersion", `{"event": "STOP"}` + "\n", "which version"},
		{"Endless", strings.Repeat(" ", qmp.MaxMessage+10), "longer than"},
		{"Refuses", greeting + `{"error": {"class": "GenericError", "desc": "no"}, "id": 0}` + "\n", `"no"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			go func() {
				_, _ = io.WriteString(theirs, tt.first)
				if tt.first == "" || strings.HasPrefix(tt.first, " ") {
					theirs.Close()
				}
				_, _ = io.Copy(io.Discard, theirs)
			}()
			defer theirs.Close()
			c, err := qmp.New(within(t), ours, nil)
			if c != nil || err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("New() = %v, want %q", err, tt.err)
			}
		})
	}
	t.Run("Silent", func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		if _, err := qmp.New(ctx, ours, nil); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, caisson.ErrUnavailable) {
			t.Errorf("New() = %v, want that the deadline is over", err)
		}
	})
}

func TestHostileAnswers(t *testing.T) {
	tests := []struct{ name, answer, err string }{
		{"Text", "garbage", "a message that is none"},
		{"Truncated", `{"return": {"a": `, "a message that is none"},
		{"Nothing", `{"id": %d}`, "says nothing"},
		{"NoID", `{"return": {}}`, "neither an event"},
		{"OtherID", `{"return": {}, "id": 99}`, "nobody has asked"},
		{"NegativeID", `{"return": {}, "id": -1}`, "nobody has asked"},
		{"TextID", `{"return": {}, "id": "0"}`, "a message that is none"},
		{"Deep", strings.Repeat("[", 20000), "a message that is none"},
		{"Endless", `{"return": "` + strings.Repeat("x", qmp.MaxMessage) + `", "id": %d}`, "longer than"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := open(t, nil, func(a asked) string { return strings.Replace(tt.answer, "%d", fmt.Sprint(a.ID), 1) })
			_, err := c.Status(within(t))
			if !errors.Is(err, caisson.ErrUnavailable) || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("Status() = %v, want %q", err, tt.err)
			}
			<-c.Done()
			if _, err := c.Status(within(t)); !errors.Is(err, caisson.ErrUnavailable) || c.Err() == nil {
				t.Errorf("Status() afterwards = %v, Err() = %v, want ErrUnavailable", err, c.Err())
			}
		})
	}
	t.Run("OtherForm", func(t *testing.T) {
		c := open(t, nil, func(a asked) string { return fmt.Sprintf(`{"return": ["running"], "id": %d}`, a.ID) })
		if _, err := c.Status(within(t)); !errors.Is(err, caisson.ErrUnavailable) {
			t.Errorf("Status() = %v, want ErrUnavailable", err)
		}
	})
	t.Run("LongRefusal", func(t *testing.T) {
		c := open(t, nil, func(a asked) string {
			return fmt.Sprintf(`{"error": {"class": "GenericError", "desc": %q}, "id": %d}`, strings.Repeat("x", 100_000), a.ID)
		})
		if err := c.Pause(within(t)); err == nil || len(err.Error()) > 1000 {
			t.Errorf("Pause() = an error of %d bytes, want a short one", len(fmt.Sprint(err)))
		}
	})
}

// TestGone holds that who waits is told when QEMU ends.
func TestGone(t *testing.T) {
	conn := make(chan net.Conn, 1)
	c := open(t, nil, func(asked) string { (<-conn).Close(); return "" })
	ours, theirs := net.Pipe()
	defer ours.Close()
	conn <- theirs
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.Pause(ctx); err == nil {
		t.Error("Pause() = nil without an answer")
	}
	c.Close()
	if err := c.Pause(within(t)); !errors.Is(err, caisson.ErrUnavailable) {
		t.Errorf("Pause() after Close = %v, want ErrUnavailable", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("Close() again = %v", err)
	}
}

// TestTooManyWait bounds what a silent QEMU can make a caller hold.
func TestTooManyWait(t *testing.T) {
	c := open(t, nil, func(asked) string { return "" })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	errs := make(chan error, 100)
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() { errs <- c.Pause(ctx) })
	}
	for range 100 - 64 {
		if err := <-errs; !errors.Is(err, caisson.ErrExhausted) {
			t.Errorf("Pause() = %v, want ErrExhausted", err)
		}
	}
	cancel()
	wg.Wait()
}

// TestDeafPeer holds that a QEMU that reads nothing does not hold a call beyond
// its deadline.
func TestDeafPeer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	defer close(done)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, greeting)
		_, _ = bufio.NewReaderSize(conn, 16).ReadString('\n')
		_, _ = io.WriteString(conn, `{"return": {}, "id": 0}`+"\n")
		<-done
	}()
	c, err := qmp.Dial(within(t), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	large := strings.Repeat("x", 100_000)
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		err := c.Do(ctx, "x", map[string]string{"a": large}, nil)
		cancel()
		if err == nil {
			t.Fatal("Do() = nil of a QEMU that reads nothing")
		}
	}
}

func TestDialNothing(t *testing.T) {
	if _, err := qmp.Dial(within(t), filepath.Join(t.TempDir(), "absent"), nil); !errors.Is(err, caisson.ErrUnavailable) {
		t.Errorf("Dial() = %v, want ErrUnavailable", err)
	}
}

// FuzzAnswers has a peer that answers anything: no call may hang or panic.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte(`{"return": {"status": "running"}, "id": 1}` + "\n"))
	f.Add([]byte(`{"event": "STOP", "data": {}}` + "\n" + `{"id": 1, "error": {}}` + "\n"))
	f.Add([]byte("\x00\n\n{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			lines := bufio.NewReader(theirs)
			_, _ = io.WriteString(theirs, greeting)
			_, _ = lines.ReadString('\n')
			_, _ = io.WriteString(theirs, `{"return": {}, "id": 0}`+"\n")
			_, _ = lines.ReadString('\n')
			_, _ = theirs.Write(data)
		}()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		c, err := qmp.New(ctx, ours, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Status(ctx)
		if ctx.Err() != nil {
			t.Error("the call has waited for its deadline")
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}
