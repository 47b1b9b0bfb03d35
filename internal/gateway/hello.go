package gateway

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
)

// maxHello bounds a ClientHello: with keys against quantum computers they have
// 2 KiB, and a session ticket may be large.
const maxHello = 64 << 10

// readHello reads a ClientHello from r, all its records included, and returns
// the name that it asks for, empty if it names none. What was read is in raw.
//
// It is the standard library that reads it, because it refuses what servers
// could read otherwise than we do: two names, a name twice, bytes too many.
func readHello(r io.Reader) (name string, raw []byte, err error) {
	rec := &recorder{r: io.LimitReader(r, maxHello)}
	found := false
	config := &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		name, found = hello.ServerName, true
		return nil, errHelloRead
	}}
	tls.Server(rec, config).Handshake() // which fails in any case
	if !found {
		return "", rec.raw.Bytes(), errors.New("not a beginning of TLS that can be read")
	}
	return name, rec.raw.Bytes(), nil
}

var errHelloRead = errors.New("the name is read")

// A recorder is the connection that readHello reads from: it remembers what is
// read, and says nothing.
type recorder struct {
	net.Conn // nil: nothing else of it is used
	r        io.Reader
	raw      bytes.Buffer
}

func (c *recorder) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.raw.Write(p[:n])
	return n, err
}

func (c *recorder) Write(p []byte) (int, error) { return len(p), nil }

// Alerts of TLS, each a whole record: fatal.
var (
	alertDenied   = []byte{21, 3, 3, 0, 2, 2, 49} // access_denied
	alertInternal = []byte{21, 3, 3, 0, 2, 2, 80} // internal_error: the host could not be reached
)

// What the first bytes of a connection are.
type protocol int

const (
	unknownYet protocol = iota
	isTLS
	isHTTP
	isOther
)

// maxMethod is the length of the longest word that could be a method.
const maxMethod = 24

// firstBytes tells what a connection speaks by its first bytes. When in doubt it
// is HTTP: a server that is lenient must not see a request that nobody looked
// at. A word that could become a method is unknown until more is there.
func firstBytes(b []byte) protocol {
	if len(b) == 0 {
		return unknownYet
	}
	if b[0] == 22 {
		switch {
		case len(b) == 1:
			return unknownYet
		case b[1] == 3:
			return isTLS
		}
		return isOther
	}
	b = bytes.TrimLeft(b, " \t\r\n")
	end := bytes.IndexFunc(b, func(r rune) bool { return !isMethodLetter(r) })
	switch {
	case end < 0 && len(b) <= maxMethod:
		return unknownYet
	case end <= 0 || end > maxMethod || b[end] != ' ' && b[end] != '\t':
		return isOther
	case isMethod(string(b[:end])):
		return isHTTP
	}
	return firstTarget(bytes.TrimLeft(b[end:], " \t"))
}

// firstTarget tells whether what stands behind an unusual word could be what a
// request is for.
func firstTarget(b []byte) protocol {
	const scheme = "http"
	if len(b) == 0 {
		return unknownYet
	}
	if b[0] == '/' || b[0] == '*' {
		return isHTTP
	}
	n := min(len(b), len(scheme))
	switch {
	case !strings.EqualFold(string(b[:n]), scheme[:n]):
		return isOther
	case n < len(scheme):
		return unknownYet
	}
	return isHTTP
}

func isMethodLetter(r rune) bool {
	return r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || r == '-' || r == '_'
}

func isMethod(word string) bool {
	switch word {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PRI":
		return true
	}
	return false
}
