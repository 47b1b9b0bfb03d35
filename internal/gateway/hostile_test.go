package gateway_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caissonrun/caisson/internal/gateway"
)

// All kinds of connections at once, half of them broken off, and nothing is left
// of them.
func TestNothingIsLeft(t *testing.T) {
	settle := func() int {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		runtime.GC()
		return runtime.NumGoroutine()
	}
	before := settle()
	t.Run("Work", func(t *testing.T) {
		v := openVault(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, io.LimitReader(r.Body, 10)) },
			[]string{"plain.example:80", "plain.example:25", "tls.example:443"}, token())
		v.host("plain.example", public, 80, web(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
		v.host("plain.example", public, 25, listen(t, func(conn net.Conn) { io.Copy(conn, conn) }))
		v.host("tls.example", "93.184.216.99", 443, listen(t, func(conn net.Conn) { io.Copy(io.Discard, conn) }))
		to := []string{
			v.to("plain.example", 80), v.to("plain.example", 25), v.to("tls.example", 443), v.to("example.com", 443),
			v.to("evil.example", 443), "1.2.3.4:80", "1.2.3.4:22", "127.64.0.1:53", "127.65.9.9:443", "127.65.9.9:25",
		}
		hello := clientHello(t, "tls.example")
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		random := rand.New(rand.NewPCG(seed, 0))
		garbage := make([]byte, 3000)
		for i := range garbage {
			garbage[i] = byte(random.Uint32())
		}
		said := [][]byte{nil, garbage, hello, hello[:100], []byte("GET / HTTP/1.1\r\nHost: plain.example\r\n\r\n"), []byte("GET / HT"), {0, 4, 1, 2, 3, 4}, {22}}
		var conns []net.Conn
		for range 20 {
			for _, addr := range to {
				conn := v.connect(addr)
				conn.Write(said[random.IntN(len(said))])
				switch random.IntN(3) {
				case 0:
					conn.Close()
				case 1:
					conn.CloseWrite()
				}
				conns = append(conns, conn)
			}
		}
		get(t, v.client, "https://example.com/")
		v.client.CloseIdleConnections()
		v.close()
		for _, conn := range conns {
			conn.Close()
		}
	})
	eventually(t, "all goroutines have ended", func() bool { return settle() <= before }, func() string {
		buf := make([]byte, 1<<20)
		return string(buf[:runtime.Stack(buf, true)])
	})
}

// clientHello returns the beginning of TLS for a name.
func clientHello(t *testing.T, name string) []byte {
	t.Helper()
	a, b := net.Pipe()
	go tls.Client(a, &tls.Config{ServerName: name, InsecureSkipVerify: true}).Handshake()
	buf := make([]byte, 64<<10)
	n, err := b.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
	b.Close()
	return buf[:n]
}

// Connections beyond the bound wait; when others end they are served.
func TestManyConnections(t *testing.T) {
	b := open(t, allow(t, "example.com:80"))
	b.host("example.com", public, 80, web(t, hello("outside")))
	to := b.to("example.com", 80)
	var idle []net.Conn
	var wait sync.WaitGroup
	for range 1024 {
		idle = append(idle, b.connect(to))
	}
	wait.Go(func() {
		conn := b.connect(to)
		defer conn.Close()
		res, _, _ := requestOn(t, conn, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
		if res.StatusCode != 200 {
			t.Errorf("status %d", res.StatusCode)
		}
	})
	for _, conn := range idle {
		conn.Close()
	}
	wait.Wait()
}

// Who never reads what he asked for keeps nobody else waiting.
func TestNeverReading(t *testing.T) {
	v := openVault(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/endless" {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}
	}, nil, token())
	for range 20 {
		res, err := v.client.Get("https://example.com/endless")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
	}
	if status, _ := get(t, v.client, "https://example.com/"); status != 200 {
		t.Errorf("status %d", status)
	}
}

// Large bodies pass in both directions without being kept.
func TestLargeBodies(t *testing.T) {
	const size, most = 128 << 20, 96 << 20
	v := openVault(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil || n != size {
			t.Errorf("%d bytes arrived, %v", n, err)
		}
		io.Copy(w, io.LimitReader(zeros{}, size))
	}, nil, token())
	r, err := http.NewRequestWithContext(t.Context(), "POST", "https://example.com/", io.LimitReader(zeros{}, size))
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	res, err := v.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	n, err := io.Copy(io.Discard, res.Body)
	if err != nil || n != size {
		t.Errorf("%d bytes came back, %v", n, err)
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > most {
		t.Errorf("the heap has grown by %d MiB", grown>>20)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// What a task says about itself reaches operators as one short line of text.
func TestBlockedIsText(t *testing.T) {
	b := open(t, allow(t))
	for _, host := range []string{"evil\x1b[2Jexample", strings.Repeat("x", 5000), "a\tb"} {
		conn := b.connect("127.65.255.254:80")
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host)
		io.Copy(io.Discard, conn)
	}
	conn := b.connect("127.65.255.254:443")
	conn.Write(bytes.Replace(clientHello(t, "evil-example.com"), []byte("evil-example.com"), []byte("evil\nexample\x1b[2m"), 1))
	io.Copy(io.Discard, conn)
	list, _ := b.server.Blocked()
	if len(list) == 0 {
		t.Fatal("nothing was blocked")
	}
	for _, w := range list {
		if strings.ContainsFunc(w.String(), func(r rune) bool { return r < ' ' || r > '~' }) || len(w.Host) > 300 || len(w.Why) > 300 {
			t.Errorf("blocked: %q", w)
		}
	}
}

// A lookup that hangs ends with the sandbox.
func TestHangingLookup(t *testing.T) {
	asked := make(chan struct{}, 1)
	b := open(t, allow(t, "example.com:25"), func(o *gateway.Options) {
		o.Lookup = hangingLookup(asked)
	})
	conn := b.connect(b.to("example.com", 25))
	<-asked
	b.close()
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is still open")
	}
}

func TestServeAfterEnd(t *testing.T) {
	s, err := gateway.New(allow(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(ctx, nil) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("Serve did not return")
	}
}
