//go:build unix

package http

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/idle"
	"github.com/caissonrun/caisson/internal/netguard"
)

// dialTimeout bounds connecting and the TLS handshake, each.
const dialTimeout = 15 * time.Second

// client returns a client for one transfer. It reaches public addresses only;
// for a trusted task also the address, whatever it is, of the server that the
// task itself names.
func (s *Stager) client(u *url.URL, trusted bool) *http.Client {
	guarded := netguard.Dialer(dialTimeout, s.opts.AllowPrivate)
	open := netguard.Dialer(dialTimeout, true)
	named := hostPort(u)
	return &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				if trusted && strings.EqualFold(address, named) {
					return open.DialContext(ctx, network, address)
				}
				return guarded.DialContext(ctx, network, address)
			},
			TLSClientConfig:        &tls.Config{RootCAs: s.opts.RootCAs, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    dialTimeout,
			ResponseHeaderTimeout:  s.opts.Idle,
			MaxResponseHeaderBytes: 256 << 10,
			DisableCompression:     true,
			ForceAttemptHTTP2:      true,
		},
		// Redirects are followed by get, which carries nothing over.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// hostPort returns where a URL's server listens.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// get requests what is missing of the file, through redirects.
func (t *transfer) get(ctx context.Context) (*http.Response, error) {
	u := t.url
	for range t.opts.Redirects + 1 {
		resp, err := t.request(ctx, u)
		if err != nil {
			return nil, err
		}
		switch resp.StatusCode {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
			http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		default:
			return resp, nil
		}
		resp.Body.Close()
		if u, err = t.redirect(u, resp.Header.Get("Location")); err != nil {
			return nil, err
		}
	}
	return nil, denied("more than %d redirects", t.opts.Redirects)
}

func denied(format string, args ...any) error {
	return &caisson.Error{Kind: caisson.ErrDenied, Err: fmt.Errorf(format, args...)}
}

// redirect returns where an answer leads to. Credentials stay with the server
// that the task names.
func (t *transfer) redirect(from *url.URL, location string) (*url.URL, error) {
	to, err := from.Parse(location)
	if err != nil || location == "" || checkURL(to) != nil {
		return nil, denied("redirect to no URL of a web server")
	}
	if from.Scheme == "https" && to.Scheme != "https" {
		return nil, denied("redirect from https to http at %q", to.Host)
	}
	to.User = nil
	if to.Scheme == t.url.Scheme && strings.EqualFold(hostPort(to), hostPort(t.url)) {
		to.User = t.url.User
	}
	return to, nil
}

// request makes one request, for the part of the file that is missing.
func (t *transfer) request(ctx context.Context, u *url.URL) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, denied("not a URL of a web server")
	}
	req.Header.Set("User-Agent", "caisson")
	req.Header.Set("Accept-Encoding", "identity")
	if size := t.meter.Size(); size > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", size))
		req.Header.Set("If-Range", t.tag)
	}
	resp, err := t.client.Do(req)
	if err == nil {
		return resp, nil
	}
	var urlErr *url.Error // its text holds the URL, with what may be secret
	if errors.As(err, &urlErr) {
		err = urlErr.Err
	}
	return nil, connectError(err)
}

// connectError sorts what can go wrong before there is an answer.
func connectError(err error) error {
	var sorted *caisson.Error
	var certificate *tls.CertificateVerificationError
	var name x509.HostnameError
	var dns *net.DNSError
	switch {
	case errors.As(err, &sorted):
		return err
	case errors.As(err, &certificate), errors.As(err, &name):
		return &caisson.Error{Kind: caisson.ErrDenied, Err: err}
	case errors.As(err, &dns) && dns.IsNotFound:
		return &caisson.Error{Kind: caisson.ErrNotFound, Err: fmt.Errorf("no such host: %q", dns.Name)}
	}
	return &passing{err: err}
}

// statusError sorts an answer that is not the file.
func statusError(resp *http.Response) error {
	err := fmt.Errorf("the server answers %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	kind := caisson.ErrInvalid
	switch code := resp.StatusCode; {
	case code == http.StatusNotFound, code == http.StatusGone:
		kind = caisson.ErrNotFound
	case code == http.StatusUnauthorized, code == http.StatusForbidden, code == http.StatusProxyAuthRequired,
		code == http.StatusUnavailableForLegalReasons:
		kind = caisson.ErrDenied
	case code == http.StatusRequestTimeout, code == http.StatusTooManyRequests, code == http.StatusTooEarly,
		code >= 500 && code != http.StatusNotImplemented:
		return &passing{err: err, after: retryAfter(resp.Header.Get("Retry-After"))}
	}
	return &caisson.Error{Kind: kind, Err: err}
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

// validator returns what tells whether a file is still the same, byte for byte:
// a strong entity tag, else the time of its last change.
func validator(h http.Header) string {
	if tag := h.Get("ETag"); strings.HasPrefix(tag, `"`) {
		return tag
	}
	return h.Get("Last-Modified")
}

// blame turns the error that a silent server caused into one that says so.
func blame(t *idle.Timer, err error) error {
	var pass *passing
	if silent := t.Err(); silent != nil && errors.As(err, &pass) {
		return &passing{err: silent}
	}
	return err
}
