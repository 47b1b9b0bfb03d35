//go:build unix

package image

import (
	"context"
	"io"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A source is a place that one image comes from.
type source interface {
	// resolve returns the manifest or index that the reference names. Where
	// several manifests fit, as in a folder, it makes an index of them, which has
	// no digest.
	resolve(ctx context.Context) (*document, error)
	// manifest returns a manifest or index by its digest.
	manifest(ctx context.Context, digest v1.Hash) (*document, error)
	// blob begins to read a blob at offset, and returns where the stream really
	// begins: there, or at 0.
	blob(ctx context.Context, desc *v1.Descriptor, offset int64) (io.ReadCloser, int64, error)
	// origin names where blobs really come from, such as a registry's host, and
	// has reports whether that place gives this blob to this request. An empty
	// origin has nothing in common with others.
	origin() string
	has(ctx context.Context, desc *v1.Descriptor) bool
	// signatures returns the manifest of the signatures of a digest, or
	// ErrNotFound.
	signatures(ctx context.Context, digest v1.Hash) (*document, error)
	// bundles returns the manifests of artifacts that refer to a digest and have
	// signatures in them, or ErrNotFound.
	bundles(ctx context.Context, digest v1.Hash) ([]v1.Hash, error)
	// tags are names that the place itself gives an image.
	tags(digest v1.Hash) []string
	close()
}

// open returns the source of a reference. The web's hosts are known by then.
func (r *remote) open(ctx context.Context, p *pulling) (source, error) {
	switch p.ref.Scheme {
	case SchemeRegistry:
		return r.openRegistry(ctx, p)
	case SchemeWeb:
		return r.openWeb(ctx, p)
	case SchemeLayout:
		return r.openLayout(p)
	}
	return r.openArchive(ctx, p)
}

// unsigned is what sources without signatures have in common.
type unsigned struct{}

func (unsigned) signatures(context.Context, v1.Hash) (*document, error) {
	return nil, notFound("folders and archives have no signatures")
}

func (unsigned) bundles(context.Context, v1.Hash) ([]v1.Hash, error) {
	return nil, notFound("folders and archives have no signatures")
}

func (unsigned) origin() string { return "" }

func (unsigned) has(context.Context, *v1.Descriptor) bool { return false }

// hosts returns the servers that the request may reach at private addresses.
func (r *remote) hosts(req *Request, ref *Reference) []string {
	hosts := append(append([]string{}, r.sources.HTTP...), r.sources.SkipTLS...)
	for _, list := range r.sources.Mirrors {
		for _, mirror := range list {
			host, _, _ := strings.Cut(mirror, "/")
			hosts = append(hosts, host)
		}
	}
	if req.Trusted {
		hosts = append(hosts, ref.Host, webHost(ref))
	}
	return hosts
}
