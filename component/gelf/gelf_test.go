package gelf_test

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/gelf"
	"github.com/google/go-cmp/cmp"
)

// What libraries send: gelf-php 1.7.1 and pygelf.
const (
	phpSample    = `{"version":"1.0","host":"vm","short_message":"hello","level":6,"timestamp":1795282556.371081,"_facility":"app"}`
	pythonSample = `{"version":"1.1","short_message":"Finished. ","timestamp":1795282556,"level":6,"host":"vm","_stack_info":null}`
)

func message(text string) string {
	return fmt.Sprintf(`{"host":"h","level":3,"timestamp":1,"short_message":%q}`, text)
}

// texts returns the texts of messages, those of bad ones in brackets.
func texts(messages []*gelf.Message) []string {
	var out []string
	for _, m := range messages {
		text := m.Text
		if m.Bad {
			text, _, _ = strings.Cut(strings.TrimPrefix(text, "not a GELF message: "), ": ")
			text = "[" + text + "]"
		}
		out = append(out, text)
	}
	return out
}

func TestSamples(t *testing.T) {
	got := gelf.Frame(1<<20, []byte(phpSample+"\x00"+pythonSample+"\x00"))
	want := []*gelf.Message{
		{Host: "vm", Level: gelf.Info, Text: "hello", Stamp: 1795282556.371081, Fields: map[string]any{"_facility": "app"}},
		{Host: "vm", Level: gelf.Info, Text: "Finished. ", Stamp: 1795282556, Fields: map[string]any{"_stack_info": nil}},
	}
	for _, m := range got {
		if m.Time.IsZero() {
			t.Error("a message has no time of arrival")
		}
		m.Time = time.Time{}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}

func TestParse(t *testing.T) {
	tests := map[string]struct{ sent, want string }{
		"LevelZero":        {`{"host":"h","level":0,"timestamp":1,"short_message":"a"}`, "a"},
		"NumbersAsText":    {`{"host":"h","level":"4","timestamp":"1.5","short_message":"a"}`, "a"},
		"ErrHost":          {`{"level":3,"timestamp":1,"short_message":"a"}`, "[host is missing]"},
		"ErrHostEmpty":     {`{"host":"","level":3,"timestamp":1,"short_message":"a"}`, "[host is missing]"},
		"ErrText":          {`{"host":"h","level":3,"timestamp":1}`, "[short_message is missing]"},
		"ErrTextNumber":    {`{"host":"h","level":3,"timestamp":1,"short_message":5}`, "[short_message is missing]"},
		"ErrTime":          {`{"host":"h","level":3,"short_message":"a"}`, "[timestamp is missing]"},
		"ErrTimeText":      {`{"host":"h","level":3,"timestamp":"now","short_message":"a"}`, "[timestamp must be a number]"},
		"ErrLevel":         {`{"host":"h","timestamp":1,"short_message":"a"}`, "[level must be a number from 0 to 7]"},
		"ErrLevelHigh":     {`{"host":"h","level":8,"timestamp":1,"short_message":"a"}`, "[level must be a number from 0 to 7]"},
		"ErrLevelFraction": {`{"host":"h","level":3.5,"timestamp":1,"short_message":"a"}`, "[level must be a number from 0 to 7]"},
		"ErrLevelHuge":     {`{"host":"h","level":1e99,"timestamp":1,"short_message":"a"}`, "[level must be a number from 0 to 7]"},
		"ErrList":          {`[1]`, "[it can't be parsed as a JSON object]"},
		"ErrNull":          {`null`, "[host is missing]"},
		"ErrNoJSON":        {`hello`, "[it can't be parsed as a JSON object]"},
		"ErrTwo":           {message("a") + message("b"), "[there is something behind the JSON object]"},
		"ErrDeep":          {strings.Repeat("[", 100_000), "[it can't be parsed as a JSON object]"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := texts(gelf.Frame(1<<20, []byte(test.sent+"\x00")))
			if diff := cmp.Diff([]string{test.want}, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.sent, diff)
			}
		})
	}
}

func TestFields(t *testing.T) {
	sent := `{"host":"h","level":7,"timestamp":1,"short_message":"a","full_message":"all","_object":"{\"a\":[1,2]}","_text":"no json",` +
		`"_number":"12","_two":"1 2","plain":"{}","_real":1.50}`
	got := gelf.Frame(1<<20, []byte(sent))
	if len(got) != 1 || got[0].Bad {
		t.Fatalf("got %v, want one message", texts(got))
	}
	want := map[string]any{
		"_object": map[string]any{"a": []any{json.Number("1"), json.Number("2")}}, "_text": "no json",
		"_number": json.Number("12"), "_two": "1 2", "plain": "{}", "_real": json.Number("1.50"),
	}
	if diff := cmp.Diff(want, got[0].Fields); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
	if got[0].Full != "all" || got[0].Level != gelf.Debug {
		t.Errorf("full message %q, level %v", got[0].Full, got[0].Level)
	}
}

func TestLevels(t *testing.T) {
	var got []string
	for level := gelf.Debug; level >= gelf.Emergency; level-- {
		got = append(got, fmt.Sprint(level, " ", level.Verbosity()))
	}
	want := []string{
		"debug 100", "info 200", "notice 250", "warning 300", "error 400", "critical 500", "alert 550", "emergency 600",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("levels (-want +got):\n%s", diff)
	}
}

func TestFraming(t *testing.T) {
	pretty := "{\n \"host\": \"h\",\n \"level\": 3,\n \"timestamp\": 1,\n \"short_message\": \"pretty\"\n}"
	tests := map[string]struct {
		sent string
		want []string
	}{
		"Zero":          {message("a") + "\x00" + message("b") + "\x00", []string{"a", "b"}},
		"NoEnd":         {message("a") + "\x00" + message("b"), []string{"a", "b"}},
		"Lines":         {message("a") + "\n" + message("b") + "\r\n\n" + message("c"), []string{"a", "b", "c"}},
		"Pretty":        {pretty + "\x00" + message("b") + "\x00", []string{"pretty", "b"}},
		"LinesInOne":    {"x\n" + message("a") + "\n" + message("b") + "\x00", []string{"[it can't be parsed as a JSON object]", "a", "b"}},
		"BadLineLater":  {message("a") + "\nx\n" + message("b") + "\n", []string{"a", "[it can't be parsed as a JSON object]", "b"}},
		"Empty":         {"\x00\x00\n\n", nil},
		"TooLong":       {strings.Repeat("x", 600) + "\x00" + message("b") + "\x00", []string{"[longer than 500 bytes]", "b"}},
		"TooLongLine":   {message("a") + "\n" + strings.Repeat("x", 600) + "\n" + message("b") + "\n", []string{"a", "[longer than 500 bytes]", "b"}},
		"TooLongPretty": {"{\n" + strings.Repeat("x\n", 600) + "\x00" + message("b") + "\x00", []string{"[longer than 500 bytes]", "b"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var bytewise [][]byte
			for i := range test.sent {
				bytewise = append(bytewise, []byte{test.sent[i]})
			}
			if diff := cmp.Diff(test.want, texts(gelf.Frame(500, bytewise...))); diff != "" {
				t.Errorf("byte by byte (-want +got):\n%s", diff)
			}
			if name == "TooLongLine" {
				return // a line that is there at once may be longer
			}
			if diff := cmp.Diff(test.want, texts(gelf.Frame(500, []byte(test.sent)))); diff != "" {
				t.Errorf("at once (-want +got):\n%s", diff)
			}
		})
	}
}

// chunks cuts data into datagrams.
func chunks(id string, data []byte, count int) [][]byte {
	var out [][]byte
	size := (len(data) + count - 1) / count
	for i := range count {
		head := append([]byte{0x1e, 0x0f}, id...)
		part := data[min(i*size, len(data)):min((i+1)*size, len(data))]
		out = append(out, append(append(head, byte(i), byte(count)), part...))
	}
	return out
}

func zlibbed(data string) []byte {
	var out bytes.Buffer
	w := zlib.NewWriter(&out)
	io.WriteString(w, data)
	w.Close()
	return out.Bytes()
}

func gzipped(data string) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	io.WriteString(w, data)
	w.Close()
	return out.Bytes()
}

func TestDatagrams(t *testing.T) {
	three := chunks("12345678", []byte(message("three")), 3)
	packed := chunks("abcdefgh", zlibbed(message("packed")), 2)
	tests := map[string]struct {
		sent [][]byte
		want []string
	}{
		"Plain":           {[][]byte{[]byte(message("a")), []byte(message("b") + "\x00")}, []string{"a", "b"}},
		"Zlib":            {[][]byte{zlibbed(message("a"))}, []string{"a"}},
		"Gzip":            {[][]byte{gzipped(message("a"))}, []string{"a"}},
		"Chunks":          {three, []string{"three"}},
		"ChunksTwice":     {[][]byte{three[2], three[0], three[2], packed[1], three[1], packed[0]}, []string{"three", "packed"}},
		"ErrBomb":         {[][]byte{gzipped(strings.Repeat(" ", 10<<20))}, []string{"[longer than 1000 bytes]"}},
		"ErrZlib":         {[][]byte{{0x78, 0x9c, 1, 2, 3}}, []string{"[flate"}},
		"ErrChunkMissing": {three[:2], []string{"[of 1 messages in chunks some chunks did not arrive]"}},
		"ErrChunkEmpty":   {[][]byte{[]byte("\x1e\x0f12345678\x00\x01")}, []string{"[a chunk without contents]"}},
		"ErrChunkShort":   {[][]byte{{0x1e, 0x0f}}, []string{"[a chunk without contents]"}},
		"ErrChunkNumber":  {[][]byte{[]byte("\x1e\x0f12345678\x05\x02x")}, []string{"[chunk 5 of 2]"}},
		"ErrChunkCount":   {[][]byte{[]byte("\x1e\x0f12345678\x05\xffx")}, []string{"[chunk 5 of 255]"}},
		"ErrChunkOther": {
			[][]byte{three[0], []byte("\x1e\x0f12345678\x01\x02x"), three[1], three[2]},
			[]string{"[a chunk of 2 among those of 3]", "three"},
		},
		"ErrChunksLong": {
			chunks("12345678", bytes.Repeat([]byte("x"), 1200), 2),
			[]string{"[longer than 1000 bytes]"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, _ := gelf.Datagrams(1000, test.sent...)
			if name == "ErrZlib" {
				if len(got) != 1 || !got[0].Bad {
					t.Errorf("got %q, want one bad message", texts(got))
				}
				return
			}
			if diff := cmp.Diff(test.want, texts(got)); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}

// TestChunkSetsBounded has a sender that never ends a message.
func TestChunkSetsBounded(t *testing.T) {
	var sent [][]byte
	for i := range 5000 {
		sent = append(sent, chunks(fmt.Sprintf("%08d", i), []byte("xx"), 2)[0])
	}
	got, sets := gelf.Datagrams(1000, sent...)
	if sets > 64 {
		t.Errorf("%d messages were waited for at once, want 64 at most", sets)
	}
	want := []string{"[of 5000 messages in chunks some chunks did not arrive]"}
	if diff := cmp.Diff(want, texts(got)); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}

// A sink collects messages.
type sink struct {
	mu  sync.Mutex
	got []*gelf.Message
}

func (s *sink) add(m *gelf.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, m)
}

func (s *sink) texts() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return texts(s.got)
}

func listen(t *testing.T, opts gelf.Options) (*gelf.Listener, *sink) {
	t.Helper()
	s := &sink{}
	opts.Message = s.add
	l, err := gelf.Listen("127.0.0.1:0", opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, s
}

func dial(t *testing.T, l *gelf.Listener) net.Conn {
	t.Helper()
	conn, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func send(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
}

// eventually waits for the sink to have what is wanted.
func eventually(t *testing.T, s *sink, want ...string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		diff := cmp.Diff(want, s.texts())
		if diff == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("messages (-want +got):\n%s", diff)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestTCPLive(t *testing.T) {
	l, s := listen(t, gelf.Options{})
	conn := dial(t, l)
	send(t, conn, message("one")+"\x00")
	eventually(t, s, "one")
	send(t, conn, message("two")+"\n")
	eventually(t, s, "one", "two")
}

// TestTCPClose closes while senders that are gone have not been looked at.
func TestTCPClose(t *testing.T) {
	l, s := listen(t, gelf.Options{})
	for range 20 {
		conn := dial(t, l)
		send(t, conn, message("last"))
		conn.Close()
	}
	l.Close()
	if got := len(s.texts()); got != 20 {
		t.Errorf("%d messages, want 20", got)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("it still listens after Close")
	}
}

// TestTCPCloseHanging closes while a sender is connected that sends nothing.
func TestTCPCloseHanging(t *testing.T) {
	l, s := listen(t, gelf.Options{})
	conn := dial(t, l)
	send(t, conn, message("whole")+"\x00"+message("rest"))
	eventually(t, s, "whole")
	l.Close()
	eventually(t, s, "whole", "rest")
}

func TestTCPConnsBounded(t *testing.T) {
	l, s := listen(t, gelf.Options{MaxConns: 2})
	first, second := dial(t, l), dial(t, l)
	send(t, first, message("a")+"\x00")
	eventually(t, s, "a")
	send(t, second, message("b")+"\x00")
	eventually(t, s, "a", "b")
	third := dial(t, l) // waits in the kernel
	send(t, third, message("c")+"\x00")
	send(t, first, message("d")+"\x00")
	eventually(t, s, "a", "b", "d")
	first.Close()
	eventually(t, s, "a", "b", "d", "c")
}

func TestUDPLive(t *testing.T) {
	l, s := listen(t, gelf.Options{Type: gelf.UDP})
	conn := dial(t, l)
	send(t, conn, message("one"))
	eventually(t, s, "one")
	send(t, conn, string(gzipped(message("two"))))
	l.Close()
	eventually(t, s, "one", "two")
}

func TestHTTP(t *testing.T) {
	l, s := listen(t, gelf.Options{Type: gelf.HTTP, MaxMessage: 1000})
	base := "http://" + l.Addr().String()
	tests := map[string]struct {
		method, path, body string
		status             int
		want               []string
	}{
		"OK":         {"POST", "/gelf", message("a"), 202, []string{"a"}},
		"Gzip":       {"POST", "/gelf", string(gzipped(message("a"))), 202, []string{"a"}},
		"ErrPath":    {"POST", "/", message("a"), 404, nil},
		"ErrMethod":  {"GET", "/gelf", "", 405, nil},
		"ErrMessage": {"POST", "/gelf", "x", 400, []string{"[it can't be parsed as a JSON object]"}},
		"ErrLong":    {"POST", "/gelf", strings.Repeat("x", 2000), 413, []string{"[longer than 1000 bytes]"}},
		"ErrBomb":    {"POST", "/gelf", string(gzipped(strings.Repeat("x", 200_000))), 400, []string{"[longer than 1000 bytes]"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s.mu.Lock()
			s.got = nil
			s.mu.Unlock()
			req, err := http.NewRequest(test.method, base+test.path, strings.NewReader(test.body))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != test.status {
				t.Errorf("status %d, want %d", resp.StatusCode, test.status)
			}
			eventually(t, s, test.want...)
		})
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestListenErr(t *testing.T) {
	t.Run("ErrType", func(t *testing.T) {
		if _, err := gelf.Listen("127.0.0.1:0", gelf.Options{Type: "amqp"}); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("got %v, want %v", err, caisson.ErrInvalid)
		}
	})
	t.Run("ErrAddress", func(t *testing.T) {
		if _, err := gelf.Listen("192.0.2.1:1", gelf.Options{}); !errors.Is(err, caisson.ErrUnavailable) {
			t.Errorf("got %v, want %v", err, caisson.ErrUnavailable)
		}
	})
}

// TestCloseTwice closes from many sides while messages come in.
func TestCloseTwice(t *testing.T) {
	for _, kind := range []string{gelf.TCP, gelf.UDP, gelf.HTTP} {
		t.Run(kind, func(t *testing.T) {
			l, _ := listen(t, gelf.Options{Type: kind})
			var all sync.WaitGroup
			conns := []net.Conn{dial(t, l), dial(t, l), dial(t, l), dial(t, l)}
			for _, conn := range conns {
				all.Go(func() {
					for range 200 {
						if _, err := io.WriteString(conn, message("x")+"\x00"); err != nil {
							return
						}
					}
				})
				all.Go(func() { l.Close() })
			}
			all.Wait()
		})
	}
}

// FuzzFrame sends the same bytes at once and in two pieces.
func FuzzFrame(f *testing.F) {
	f.Add([]byte(phpSample+"\x00"+pythonSample+"\x00"), 7)
	f.Add([]byte(message("a")+"\n"+message("b")+"\nx\n"), 3)
	f.Add([]byte("{\n\x00}\n"), 1)
	f.Fuzz(func(t *testing.T, data []byte, cut int) {
		whole := texts(gelf.Frame(1<<20, data))
		cut = min(max(cut, 0), len(data))
		if diff := cmp.Diff(whole, texts(gelf.Frame(1<<20, data[:cut], data[cut:]))); diff != "" {
			t.Errorf("cut at %d (-whole +cut):\n%s", cut, diff)
		}
		for _, m := range gelf.Frame(64, data) {
			if !m.Bad && (m.Host == "" || m.Text == "") {
				t.Errorf("message without host or text: %+v", m)
			}
		}
	})
}

func FuzzDatagram(f *testing.F) {
	three := chunks("12345678", []byte(message("three")), 3)
	f.Add(three[0], three[1], three[2])
	f.Add(zlibbed(message("a")), gzipped(message("b")), []byte(message("c")))
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		got, sets := gelf.Datagrams(1000, a, b, c)
		if len(got) > 4 || sets > 3 {
			t.Errorf("%d messages and %d sets of three datagrams", len(got), sets)
		}
	})
}

func splitPort(t *testing.T, l *gelf.Listener) (host, port string) {
	t.Helper()
	host, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}

func dialPort(port string) (net.Conn, error) {
	return net.DialTimeout("tcp", "127.0.0.1:"+port, time.Second)
}
