//go:build unix

package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/caissonrun/caisson"
)

// A candidate is the manifest of an image for one platform.
type candidate struct {
	doc      *document
	config   []byte
	file     *v1.ConfigFile
	platform platform
}

// choose returns the image for the wanted platform of what a reference leads
// to.
func (p *pulling) choose(ctx context.Context, top *document) (*candidate, error) {
	c := &choice{pulling: p}
	if err := c.walk(ctx, top, nil, 0); err != nil {
		return nil, err
	}
	if c.best == nil {
		return nil, noPlatform(p.want, c.seen)
	}
	// Of an index that somebody made the first counts, as with others; what lies
	// beside each other in a folder has no order.
	if c.same > 1 && top.digest == (v1.Hash{}) {
		return nil, invalid("there are several images for %s: name one by its tag or digest%s", p.want, c.names())
	}
	if c.best.doc == nil {
		doc, err := p.src.manifest(ctx, c.at)
		if err != nil {
			return nil, err
		}
		if doc.image == nil {
			return nil, invalid("%s is an index where the index above it says that it is a manifest", c.at)
		}
		return p.candidate(ctx, doc, true)
	}
	return c.best, nil
}

// A choice is the walk through an index.
type choice struct {
	*pulling
	best   *candidate // without doc: not looked at yet
	at     v1.Hash    // of best
	fit    int
	same   int // different images that fit as well as best
	seen   []platform
	tags   []string
	looked int // manifests that were read to know their platform
}

func (c *choice) names() string {
	if len(c.tags) == 0 {
		return ""
	}
	return fmt.Sprintf(", of %q", c.tags)
}

// offer considers an image for a platform.
func (c *choice) offer(digest v1.Hash, have platform, found *candidate, tag string) {
	if len(c.seen) < maxChildren {
		c.seen = append(c.seen, have)
	}
	fit := c.want.fit(have)
	if fit < 0 || fit < c.fit && c.best != nil || c.best != nil && digest == c.at {
		return
	}
	if c.best != nil && fit == c.fit {
		c.same++
	} else {
		c.same, c.tags = 1, nil
	}
	if tag != "" && len(c.tags) < 30 {
		c.tags = append(c.tags, shorten(tag))
	}
	if c.same == 1 {
		if found == nil {
			found = &candidate{platform: have}
		}
		c.best, c.at, c.fit = found, digest, fit
	}
}

// walk considers a document. desc is what led to it; nil: the reference.
func (c *choice) walk(ctx context.Context, doc *document, desc *v1.Descriptor, depth int) error {
	if doc.image != nil {
		found, err := c.candidate(ctx, doc, false)
		if err != nil {
			return err
		}
		tag := ""
		if desc != nil {
			tag = desc.Annotations[refName]
		}
		c.offer(doc.digest, found.platform, found, tag)
		return nil
	}
	if depth >= maxIndexDepth {
		return invalid("indexes lead to indexes more than %d deep", maxIndexDepth)
	}
	for i := range doc.index.Manifests {
		if err := c.child(ctx, &doc.index.Manifests[i], depth); err != nil {
			return err
		}
	}
	return nil
}

// child considers an entry of an index.
func (c *choice) child(ctx context.Context, desc *v1.Descriptor, depth int) error {
	if _, err := parseDigest(desc.Digest.String()); err != nil {
		return invalid("the index: %w", err)
	}
	isIndex := desc.MediaType == types.OCIImageIndex || desc.MediaType == types.DockerManifestList
	isImage := desc.MediaType == types.OCIManifestSchema1 || desc.MediaType == types.DockerManifestSchema2
	switch {
	case !isIndex && !isImage, notAnImage(desc):
		return nil
	case isImage && desc.Platform != nil && desc.Platform.Architecture != "":
		have := newPlatform(desc.Platform.OS, desc.Platform.Architecture, desc.Platform.Variant)
		c.offer(desc.Digest, have, nil, desc.Annotations[refName])
		return nil
	}
	if c.looked++; c.looked > maxUnlabelled {
		return invalid("the index has more than %d manifests without a platform", maxUnlabelled)
	}
	doc, err := c.src.manifest(ctx, desc.Digest)
	if err != nil {
		return err
	}
	if isIndex != (doc.index != nil) {
		return invalid("%s is not of the type that the index says", desc.Digest)
	}
	return c.walk(ctx, doc, desc, depth+1)
}

// notAnImage reports whether an entry of an index is about an image rather than
// one: builders put signed statements beside what they build.
func notAnImage(desc *v1.Descriptor) bool {
	return desc.Annotations["vnd.docker.reference.type"] != "" || desc.ArtifactType != "" && desc.ArtifactType != string(types.OCIConfigJSON) ||
		desc.Platform != nil && desc.Platform.OS == "unknown"
}

// candidate reads an image's configuration. With must set it has to be for the
// wanted platform.
func (p *pulling) candidate(ctx context.Context, doc *document, must bool) (*candidate, error) {
	desc := &doc.image.Config
	switch desc.MediaType {
	case types.OCIConfigJSON, types.DockerConfigJSON:
	default:
		return nil, unsupported("it is not an image but an artifact of type %q", shorten(string(desc.MediaType)))
	}
	data, err := p.small(ctx, desc, int64(p.remote.limits.ConfigBytes))
	if err != nil {
		return nil, fmt.Errorf("the image's configuration: %w", err)
	}
	file := &v1.ConfigFile{}
	if err := json.Unmarshal(data, file); err != nil {
		return nil, invalid("the image's configuration can't be read: %v", err)
	}
	found := &candidate{doc: doc, config: data, file: file, platform: platformOf(file, p.want)}
	if must && p.want.fit(found.platform) < 0 {
		return nil, noPlatform(p.want, []platform{found.platform})
	}
	return found, nil
}

// small returns a blob that fits into memory. It comes from the store if it is
// there for this request.
func (p *pulling) small(ctx context.Context, desc *v1.Descriptor, limit int64) ([]byte, error) {
	if _, err := parseDigest(desc.Digest.String()); err != nil {
		return nil, invalid("%w", err)
	}
	if desc.Size < 0 || desc.Size > limit {
		return nil, invalid("it is said to have %d bytes, and may have %d", desc.Size, limit)
	}
	if err := p.claim.add(desc.Digest); err != nil {
		return nil, err
	}
	if p.blobs.size(desc.Digest) == desc.Size && p.blobs.granted(desc.Digest, p.access) {
		if data, err := p.blobs.read(desc.Digest, limit); err == nil {
			return data, nil
		}
	}
	var data []byte
	err := p.remote.retry(ctx, p.remote.sources.Tries, nil, func() error {
		rd, _, err := p.src.blob(ctx, desc, 0)
		if err != nil {
			return err
		}
		defer rd.Close()
		data, err = io.ReadAll(io.LimitReader(rd, desc.Size+1))
		return err
	})
	if err != nil {
		return nil, err
	}
	return data, checkBlob(data, desc)
}

func checkBlob(data []byte, desc *v1.Descriptor) error {
	if int64(len(data)) != desc.Size {
		return invalid("wrong size: what came does not have the %d bytes that the manifest says", desc.Size)
	}
	if got := digestOf(data); got != desc.Digest {
		return invalid("wrong digest: what came has %s, expected %s", got, desc.Digest)
	}
	return nil
}

// layerTypes are the kinds of layers that can be unpacked.
var layerTypes = []types.MediaType{
	types.OCILayer, types.OCIUncompressedLayer, types.OCILayerZStd, types.DockerLayer, types.DockerUncompressedLayer,
	"application/vnd.docker.image.rootfs.diff.tar.zstd",
}

// errForeign is for layers that are to be had elsewhere.
var errForeign = errors.New("a layer is not in the registry but elsewhere, which is not supported")

// checkManifest refuses what could not be unpacked, before any of it is
// fetched.
func (p *pulling) checkManifest(f *candidate) error {
	layers := f.doc.image.Layers
	if most := p.remote.limits.Layers; most > 0 && len(layers) > most {
		return invalid("the image has %d layers, and may have %d", len(layers), most)
	}
	if len(f.file.RootFS.DiffIDs) != len(layers) {
		return invalid("the image's manifest has %d layers, and its configuration %d", len(layers), len(f.file.RootFS.DiffIDs))
	}
	for i := range layers {
		l := &layers[i]
		if _, err := parseDigest(l.Digest.String()); err != nil {
			return invalid("layer %d: %w", i+1, err)
		}
		switch {
		case !l.MediaType.IsDistributable():
			return &caisson.Error{Kind: caisson.ErrUnsupported, Err: errForeign}
		case !slices.Contains(layerTypes, l.MediaType):
			return unsupported("layer %d is of type %q, which can't be unpacked", i+1, shorten(string(l.MediaType)))
		case l.Size < 0:
			return invalid("layer %d is said to have %d bytes", i+1, l.Size)
		case p.remote.limits.LayerBytes > 0 && l.Size > int64(p.remote.limits.LayerBytes):
			return invalid("layer %d has %d bytes, and may have %d", i+1, l.Size, int64(p.remote.limits.LayerBytes))
		}
	}
	return nil
}
