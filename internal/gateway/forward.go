package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Times and bounds of connections that requests share.
const (
	idleConns = 16
	// How many bytes of answers over HTTP/2 wait for somebody to read them: of one,
	// and of all on one connection.
	maxAnswer       = 1 << 20
	maxAnswers      = 16 << 20
	continueTimeout = time.Second
)

// transport returns what requests to a dest are sent by. It connects to nothing
// but the dest, whatever a request says.
func (s *Server) transport(d *dest) *http.Transport {
	t := newTransport(s.opts.HeaderTimeout)
	t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return s.connect(ctx, d) }
	t.TLSClientConfig = &tls.Config{RootCAs: s.opts.Roots, ServerName: d.host(), MinVersion: tls.VersionTLS12}
	return t
}

func newTransport(headers time.Duration) *http.Transport {
	return &http.Transport{
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{MaxReceiveBufferPerStream: maxAnswer, MaxReceiveBufferPerConnection: maxAnswers},
		DisableCompression:     true,
		MaxIdleConnsPerHost:    idleConns,
		IdleConnTimeout:        idleTimeout,
		TLSHandshakeTimeout:    handshakeTimeout,
		ExpectContinueTimeout:  continueTimeout,
		ResponseHeaderTimeout:  headers,
		MaxResponseHeaderBytes: 1 << 20,
	}
}

// forward returns the handler of requests to a dest.
func (s *Server) forward(d *dest) http.Handler {
	if d.broker != nil {
		return s.broker(d)
	}
	proxy := s.reverse(d)
	proxy.Transport = d.transport
	return proxy
}

// reverse returns a proxy that sends requests on as they came.
func (s *Server) reverse(d *dest) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		FlushInterval: -1,
		BufferPool:    &s.buffers,
		ErrorLog:      log.New(io.Discard, "", 0),
		Rewrite: func(r *httputil.ProxyRequest) {
			asItCame(r)
			r.Out.URL.Scheme, r.Out.URL.Host = "http", d.String()
			if d.broker != nil && !d.broker.plain {
				r.Out.URL.Scheme = "https"
			}
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			var private *errPrivate
			if errors.As(err, &private) {
				s.block(d.endpoint, private.Error())
				deny(w, http.StatusForbidden, d.String()+" "+private.Error())
				return
			}
			unreachable(w, d.String(), err)
		},
	}
}

// asItCame undoes what the reverse proxy changes in a request, but for what
// belongs to the connection.
func asItCame(r *httputil.ProxyRequest) {
	r.Out.URL.RawQuery = r.In.URL.RawQuery
	r.Out.Host = r.In.Host
	for _, key := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if values, ok := r.In.Header[key]; ok {
			r.Out.Header[key] = values
		}
	}
	onlyWebsockets(r.Out.Header)
}

// onlyWebsockets takes other upgrades out of a request: in another protocol,
// requests could follow that nobody looks at.
func onlyWebsockets(h http.Header) {
	if !strings.EqualFold(h.Get("Upgrade"), "websocket") {
		h.Del("Upgrade")
		h.Del("Connection")
		h.Del("Http2-Settings")
	}
}

// buffers are for the bodies of answers: each is used by one at a time. They are
// larger than the reverse proxy's own, as most of what it costs to pass a body on
// is the number of pieces.
type buffers struct{ pool sync.Pool }

const bufferSize = 128 << 10

// Get implements httputil.BufferPool.
func (b *buffers) Get() []byte {
	if buf, ok := b.pool.Get().(*[bufferSize]byte); ok {
		return buf[:]
	}
	return make([]byte, bufferSize)
}

// Put implements httputil.BufferPool.
func (b *buffers) Put(buf []byte) {
	if len(buf) == bufferSize {
		b.pool.Put((*[bufferSize]byte)(buf))
	}
}

// unreachable tells why a server gave no answer, in words that say nothing about
// this host's network.
func unreachable(w http.ResponseWriter, host string, err error) {
	status, why := http.StatusBadGateway, "gave no answer that can be understood"
	var lookup *net.DNSError
	var encoded *encodedError
	var netErr net.Error
	var cert *tls.CertificateVerificationError
	var program errProgram
	switch {
	case errors.As(err, &program):
		why = program.Error()
	case errors.As(err, &encoded):
		why = encoded.Error()
	case errors.As(err, &lookup) && lookup.IsNotFound:
		why = "there is no such host"
	case errors.As(err, &lookup):
		why = "its address could not be looked up"
	case errors.As(err, &cert):
		why = "its certificate is not trusted: " + clip(cert.Err.Error())
	case errors.Is(err, syscall.ECONNREFUSED):
		why = "refused the connection"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		status, why = http.StatusGatewayTimeout, "gave no answer in time"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		why = "can't be reached from here"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		why = "ended the connection"
	}
	deny(w, status, host+": "+why)
}
