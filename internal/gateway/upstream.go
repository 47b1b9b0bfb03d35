package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/caissonrun/caisson"
)

// An Upstream is an HTTP service of the operator's that tasks reach as a proxy,
// with what is added to their requests on the way. Credentials are written
// "env:NAME" or "file:PATH" where they are not to stand in the configuration
// itself; a file is read again for each request, so that it can change.
type Upstream struct {
	URL string // http:// or https://; its path is put before the request's
	// Command is, instead of URL, a program that serves HTTP on a socket that it
	// inherits as descriptor 3 (sd_listen_fds(3)). The handler is an Opener then:
	// each Server has a process of its own, from its first request on, which sees
	// the proxy's name as the host.
	Command  []string
	Dir      string            // that Command starts in; empty: /
	Headers  map[string]string // set in each request, whatever the task sent; values may be env: or file:
	Token    string            // "Authorization: Bearer" with it; may be env: or file:
	Username string            // of basic authentication
	Password string            // may be env: or file:
	CAFile   string            // PEM certificates to trust, and no others; empty: the host's
	Methods  []string          // that pass; empty: all
	Paths    []string          // whose requests pass: a path and all below it; empty: all
	// Timeout is how long the service may take to begin its answer. 0: 5 minutes.
	Timeout time.Duration
}

// Handler returns the upstream as a handler for Policy.Proxies. It is safe for
// many sandboxes at once. In answers, credentials are made unreadable.
//
// Errors: ErrInvalid for what can't be, ErrNotFound if a file or variable is not
// there. All of them are told.
func (u *Upstream) Handler() (http.Handler, error) {
	h := &upstream{methods: u.Methods}
	errs := []error{h.setTarget(u), h.setPaths(u.Paths), h.setHeaders(u), h.setTransport(u)}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	h.setProxy()
	return h, nil
}

// setProxy makes what sends requests on.
func (h *upstream) setProxy() {
	h.proxy = &httputil.ReverseProxy{
		Transport:      silent{h.transport},
		FlushInterval:  -1,
		BufferPool:     new(buffers),
		ErrorLog:       log.New(io.Discard, "", 0),
		Rewrite:        h.rewrite,
		ModifyResponse: h.clean,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if h.program != nil {
				err = h.program.explain(err)
			}
			unreachable(w, "the service behind "+clip(r.Context().Value(visitKey{}).(*visit).name), err)
		},
	}
}

// Open implements Opener.
func (h *upstream) Open(logger *slog.Logger) (http.Handler, func()) {
	if h.program == nil {
		return h, func() {}
	}
	own := *h
	own.program = &program{argv: h.program.argv, dir: h.program.dir, logger: logger}
	own.transport = newTransport(h.transport.ResponseHeaderTimeout)
	own.transport.DialContext = own.program.dial
	own.setProxy()
	return &own, func() {
		own.program.end()
		own.transport.CloseIdleConnections()
	}
}

// An upstream is an Upstream that was checked.
type upstream struct {
	base      *url.URL
	program   *program // nil: base is a URL of the operator's
	paths     []string
	methods   []string
	headers   []credential
	transport *http.Transport
	proxy     *httputil.ReverseProxy
}

var _ Opener = (*upstream)(nil)

// A credential is a header that is set in each request.
type credential struct {
	header   string
	prefix   string // before the value: a scheme
	username string // of Basic, whose password the value is
	value    source
	hide     bool // in answers
}

func upstreamError(item string, kind caisson.Kind, format string, args ...any) error {
	return &caisson.Error{Op: caisson.OpConfig, Item: item, Kind: kind, Err: fmt.Errorf(format, args...)}
}

func (h *upstream) setTarget(u *Upstream) error {
	switch {
	case len(u.Command) == 0:
		return h.setURL(u.URL)
	case u.URL != "":
		return upstreamError("command", caisson.ErrInvalid, "can't stand beside url")
	case u.CAFile != "":
		return upstreamError("ca_file", caisson.ErrInvalid, "a command is spoken to without TLS")
	}
	if _, err := findProgram(u.Command[0]); err != nil {
		return upstreamError("command", caisson.KindOf(err), "%w", err)
	}
	h.program = &program{argv: slices.Clone(u.Command), dir: u.Dir}
	if h.program.dir == "" {
		h.program.dir = "/"
	}
	h.base = &url.URL{Scheme: "http", Host: "localhost"}
	return nil
}

func (h *upstream) setURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return upstreamError("url", caisson.ErrInvalid, "want http:// or https:// and a host")
	case u.User != nil:
		return upstreamError("url", caisson.ErrInvalid, "a password does not belong in it; use username and password")
	case u.RawQuery != "" || u.Fragment != "":
		return upstreamError("url", caisson.ErrInvalid, "a query or fragment does not belong in it")
	case !cleanPath(u):
		return upstreamError("url", caisson.ErrInvalid, "its path is not a plain one")
	}
	h.base = u
	return nil
}

func (h *upstream) setPaths(paths []string) error {
	var errs []error
	for _, p := range paths {
		if !strings.HasPrefix(p, "/") || path.Clean(p) != p && path.Clean(p)+"/" != p {
			errs = append(errs, upstreamError("paths", caisson.ErrInvalid, "%q: want a plain path that begins with /", clip(p)))
		}
		h.paths = append(h.paths, strings.TrimSuffix(p, "/"))
	}
	return errors.Join(errs...)
}

func (h *upstream) setHeaders(u *Upstream) error {
	var errs []error
	add := func(item string, c credential, value string) {
		var err error
		if c.value, err = newSource(value); err != nil {
			errs = append(errs, upstreamError(item, caisson.KindOf(err), "%w", err))
		}
		c.hide = c.hide || c.value.outside()
		h.headers = append(h.headers, c)
	}
	for key, value := range u.Headers {
		name := http.CanonicalHeaderKey(key)
		if !httpguts.ValidHeaderFieldName(key) || notForValues(key) && name != "Host" {
			errs = append(errs, upstreamError("headers", caisson.ErrInvalid, "%q can't be set", clip(key)))
			continue
		}
		add("headers."+clip(key), credential{header: name, hide: name == authorization}, value)
	}
	if u.Token != "" && u.Username != "" {
		errs = append(errs, upstreamError("token", caisson.ErrInvalid, "can't stand beside username"))
	}
	if u.Token != "" {
		add("token", credential{header: authorization, prefix: "Bearer ", hide: true}, u.Token)
	}
	if u.Username != "" {
		add("password", credential{header: authorization, username: u.Username, hide: true}, u.Password)
	}
	return errors.Join(errs...)
}

const authorization = "Authorization"

func (h *upstream) setTransport(u *Upstream) error {
	timeout := u.Timeout
	if timeout == 0 {
		timeout = defaultHeaderTimeout
	}
	h.transport = newTransport(timeout)
	h.transport.Proxy = http.ProxyFromEnvironment
	if h.program != nil {
		// Until it is opened there is nobody to connect to.
		h.transport.Proxy = nil
		h.transport.DialContext = func(context.Context, string, string) (net.Conn, error) { return nil, net.ErrClosed }
	}
	if u.CAFile == "" {
		return nil
	}
	pem, err := readSmall(u.CAFile, maxRoots)
	if err != nil {
		return upstreamError("ca_file", caisson.KindOf(err), "%w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return upstreamError("ca_file", caisson.ErrInvalid, "%s: no certificate in PEM is in it", u.CAFile)
	}
	h.transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	return nil
}

// A visit is one request to an upstream.
type visit struct {
	name   string      // of the proxy
	set    http.Header // by the operator
	hidden swaps       // what must not be read in the answer
}

type visitKey struct{}

// ServeHTTP implements http.Handler.
func (h *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case len(h.methods) > 0 && !slices.Contains(h.methods, r.Method):
		deny(w, http.StatusMethodNotAllowed, clip(r.Host)+": the operator does not let "+clip(r.Method)+" pass")
		return
	case !h.passes(r.URL):
		deny(w, http.StatusForbidden, clip(r.Host)+": the operator does not let this path pass")
		return
	}
	v, err := h.prepare(r)
	if err != nil {
		deny(w, http.StatusBadGateway, "the credentials for "+clip(r.Host)+" could not be read; its operator has to look")
		return
	}
	h.proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), visitKey{}, v)))
}

// passes reports whether a path may be asked for.
func (h *upstream) passes(u *url.URL) bool {
	if len(h.paths) == 0 && h.base.Path == "" {
		return true
	}
	if !cleanPath(u) {
		return false
	}
	if len(h.paths) == 0 {
		return true
	}
	return slices.ContainsFunc(h.paths, func(p string) bool {
		return u.Path == p || strings.HasPrefix(u.Path, p+"/")
	})
}

// cleanPath reports whether everybody understands a path as the same one: it has
// no dots to go up by, and nothing encoded that servers decode in their own time.
func cleanPath(u *url.URL) bool {
	if strings.ContainsAny(u.Path, "\\;\x00") || strings.Contains(u.Path, "//") || strings.Contains(strings.ToLower(u.EscapedPath()), "%2f") ||
		strings.Contains(u.Path, "%") {
		return false
	}
	for part := range strings.SplitSeq(u.Path, "/") {
		if part == "." || part == ".." {
			return false
		}
	}
	return true
}

// prepare returns what the operator's headers are for a request, and what must
// not be read in its answer.
func (h *upstream) prepare(r *http.Request) (*visit, error) {
	v := &visit{name: r.Host, set: http.Header{}}
	for _, c := range h.headers {
		value, err := c.value.read()
		if err != nil {
			return nil, err
		}
		text := c.prefix + value
		if c.username != "" {
			text = "Basic " + base64.StdEncoding.EncodeToString([]byte(c.username+":"+value))
		}
		if !httpguts.ValidHeaderFieldValue(text) {
			return nil, errors.New("a value can't stand in a header")
		}
		v.set[c.header] = []string{text}
		if c.hide {
			v.hidden = append(v.hidden, hide(value)...)
		}
	}
	if len(v.hidden) > 0 {
		v.set["Accept-Encoding"] = []string{"identity"}
	}
	return v, nil
}

// leastHidden is the length from which on a part of a value is a secret: shorter
// ones stand in texts by chance.
const leastHidden = 8

// hide masks a value and, where it has several words ("Bearer ..."), the longer
// of them.
func hide(value string) swaps {
	list := swaps{}
	for _, part := range append(strings.Fields(value), value) {
		if len(part) >= leastHidden {
			list = append(list, masks(part)...)
		}
	}
	return list
}

// rewrite makes the request that the service gets. The operator's headers are
// set last: what a task sends takes none of them away.
func (h *upstream) rewrite(r *httputil.ProxyRequest) {
	v := r.In.Context().Value(visitKey{}).(*visit)
	r.Out.URL.RawQuery = r.In.URL.RawQuery
	r.SetURL(h.base)
	if h.program != nil {
		r.Out.Host = v.name
	}
	onlyWebsockets(r.Out.Header)
	for _, key := range overrides {
		r.Out.Header.Del(key)
	}
	if len(v.hidden) > 0 {
		r.Out.Header.Del("Sec-Websocket-Extensions") // compression among them
	}
	for key, values := range v.set {
		r.Out.Header[key] = values
	}
	if host := v.set.Get("Host"); host != "" {
		r.Out.Host = host
	}
}

// overrides are headers by which some services take a request for another one
// than it looks like.
var overrides = [...]string{
	"X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "X-Original-Url", "X-Rewrite-Url", "X-Real-Ip",
}

// clean takes credentials out of an answer, and makes redirections within the
// service ones within the proxy.
func (h *upstream) clean(res *http.Response) error {
	v := res.Request.Context().Value(visitKey{}).(*visit)
	if to, err := url.Parse(res.Header.Get("Location")); err == nil && strings.EqualFold(to.Host, h.base.Host) {
		if below, ok := strings.CutPrefix(to.Path, strings.TrimSuffix(h.base.Path, "/")); ok {
			res.Header.Set("Location", (&url.URL{
				Scheme: "http", Host: v.name, Path: below, RawQuery: to.RawQuery, Fragment: to.Fragment,
			}).String())
		}
	}
	res.Header.Del("Alt-Svc")
	return v.hidden.clean(res)
}

// A source is where a credential's value is.
type source struct {
	literal string
	file    string
	env     bool
}

// newSource reads "env:NAME", whose value is taken now, "file:PATH" or a value.
func newSource(text string) (source, error) {
	if name, ok := strings.CutPrefix(text, "env:"); ok {
		value, ok := os.LookupEnv(name)
		if !ok {
			return source{}, &caisson.Error{Kind: caisson.ErrNotFound, Err: fmt.Errorf("the variable %s is not set", clip(name))}
		}
		return source{literal: value, env: true}, nil
	}
	if name, ok := strings.CutPrefix(text, "file:"); ok {
		s := source{file: name}
		_, err := s.read()
		return s, err
	}
	return source{literal: text}, nil
}

func (s source) outside() bool { return s.env || s.file != "" }

// maxCredential bounds a file with a credential.
const maxCredential = 16 << 10

func (s source) read() (string, error) {
	if s.file == "" {
		return s.literal, nil
	}
	text, err := readSmall(s.file, maxCredential)
	return strings.TrimRight(string(text), "\r\n"), err
}

func readSmall(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		kind := caisson.ErrInvalid
		if errors.Is(err, os.ErrNotExist) {
			kind = caisson.ErrNotFound
		}
		return nil, &caisson.Error{Kind: kind, Err: err}
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(text)) > most {
		err = &caisson.Error{Kind: caisson.ErrInvalid, Err: fmt.Errorf("%s: larger than %d bytes", name, most)}
	}
	return text, err
}
