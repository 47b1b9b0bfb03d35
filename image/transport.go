//go:build unix

package image

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/idle"
	"github.com/caissonrun/caisson/internal/netguard"
)

const (
	// dialTimeout bounds connecting and the TLS handshake, each.
	dialTimeout = 15 * time.Second
	// maxDelay is the longest pause between two tries, also where a server asks
	// for a longer one.
	maxDelay = 30 * time.Second
	// maxAnswer is the most bytes of an answer that is not a blob.
	maxAnswer    = 8 << 20
	maxRedirects = 10
)

// A web is how servers are reached for one pull. It never uses what the
// environment says about proxies.
type web struct {
	idle    time.Duration
	plain   func(host string) bool // http may be used
	client  *http.Transport
	skipTLS func(host string) bool
	noTLS   *http.Transport // does not check certificates
}

// web returns what a pull goes by. named are the hosts that may have a private
// address, with their ports.
func (r *remote) web(in insecure, named []string) *web {
	guarded := netguard.Dialer(dialTimeout, r.sources.AllowPrivate)
	open := netguard.Dialer(dialTimeout, true)
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		for _, host := range named {
			if strings.EqualFold(address, withPort(host, "443")) || strings.EqualFold(address, withPort(host, "80")) {
				return open.DialContext(ctx, network, address)
			}
		}
		return guarded.DialContext(ctx, network, address)
	}
	base := func(config *tls.Config) *http.Transport {
		return &http.Transport{
			DialContext:            dial,
			TLSClientConfig:        config,
			TLSHandshakeTimeout:    dialTimeout,
			ResponseHeaderTimeout:  r.sources.Idle,
			MaxResponseHeaderBytes: 256 << 10,
			MaxIdleConnsPerHost:    r.sources.Parallel,
			DisableCompression:     true,
			ForceAttemptHTTP2:      true,
		}
	}
	return &web{
		idle:    r.sources.Idle,
		plain:   func(host string) bool { return in.http || listed(r.sources.HTTP, host) },
		skipTLS: func(host string) bool { return in.tls || listed(r.sources.SkipTLS, host) },
		client:  base(&tls.Config{RootCAs: r.sources.RootCAs, MinVersion: tls.VersionTLS12}),
		// The operator has listed the host, or permits tasks to ask for it.
		noTLS: base(&tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}),
	}
}

func (w *web) close() {
	w.client.CloseIdleConnections()
	w.noTLS.CloseIdleConnections()
}

// listed reports whether a host, with its port if it has one, is in the list.
func listed(list []string, host string) bool {
	for _, entry := range list {
		if strings.EqualFold(entry, host) {
			return true
		}
	}
	return false
}

// withPort returns host with a port.
func withPort(host, port string) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}

// RoundTrip implements http.RoundTripper: nobody is spoken to by http who may
// not be, and no answer is awaited for ever.
func (w *web) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && !w.plain(req.URL.Host) {
		return nil, denied("%q is not spoken to by http, unless it is listed in `image.http`", req.URL.Host)
	}
	client := w.client
	if w.skipTLS(req.URL.Host) {
		client = w.noTLS
	}
	ctx, timer := idle.Watch(req.Context(), w.idle)
	resp, err := client.RoundTrip(req.WithContext(ctx))
	if err != nil {
		timer.Stop()
		return nil, connectError(blame(timer, err))
	}
	resp.Body = &body{ReadCloser: resp.Body, idle: timer, left: bodyLimit(req.Context())}
	return resp, nil
}

type bodyLimitKey struct{}

// withLargeBody permits an answer of any size, for a blob whose reader counts.
func withLargeBody(ctx context.Context) context.Context {
	return context.WithValue(ctx, bodyLimitKey{}, int64(1)<<62)
}

func bodyLimit(ctx context.Context) int64 {
	if limit, ok := ctx.Value(bodyLimitKey{}).(int64); ok {
		return limit
	}
	return maxAnswer
}

// A body is an answer's that ends when nothing comes for too long.
type body struct {
	io.ReadCloser
	idle *idle.Timer
	left int64
}

func (b *body) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, invalid("the answer is larger than it may be")
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	b.idle.Reset()
	if err != nil && !errors.Is(err, io.EOF) {
		err = &passing{err: cutOff(blame(b.idle, err))}
	}
	return n, err
}

func (b *body) Close() error {
	b.idle.Stop()
	return b.ReadCloser.Close()
}

// blame turns the error that a silent server caused into one that says so.
func blame(t *idle.Timer, err error) error {
	if silent := t.Err(); silent != nil {
		return silent
	}
	return err
}

// A passing is an error that another try may get over.
type passing struct {
	err   error
	after time.Duration // that the server asks to wait
}

func (p *passing) Error() string { return p.err.Error() }
func (p *passing) Unwrap() error { return p.err }

// connectError sorts what can go wrong before there is an answer.
func connectError(err error) error {
	var sorted *caisson.Error
	var certificate *tls.CertificateVerificationError
	var name x509.HostnameError
	var record tls.RecordHeaderError
	var dns *net.DNSError
	switch {
	case errors.As(err, &sorted):
		return err
	case errors.Is(err, netguard.ErrPrivate):
		return denied("%w", err)
	case errors.As(err, &certificate), errors.As(err, &name):
		return denied("%w", err)
	case errors.As(err, &record):
		return denied("it does not speak https; if http is meant, list it in `image.http`: %w", err)
	case errors.As(err, &dns) && dns.IsNotFound:
		return notFound("no such host: %q", dns.Name)
	}
	return &passing{err: cutOff(err)}
}

// cutOff says in words that a connection ended too early.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the connection is cut off: %w", err)
	}
	return err
}

// answerError sorts an answer that is not what was asked for. what is asked for
// is named in words.
func answerError(code int, after, what string) error {
	err := fmt.Errorf("the server answers %d %s for %s", code, http.StatusText(code), what)
	switch {
	case code == http.StatusNotFound, code == http.StatusGone:
		return notFound("there is no %s", what)
	case code == http.StatusUnauthorized, code == http.StatusForbidden, code == http.StatusProxyAuthRequired,
		code == http.StatusUnavailableForLegalReasons:
		return denied("no access to %s: it does not exist, or other credentials are needed", what)
	case code == http.StatusRequestTimeout, code == http.StatusTooManyRequests, code == http.StatusTooEarly,
		code >= 500 && code != http.StatusNotImplemented:
		return &passing{err: err, after: retryAfter(after)}
	}
	return invalid("%w", err)
}

// handshakeError sorts what can go wrong while a registry is told who asks.
func handshakeError(err error) error {
	var answer *transport.Error
	if errors.As(err, &answer) {
		return answerError(answer.StatusCode, "", "this registry's images")
	}
	var pass *passing
	if caisson.KindOf(err) != caisson.ErrUnknown || errors.As(err, &pass) {
		return err
	}
	return denied("%w", err)
}

// retryAfter reads the header of that name, as seconds or as a date.
func retryAfter(text string) time.Duration {
	if n, err := strconv.ParseUint(text, 10, 16); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return time.Until(at)
	}
	return 0
}

// retry calls f until it succeeds, fails for good, or has failed too often in a
// row. progress is what f has got further; nil: nothing.
func (r *remote) retry(ctx context.Context, tries int, progress func() int64, f func() error) error {
	failures, before := 0, int64(0)
	for {
		err := f()
		var pass *passing
		if err == nil || !errors.As(err, &pass) || ctx.Err() != nil {
			return err
		}
		if progress != nil && progress() > before {
			failures, before = 0, progress()
		}
		if failures++; failures >= tries {
			return &caisson.Error{Kind: caisson.ErrUnavailable, Err: textOf(err)}
		}
		timer := time.NewTimer(min(max(pass.after, backoff(r.sources.Delay, failures)), maxDelay))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// textOf keeps the words of an error that no context of the caller's caused: a
// time limit of a connection must not look like the caller's.
func textOf(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return errors.New(err.Error())
	}
	return err
}

// backoff returns the pause after so many failures in a row, with some chance
// in it so that many pulls do not come back at the same moment.
func backoff(delay time.Duration, failures int) time.Duration {
	delay = min(delay<<min(failures-1, 16), maxDelay)
	return delay/2 + rand.N(delay/2+1)
}
