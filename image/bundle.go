//go:build unix

package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/caissonrun/caisson"
)

// Newer signatures are bundles, as cosign 3 makes them of key pairs: artifacts
// that refer to the image's manifest, each with one layer, a bundle of sigstore
// (https://docs.sigstore.dev/about/bundle/). In it is an envelope (DSSE, see
// https://github.com/secure-systems-lab/dsse) with a statement of in-toto, which
// names digests. It names no repository: such a signature is good in all of them.
const (
	bundleType    = "application/vnd.dev.sigstore.bundle.v0.3+json"
	statementType = "application/vnd.in-toto+json"
	statementWord = "https://in-toto.io/Statement/v"
	// signatureWord says that it is an image's signature: other statements of the
	// same key may be about the same image, such as lists of what is in it.
	signatureWord = "https://sigstore.dev/cosign/sign/v1"
	// maxBundle is the most bytes of a bundle.
	maxBundle = 1 << 20
)

// maybeBundles are what bundles are called in lists of artifacts: cosign, where
// it keeps such a list itself, puts the type of the configuration there.
var maybeBundles = []string{bundleType, "application/vnd.oci.empty.v1+json", ""}

// verifyBundles returns the key by which a bundle signs a digest, or nil, and how
// many were looked at.
func (t *trust) verifyBundles(ctx context.Context, p *pulling, digest v1.Hash) (*publicKey, int, error) {
	list, err := p.src.bundles(ctx, digest)
	if errors.Is(err, caisson.ErrNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("its signatures: %w", err)
	}
	seen := 0
	for _, at := range list[:min(len(list), maxSignatures)] {
		data, err := p.bundle(ctx, at)
		if errors.Is(err, caisson.ErrInvalid) || errors.Is(err, caisson.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, seen, fmt.Errorf("its signatures: %w", err)
		}
		seen++
		if key := t.bundleSigner(data, digest); key != nil {
			return key, seen, nil
		}
	}
	return nil, seen, nil
}

// bundle fetches the bundle of an artifact.
func (p *pulling) bundle(ctx context.Context, at v1.Hash) ([]byte, error) {
	doc, err := p.src.manifest(ctx, at)
	if err != nil {
		return nil, err
	}
	if doc.image == nil || len(doc.image.Layers) != 1 || doc.image.Layers[0].MediaType != bundleType {
		return nil, invalid("%s is no bundle", at)
	}
	return p.small(ctx, &doc.image.Layers[0], maxBundle)
}

// bundleSigner returns the key by which a bundle signs a digest; nil: none.
func (t *trust) bundleSigner(data []byte, digest v1.Hash) *publicKey {
	var b struct {
		Envelope struct {
			Payload    []byte `json:"payload"`
			Type       string `json:"payloadType"`
			Signatures []struct {
				Signature []byte `json:"sig"`
			} `json:"signatures"`
		} `json:"dsseEnvelope"`
	}
	if json.Unmarshal(data, &b) != nil || b.Envelope.Type != statementType || !states(b.Envelope.Payload, digest) {
		return nil
	}
	signed := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(statementType), statementType, len(b.Envelope.Payload), b.Envelope.Payload)
	for _, s := range b.Envelope.Signatures[:min(len(b.Envelope.Signatures), maxSignatures)] {
		if key := t.signer(signed, s.Signature); key != nil {
			return key
		}
	}
	return nil
}

// states reports whether a statement is the signature of a digest.
func states(payload []byte, digest v1.Hash) bool {
	var s struct {
		Type      string `json:"_type"`
		Predicate string `json:"predicateType"`
		Subject   []struct {
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
	}
	if json.Unmarshal(payload, &s) != nil || !strings.HasPrefix(s.Type, statementWord) || s.Predicate != signatureWord {
		return false
	}
	for _, subject := range s.Subject {
		if subject.Digest[digest.Algorithm] == digest.Hex {
			return true
		}
	}
	return false
}

// bundles implements source: by the list of what refers to a digest, which
// registries that keep none have as an index with a tag of the digest.
func (g *registry) bundles(ctx context.Context, digest v1.Hash) (list []v1.Hash, err error) {
	var doc *document
	err = g.each(ctx, func(_ int, e *endpoint) (err error) {
		doc, err = g.fetch(ctx, e, "referrers/"+digest.String(), digest.String(), "")
		switch caisson.KindOf(err) {
		case caisson.ErrNotFound, caisson.ErrInvalid, caisson.ErrDenied:
			// Registries without lists answer in many ways.
			doc, err = g.get(ctx, e, digest.Algorithm+"-"+digest.Hex)
		}
		return err
	})
	if err != nil || doc.index == nil {
		return nil, err
	}
	for _, m := range doc.index.Manifests {
		if slices.Contains(maybeBundles, m.ArtifactType) && !slices.Contains(list, m.Digest) {
			list = append(list, m.Digest)
		}
	}
	return list, nil
}
