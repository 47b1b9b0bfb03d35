//go:build unix

package image

import (
	"context"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// blobs keeps blobs under their digests. What has a name there is complete,
// durable and has that digest.
type blobs struct{ dir string }

// open opens a blob for reading. Errors: ErrNotFound.
func (b *blobs) open(digest v1.Hash) (*os.File, error) { return nil, errNotYet }

// size returns a blob's size, -1 if it is not there.
func (b *blobs) size(digest v1.Hash) int64 { return -1 }

// read returns a blob of at most limit bytes. Errors: ErrNotFound; ErrInvalid if
// it is larger.
func (b *blobs) read(digest v1.Hash, limit int64) ([]byte, error) { return nil, errNotYet }

// write stores data, whose digest must be the given one (ErrInvalid).
func (b *blobs) write(digest v1.Hash, data []byte) error { return errNotYet }

// A fetch says how a blob is had.
type fetch struct {
	digest v1.Hash
	size   int64 // that it must have; -1: not known, then at most limit
	limit  int64
	// open begins to read at offset, which is not 0 where a former download was
	// cut. It returns where the stream really begins: offset, or 0.
	open func(ctx context.Context, offset int64) (rd io.ReadCloser, at int64, err error)
	// tell is called with how much of it is here. May be nil.
	tell func(done int64)
}

// fetch makes the blob be there. Of several callers, in all processes, one
// downloads and the others wait; what a killed or cut download has left is gone
// on with. A digest or size that is wrong is ErrInvalid, and nothing of it
// stays.
func (b *blobs) fetch(ctx context.Context, f *fetch) error { return errNotYet }

// A claim keeps blobs from being collected while they belong to no image yet.
// It ends with its process, if not before.
type claim struct{}

// add claims a digest. It must come before the look whether the blob is there.
func (c *claim) add(digests ...v1.Hash) error { return errNotYet }
