package gateway_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"testing"
)

// What a large answer costs: HTTP, which is read and written anew, and bytes that
// are passed on.
func BenchmarkAllow(b *testing.B) {
	const size = 256 << 20
	b.Run("HTTP", func(b *testing.B) {
		box := open(b, allow(b, "example.com:80"))
		box.host("example.com", public, 80, web(b, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(size))
			io.Copy(w, io.LimitReader(zeros{}, size))
		}))
		to := box.to("example.com", 80)
		b.SetBytes(size)
		for b.Loop() {
			conn := box.connect(to)
			fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n")
			if n, err := io.Copy(io.Discard, conn); n < size {
				b.Fatal(n, err)
			}
		}
	})
	b.Run("Bytes", func(b *testing.B) {
		box := open(b, allow(b, "example.com:5432"))
		box.host("example.com", public, 5432, listen(b, func(conn net.Conn) {
			conn.Read(make([]byte, 1))
			io.Copy(conn, io.LimitReader(zeros{}, size))
		}))
		to := box.to("example.com", 5432)
		b.SetBytes(size)
		for b.Loop() {
			conn := box.connect(to)
			conn.Write([]byte("\x00"))
			if n, err := io.Copy(io.Discard, conn); n != size {
				b.Fatal(n, err)
			}
		}
	})
}
