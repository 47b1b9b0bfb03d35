package gateway

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestFirstBytes(t *testing.T) {
	for text, want := range map[string]protocol{
		"":                              unknownYet,
		"G":                             unknownYet,
		"GET":                           unknownYet,
		"GET ":                          isHTTP,
		"POST /x":                       isHTTP,
		"CONNECT a:1":                   isHTTP,
		"\r\n\r\nGET /":                 isHTTP,
		" \tget /":                      isHTTP,
		"get foo":                       isOther, // memcached
		"FROB /":                        isHTTP,
		"FROB *":                        isHTTP,
		"FROB ht":                       unknownYet,
		"FROB HTTP://x":                 isHTTP,
		"FROB  x":                       isOther,
		"PRI * HTTP/2.0":                isHTTP,
		"EHLO example.com\r\n":          isOther,
		"QUIT\r\n":                      isOther,
		"SSH-2.0-x\r\n":                 isOther,
		"*1\r\n$4\r\nPING\r\n":          isOther,
		"\x00\x00\x00\x08\x04\xd2\x16/": isOther, // PostgreSQL asks for TLS
		"\x16":                          unknownYet,
		"\x16\x03\x01":                  isTLS,
		"\x16\x04":                      isOther,
		"\x80\x2e\x01\x03\x01":          isOther, // SSL 2
		strings.Repeat("A", 24):         unknownYet,
		strings.Repeat("A", 25):         isOther,
		"M-SEARCH * HTTP/1.1":           isHTTP,
	} {
		if got := firstBytes([]byte(text)); got != want {
			t.Errorf("firstBytes(%q) = %v, want %v", text, got, want)
		}
	}
}

// Whatever is decided is not decided otherwise when more is there.
func FuzzFirstBytes(f *testing.F) {
	for _, s := range []string{"GET / HTTP/1.1\r\n", "\r\nFROB http://x", "EHLO x", "\x16\x03\x01\x00", "PING\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		decided := unknownYet
		for i := range text {
			got := firstBytes(text[:i+1])
			if decided != unknownYet && got != decided {
				t.Fatalf("firstBytes(%q) = %v, and %v with less", text[:i+1], got, decided)
			}
			decided = got
		}
	})
}

func FuzzReadHello(f *testing.F) {
	f.Add([]byte("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03"))
	f.Add([]byte("\x16\x03\x01\xff\xff"))
	f.Fuzz(func(t *testing.T, text []byte) {
		name, raw, err := readHello(bytes.NewReader(text))
		if !bytes.HasPrefix(text, raw) || err != nil && name != "" {
			t.Fatalf("readHello(%q) = %q, %q, %v", text, name, raw, err)
		}
	})
}

// Whatever is asked, the answer is a message or nothing, and short.
func FuzzAnswer(f *testing.F) {
	s, err := New(&Policy{Everything: true}, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01"))
	f.Add([]byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if reply := s.answer(text); len(reply) > 512 || len(reply) > 0 && (len(reply) < 12 || reply[2]&0x80 == 0) {
			t.Fatalf("answer(%q) = %q", text, reply)
		}
	})
}

// A body comes out the same however it is cut, and as if it had been whole.
func TestRewriter(t *testing.T) {
	list := swaps{
		{[]byte("secret"), []byte("<placeholder>")}, {[]byte("secretlonger"), []byte("<2>")}, {[]byte("aab"), []byte("X")},
	}.sorted()
	for in, want := range map[string]string{
		"":                       "",
		"secret":                 "<placeholder>",
		"a secret, a secret.":    "a <placeholder>, a <placeholder>.",
		"secretlonger":           "<2>",
		"secretlonge":            "<placeholder>longe",
		"ssecretsecre":           "s<placeholder>secre",
		"aaaabaabaa":             "aaXXaa",
		"secsecret":              "sec<placeholder>",
		strings.Repeat("s", 100): strings.Repeat("s", 100),
	} {
		if got := list.text(in); got != want {
			t.Errorf("text(%q) = %q, want %q", in, got, want)
		}
		readers := map[string]io.Reader{
			"whole": strings.NewReader(in), "bytes": iotest.OneByteReader(strings.NewReader(in)),
			"halves": iotest.HalfReader(strings.NewReader(in)), "with end": iotest.DataErrReader(strings.NewReader(in)),
		}
		for i := range in {
			readers[fmt.Sprint("cut at ", i)] = io.MultiReader(strings.NewReader(in[:i]), strings.NewReader(in[i:]))
		}
		for name, r := range readers {
			ended := 0
			body := newRewriter(io.NopCloser(r), list, func() { ended++ })
			got, err := io.ReadAll(body)
			body.Close()
			wanted := want
			if in == "secretlonger" && name != "whole" && name != "with end" {
				// The shorter one is not waited with.
				wanted = string(got)
				if strings.Contains(wanted, "secret") {
					t.Errorf("%s: %q: %q has the value", name, in, got)
				}
			}
			if string(got) != wanted || err != nil || ended != 1 {
				t.Errorf("%s: %q = %q, %v (ended %d times); want %q", name, in, got, err, ended, want)
			}
		}
	}
}

func TestRewriterError(t *testing.T) {
	body := newRewriter(io.NopCloser(io.MultiReader(strings.NewReader("abc sec"), iotest.ErrReader(io.ErrUnexpectedEOF))), swaps{{[]byte("secret"), []byte("x")}}, nil)
	defer body.Close()
	if got, err := io.ReadAll(body); string(got) != "abc sec" || err != io.ErrUnexpectedEOF {
		t.Errorf("%q, %v", got, err)
	}
}

// Closing ends a body that nobody sends any more.
func TestRewriterClose(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close()
	body := newRewriter(r, swaps{{[]byte("secret"), []byte("x")}}, nil)
	go w.Write([]byte("s"))
	if n, err := body.Read(make([]byte, 10)); n != 1 || err != nil {
		t.Errorf("the beginning of a value alone: %d, %v", n, err)
	}
	body.Close()
	if _, err := body.Read(make([]byte, 10)); err == nil {
		t.Error("a closed body can be read")
	}
}

// An answer that no longer leads anywhere is asked for anew, and checked again.
func TestConnectAgain(t *testing.T) {
	old, private, next := netip.MustParseAddr("93.184.216.34"), netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("93.184.216.35")
	found, alive := old, old
	lookups := 0
	s, err := New(&Policy{Everything: true, Allow: []Rule{{name: "example.com", port: 80}}}, &Options{
		Lookup: func(context.Context, string) ([]netip.Addr, error) { lookups++; return []netip.Addr{found}, nil },
		Dial: func(_ context.Context, to netip.AddrPort) (net.Conn, error) {
			if to.Addr() != alive {
				return nil, io.ErrUnexpectedEOF
			}
			conn, _ := net.Pipe()
			return conn, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.dest(endpoint{name: "example.com", port: 80})
	if err != nil {
		t.Fatal(err)
	}
	later := func() { d.pinned = time.Now().Add(-time.Minute) }
	for i, step := range []struct {
		before  func()
		err     bool
		lookups int
	}{
		{func() {}, false, 1},
		{func() { later(); found = private }, false, 1},       // it answers: no reason to ask
		{func() { alive = next }, true, 2},                    // it does not, and leads to a private one
		{func() { found = next }, false, 3},                   // to a public one again
		{func() { alive = old }, true, 3},                     // asked too lately
		{func() { later(); found = private }, true, 4},        // checked again
		{func() { found, alive = private, private }, true, 5}, // even where it would answer
	} {
		step.before()
		conn, err := s.connect(t.Context(), d)
		if (err != nil) != step.err || lookups != step.lookups {
			t.Errorf("step %d: %v after %d lookups, want error %v after %d", i, err, lookups, step.err, step.lookups)
		}
		if conn != nil {
			conn.Close()
		}
	}
}
