//go:build unix

package image

import (
	"context"
	"errors"
	"strings"

	"github.com/caissonrun/caisson"
)

// Permit applies the operator's policies to an image that somebody else will
// fetch, such as a daemon. It returns the reference to fetch it by: the
// request's own, or where a signature is asked for, one that is pinned to the
// digest whose signature is good. Nothing is fetched but what tells that.
//
// Errors: as Get.
func (s *Store) Permit(ctx context.Context, req *Request) (string, error) {
	src := &s.opts.Sources
	if len(src.Policies) == 0 && !src.RequireSignatures && req.TrustPrefix == "" && len(req.InsecureOptions) == 0 {
		return req.Ref, nil // a daemon may know names that mean nothing here
	}
	if isID(req.Ref) {
		return "", &caisson.Error{
			Item: req.Ref, Kind: caisson.ErrDenied,
			Err: errors.New("an id does not say where an image is from, which the operator's policies go by: use its name"),
		}
	}
	if err := s.begin(); err != nil {
		return "", err
	}
	claim, err := s.newClaim(ctx)
	if err != nil {
		return "", err
	}
	defer claim.release()
	return s.puller.permit(ctx, req, s.blobs, claim)
}

// isID reports whether a daemon takes ref for the id of an image that it has,
// wherever it had that from.
func isID(ref string) bool {
	hex := strings.TrimPrefix(strings.TrimPrefix(ref, "docker://"), "sha256:")
	const size = 64
	return len(hex) == size && strings.Trim(hex, "0123456789abcdef") == ""
}

// permit implements puller.
func (r *remote) permit(ctx context.Context, req *Request, blobs *blobs, claim *claim) (string, error) {
	limited, cancel := context.WithTimeoutCause(ctx, r.sources.Total, errTotal)
	defer cancel()
	p, err := r.prepare(limited, req)
	if err != nil {
		return "", r.failed(ctx, limited, req, err)
	}
	if p.trust.policy == nil {
		return req.Ref, nil
	}
	p.blobs, p.claim = blobs, claim
	found, err := p.find(limited)
	if err != nil {
		return "", r.failed(ctx, limited, req, err)
	}
	p.close()
	return p.ref.Name() + "@" + found.doc.digest.String(), nil
}
