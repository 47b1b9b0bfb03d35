package image

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/caissonrun/caisson"
)

// OpenWith opens a store that gets images from a map of references instead of
// from outside.
func OpenWith(opts *Options, images map[string]v1.Image) (*Store, error) {
	s, err := Open(opts)
	if err == nil {
		s.puller = mapPuller(images)
	}
	return s, err
}

// mapPuller is a puller without a network.
type mapPuller map[string]v1.Image

func (p mapPuller) check(context.Context, *Request, *known) (bool, error) { return true, nil }

func (p mapPuller) pull(ctx context.Context, req *Request, b *blobs, c *claim) (*pulled, error) {
	img, ok := p[req.Ref]
	if !ok {
		return nil, problem(req.Ref, caisson.ErrNotFound, fmt.Errorf("no such image"))
	}
	name, err := fullName(req.Ref, req.Dir)
	if err != nil {
		return nil, err
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	for _, layer := range layers {
		if err := pullLayer(ctx, layer, b, c); err != nil {
			return nil, err
		}
	}
	manifest, err := img.Manifest()
	if err != nil {
		return nil, err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return nil, err
	}
	raw, err := img.RawManifest()
	if err != nil {
		return nil, err
	}
	digest, err := img.Digest()
	if err != nil {
		return nil, err
	}
	if err := c.add(manifest.Config.Digest, digest); err != nil {
		return nil, err
	}
	if err := b.write(manifest.Config.Digest, config, ""); err != nil {
		return nil, err
	}
	return &pulled{name: name, digest: digest, platform: "linux/amd64"}, b.write(digest, raw, "")
}

func pullLayer(ctx context.Context, layer v1.Layer, b *blobs, c *claim) error {
	digest, err := layer.Digest()
	if err != nil {
		return err
	}
	size, err := layer.Size()
	if err != nil {
		return err
	}
	if err := c.add(digest); err != nil {
		return err
	}
	return b.fetch(ctx, &fetch{digest: digest, size: size, open: func(_ context.Context, offset int64) (io.ReadCloser, int64, error) {
		rd, err := layer.Compressed()
		if err == nil {
			_, err = io.CopyN(io.Discard, rd, offset)
		}
		return rd, offset, err
	}})
}

// A Fetch is a fetch for tests.
type Fetch struct {
	Digest v1.Hash
	Size   int64
	Limit  int64
	Access string
	Open   func(ctx context.Context, offset int64) (io.ReadCloser, int64, error)
}

// Fetch fetches a blob.
func (s *Store) Fetch(ctx context.Context, f *Fetch) error {
	return s.blobs.fetch(ctx, &fetch{digest: f.Digest, size: f.Size, limit: f.Limit, access: f.Access, open: f.Open})
}

// Blob returns a blob's size, or -1.
func (s *Store) Blob(digest v1.Hash) int64 { return s.blobs.size(digest) }

// Granted reports whether a blob was granted.
func (s *Store) Granted(digest v1.Hash, access string) bool { return s.blobs.granted(digest, access) }

// SetNow has the store believe that it is another time.
func (s *Store) SetNow(now func() time.Time) { s.now = now }

// SetUsed says when an image was used for the last time.
func (s *Store) SetUsed(name string, at time.Time) error {
	return os.Chtimes(s.recordPath(name), at, at)
}

// Dir returns the store's folder.
func (s *Store) Dir() string { return s.opts.Dir }

// UnpackModule finds the module in an image's layer.
func UnpackModule(out io.Writer, rd io.Reader, config *Config) error {
	return unpackModule(out, rd, config)
}
