//go:build unix

package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/caissonrun/caisson"
)

// mirrorTries is how often a mirror is asked: another place is left.
const mirrorTries = 2

// An endpoint is a repository on one host: the registry's own, or a mirror's.
type endpoint struct {
	host, repo string
	mirror     bool
	auth       authn.Authenticator // of the task; nil: the operator's

	once   sync.Mutex
	client *http.Client // nil: not spoken to yet
}

// endpoints returns where a repository may be had, in order.
func (r *remote) endpoints(req *Request, ref *Reference) []*endpoint {
	own := &endpoint{host: ref.Host, repo: ref.Repo}
	if req.hasCredentials() {
		own.auth = authenticator(req.Username, req.Password, req.IdentityToken, "")
		return []*endpoint{own}
	}
	var list []*endpoint
	for _, mirror := range r.sources.Mirrors[ref.Host] {
		host, path, _ := strings.Cut(strings.TrimRight(mirror, "/"), "/")
		repo := ref.Repo
		if path != "" {
			repo = path + "/" + repo
		}
		list = append(list, &endpoint{host: host, repo: repo, mirror: true})
	}
	return append(list, own)
}

// named says of which mirror an error is. The registry itself is in the
// reference.
func (e *endpoint) named(err error) error {
	if e.mirror {
		return fmt.Errorf("mirror %s: %w", e.host, err)
	}
	return err
}

// A registry is the source of an image in a registry.
type registry struct {
	remote    *remote
	ref       *Reference
	web       *web
	insecure  insecure
	endpoints []*endpoint
	// from is the endpoint that had the image; those after it are asked if it
	// fails.
	from int
}

var _ source = (*registry)(nil)

func (r *remote) openRegistry(_ context.Context, p *pulling) (source, error) {
	return &registry{remote: r, ref: p.ref, web: p.web, insecure: p.insecure, endpoints: r.endpoints(p.req, p.ref)}, nil
}

func (g *registry) close() {}

func (g *registry) tags(v1.Hash) []string { return nil }

// resolve implements source. Mirrors are asked first; what the registry itself
// says counts if none of them has the image.
func (g *registry) resolve(ctx context.Context) (*document, error) {
	which := g.ref.Tag
	if g.ref.Digest != "" {
		which = g.ref.Digest
	}
	var doc *document
	err := g.each(ctx, func(i int, e *endpoint) error {
		var err error
		if doc, err = g.get(ctx, e, which); err == nil {
			g.from = i
		}
		return err
	})
	return doc, err
}

// each calls f with the endpoints until one succeeds, or there is nothing left
// to hope for. The last error counts.
func (g *registry) each(ctx context.Context, f func(i int, e *endpoint) error) error {
	var err error
	for i, e := range g.endpoints {
		if i < g.from {
			continue
		}
		tries := g.remote.sources.Tries
		if e.mirror {
			tries = min(tries, mirrorTries)
		}
		err = g.remote.retry(ctx, tries, nil, func() error { return f(i, e) })
		if err == nil || ctx.Err() != nil {
			return err
		}
		err = e.named(err)
	}
	return err
}

// manifest implements source.
func (g *registry) manifest(ctx context.Context, digest v1.Hash) (*document, error) {
	var doc *document
	err := g.each(ctx, func(_ int, e *endpoint) (err error) {
		doc, err = g.get(ctx, e, digest.String())
		return err
	})
	return doc, err
}

// signatures implements source: they have a tag that is made of the digest.
func (g *registry) signatures(ctx context.Context, digest v1.Hash) (*document, error) {
	var doc *document
	err := g.each(ctx, func(_ int, e *endpoint) (err error) {
		doc, err = g.get(ctx, e, digest.Algorithm+"-"+digest.Hex+".sig")
		return err
	})
	return doc, err
}

// get asks one endpoint for a manifest by tag or digest.
func (g *registry) get(ctx context.Context, e *endpoint, which string) (*document, error) {
	want := ""
	if strings.HasPrefix(which, "sha256:") {
		want = which
	}
	return g.fetch(ctx, e, "manifests/"+which, which, want)
}

// fetch asks one endpoint for a manifest or index. Want is the digest that it is
// to have; empty: what the registry says.
func (g *registry) fetch(ctx context.Context, e *endpoint, path, which, want string) (*document, error) {
	what := fmt.Sprintf("image %q in %q", which, e.repo)
	header := http.Header{"Accept": {strings.Join(documentTypes, ", ")}}
	resp, err := g.do(ctx, e, http.MethodGet, path, header)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, answerError(resp.StatusCode, resp.Header.Get("Retry-After"), what)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	if err != nil {
		return nil, err
	}
	doc, err := newDocument(data, resp.Header.Get("Content-Type"))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if want == "" {
		want = resp.Header.Get("Docker-Content-Digest")
	}
	if strings.HasPrefix(want, "sha256:") && want != doc.digest.String() {
		return nil, invalid("%s: wrong digest: what came has %s, expected %s", what, doc.digest, shorten(want))
	}
	return doc, nil
}

// origin implements source.
func (g *registry) origin() string { return g.endpoints[g.from].host }

// has implements source.
func (g *registry) has(ctx context.Context, desc *v1.Descriptor) bool {
	resp, err := g.do(ctx, g.endpoints[g.from], http.MethodHead, "blobs/"+desc.Digest.String(), nil)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// blob implements source. It is one try; what it returns can be cut off.
func (g *registry) blob(ctx context.Context, desc *v1.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	var err error
	for i, e := range g.endpoints {
		if i < g.from {
			continue
		}
		var rd io.ReadCloser
		var at int64
		if rd, at, err = g.blobFrom(ctx, e, desc, offset); err == nil {
			return rd, at, nil
		}
		err = e.named(err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, 0, err
}

func (g *registry) blobFrom(ctx context.Context, e *endpoint, desc *v1.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	what := "blob " + desc.Digest.String()
	header := http.Header{"Accept-Encoding": {"identity"}}
	if offset > 0 {
		// Some registries know only ranges that have an end.
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, desc.Size-1))
	}
	resp, err := g.do(withLargeBody(ctx), e, http.MethodGet, "blobs/"+desc.Digest.String(), header)
	if err != nil {
		return nil, 0, err
	}
	at, err := blobStart(resp, what, offset, desc.Size)
	if err != nil {
		resp.Body.Close()
		return nil, 0, err
	}
	return resp.Body, at, nil
}

// blobStart looks at an answer and returns where its body begins in the blob,
// whose size is known.
func blobStart(resp *http.Response, what string, offset, size int64) (int64, error) {
	switch {
	case resp.StatusCode == http.StatusOK:
		if resp.ContentLength >= 0 && resp.ContentLength != size {
			return 0, invalid("%s: wrong size: the server has %d bytes, expected %d", what, resp.ContentLength, size)
		}
		return 0, nil
	case resp.StatusCode == http.StatusPartialContent && offset > 0:
		var from, to, total int64
		header := resp.Header.Get("Content-Range")
		if n, _ := fmt.Sscanf(header, "bytes %d-%d/%d", &from, &to, &total); n < 2 || from != offset || to < from {
			return 0, invalid("%s: the server sent another part than was asked for: %q", what, shorten(header))
		}
		if total != 0 && total != size {
			return 0, invalid("%s: wrong size: the server has %d bytes, expected %d", what, total, size)
		}
		return offset, nil
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		return 0, invalid("%s: wrong size: the server has not more than %d bytes, expected %d", what, offset, size)
	}
	return 0, answerError(resp.StatusCode, resp.Header.Get("Retry-After"), what)
}

// do makes one request about the endpoint's repository.
func (g *registry) do(ctx context.Context, e *endpoint, method, path string, header http.Header) (*http.Response, error) {
	client, err := g.connect(ctx, e)
	if err != nil {
		return nil, err
	}
	target := url.URL{Scheme: g.scheme(e), Host: registryHost(e.host), Path: "/v2/" + e.repo + "/" + path}
	req, err := http.NewRequestWithContext(ctx, method, target.String(), nil)
	if err != nil {
		return nil, invalid("not the name of a registry or repository")
	}
	for key, values := range header {
		req.Header[key] = values
	}
	resp, err := client.Do(req)
	return resp, withoutURL(err)
}

// scheme returns how an endpoint is spoken to.
func (g *registry) scheme(e *endpoint) string {
	if listed(g.remote.sources.HTTP, e.host) {
		return "http"
	}
	return "https"
}

// registryHost returns where a registry's server is.
func registryHost(host string) string {
	if host == dockerHub {
		return dockerHubNames[0]
	}
	return host
}

// connect tells an endpoint who asks, once.
func (g *registry) connect(ctx context.Context, e *endpoint) (*http.Client, error) {
	e.once.Lock()
	defer e.once.Unlock()
	if e.client != nil {
		return e.client, nil
	}
	auth := e.auth
	if auth == nil && !g.remote.sendsTo(g.insecure, e.host) {
		auth = authn.Anonymous
	}
	if auth == nil {
		auths, err := g.remote.auths()
		if err != nil {
			return nil, err
		}
		if auth, err = auths.find(ctx, e.host, e.repo, g.remote.sources.Helper); err != nil {
			return nil, err
		}
	}
	only := &oneScheme{web: g.web, host: registryHost(e.host), scheme: g.scheme(e)}
	var options []name.Option
	if g.insecure.http && only.scheme == "https" {
		only.scheme = ""
	}
	if only.scheme != "https" {
		options = append(options, name.Insecure)
	}
	host, err := name.NewRegistry(registryHost(e.host), options...)
	if err != nil {
		return nil, invalid("%q is not the name of a registry", shorten(e.host))
	}
	rt, err := transport.NewWithContext(ctx, host, auth, only, []string{"repository:" + e.repo + ":pull"})
	if err != nil {
		if only.failed != nil {
			err = only.failed
		}
		return nil, handshakeError(withoutURL(err))
	}
	e.client = &http.Client{Transport: rt, CheckRedirect: checkRedirect}
	return e.client, nil
}

// A oneScheme keeps the handshake, which would try both with some hosts, to the
// scheme that a registry is spoken to by.
type oneScheme struct {
	web    *web
	host   string
	scheme string // empty: https, or http if that does not work

	mu     sync.Mutex
	failed error // of the last request to the host
}

func (o *oneScheme) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host != o.host {
		return o.web.RoundTrip(req)
	}
	if o.scheme != "" && req.URL.Scheme != o.scheme {
		return nil, denied("%q is not spoken to by %s", o.host, req.URL.Scheme)
	}
	resp, err := o.web.RoundTrip(req)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failed = err
	return resp, err
}

// checkRedirect bounds redirects and keeps https.
func checkRedirect(req *http.Request, via []*http.Request) error {
	switch {
	case len(via) > maxRedirects:
		return denied("more than %d redirects", maxRedirects)
	case via[0].URL.Scheme == "https" && req.URL.Scheme != "https":
		return denied("redirect from https to http at %q", req.URL.Host)
	}
	return nil
}

// withoutURL takes the URL out of an error: it may hold a secret.
func withoutURL(err error) error {
	var urlErr *url.Error
	if errors.As(err, &urlErr) && caisson.KindOf(err) == caisson.ErrUnknown {
		var pass *passing
		if errors.As(urlErr.Err, &pass) {
			return pass
		}
		return urlErr.Err
	}
	if errors.As(err, &urlErr) {
		return urlErr.Err
	}
	return err
}
