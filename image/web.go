//go:build unix

package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/caissonrun/caisson"
)

// webHost returns the server of a web archive, empty for other references.
func webHost(ref *Reference) string {
	if u, err := url.Parse(ref.URL); err == nil {
		return u.Host
	}
	return ""
}

// openWeb fetches an archive into the store, by the digest of the file, and
// returns the source of what is in it. Nothing keeps the file there but this
// pull's claim.
func (r *remote) openWeb(ctx context.Context, p *pulling) (source, error) {
	digest, err := parseDigest(p.ref.Digest)
	if err != nil {
		return nil, invalid("%w", err)
	}
	if err := p.claim.add(digest); err != nil {
		return nil, err
	}
	have, total := int64(0), int64(0)
	client := &http.Client{Transport: p.web, CheckRedirect: checkRedirect}
	get := &fetch{
		digest: digest, size: -1, limit: int64(r.limits.Bytes), access: p.access,
		open: func(ctx context.Context, offset int64) (io.ReadCloser, int64, error) {
			rd, at, size, err := webFile(ctx, client, p.ref.URL, offset)
			total = max(size, 0)
			return rd, at, err
		},
		tell: func(done int64) {
			have = max(have, done)
			if p.req.Progress != nil {
				p.req.Progress(Progress{Digest: digest.String(), Done: caisson.Bytes(done), Total: caisson.Bytes(total)})
			}
		},
	}
	if err := r.retry(ctx, r.sources.Tries, func() int64 { return have }, func() error { return p.blobs.fetch(ctx, get) }); err != nil {
		return nil, err
	}
	file, err := p.blobs.open(digest)
	if err != nil {
		return nil, err
	}
	a, err := r.openTar(ctx, file)
	if err != nil {
		return nil, err
	}
	if _, ok := a.members[savedIndex]; ok {
		return p.saved(a), nil
	}
	return p.layout(a)
}

// webFile begins to read a file at offset. It returns where the stream really
// begins, and how large the file is, -1 if that is not known.
func webFile(ctx context.Context, client *http.Client, target string, offset int64) (rd io.ReadCloser, at, size int64, err error) {
	req, err := http.NewRequestWithContext(withLargeBody(ctx), http.MethodGet, target, nil)
	if err != nil {
		return nil, 0, 0, invalid("not a URL of a web server")
	}
	req.Header.Set("User-Agent", "caisson")
	req.Header.Set("Accept-Encoding", "identity")
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, 0, 0, withoutURL(err)
	}
	var from, to, total int64
	switch {
	case resp.StatusCode == http.StatusOK:
		return resp.Body, 0, resp.ContentLength, nil
	case resp.StatusCode == http.StatusPartialContent && offset > 0:
		n, _ := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d/%d", &from, &to, &total)
		if n >= 2 && from == offset {
			return resp.Body, offset, total, nil
		}
		err = &passing{err: errors.New("the server sent another part than was asked for")}
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && offset > 0:
		// Another file, or all of it is here: what came tells.
		return http.NoBody, offset, offset, closed(resp)
	default:
		err = answerError(resp.StatusCode, resp.Header.Get("Retry-After"), "such file")
	}
	resp.Body.Close()
	return nil, 0, 0, err
}

func closed(resp *http.Response) error {
	resp.Body.Close()
	return nil
}
