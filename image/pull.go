//go:build unix

package image

import "context"

// A remote is the puller of a Store.
type remote struct{ opts *Options }

// newPuller returns the puller of a store, whose limits are filled in. Errors:
// ErrInvalid for sources that make no sense.
func newPuller(opts *Options) (puller, error) { return &remote{opts: opts}, nil }

func (r *remote) pull(ctx context.Context, req *Request, blobs *blobs, claim *claim) (*pulled, error) {
	return nil, errNotYet
}

func (r *remote) check(ctx context.Context, req *Request, known *known) (bool, error) {
	return false, errNotYet
}
